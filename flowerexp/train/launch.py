"""The life cycle of a run folder: new, running, done, failed, interrupted. Execution is idempotent.

TensorFlow is imported after the config, the folder and its lock have been checked.
"""

import contextlib
import errno
import math
import os
import platform
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig, OmegaConf

from flowerexp import composition, identity, metrics, parts
from flowerexp.config import Config
from flowerexp.data import sources
from flowerexp.errors import UserError, first_line
from flowerexp.runs import provenance, store
from flowerexp.runs.log import RunLogger, now
from flowerexp.runs.status import RunStatus
from flowerexp.strategy import factory
from flowerexp.train import preview

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Signals that stop a run cleanly; Slurm sends SIGUSR2 before a job's time limit."""
OUT_OF_TIME = 75
"""Exit code of a run or sweep that `loop.max_minutes` ended: EX_TEMPFAIL, try again later."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def execute(folder: Path, composed: DictConfig, overrides: Sequence[str],
            deadline: float | None = None) -> int:
    """Starts a new run, resumes a partial one, leaves a finished one alone.

    Args:
        folder: run folder; with `fresh`, `fresh_folder` of it.
        composed, overrides: the config as Hydra composed it, and the command line's overrides.
        deadline: time.time() at which the sweep of this run stops, or None.

    Returns:
        Exit code: 0, 128 plus the number of the signal that interrupted the run, or OUT_OF_TIME.

    Raises:
        UserError: for a user's mistake, which is also recorded in the folder's status.
    """
    config = composition.check(composed)
    if config.fresh:
        if config.hardware.kind == "workers":
            raise UserError("fresh=true is not supported with workers: choose another name= on all "
                            "of them")
        folder = fresh_folder(config, folder)
    if config.dry_run:
        previews = preview.preview({folder.name: config}, dry_run=True)
        preview.show(RunLogger(), folder.parent, previews, {folder.name: config})
        RunLogger().info("dry run: nothing was started")
        return 0
    if not factory.is_chief(config.hardware):
        folder.mkdir(parents=True, exist_ok=True)
        check_same_run(config, folder)
        return 0 if is_done(folder) else start(
            config, folder, RunLogger(folder, chief=False), deadline)
    if not is_done(folder):
        sources.check_root(config.dataset.source)
    with locked(folder):
        data = data_of_finished(config, folder)
        if initialize_run_dir(config, folder, composed, overrides, data):
            return start(config, folder, RunLogger(folder), deadline)
    weaker = (f" ({identity.WEAKER})" if identity.is_listing(
        RunStatus.load_or_new(folder).provenance.get("data")) else "")
    RunLogger().info(f"{folder} contains the finished run of this command{weaker}:\n"
                     f"{summary(folder)}")
    return 0


def resume(folder: Path, deadline: float | None = None, trust_code: bool = False) -> int:
    """Executes a run folder, as `execute` does, in the working directory of its original command.

    Args:
        trust_code: whether custom parts, neither built-in nor from Keras, may be imported.
    """
    folder = folder.resolve()
    # Not fresh: this very folder is resumed.
    composed = OmegaConf.create(store.read_plain(folder) | {"fresh": False})
    overrides = store.read_overrides(folder)
    status = RunStatus.load_or_new(folder)
    parts.check_trusted(identity.all_parts(composition.check(composed)), trust_code)
    if trust_code:
        parts.add_import_paths(status.code_path)
    if (directory := status.working_directory) and Path(directory).is_dir():
        os.chdir(directory)
    elif directory:
        RunLogger().info(f"the working directory of the run, {directory}, does not exist: relative "
                         f"paths are resolved against {Path.cwd()}")
    return execute(folder, composed, overrides, deadline)


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0) -> Iterator[None]:
    """Locks a folder; raises UserError if another process holds it after `patience` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / store.LOCK)
    try:
        lock.acquire(timeout=patience)
    except filelock.Timeout:
        status = RunStatus.load_or_new(folder)
        holder = f"process {status.pid} on {status.host}" if status.pid else "another process"
        raise UserError(f"{folder} is in use by {holder}: wait until it ends, or choose another "
                        "name=") from None
    try:
        yield
    finally:
        lock.release()


