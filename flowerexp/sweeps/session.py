"""What happens before the first job of a sweep and after the last. No TensorFlow here.

Before: every job composed and checked, the plan printed. After: the table, and what is missing.
"""

import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.markup import escape

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.sweeps import jobs
from flowerexp.train import launch, preview

LOCAL_LAUNCHERS = ("basic", "joblib", "submitit_local")
"""Launchers whose jobs run on this machine, with its devices."""
LAUNCHER_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # 30 days; submitit's own default ends a local job after one hour.
    "submitit_local": {"timeout_min": 60 * 24 * 30},
    # Of one attempt: SIGUSR2 comes two minutes before its end, and the job is requeued.
    "submitit_slurm": {"name": "flowerexp", "timeout_min": 240, "signal_delay_s": 120,
                       "max_num_timeout": 100, "cpus_per_task": 4, "gpus_per_node": 1,
                       "mem_gb": 16},
}
"""What launchers get under hydra.launcher where the command line says nothing."""
LAUNCHERS = ("joblib", "submitit")
"""Packages whose exceptions tell of workers and clusters, not of our own mistakes."""
SWEEP_LEVEL_KEYS = ("name", "fresh", "dry_run", "on_failure", "compared_with", "sweep",
                    "loop.max_minutes")
"""Keys of which a sweep has one value."""


@dataclass(frozen=True)
class ActiveSweep:
    """A sweep that is running."""

    folder: Path
    jobs: tuple[Path, ...] | None
    """Their folders; None where the sweeper chooses them as it goes."""


CURRENT: ContextVar[tuple[contextlib.ExitStack, list[ActiveSweep]]] = ContextVar("CURRENT")
"""Of the `closing` that Hydra's call is inside: what is undone at its end, and the sweep, if any.
"""


class Sweep(Callback):
    """Hydra's callback before the first job of a sweep; `closing` comes after the last."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            with composition.one_sentence():
                open_sweep(config, *CURRENT.get())
        except Exception:  # Hydra would warn of it, and run the jobs
            traceback.print_exc()
            sys.exit(1)


@contextlib.contextmanager
def closing() -> Iterator[None]:
    """Ends the sweep that Hydra opens inside with its table and its exit code.

    Not by Hydra's on_multirun_end, which an exception of a launcher or a sweeper skips.
    """
    opened: list[ActiveSweep] = []
    with contextlib.ExitStack() as stack:
        token = CURRENT.set((stack, opened))
        try:
            yield
        except Exception as error:
            code = close_sweep(opened[0]) if opened else 1
            if code <= 128:  # else it was asked to stop, and its workers with it
                if type(error).__module__.partition(".")[0] in LAUNCHERS:
                    raise UserError("the launcher could not run its jobs "
                                    f"({first_line(error)}): mend that, and the same "
                                    "command goes on") from error
                raise
        else:
            code = close_sweep(opened[0]) if opened else 0
        finally:
            CURRENT.reset(token)
    if code:
        sys.exit(code)


def open_sweep(config: DictConfig, stack: contextlib.ExitStack, opened: list[ActiveSweep]) -> None:
    """Plans, checks and announces a sweep, and gets it ready; a dry run ends the process here.

    Args:
        config: of the sweep, with Hydra's own; the sweep's folder and what names its jobs are put
            into it, where every job finds them.
        stack: takes what is to be undone at the end, the folder's lock and the signals' handlers.
        opened: takes the sweep.

    Raises:
        UserError: for a mistake in any of the jobs, before the first one starts.
    """
    start, hydra = time.time(), config.hydra
    folder = Path(hydra.sweep.dir)
    overrides, params = list(hydra.overrides.task), hydra.sweeper.get("params")
    swept = composition.swept_keys(overrides, params)
    parsed = composition.sweep_overrides(overrides, params)
    unnamed = sorted({key.lstrip("+~") for key in parsed} - {*swept, "experiment"})
    if chosen(hydra, "hydra.sweep.subdir"):
        raise UserError("hydra.sweep.subdir cannot be chosen: a job is named by what it is")
    pin(hydra, folder, unnamed)
    launcher = apply_launcher_defaults(hydra)
    ours = "BasicSweeper" in hydra.sweeper._target_
    if ours:
        batch = BasicSweeper.split_arguments(list(parsed.values()), None)[0]
    else:
        batch = [[str(override.input_line) for override in parsed.values()
                  if not override.is_sweep_override()]]
        apply_optuna_defaults(hydra, config.seed)
    configs = checked_jobs(batch, unnamed, swept)
    logger = RunLogger()
    logger.info(f"sweep: {folder}, {len(configs) if ours else 'as many as it tries'} "
                f"job{'s' * (len(configs) != 1 or not ours)}; swept: "
                f"{', '.join(swept) or 'nothing'}")
    if (folder / store.CONFIG).exists():
        raise UserError(f"{folder} holds a single run: choose another name=NAME for the sweep")
    if not config.dry_run:
        stack.callback(remove_unused, folder)
        stack.enter_context(launch.locked(folder))
    previews = preview.preview(configs, elsewhere=launcher not in LOCAL_LAUNCHERS)
    for name, each in configs.items():
        launch.check_same_run(each, folder / name, previews[name].data)
    preview.show(logger, folder, previews)
    if config.dry_run:
        logger.info("dry run: nothing was started")
        sys.exit(0)
    for stale in (jobs.STOP, jobs.REFUSED):
        (folder / stale).unlink(missing_ok=True)
    minutes = next(iter(configs.values())).loop.max_minutes  # of the sweep as a whole
    jobs.set_deadline(folder, None if minutes is None else start + 60 * minutes)
    stack.callback(jobs.set_deadline, folder, None)
    stack.enter_context(signals_taken(folder))
    opened.append(ActiveSweep(folder, tuple(folder / name for name in configs) if ours else None))


def pin(hydra: DictConfig, folder: Path, unnamed: Sequence[str]) -> None:
    """Has every job find the same sweep folder, and leave the shared keys out of its name."""
    quoted = str(folder).replace("'", "\\'")
    hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
    hydra.overrides.hydra.append("hydra.job.config.override_dirname.exclude_keys="
                                 f"[{','.join(unnamed)}]")


def apply_launcher_defaults(hydra: DictConfig) -> str:
    """Gives the launcher what SUITED holds for it; returns its name.

    Raises:
        UserError: where there is no Slurm.
    """
    launcher: str = hydra.runtime.choices["hydra/launcher"]
    if launcher == "submitit_slurm" and not shutil.which("srun"):
        raise UserError("hydra/launcher=submitit_slurm: there is no srun here; start the sweep on "
                        "a machine of the cluster, or choose hydra/launcher=submitit_local")
    for key, value in LAUNCHER_DEFAULTS.get(launcher, {}).items():
        if not chosen(hydra, f"hydra.launcher.{key}"):
            hydra.launcher[key] = value
    return launcher


def chosen(hydra: DictConfig, key: str) -> bool:
    """Whether the command line sets a key of Hydra's."""
    return any(override.lstrip("+").startswith(f"{key}=") for override in hydra.overrides.hydra)


