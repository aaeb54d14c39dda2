"""A job of a sweep: its folder executed by a process of its own, its end told, the tables renewed.

Hydra's launchers call `run_job` for every job, each in whatever process it likes. A request to stop
is a line in the sweep's file `.stop`, which all of them see. No TensorFlow here.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import filelock
from omegaconf import DictConfig
from rich.markup import escape

from flowerexp import composition, metrics
from flowerexp.errors import UserError
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger, now
from flowerexp.runs.status import RunStatus
from flowerexp.train import launch

STOP = ".stop"
REFUSED = ".refused"
"""The jobs that could not be started, a sentence a line."""
DEADLINE = ".deadline"
QUOTA = "quota"
POLL_SECONDS = 0.2
GRACE_SECONDS = 120
"""How long a cluster may take from its first signal to the requeue of a preempted job."""
PATIENCE_SECONDS = 60.0
"""How long a job waits for a process that lost its sweep and is on its way to a checkpoint."""


def request_stop(folder: Path, reason: str) -> None:
    """Leaves a request for all jobs of the sweep: a signal's number, `failure` or `quota`."""
    with (folder / STOP).open("a", encoding="utf-8") as file:
        file.write(f"{reason}\n")


def stop_requests(folder: Path) -> list[str]:
    return lines_of(folder / STOP)


def lines_of(path: Path) -> list[str]:
    """The lines of a file, none where it does not exist."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def set_deadline(folder: Path, seconds: float | None) -> None:
    """Leaves for all jobs of the sweep the time.time() at which they stop, or that there is none.
    """
    if seconds is None:
        (folder / DEADLINE).unlink(missing_ok=True)
    else:
        store.write_text(folder / DEADLINE, f"{seconds}\n")


def deadline_of(folder: Path) -> float | None:
    try:
        return float((folder / DEADLINE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def run_job(folder: Path, composed: DictConfig, overrides: Sequence[str], launcher: str) -> float:
    """Executes a job's folder in a process of its own, and brings the sweep's tables up to date.

    Args:
        folder: of the job, below that of the sweep.
        launcher: the name of Hydra's; the jobs of others than `basic` run side by side, and their
            sentences go to their run.log only.

    Returns:
        The best validation F1, the objective of a sweeper that optimises; 0 for a job that did not
        finish.
    """
    deadline = deadline_of(folder.parent)
    if deadline is not None and time.time() >= deadline:
        request_stop(folder.parent, QUOTA)
    if stop_requests(folder.parent):
        return 0.0
    logger = RunLogger()
    if launcher == "basic":
        logger.console.rule(escape(folder.name), align="left", characters="-")
    try:
        config = composition.check(composed)
        with launch.locked(folder, PATIENCE_SECONDS):
            starts = launch.initialize_run_dir(config, folder, composed, overrides)
    except (UserError, OSError) as error:  # it costs this job, not those that are left
        sentence = f"{folder.name}: {composition.explain(error)}"
        logger.info(f"not run: {sentence}")
        with (folder.parent / REFUSED).open("a", encoding="utf-8") as file:
            file.write(f"{sentence}\n")
        return 0.0
    if starts:
        if launcher != "basic":
            logger.info(f"{folder.name}: started, {folder / store.LOG}")
        stopped_externally = execute_in_process(folder, deadline, quiet=launcher != "basic")
        if stopped_externally and launcher.startswith("submitit"):
            logger.info(f"{folder.name}: interrupted, and not by the sweep: waiting "
                        f"{GRACE_SECONDS} s for the cluster to requeue or to end this job")
            time.sleep(GRACE_SECONDS)  # a job that ended by itself would not be requeued
    status = RunStatus.load_or_new(folder)
    score = best_score(folder)
    ended = (f"{'finished' if starts else 'finished before'}, best validation F1 {score:.4f}"
             if status.state == "done" else f"{status.state} {status.error or ''}".rstrip())
    logger.info(f"{folder.name}: {ended}")
    try:
        write_tables(folder.parent)
    except OSError as error:  # a full disk costs the tables, not the jobs that are left
        logger.info(f"{folder.parent}: the tables cannot be written ({error.strerror})")
    if status.state == "failed" and config.on_failure == "stop":
        request_stop(folder.parent, "failure")
    return score if status.state == "done" else 0.0


def best_score(folder: Path) -> float:
    """The best validation F1 of a run; 0 before its first epoch, and where it cannot be read."""
    try:
        history = store.read_history(folder)
    except UserError:  # the job's own process has said so
        return 0.0
    best = metrics.best_epoch(history)
    return history[best]["valid f1"] or 0.0 if best is not None else 0.0


def execute_in_process(folder: Path, deadline: float | None, quiet: bool) -> bool:
    """Runs `python -m flowerexp resume` on a folder, passes on requests to stop, and settles it.

    Returns:
        Whether it was stopped in order by a signal that the sweep did not ask for.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, signal.SIG_IGN)  # in a launcher's worker; the sweep asks
    # This package, not one that lies where the command was given; and sentences, for the traceback
    # stands in the status.
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        filter(None, (package, os.environ.get("PYTHONPATH"))))}
    environment.pop("HYDRA_FULL_ERROR", None)
    # In a session of its own, a Ctrl-C at the terminal reaches it once, through the sweep.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "flowerexp", "resume", str(folder),
               "--parent", str(os.getpid())]
    if deadline is not None:
        command += ["--deadline", str(deadline)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=errors,
                                   stdout=subprocess.DEVNULL if quiet else None)
        try:
            asked = wait(process, folder.parent)
        finally:
            if process.poll() is None:  # something of ours or the launcher's went wrong
                process.terminate()
                process.wait()
        errors.seek(0)
        said = errors.read().decode("utf-8", "backslashreplace").strip()
    record_exit(folder, process.returncode, said, asked)
    if process.returncode == launch.OUT_OF_TIME:
        request_stop(folder.parent, QUOTA)
    return not asked and process.returncode > 128


