"""A run folder's life: new, running, done, failed, interrupted. Executing it is idempotent.

TensorFlow is imported when the config, the folder and its lock have been found right.
"""

import contextlib
import errno
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig, OmegaConf

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError, first_line
from flowerexp.runs import provenance, store
from flowerexp.runs.log import RunLogger, now, process
from flowerexp.strategy import factory
from flowerexp.train import preview

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""That end a run in order; the last is what Slurm sends before a job's time is over."""
OUT_OF_TIME = 75
"""The exit code of a run or a sweep that `loop.max_minutes` ended: EX_TEMPFAIL, try again later."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def execute(folder: Path, composed: DictConfig, overrides: Sequence[str],
            deadline: float | None = None) -> int:
    """Starts a new run, goes on with a partial one, leaves a finished one alone.

    Args:
        folder: of the run; with `fresh`, the first free one of folder, folder.2 and so on.
        composed: the config as Hydra composed it.
        overrides: the command line's.
        deadline: a time.time() at which it stops, of the sweep that it belongs to, or None.

    Returns:
        The exit code: 0, 128 and the number of the signal that interrupted the run, or OUT_OF_TIME.

    Raises:
        UserError: for every mistake of the user; the folder's status names it.
    """
    config = composition.check(composed)
    if config.fresh:
        if config.hardware.kind == "workers":
            raise UserError("fresh=true could give every worker a folder of its own: choose "
                            "another name= on all of them")
        folder = fresh_folder(config, folder)
    if config.dry_run:
        logger = RunLogger()
        preview.show(logger, folder.parent, preview.preview({folder.name: config}))
        logger.info("dry run: nothing was started")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    if not factory.is_chief(config.hardware):
        check_same_run(config, folder)
        if is_done(folder):
            return 0
        return start(config, folder, RunLogger(folder, chief=False), deadline)
    with locked(folder):
        check_same_run(config, folder, data_of_finished(config, folder))
        if initialize_run_dir(config, folder, composed, overrides):
            return start(config, folder, RunLogger(folder), deadline)
    RunLogger().info(f"{folder} holds a finished run of this command:\n{summary(folder)}")
    return 0


def resume(folder: Path, deadline: float | None = None) -> int:
    """Executes a run folder by itself, in the directory that its command was given in.

    Args:
        deadline: as of `execute`.

    Returns:
        The exit code, as of `execute`.

    Raises:
        UserError: for a folder that holds no run, and whatever `execute` raises.
    """
    folder = folder.resolve()
    composed, overrides = store.read_composed(folder), store.read_overrides(folder)
    OmegaConf.update(composed, "fresh", False, force_add=True)  # it is this folder that goes on
    directory = store.last_status(folder).get("working_directory")
    if directory and not Path(directory).is_dir():
        RunLogger().info(f"the directory of the run's command, {directory}, is not here: relative "
                      f"paths start from {Path.cwd()}")
    elif directory:
        os.chdir(directory)
    return execute(folder, composed, overrides, deadline)


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0) -> Iterator[None]:
    """Keeps other processes out of a folder; raises UserError where one is in after `patience` s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / store.LOCK)
    try:
        lock.acquire(timeout=patience)
    except filelock.Timeout:
        status = store.last_status(folder)
        holder = (f"process {status['pid']} on {status['host']}" if "pid" in status
                  else "another process")
        raise UserError(f"{folder} is in use by {holder}: wait for it, or start beside it under "
                        "another name=") from None
    try:
        yield
    finally:
        lock.release()


def initialize_run_dir(config: Config, folder: Path, composed: DictConfig,
                       overrides: Sequence[str]) -> bool:
    """Puts the config into a locked folder; False where the folder's run is finished.

    Raises:
        UserError: where the folder holds another run.
    """
    check_same_run(config, folder)
    if is_done(folder):
        return False
    # Anew each time, for where the data and the directory are may have changed.
    store.write_config(folder, composed, overrides)
    logger = RunLogger(folder)
    try:
        store.read_status(folder)
    except UserError:
        logger.info(f"{folder / store.STATUS} cannot be read: it is only a report, and is "
                    "written anew")
    logger.record(state="new", error=None, traceback=None, working_directory=str(Path.cwd()))
    return True


def data_of_finished(config: Config, folder: Path) -> str | None:
    """The fingerprint of the config's data, where the folder's run is finished and the same config
    may find other data; else None.
    """
    if not is_done(folder) or not (folder / store.CONFIG).exists():
        return None
    before = store.read_config(folder)
    if composition.differences(before, config) or (
            before.dataset == config.dataset and config.dataset.kind != "auto"):
        return None
    return preview.preview({folder.name: config})[folder.name].data


def is_done(folder: Path) -> bool:
    return store.last_status(folder).get("state") == "done"


def has_no_progress(folder: Path) -> bool:
    """Whether the folder holds no epoch and no checkpoint, so that nothing of its run is lost."""
    return (not is_done(folder) and not (folder / store.HISTORY).exists()
            and not list(folder.glob("checkpoints/update-*")))


def fresh_folder(config: Config, folder: Path) -> Path:
    """The folder itself, or the first of folder.2, folder.3 and so on that holds no run.

    If the last of these is a partial run of this config, it is that one: an interrupted fresh run
    goes on by its own command.
    """
    number, last, free = 1, folder, folder
    while (free / store.CONFIG).exists():
        number, last = number + 1, free
        free = folder.with_name(f"{folder.name}.{number}")
    if (last != folder and store.last_status(last).get("state") != "done"
            and not composition.differences(store.read_config(last), config)):
        return last
    return free