def apply_optuna_defaults(hydra: DictConfig, seed: int) -> None:
    """A validation F1 is maximised, and the same command tries the same values."""
    if "direction" in hydra.sweeper and not chosen(hydra, "hydra.sweeper.direction"):
        hydra.sweeper.direction = "maximize"
    if "seed" in (hydra.sweeper.get("sampler") or {}) and hydra.sweeper.sampler.seed is None:
        hydra.sweeper.sampler.seed = seed


def checked_jobs(batch: Sequence[Sequence[str]], unnamed: Sequence[str], swept: Sequence[str]
                 ) -> dict[str, Config]:
    """The checked config of every job by the name of its folder.

    Args:
        batch: the overrides of every job.

    Raises:
        UserError: for a value of a job, or two jobs of one name.
    """
    for key in swept:
        if key in SWEEP_LEVEL_KEYS:
            raise UserError(f"{key} cannot be swept: a sweep has one")
    configs: dict[str, Config] = {}
    for overrides in batch:
        composition.check_group_overrides(overrides)
        config = composition.check(hydra_compose("config", list(overrides)))
        if config.fresh:
            raise UserError("fresh=true has no meaning in a sweep, whose finished jobs are kept: "
                            "choose another name=NAME")
        if config.hardware.kind == "workers":
            raise UserError("hardware=workers has no meaning in a sweep: start each run by itself "
                            "on all of them")
        name = composition.run_name(None, config.seed, list(overrides), unnamed)
        if name in configs:
            raise UserError(f"two jobs of the sweep are called {name}: give every value once, "
                            "and no two that differ in punctuation only")
        configs[name] = config
    return configs


def remove_unused(folder: Path) -> None:
    """Of a sweep that has started nothing, nothing is left."""
    if [path.name for path in folder.iterdir()] == [store.LOCK]:
        (folder / store.LOCK).unlink()
        folder.rmdir()


@contextlib.contextmanager
def signals_taken(folder: Path) -> Iterator[None]:
    """Turns SIGINT, SIGTERM and SIGHUP into requests to stop.

    The handler raises nothing, for Hydra would then end without a word and orphan the jobs.
    """
    def take(number: int, _frame: object) -> None:
        jobs.request_stop(folder, str(number))
        with contextlib.suppress(OSError):  # of a terminal or a reader that has gone
            os.write(1, f"{signal.Signals(number).name}: the running job shall stop\n".encode())

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def close_sweep(opened: ActiveSweep) -> int:
    """Prints the table and what is missing; returns the exit code."""
    from flowerexp.comparison import comparison, tables

    asked = jobs.stop_requests(opened.folder)
    refused = jobs.lines_of(opened.folder / jobs.REFUSED)
    for file in (jobs.STOP, jobs.REFUSED):
        (opened.folder / file).unlink(missing_ok=True)
    begun = [path.parents[1] for path in opened.folder.glob(f"*/{store.CONFIG}")]
    wanted = opened.jobs or begun
    if asked:  # a launcher's worker may have gone before its job has saved
        for job in begun:
            with contextlib.suppress(UserError), launch.locked(job, jobs.PATIENCE_SECONDS):
                pass
    logger = RunLogger()
    if begun:
        logger.console.rule(escape(str(opened.folder)), align="left", characters="-")
        tables.show(comparison.compare([opened.folder]), logger.console)
    missing = [job for job in wanted if not launch.is_done(job)]
    untouched = [job.name for job in missing if job not in begun]
    if untouched:
        logger.info(f"not started: {', '.join(untouched)}")
    for sentence in refused:
        logger.info(f"not run: {sentence}")
    out_of_time = bool(missing) and jobs.QUOTA in asked
    if out_of_time:
        logger.info("interrupted by loop.max_minutes, which is of the sweep as a whole")
    if missing:
        logger.info(f"{len(missing)} of {len(wanted)} jobs are not finished; the same command goes "
                    "on with them")
    logger.info("pictures and a page: python -m flowerexp compare "
                f"{shlex.quote(str(opened.folder))} --output FOLDER")
    signals = [int(reason) for reason in asked if reason.isdigit()]
    if signals:
        return 128 + signals[0]
    return launch.OUT_OF_TIME if out_of_time else int(bool(missing or refused))