def wait(process: subprocess.Popen[bytes], sweep: Path) -> bool:
    """Waits for a job's process; returns whether it was asked to stop."""
    passed = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return passed > 0
        # Of the end of the quota every job knows by itself.
        reasons = [reason for reason in stop_requests(sweep) if reason != QUOTA]
        for reason in reasons[passed:]:
            process.send_signal(signal.SIGINT if reason == str(int(signal.SIGINT))
                                else signal.SIGTERM)
        passed = len(reasons)


def record_exit(folder: Path, code: int, said: str, asked: bool) -> None:
    """Says in a folder's status and log how its process ended, where it could not itself.

    Args:
        code: the process's exit code, minus the number of a signal that killed it.
        said: what it left on its standard error stream.
        asked: whether the sweep had asked it to stop.
    """
    try:
        with launch.locked(folder):
            if RunStatus.load_or_new(folder).state not in ("new", "running"):
                return
            logger = RunLogger(folder)
            if asked and (code < 0 or code > 128):
                logger.debug("interrupted before it could save")
                logger.record(state="interrupted", ended=now())
                return
            if code < 0:
                error = f"killed by {signal.Signals(-code).name}"
                if -code == signal.SIGKILL:
                    error += ", as the system does when memory runs out"
            else:
                error = f"{said.splitlines()[-1] if said else 'no word'} (exit code {code})"
            logger.debug(f"failed: {error}\n{said}".strip())
            logger.record(state="failed", error=error, traceback=said or None, ended=now())
    except UserError:  # another process has the folder now
        return
    except OSError as error:
        RunLogger().info(f"{folder}: the status cannot be written ({error.strerror})")


def write_tables(folder: Path) -> None:
    """Writes comparison.csv and comparison.md of the sweep's runs as they are now, whole."""
    from flowerexp.comparison import comparison, tables

    # The jobs of some launchers end side by side; the last one sees all of them.
    with filelock.FileLock(folder / ".tables.lock"):
        compared = comparison.compare([folder])
        for name in ("csv", "md"):
            store.write_text(folder / f"comparison.{name}", tables.FORMATS[name](compared))