def check_same_run(config: Config, folder: Path, data: str | None = None) -> None:
    """Raises UserError where the folder holds another run, naming what differs.

    A run that ended before it had trained anything is none: its mistake can be corrected there.

    Args:
        data: the fingerprint of the config's data, where it is known; of a partial run,
            `experiment` compares it when it goes on.
    """
    if not (folder / store.CONFIG).exists():
        if any(folder.glob(f"*/{store.CONFIG}")):
            raise UserError(f"{folder} holds the runs of a sweep: choose another name=")
        return
    if has_no_progress(folder):
        return
    before = store.read_config(folder)
    differing = composition.differences(before, config)
    beginning = store.last_status(folder).get("beginning")
    then = beginning.get("data") if isinstance(beginning, dict) else None
    if not differing and then and data not in (None, then):
        differing = [f"fingerprint of the data: {then} there, {data} here"]
    if differing:
        raise UserError(f"{folder} holds a run of another config ({'; '.join(differing[:5])}"
                        f"{'; and more' * (len(differing) > 5)}): choose another name=, or "
                        "fresh=true to start beside it")


def start(config: Config, folder: Path, logger: RunLogger, deadline: float | None = None) -> int:
    """Runs until the end, a signal, its time, or an error, and says which in status.json."""
    stopped = StopRequest(config.loop.max_minutes, deadline)
    factory.prepare(config.hardware)
    logger.record(state="running", **process(), error=None, traceback=None, ended=None,
                   versions=provenance.versions(), git=provenance.commit(),
                   started=store.last_status(folder).get("started", now()))
    logger.info(f"run: {folder}")
    with stopped:
        try:
            with logger.native_log():
                from flowerexp.strategy import workers
                from flowerexp.train import experiment

                with workers.worker_failure_guard(config.hardware):
                    code = experiment.run(config, folder, logger, stopped)
        except UserError as error:
            fail(logger, str(error))
            raise
        except OSError as error:
            fail(logger, f"{error.filename or folder}: {error.strerror or error}")
            if error.errno in DISK_ERRORS:
                raise UserError(f"{error.filename or folder}: {error.strerror}: nothing that was "
                                "saved before is lost; mend it and run the same command again") \
                    from error
            raise
        except KeyboardInterrupt:
            logger.record(state="interrupted", ended=now())
            raise
        except BaseException as error:
            fail(logger, f"{type(error).__name__}: {first_line(error)}")
            raise
    if code == 0:
        logger.record(state="done", ended=now())
        if logger.is_chief:
            logger.info(summary(folder))
        return 0
    logger.record(state="interrupted", ended=now())
    why = (f"loop.max_minutes={config.loop.max_minutes:g}" if code == OUT_OF_TIME
           else signal.Signals(code - 128).name)
    where = "" if stopped() else " to another worker"
    logger.info(f"interrupted by {why}{where}; the same command goes on from here: {folder}")
    return code


def fail(logger: RunLogger, sentence: str) -> None:
    """Leaves the error in run.log and status.json, as far as the disk lets us."""
    try:
        logger.debug(f"failed: {sentence}")
        logger.log_traceback()
        logger.record(state="failed", error=sentence, traceback=traceback.format_exc(),
                       ended=now())
    except OSError as error:
        RunLogger().info(f"the status cannot be written ({error.strerror})")


class StopRequest:
    """The exit code to end with once one of SIGNALS has come, or the time is over; 0 before.

    A second SIGINT raises KeyboardInterrupt at once.

    Args:
        minutes: from now, or None.
        deadline: a time.time(), or None.
    """

    def __init__(self, minutes: float | None = None, deadline: float | None = None) -> None:
        self.number = 0
        self.before: dict[int, Any] = {}
        seconds = [60 * minutes] if minutes is not None else []
        seconds += [deadline - time.time()] if deadline is not None else []
        self.end = time.monotonic() + min(seconds) if seconds else None

    def __call__(self) -> int:
        if self.number:
            return 128 + self.number
        return OUT_OF_TIME if self.end is not None and time.monotonic() >= self.end else 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self.before[number] = signal.signal(number, self._handle_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle_signal(self, number: int, _frame: object) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        # Not through the console, whose lock the interrupted code may hold; and the reader of this
        # may have gone, which is no reason to fail.
        with contextlib.suppress(OSError):
            os.write(1, f"{signal.Signals(number).name}: stopping after this call\n".encode())


def summary(folder: Path) -> str:
    """The best and the last epoch of a run, and its folder."""
    history = store.read_history(folder)
    best = store.best_epoch(history)
    assert best is not None, "a finished run has epochs"

    def of(epoch: int) -> str:
        row = history[epoch]
        return (f"epoch {epoch + 1}, valid acc {row['valid acc']:.4f}, recall "
                f"{row['valid recall']:.4f}, precision {row['valid precision']:.4f}, f1 "
                f"{row['valid f1']:.4f}")

    lines = [f"best: {of(best)}", f"last: {of(len(history) - 1)}", f"folder: {folder}"]
    early = store.last_status(folder).get("stopped_early")
    return "\n".join([early, *lines] if early else lines)
