"""The start of a sweep, which checks and plans all jobs, and its end. Imports no TensorFlow."""

import contextlib
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.markup import escape

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError, counted, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.sweeps import jobs
from flowerexp.train import launch, preview

LOCAL_LAUNCHERS = ("basic", "joblib", "submitit_local")
"""Launchers whose jobs run on this machine, with its devices."""
LAUNCHER_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # 30 days; submitit's own default ends a local job after one hour.
    "submitit_local": {"timeout_min": 60 * 24 * 30},
    # Per attempt: SIGUSR2 comes two minutes before its end, and the job is requeued.
    "submitit_slurm": {"name": "flowerexp", "timeout_min": 240, "signal_delay_s": 120,
                       "max_num_timeout": 100, "cpus_per_task": 4, "gpus_per_node": 1,
                       "mem_gb": 16},
}
"""Values of keys of hydra.launcher that the command line does not set."""
LAUNCHER_PACKAGES = ("joblib", "submitit")
"""Packages whose exceptions come from workers and clusters, not from bugs here."""
SWEEP_LEVEL_KEYS = ("name", "fresh", "dry_run", "on_failure", "compared_with", "sweep",
                    "loop.max_minutes")
"""Keys that have one value for all jobs."""


@dataclass
class ActiveSweep:
    """State of the sweep that a command runs."""

    folder: Path | None = None
    """Folder of the sweep; None until Hydra has opened it."""
    jobs: tuple[Path, ...] | None = None
    """Folders of the jobs; None if the sweeper chooses them one after another."""
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Cleanup at the end: releases the folder's lock, restores the signal handlers."""


ACTIVE: ContextVar[ActiveSweep] = ContextVar("ACTIVE")
"""The sweep of the `sweep_session` around Hydra's call."""


