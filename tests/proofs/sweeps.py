"""Proof: jobs of a sweep that are killed, stopped or preempted resume and finish.

Run it from the checkout: python tests/proofs/sweeps.py. Real sweeps, by Hydra's basic launcher,
joblib and submitit_local, and real signals to jobs, launchers and sweeps. pytest runs it, two tests
at a time; two minutes on two quiet cores.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.processes import (
    begin,
    command,
    execute,
    history_of,
    read,
    rows_of,
    same_results,
    wait_for,
    wait_for_epochs,
)


def test_killed_and_interrupted_jobs_resume_and_finish(tmp_path, tiny):
    words = ("-m", "seed=1,2", "loop.epochs=16", "loop.steps_per_execution=1", "name=long")
    first, second = (tmp_path / f"outputs/long/default+seed={seed}" for seed in (1, 2))
    process = begin(tmp_path, tiny, *words)
    wait_for_epochs(first, 2, process)
    os.kill(read(first, "status.json")["pid"], signal.SIGKILL)
    wait_for_epochs(second, 2, process)
    status = read(first, "status.json")
    assert status["state"] == "failed"
    assert "killed by SIGKILL" in status["error"]
    assert "killed by SIGKILL" in (first / "run.log").read_text()
    job = read(second, "status.json")["pid"]
    os.kill(job, signal.SIGSTOP)  # on a busy machine it would end before the copy has started
    copy = execute(tmp_path, tiny, *words)
    os.kill(job, signal.SIGCONT)
    assert copy.returncode == 1
    assert "outputs/long is in use by another process" in copy.stderr
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert read(second, "status.json")["state"] == "interrupted"
    assert "2 of 2 jobs are not finished" in output
    assert len(rows_of(first.parent)) == 1
    again = begin(tmp_path, tiny, *words)
    wait_for_epochs(first, len(read(first, "history.json")) + 1, again)
    again.kill()  # the sweep itself: its job notices, and saves
    again.communicate()
    wait_for(lambda: read(first, "status.json")["state"] == "interrupted", 120)
    last = execute(tmp_path, tiny, *words)
    assert last.returncode == 0, last.stderr
    assert [len(read(run, "history.json")) for run in (first, second)] == [16, 16]
    assert history_of(second) != history_of(first)


@pytest.mark.parametrize(("launcher", "seeds", "untouched"), [
    (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), "1,2,3", "default+seed=3"),
    (("hydra/launcher=submitit_local",), "1,2", None)])
def test_ctrl_c_ends_a_parallel_sweep_in_order(tmp_path, tiny, launcher, seeds, untouched):
    """The signal reaches the launcher's workers too, as from a terminal."""
    words = ("-m", f"seed={seeds}", "loop.epochs=5000", "loop.steps_per_execution=1", *launcher,
             "name=parallel")
    runs = [tmp_path / f"outputs/parallel/default+seed={seed}" for seed in (1, 2)]
    process = subprocess.Popen(command(tiny, *words), cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    for run in runs:
        wait_for_epochs(run, 1, process)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGINT, errors
    for run in runs:
        assert read(run, "status.json")["state"] == "interrupted"
        assert list((run / "checkpoints").iterdir())
    assert "interrupted at epoch" in output
    if untouched:
        assert not (runs[0].parent / untouched / "status.json").exists()
        assert f"not started: {untouched}" in output


def test_a_preempted_job_is_requeued_and_ends_with_the_same_results(tmp_path, tiny):
    """Slurm tells a job by SIGUSR2, or by SIGTERM first; submitit's local executor stands in."""
    words = ("-m", "loop.log_interval=5,6,7", "loop.epochs=40", "loop.steps_per_execution=1",
             "hydra/launcher=submitit_local", "name=queue")
    whole, warned, preempted = (tmp_path / f"outputs/queue/loop.log_interval={number}+seed=0"
                              for number in (5, 6, 7))
    process = begin(tmp_path, tiny, *words)
    for job, first in ((warned, signal.SIGUSR2), (preempted, signal.SIGTERM)):
        wait_for_epochs(job, 2, process)
        pid = read(job, "status.json")["pid"]
        worker = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(pid, first)
        if first == signal.SIGTERM:
            wait_for(lambda: read(preempted, "status.json")["state"] == "interrupted")
        os.kill(worker, signal.SIGUSR2)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    for job in (warned, preempted):
        assert "resuming from" in (job / "run.log").read_text()
        same_results(whole, job)
    assert "resuming from" not in (whole / "run.log").read_text()
    alone = execute(tmp_path, tiny, "loop.epochs=40", "loop.steps_per_execution=1", "name=alone")
    assert alone.returncode == 0, alone.stderr
    same_results(whole, tmp_path / "outputs/alone")
    assert sorted(path.name for path in whole.parent.iterdir() if path.is_dir()) == [
        ".submitit", whole.name, warned.name, preempted.name]
    last = read(whole, "history.json")["39"]["valid f1"]
    scores = [float(row["last f1"]) for row in rows_of(whole.parent)]
    assert scores == [pytest.approx(last)] * max(1, len(scores))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "--dist", "load", "--timeout", "1200", *sys.argv[1:]]))
