"""What happens before the first job of a sweep and after the last. No TensorFlow here.

Before: every job composed and checked, the plan printed. After: the table, and what is missing.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from hydra import compose as hydra_compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.markup import escape

from flowerexp import composition, execution, jobs, planning, results
from flowerexp.config import Config
from flowerexp.errors import UserError
from flowerexp.journal import Journal

HERE = ("basic", "joblib", "submitit_local")
"""Launchers whose jobs run on this machine, with its devices."""
UNSWEPT = ("name", "fresh", "dry_run", "on_failure", "compared_with", "sweep", "loop.max_minutes")
"""Keys of which a sweep has one value."""
LONGEST_LOCAL_JOB = 60 * 24 * 30
"""Minutes; submitit's own default ends a local job after one hour."""


@dataclass(frozen=True)
class Opened:
    """A sweep that is running."""

    folder: Path
    jobs: tuple[Path, ...] | None
    """Their folders; None where the sweeper chooses them as it goes."""
    lock: filelock.BaseFileLock
    handlers: dict[int, Any]
    """The signals' handlers from before."""


class Sweep(Callback):
    """Hydra's callback: what happens before the first job of a sweep and after the last."""

    def __init__(self) -> None:
        self.opened: Opened | None = None

    def __reduce__(self) -> Any:
        # Launchers send it to their workers, where nothing is opened.
        return Sweep, ()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with loud(), composition.one_sentence():
            self.opened = open_sweep(config)
            if self.opened is None:
                sys.exit(0)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        with loud(), composition.one_sentence():
            assert self.opened is not None
            if code := close_sweep(self.opened):
                sys.exit(code)


@contextlib.contextmanager
def loud() -> Iterator[None]:
    """Ends the process with a traceback where Hydra would warn of an exception and go on."""
    try:
        yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def open_sweep(config: DictConfig) -> Opened | None:
    """Plans, checks and announces a sweep, and gets it ready; None for a dry run.

    Args:
        config: of the sweep, with Hydra's own; the sweep's folder and what names its jobs are put
            into it, where every job finds them.

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
    ours = "BasicSweeper" in hydra.sweeper._target_
    if ours:
        batch = BasicSweeper.split_arguments(list(parsed.values()), None)[0]
    else:
        batch = [[str(override.input_line) for override in parsed.values()
                  if not override.is_sweep_override()]]
        suit_optuna(hydra, config.seed)
    configs = checked_jobs(batch, unnamed, swept)
    launcher = hydra.runtime.choices["hydra/launcher"]
    console = Journal().console
    console.print(f"sweep: {folder}, {len(configs) if ours else 'as many as it tries'} "
                  f"job{'s' * (len(configs) != 1 or not ours)}; swept: "
                  f"{', '.join(swept) or 'nothing'}", soft_wrap=True, markup=False)
    if (folder / results.CONFIG).exists():
        raise UserError(f"{folder} holds a single run: choose another name=NAME for the sweep")
    lock = None if config.dry_run else lock_sweep(folder)
    try:
        previews = planning.preview(configs, elsewhere=launcher not in HERE)
        for name, each in configs.items():
            execution.refuse_other_run(each, folder / name, previews[name].data)
    except BaseException:
        if lock:
            unlock_sweep(folder, lock)
        raise
    planning.show(console, folder, previews)
    if lock is None:
        console.print("dry run: nothing was started", markup=False)
        return None
    if launcher == "submitit_local" and not chosen(hydra, "hydra.launcher.timeout_min"):
        hydra.launcher.timeout_min = LONGEST_LOCAL_JOB
    for stale in (jobs.STOP, jobs.REFUSED):
        (folder / stale).unlink(missing_ok=True)
    minutes = next(iter(configs.values())).loop.max_minutes  # of the sweep as a whole
    jobs.set_deadline(folder, None if minutes is None else start + 60 * minutes)
    return Opened(folder, tuple(folder / name for name in configs) if ours else None, lock,
                  take_signals(folder))


def pin(hydra: DictConfig, folder: Path, unnamed: Sequence[str]) -> None:
    """Has every job find the same sweep folder, and leave the shared keys out of its name."""
    quoted = str(folder).replace("'", "\\'")
    hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
    hydra.overrides.hydra.append("hydra.job.config.override_dirname.exclude_keys="
                                 f"[{','.join(unnamed)}]")


def chosen(hydra: DictConfig, key: str) -> bool:
    """Whether the command line sets a key of Hydra's."""
    return any(override.lstrip("+").startswith(f"{key}=") for override in hydra.overrides.hydra)


