"""How the end of a job's process is recorded, with a shell script in place of its command."""

import signal
import sys
import threading

import pytest

from flowerexp.runs.status import RunStatus
from flowerexp.sweeps import jobs
from flowerexp.train import launch
from tests.folders import write_run

WAIT = (f"exec {sys.executable} -c 'import signal, sys, time; "
        "[signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in (2, 15)]; "
        "time.sleep(60)'")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Executes a job's folder by a script, and signals its sweep after a second.

    Returns the folder, whether something else stopped the job, and its status.
    """
    folder = write_run(tmp_path / "sweep/job", [], [0, 1], [[0, 1]], state="running")
    program = tmp_path / "python"
    monkeypatch.setattr("sys.executable", str(program))

    def execute(script, request=None):
        program.write_text(f"#!/bin/bash\nfolder={folder}\n{script}\n")
        program.chmod(0o755)
        if request is not None:
            threading.Timer(1, jobs.add_event, (folder.parent, jobs.STOP, int(request))).start()
        stopped_externally = jobs.execute_in_child(folder, None, quiet=True)
        return folder, stopped_externally, RunStatus.load_or_new(folder)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    yield execute
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("script", "error"), [
    ("kill -9 $$", "killed by SIGKILL, as the system does when memory runs out"),
    ("kill -SEGV $$", "killed by SIGSEGV"), ("exit 3", "no message (exit code 3)"),
    ("echo first >&2; echo 'flowerexp: last' >&2; exit 1", "flowerexp: last (exit code 1)"),
    (r"printf 'bytes \xff' >&2; exit 1", r"bytes \xff (exit code 1)"),
    ("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo much >&2; exit 1",
     "much (exit code 1)")])
def test_a_process_that_could_not_say_why_it_ended_has_failed(job, script, error):
    folder, stopped_externally, status = job(script)
    assert (stopped_externally, status.state, status.error) == (False, "failed", error)
    assert error in (folder / "run.log").read_text()


def test_what_the_process_recorded_itself_stays(job):
    script = "echo '{\"state\": \"failed\", \"error\": \"full\"}' > $folder/status.json; exit 1"
    assert job(script)[2] == RunStatus(state="failed", error="full")


@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_of_the_sweep_is_forwarded(job, request_):
    folder, stopped_externally, status = job(WAIT, request_)
    assert (stopped_externally, status.state) == (False, "interrupted")
    assert "interrupted before it could save" in (folder / "run.log").read_text()


def test_a_signal_from_outside_the_sweep_is_told_from_its_own(job):
    assert job("exit 143")[1]


def test_a_job_whose_folder_was_moved_is_named_and_no_folder_is_made(job, capsys):
    folder, *_ = job("mv $folder $folder.moved; echo 'flowerexp: it was moved' >&2; exit 1")
    assert "job: flowerexp: it was moved" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == ["job.moved"]


def test_a_folder_that_another_process_uses_is_left_alone(job, tmp_path):
    with launch.locked(tmp_path / "sweep/job"):
        assert job("exit 3")[2].state == "running"
