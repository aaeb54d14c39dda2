"""One job of a sweep: executes its folder in a child process, records its exit, updates the tables.

Hydra's launchers call `run_job`, in any process and on any machine. Imports no TensorFlow.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import filelock
import numpy as np
from omegaconf import DictConfig
from rich.markup import escape

from flowerexp import composition
from flowerexp.errors import UserError
from flowerexp.runs import reader, store
from flowerexp.runs.log import RunLogger, now
from flowerexp.runs.status import RunStatus
from flowerexp.train import launch

EVENTS = ".sweep"
"""File of the events that the processes of a sweep exchange, one line each: kind and text. It is
append-only: rewriting needs a lock, and a signal handler must not wait for one."""
DEADLINE, STOP, REFUSED = "deadline", "stop", "refused"
"""Kinds of events: the time.time() at which all jobs stop; a request to stop (a signal's number,
`failure` or `quota`); a sentence about a job that could not start."""
QUOTA = "quota"
POLL_SECONDS = 0.2
GRACE_SECONDS = 120
"""Seconds that a cluster may take from its first signal to the requeue of a preempted job."""
PATIENCE_SECONDS = 60.0
"""Seconds that a job waits for an orphaned process to save its last checkpoint."""


def add_event(sweep: Path, kind: str, text: object) -> None:
    with (sweep / EVENTS).open("a", encoding="utf-8") as file:
        file.write(f"{kind} {text}\n")


def events(sweep: Path, kind: str) -> list[str]:
    """The texts of all events of a kind, in order."""
    try:
        lines = (sweep / EVENTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")]


def run_job(folder: Path, composed: DictConfig, overrides: Sequence[str], launcher: str) -> float:
    """Executes the folder of a job in a child process and updates the tables of the sweep.

    Args:
        folder: the job's folder, inside the sweep's folder.
        composed, overrides: the job's config as Hydra composed it, and its overrides.
        launcher: name of Hydra's launcher; all but `basic` run jobs in parallel, which log to
            run.log only.

    Returns:
        The best validation F1, the objective of an optimizing sweeper; 0 for an unfinished job.
    """
    sweep, parallel, logger = folder.parent, launcher != "basic", RunLogger()
    deadline = next(map(float, events(sweep, DEADLINE)), None)
    if deadline is not None and time.time() >= deadline:
        add_event(sweep, STOP, QUOTA)
    if events(sweep, STOP):
        return 0.0
    if not parallel:
        logger.console.rule(escape(folder.name), align="left", characters="-")
    try:
        config = composition.check(composed)
        with launch.locked(folder, PATIENCE_SECONDS):
            starts = launch.initialize_run_dir(config, folder, composed, overrides)
    except (UserError, OSError) as error:  # the remaining jobs still run
        sentence = f"{folder.name}: {composition.explain(error)}"
        logger.info(f"not run: {sentence}")
        add_event(sweep, REFUSED, sentence)
        return 0.0
    if starts:
        if parallel:
            logger.info(f"{folder.name}: started, {folder / store.LOG}")
        stopped_externally = execute_in_child(folder, deadline, quiet=parallel)
        if stopped_externally and launcher.startswith("submitit"):
            logger.info(f"{folder.name}: interrupted from outside the sweep: waiting "
                        f"{GRACE_SECONDS} s for the cluster to requeue or end this job")
            time.sleep(GRACE_SECONDS)  # a job that exits by itself would not be requeued
    run = reader.read_run(folder)
    done, score = run.state == "done", float(np.nan_to_num(reader.run_numbers(run)["best f1"]))
    outcome = (f"{'finished' if starts else 'finished before'}, best validation F1 {score:.4f}"
               if done else f"{run.state} {run.error or ''}".rstrip())
    logger.info(f"{folder.name}: {outcome}")
    try:
        write_tables(sweep)
    except OSError as error:  # on a full disk the remaining jobs still run
        logger.info(f"{sweep}: the tables cannot be written ({error.strerror})")
    if run.state == "failed" and config.on_failure == "stop":
        add_event(sweep, STOP, "failure")
    return score if done else 0.0


def execute_in_child(folder: Path, deadline: float | None, quiet: bool) -> bool:
    """Executes a folder, forwards stop requests, and records how the process ended.

    Returns:
        Whether a signal from outside the sweep stopped it cleanly.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, signal.SIG_IGN)  # the sweep forwards them
    # Imports this package, not another one in the working directory.
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        filter(None, (package, os.environ.get("PYTHONPATH"))))}
    environment.pop("HYDRA_FULL_ERROR", None)  # one sentence; status.json has the traceback
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "flowerexp", "resume", str(folder),
               "--parent", str(os.getpid()), "--trust-code"]  # as in the sweep's own command
    if deadline is not None:
        command += ["--deadline", str(deadline)]
    # In its own session it receives Ctrl-C once, from the sweep and not from the terminal.
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL if quiet else None, encoding="utf-8",
                          errors="backslashreplace") as process:
        try:
            stderr_text, stop_requested = wait(process, folder.parent)
        finally:
            if process.poll() is None:  # after an error here or in the launcher
                process.terminate()
    record_exit(folder, process.returncode, stderr_text.strip(), stop_requested)
    if process.returncode == launch.OUT_OF_TIME:
        add_event(folder.parent, STOP, QUOTA)
    return not stop_requested and process.returncode > 128


def wait(process: subprocess.Popen[str], sweep: Path) -> tuple[str, bool]:
    """Forwards stop requests to a process until it ends: its error stream, and were there any."""
    forwarded = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=POLL_SECONDS)[1], forwarded > 0
        # Each job enforces the deadline by itself.
        reasons = [reason for reason in events(sweep, STOP) if reason != QUOTA]
        for reason in reasons[forwarded:]:
            process.send_signal(signal.SIGINT if reason == str(int(signal.SIGINT))
                                else signal.SIGTERM)
        forwarded = len(reasons)


def record_exit(folder: Path, code: int, stderr_text: str, stop_requested: bool) -> None:
    """Records in a run's status and log how its process ended, if the process could not.

    Args:
        code: exit code, or minus the number of the signal that killed the process.
        stop_requested: whether the sweep asked it to stop.
    """
    last = stderr_text.splitlines()[-1] if stderr_text else "no message"
    if not (folder / store.CONFIG).exists():
        RunLogger().info(f"{folder.name}: {last}")
        return
    try:
        with launch.locked(folder):
            if RunStatus.load_or_new(folder).state not in ("new", "running"):
                return
            logger = RunLogger(folder)
            if stop_requested and (code < 0 or code > 128):
                logger.debug("interrupted before it could save")
                logger.record(state="interrupted", ended=now())
                return
            error = f"killed by {signal.Signals(-code).name}" if code < 0 else (
                f"{last} (exit code {code})")
            if code == -signal.SIGKILL:
                error += ", as the system does when memory runs out"
            logger.debug(f"failed: {error}\n{stderr_text}".strip())
            logger.record(state="failed", error=error, traceback=stderr_text or None, ended=now())
    except UserError:  # another process uses the folder now
        return
    except OSError as problem:
        RunLogger().info(f"{folder}: the status cannot be written ({problem.strerror})")


def write_tables(sweep: Path) -> None:
    """Writes comparison.csv and comparison.md for the current state of the sweep's runs."""
    from flowerexp.comparison import comparison, tables

    # Parallel jobs end at the same time; the last one sees all of them.
    with filelock.FileLock(sweep / ".tables.lock"):
        compared = comparison.compare([sweep])
        for name in ("csv", "md"):
            store.write_text(sweep / f"comparison.{name}", tables.FORMATS[name](compared))