def suit_optuna(hydra: DictConfig, seed: int) -> None:
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
        if key in UNSWEPT:
            raise UserError(f"{key} cannot be swept: a sweep has one")
    configs: dict[str, Config] = {}
    for overrides in batch:
        composition.refuse_no_option(overrides)
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


def lock_sweep(folder: Path) -> filelock.BaseFileLock:
    """Keeps a second copy of the sweep out; raises UserError where one is in."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / results.LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{folder} is in use by another process that runs this sweep: wait for "
                        "it, or choose another name=NAME") from None
    return lock


def unlock_sweep(folder: Path, lock: filelock.BaseFileLock) -> None:
    """Lets others in; of a sweep that has started nothing, nothing is left."""
    lock.release()
    if [path.name for path in folder.iterdir()] == [results.LOCK]:
        (folder / results.LOCK).unlink()
        folder.rmdir()


def take_signals(folder: Path) -> dict[int, Any]:
    """Turns SIGINT, SIGTERM and SIGHUP into requests to stop; returns the handlers from before.

    The handler raises nothing, for Hydra would then end without a word and orphan the jobs.
    """
    def take(number: int, _frame: object) -> None:
        jobs.ask_to_stop(folder, str(number))
        with contextlib.suppress(OSError):  # of a terminal or a reader that has gone
            os.write(1, f"{signal.Signals(number).name}: the running job shall stop\n".encode())

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    return {number: signal.signal(number, take) for number in numbers}


def close_sweep(opened: Opened) -> int:
    """Prints the table and what is missing; returns the exit code."""
    from flowerexp import comparison, tables

    for number, handler in opened.handlers.items():
        signal.signal(number, handler)
    asked = jobs.requests_to_stop(opened.folder)
    refused = jobs.lines_of(opened.folder / jobs.REFUSED)
    for file in (jobs.STOP, jobs.REFUSED):
        (opened.folder / file).unlink(missing_ok=True)
    jobs.set_deadline(opened.folder, None)
    console = Journal().console
    here = [path.parents[1] for path in opened.folder.glob(f"*/{results.CONFIG}")]
    wanted = opened.jobs or here
    if here:
        console.rule(escape(str(opened.folder)), align="left", characters="-")
        tables.show(comparison.compare([opened.folder]), console)
    missing = [job for job in wanted if not execution.is_done(job)]
    untouched = [job.name for job in missing if job not in here]
    if untouched:
        console.print(f"not started: {', '.join(untouched)}", soft_wrap=True, markup=False)
    for sentence in refused:
        console.print(f"not run: {sentence}", soft_wrap=True, markup=False)
    out_of_time = bool(missing) and jobs.QUOTA in asked
    if out_of_time:
        console.print("interrupted by loop.max_minutes, which is of the sweep as a whole",
                      soft_wrap=True, markup=False)
    if missing:
        console.print(f"{len(missing)} of {len(wanted)} jobs are not finished; the same command "
                      "goes on with them", soft_wrap=True, markup=False)
    console.print("pictures and a page: python -m flowerexp compare "
                  f"{shlex.quote(str(opened.folder))} --output FOLDER", soft_wrap=True,
                  markup=False)
    unlock_sweep(opened.folder, opened.lock)
    signals = [int(reason) for reason in asked if reason.isdigit()]
    if signals:
        return 128 + signals[0]
    return execution.OUT_OF_TIME if out_of_time else int(bool(missing or refused))