def remove_empty(folder: Path) -> None:
    """Removes the folder of a refused command if it is empty, and then ./outputs if that is."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        if folder.absolute().parent == Path("outputs").absolute():
            folder.parent.rmdir()


def initialize_run_dir(config: Config, folder: Path, composed: DictConfig,
                       overrides: Sequence[str], data: identity.Fingerprint | None = None) -> bool:
    """Writes the config into a locked folder; returns False if its run is finished.

    Raises:
        UserError: as `check_same_run`.
    """
    check_same_run(config, folder, data)
    if is_done(folder):
        return False
    # Written every time, because the data and the working directory may have moved.
    store.write_config(folder, composed, overrides)
    logger = RunLogger(folder)
    try:
        RunStatus.load(folder)
    except UserError:
        logger.info(f"{folder / store.STATUS} cannot be read: it is only a report, and is "
                    "rewritten")
    logger.record(state="new", error=None, traceback=None, working_directory=str(Path.cwd()),
                  code_path=identity.code_path(config))
    return True


def is_done(folder: Path) -> bool:
    return RunStatus.load_or_new(folder).state == "done"


def has_no_progress(folder: Path) -> bool:
    """Whether the folder has no epoch and no checkpoint, so that its run can be replaced."""
    return (not is_done(folder) and not (folder / store.HISTORY).exists()
            and not list(folder.glob("checkpoints/update-*")))


def fresh_folders(folder: Path) -> list[Path]:
    """The folder, folder.2, folder.3 and so on, up to the first one without a run."""
    found = [folder]
    while (found[-1] / store.CONFIG).exists():
        found.append(folder.with_name(f"{folder.name}.{len(found) + 1}"))
    return found


def fresh_folder(config: Config, folder: Path) -> Path:
    """The last of `fresh_folders`, or the one before it if it holds a partial run of this config,
    code, data and plan: rerunning the command of an interrupted fresh run resumes it.
    """
    *taken, free = fresh_folders(folder)
    last = taken[-1] if len(taken) > 1 else None
    if last is None or is_done(last) or identity.differences(store.read_config(last), config):
        return free
    if has_no_progress(last):
        return last
    found = preview.preview({last.name: config})[last.name]
    return free if differences(config, last, data=found.data, **asdict(found.plans[0])) else last


def differences(config: Config, folder: Path, **known: Any) -> list[str]:
    """How the run of a folder differs from the config: in keys, code, and what else is `known`.

    Args:
        known: the `Fingerprint` of the data as `data`, and numbers of the plan; None is not
            compared.
    """
    then = RunStatus.load_or_new(folder).provenance
    data = known.pop("data", None)
    now = known | identity.sources(config) | (
        {"data": data.like(then.get("data"))} if data is not None else {})
    return identity.differences(store.read_config(folder), config) + [
        f"{key}: {then.get(key)} there, {value} here" for key, value in now.items()
        if then and value not in (None, then.get(key))]


def check_same_run(config: Config, folder: Path, data: identity.Fingerprint | None = None
                   ) -> None:
    """Raises UserError if the folder contains another run, naming what differs.

    A run that ended before it trained anything does not count: its mistake can be fixed in place.

    Args:
        data: the fingerprint of the config's data, if known; that of a partial run is compared when
            its checkpoint is restored.
    """
    if not (folder / store.CONFIG).exists():
        if any(folder.glob(f"*/{store.CONFIG}")):
            raise UserError(f"{folder} contains the runs of a sweep: choose another name=")
    elif not has_no_progress(folder) and (found := differences(config, folder, data=data)):
        raise UserError(f"{folder} contains a run with another config "
                        f"({'; '.join(found[:5])}{'; and more' * (len(found) > 5)}): "
                        "choose another name=, or start a new run with fresh=true")


def data_of_finished(config: Config, folder: Path) -> identity.Fingerprint | None:
    """The fingerprint of the config's data if the folder holds its finished run, else None.

    Raises:
        UserError: if the data cannot be read any more.
    """
    if (not is_done(folder) or not (folder / store.CONFIG).exists()
            or identity.differences(store.read_config(folder), config)):
        return None
    summary(folder)  # raises for lost results, which takes no time
    try:
        return preview.preview({folder.name: config})[folder.name].data
    except UserError as error:
        raise UserError(f"{folder} contains the finished run of this command, but its data cannot "
                        f"be checked: {error}") from error


def start(config: Config, folder: Path, logger: RunLogger, deadline: float | None = None) -> int:
    """Runs to the end, a signal, the time limit or an error; records which in status.json."""
    stop_request = StopRequest(config.loop.max_minutes, deadline)
    factory.prepare(config.hardware)
    logger.record(state="running", host=platform.node(), pid=os.getpid(), error=None,
                  traceback=None, ended=None, versions=provenance.versions(),
                  git=provenance.commit(), started=RunStatus.load_or_new(folder).started or now())
    logger.info(f"run: {folder}")
    with handling_signals(SIGNALS, stop_request.handle_signal):
        try:
            with logger.native_log():
                from flowerexp.strategy import workers
                from flowerexp.train import experiment

                with workers.worker_failure_guard(config.hardware):
                    code = experiment.run(config, folder, logger, stop_request)
        except KeyboardInterrupt:
            logger.record(state="interrupted", ended=now())
            raise
        except OSError as error:
            problem = f"{error.filename or folder}: {error.strerror or error}"
            record_failure(logger, problem)
            if error.errno in DISK_ERRORS:
                raise UserError(problem, "earlier checkpoints are intact; fix this, then rerun the "
                                         "command") from error
            raise
        except BaseException as error:
            record_failure(logger, str(error) if isinstance(error, UserError) else
                           f"{type(error).__name__}: {first_line(error)}")
            raise
    logger.record(state="interrupted" if code else "done", ended=now())
    if code == 0:
        if logger.is_chief:
            logger.info(summary(folder))
        return 0
    minutes = config.loop.max_minutes  # None where it is another worker's
    why = (signal.Signals(code - 128).name if code != OUT_OF_TIME else
           f"loop.max_minutes={minutes:g}" if minutes else "the loop.max_minutes of another worker")
    where = "" if stop_request() else " to another worker"
    logger.info(f"interrupted by {why}{where}; rerun the command to resume: {folder}")
    return code


def record_failure(logger: RunLogger, sentence: str) -> None:
    """Records the error in run.log and status.json, as far as the disk allows."""
    try:
        logger.debug(f"failed: {sentence}")
        logger.debug(traceback.format_exc())
        logger.record(state="failed", error=sentence, traceback=traceback.format_exc(),
                      ended=now())
    except OSError as error:
        RunLogger().info(f"the status cannot be written ({error.strerror})")


class StopRequest:
    """Returns, when called, the exit code to stop with: after a signal or the time limit; else 0.

    A second SIGINT raises KeyboardInterrupt at once.

    Args:
        minutes: time limit from now, or None.
        deadline: time limit as a time.time(), or None.
    """

    def __init__(self, minutes: float | None = None, deadline: float | None = None) -> None:
        self.received = 0
        seconds = min(math.inf if minutes is None else 60 * minutes,
                      math.inf if deadline is None else deadline - time.time())
        self.end_time = time.monotonic() + seconds

    def __call__(self) -> int:
        if self.received:
            return 128 + self.received
        return OUT_OF_TIME if time.monotonic() >= self.end_time else 0

    def handle_signal(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        print_in_handler(f"{signal.Signals(number).name}: stopping after the current updates")


@contextlib.contextmanager
def handling_signals(numbers: Iterable[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Installs a signal handler inside the block, in the main thread only (others cannot)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def print_in_handler(sentence: str) -> None:
    """Prints from a signal handler, which must not wait for the lock of a console."""
    with contextlib.suppress(OSError):  # the output may be closed
        os.write(1, f"{sentence}\n".encode())


def summary(folder: Path) -> str:
    """The best and the last epoch of a run, and its folder."""
    history = store.read_history(folder)
    best = metrics.best_epoch(history)
    if not history:
        raise UserError(f"{folder} is done and holds no epoch in {store.HISTORY}",
                        "restore the file, or train again with fresh=true")

    def describe(epoch: int, split: str) -> str:
        scores = ", ".join(f"{name} {metrics.score_text(history[epoch].get(f'{split} {name}'))}"
                           for name in metrics.NAMES)
        return f"epoch {epoch + 1}, {split} {scores}"

    last = len(history) - 1
    lines = ([f"last: {describe(last, 'train')}; nothing was held out to validate with"]
             if best is None else
             [f"best: {describe(best, 'valid')}", f"last: {describe(last, 'valid')}"])
    lines.append(f"folder: {folder}")
    status = RunStatus.load_or_new(folder)
    early = [status.stopped_early] if status.stopped_early else []
    return "\n".join([*early, *status.warnings, *lines])