class Sweep(Callback):
    """Hydra callback that opens a sweep before its first job; `sweep_session` closes it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            with composition.one_sentence():
                open_sweep(config, ACTIVE.get())
        except Exception:  # Hydra would only warn, and run the jobs
            traceback.print_exc()
            sys.exit(1)


@contextlib.contextmanager
def sweep_session() -> Iterator[None]:
    """Closes the sweep that Hydra opens inside the block, with its table and exit code.

    Hydra's on_multirun_end is not used: exceptions in launchers and sweepers skip it.
    """
    active = ActiveSweep()
    error = None
    with active.cleanup:
        token = ACTIVE.set(active)
        try:
            yield
        except Exception as raised:
            error = raised
        finally:
            ACTIVE.reset(token)
        code = close_sweep(active)
    if error and code <= 128:  # else a signal stopped the sweep and its workers
        if type(error).__module__.partition(".")[0] in LAUNCHER_PACKAGES:
            raise UserError(f"the launcher could not run its jobs ({first_line(error)}): fix this, "
                            "then rerun the command") from error
        raise error
    if code:
        sys.exit(code)


def open_sweep(config: DictConfig, active: ActiveSweep) -> None:
    """Plans, checks and announces a sweep, and prepares its folder; a dry run exits here.

    The config's node `hydra` receives the sweep's folder and the rule for the names of its jobs.

    Raises:
        UserError: for a mistake in any of the jobs, before the first one starts.
    """
    start, hydra = time.time(), config.hydra
    folder = Path(hydra.sweep.dir)
    overrides, params = list(hydra.overrides.task), hydra.sweeper.get("params")
    swept = composition.swept_keys(overrides, params)
    parsed = composition.sweep_overrides(overrides, params)
    shared = sorted({key.lstrip("+~") for key in parsed} - {*swept, "experiment"})
    if is_set(hydra, "hydra.sweep.subdir"):
        raise UserError("hydra.sweep.subdir cannot be set: a job is named after its overrides")
    quoted = str(folder).replace("'", "\\'")
    hydra.overrides.hydra.extend([  # for every job
        f"hydra.sweep.dir='{quoted}'",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(shared)}]"])
    launcher = apply_launcher_defaults(hydra)
    enumerable = "BasicSweeper" in hydra.sweeper._target_
    if enumerable:
        batch = BasicSweeper.split_arguments(list(parsed.values()), None)[0]
    else:
        batch = [[str(override.input_line) for override in parsed.values()
                  if not override.is_sweep_override()]]
        apply_optuna_defaults(hydra, config.seed)
    configs = checked_jobs(batch, shared, swept)
    logger = RunLogger()
    count = counted(len(configs), "job") if enumerable else "jobs chosen by the sweeper"
    logger.info(f"sweep: {folder}, {count}; swept: {', '.join(swept) or 'nothing'}")
    if (folder / store.CONFIG).exists():
        raise UserError(f"{folder} contains a single run: choose another name=NAME for the sweep")
    if not config.dry_run:
        active.cleanup.callback(remove_unused, folder)
        active.cleanup.enter_context(launch.locked(folder))
    remote = launcher not in LOCAL_LAUNCHERS
    previews = preview.preview(configs, remote, config.dry_run)
    for name, each in configs.items():
        launch.check_same_run(each, folder / name, previews[name].data)
    preview.show(logger, folder, previews, {} if remote else configs)
    if config.dry_run:
        logger.info("dry run: nothing was started")
        sys.exit(0)
    (folder / jobs.EVENTS).unlink(missing_ok=True)  # left by a killed sweep
    minutes = next(iter(configs.values())).loop.max_minutes  # for the whole sweep
    if minutes is not None:
        jobs.add_event(folder, jobs.DEADLINE, start + 60 * minutes)
    active.cleanup.callback((folder / jobs.EVENTS).unlink, missing_ok=True)
    active.cleanup.enter_context(stop_on_signals(folder))
    active.folder = folder
    active.jobs = tuple(folder / name for name in configs) if enumerable else None


def apply_launcher_defaults(hydra: DictConfig) -> str:
    """Applies LAUNCHER_DEFAULTS to the launcher, returns its name; UserError without its Slurm."""
    launcher: str = hydra.runtime.choices["hydra/launcher"]
    if launcher == "submitit_slurm" and not shutil.which("srun"):
        raise UserError("hydra/launcher=submitit_slurm: srun not found; start the sweep on a "
                        "machine of the cluster, or choose hydra/launcher=submitit_local")
    for key, value in LAUNCHER_DEFAULTS.get(launcher, {}).items():
        if not is_set(hydra, f"hydra.launcher.{key}"):
            hydra.launcher[key] = value
    return launcher


def is_set(hydra: DictConfig, key: str) -> bool:
    """Whether the command line sets a key of the node `hydra`."""
    return any(override.lstrip("+").startswith(f"{key}=") for override in hydra.overrides.hydra)


def apply_optuna_defaults(hydra: DictConfig, seed: int) -> None:
    """Maximizes validation F1, and seeds the sampler so that a command is reproducible."""
    if "direction" in hydra.sweeper and not is_set(hydra, "hydra.sweeper.direction"):
        hydra.sweeper.direction = "maximize"
    if "seed" in (hydra.sweeper.get("sampler") or {}) and hydra.sweeper.sampler.seed is None:
        hydra.sweeper.sampler.seed = seed


def checked_jobs(batch: Sequence[Sequence[str]], shared: Sequence[str], swept: Sequence[str]
                 ) -> dict[str, Config]:
    """The checked configs of all jobs by the names of their folders.

    Args:
        batch: the overrides of every job.
        shared: keys that are left out of the names.
        swept: keys with several values.
    """
    for key in sorted({*swept} & {*SWEEP_LEVEL_KEYS}):
        raise UserError(f"{key} is a sweep-level option: give it one value")
    configs: dict[str, Config] = {}
    for overrides in batch:
        composition.check_group_overrides(overrides)
        config = composition.check(hydra_compose("config", list(overrides)))
        if config.fresh:
            raise UserError("fresh=true is not supported in a sweep, which keeps finished jobs: "
                            "choose another name=NAME")
        if config.hardware.kind == "workers":
            raise UserError("hardware=workers is not supported in a sweep: start each run on "
                            "all workers by itself")
        name = composition.run_name(None, config.seed, list(overrides), shared)
        if name in configs:
            raise UserError(f"two jobs of the sweep would be named {name}: give every value once, "
                            "and not two that differ only in punctuation")
        configs[name] = config
    return configs


def remove_unused(folder: Path) -> None:
    """Removes the folder of a sweep that started no job."""
    if [path.name for path in folder.iterdir()] == [store.LOCK]:
        (folder / store.LOCK).unlink()
        launch.remove_empty(folder)


def stop_on_signals(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Turns SIGINT, SIGTERM and SIGHUP into stop requests inside a block.

    The handler raises nothing: Hydra would end without a message and orphan the jobs.
    """
    def handle(number: int, _frame: object) -> None:
        jobs.add_event(folder, jobs.STOP, number)
        launch.print_in_handler(f"{signal.Signals(number).name}: stopping the running job")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        numbers.append(signal.SIGHUP)
    return launch.handling_signals(numbers, handle)


def close_sweep(active: ActiveSweep) -> int:
    """Prints the table and unfinished jobs; returns the exit code, 0 if no sweep was opened."""
    from flowerexp.comparison import comparison, tables

    if active.folder is None:
        return 0
    requests, refused = (jobs.events(active.folder, kind) for kind in (jobs.STOP, jobs.REFUSED))
    started = [path.parents[1] for path in active.folder.glob(f"*/{store.CONFIG}")]
    wanted = active.jobs or started
    if requests:  # a launcher's worker may end before its job has saved
        for job in started:
            with contextlib.suppress(UserError), launch.locked(job, jobs.PATIENCE_SECONDS):
                pass
    logger = RunLogger()
    if started:
        logger.console.rule(escape(str(active.folder)), align="left", characters="-")
        tables.show(comparison.compare([active.folder]), logger.console)
    missing = [job for job in wanted if not launch.is_done(job)]
    if not_started := [job.name for job in missing if job not in started]:
        logger.info(f"not started: {', '.join(not_started)}")
    for sentence in refused:
        logger.info(f"not run: {sentence}")
    out_of_time = bool(missing) and jobs.QUOTA in requests
    if out_of_time:
        logger.info("interrupted by loop.max_minutes, the time limit of the whole sweep")
    if missing:
        logger.info(f"{len(missing)} of {len(wanted)} jobs are not finished: rerun the command to "
                    "resume them")
    logger.info("figures and a report: python -m flowerexp compare "
                f"{shlex.quote(str(active.folder))} --output FOLDER")
    signals = [int(reason) for reason in requests if reason.isdigit()]
    if signals:
        return 128 + signals[0]
    return launch.OUT_OF_TIME if out_of_time else int(bool(missing or refused))
