"""Sweeps whose jobs fail, are killed or are stopped, as real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowerexp import execution
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


def test_a_job_that_raises_is_marked_and_the_next_one_starts(tmp_path, tiny):
    words = ("-m", "schedule.max_lr=1e30,1e-3", "schedule.warmup=0", "loop.epochs=1")
    done = execute(tmp_path, tiny, *words)
    assert done.returncode == 1
    folder = tmp_path / "outputs/schedule.max_lr"
    failed, good = folder / "schedule.max_lr=1e+30+seed=0", folder / "schedule.max_lr=0.001+seed=0"
    status = read(failed, "status.json")
    assert status["state"] == "failed"
    assert "the loss is NaN or infinite" in status["error"]
    assert "Traceback" in status["traceback"]
    assert "Traceback" in (failed / "run.log").read_text()
    assert read(good, "status.json")["state"] == "done"
    assert f"python -m flowerexp resume {failed.relative_to(tmp_path)}" in done.stdout
    assert "failed" in (folder / "comparison.md").read_text()
    stopped = execute(tmp_path, tiny, *words, "on_failure=stop", "name=stopped")
    assert stopped.returncode == 1
    assert [path.name for path in (tmp_path / "outputs/stopped").iterdir() if path.is_dir()] == [
        failed.name]
    assert f"not started: {good.name}" in stopped.stdout


def test_killed_and_interrupted_jobs_go_on_to_their_end(tmp_path, tiny):
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
    copy = execute(tmp_path, tiny, *words)
    assert copy.returncode == 1
    assert "outputs/long is in use by another process" in copy.stderr
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert read(second, "status.json")["state"] == "interrupted"
    assert "2 of 2 jobs are not finished" in output
    assert len(rows_of(first.parent)) == 1
    again = begin(tmp_path, tiny, *words)
    wait_for_epochs(first, len(read(first, "history.json")) + 1, again)
    again.kill()  # the sweep itself: its job notices, and saves
    again.communicate()
    wait_for(lambda: read(first, "status.json")["state"] == "interrupted", 30)
    last = execute(tmp_path, tiny, *words)
    assert last.returncode == 0, last.stderr
    assert [len(read(run, "history.json")) for run in (first, second)] == [16, 16]
    assert history_of(second) != history_of(first)


def test_a_quota_ends_the_sweep_as_a_whole_and_the_same_command_goes_on(tmp_path, tiny):
    words = ("-m", "seed=1,2", "loop.epochs=5000", "name=quota")
    done = execute(tmp_path, tiny, *words, "loop.max_minutes=0.4")
    assert done.returncode == execution.OUT_OF_TIME, done.stderr
    runs = [tmp_path / f"outputs/quota/default+seed={seed}" for seed in (1, 2)]
    assert "interrupted by loop.max_minutes" in done.stdout
    (untouched,) = [line for line in done.stdout.splitlines() if line.startswith("not started: ")]
    assert runs[1].name in untouched
    assert not (runs[0].parent / ".deadline").exists()
    if runs[0].name not in untouched:  # a busy machine may take the quota for the plan
        assert read(runs[0], "status.json")["state"] == "interrupted"
        assert "interrupted by loop.max_minutes=0.4" in (runs[0] / "run.log").read_text()
    plan = execute(tmp_path, tiny, *words, "loop.max_minutes=99", "dry_run=true")
    assert plan.returncode == 0, plan.stderr  # another quota is no other run


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
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGINT, errors
    for run in runs:
        assert read(run, "status.json")["state"] == "interrupted"
        assert list((run / "checkpoints").iterdir())
    assert "interrupted at epoch" in output
    if untouched:
        assert not (runs[0].parent / untouched / "status.json").exists()
        assert f"not started: {untouched}" in output


def test_a_folder_goes_on_by_itself_from_anywhere(tmp_path, tiny):
    (tmp_path / "data").symlink_to(tiny)
    words = ("dataset.root=data", "loop.epochs=5000", "loop.steps_per_execution=1", "name=moved")
    run = tmp_path / "outputs/moved"
    process = begin(tmp_path, tiny, *words)
    wait_for_epochs(run, 1, process)
    process.terminate()
    process.communicate()
    elsewhere = tmp_path / "another place"
    elsewhere.mkdir()
    moved = run.rename(elsewhere / "run folder")
    going_on = subprocess.Popen([sys.executable, "-m", "flowerexp", "resume", "run folder"],
                                cwd=elsewhere, stdout=subprocess.PIPE, text=True)
    wait_for_epochs(moved, len(read(moved, "history.json")) + 1, going_on)
    going_on.terminate()
    output, _ = going_on.communicate(timeout=60)
    assert going_on.returncode == 128 + signal.SIGTERM
    assert "going on from" in output
    nothing = subprocess.run([sys.executable, "-m", "flowerexp", "resume", str(elsewhere)],
                             capture_output=True, text=True, check=False)
    assert nothing.returncode == 1
    assert "is no run folder" in nothing.stderr
    assert Path(json.loads((moved / "status.json").read_text())["working_directory"]) == tmp_path


def test_a_preempted_job_is_requeued_and_ends_as_if_nothing_had_happened(tmp_path, tiny):
    """Slurm tells a job by SIGUSR2, or by SIGTERM first; submitit's local executor stands in."""
    words = ("-m", "loop.log_interval=5,6,7", "loop.epochs=40", "loop.steps_per_execution=1",
             "hydra/launcher=submitit_local", "name=queue")
    whole, told, preempted = (tmp_path / f"outputs/queue/loop.log_interval={number}+seed=0"
                              for number in (5, 6, 7))
    process = begin(tmp_path, tiny, *words)
    for job, first in ((told, signal.SIGUSR2), (preempted, signal.SIGTERM)):
        wait_for_epochs(job, 2, process)
        pid = read(job, "status.json")["pid"]
        worker = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(pid, first)
        if first == signal.SIGTERM:
            wait_for(lambda: read(preempted, "status.json")["state"] == "interrupted")
        os.kill(worker, signal.SIGUSR2)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    for job in (told, preempted):
        assert "going on from" in (job / "run.log").read_text()
        same_results(whole, job)
    assert "going on from" not in (whole / "run.log").read_text()


def test_slurm_is_asked_for_what_its_options_say(tmp_path, tiny):
    """Up to sbatch, which here only keeps the script that it was given."""
    tools = tmp_path / "tools"
    tools.mkdir()
    keep = f'cp "$1" {tmp_path}/script; echo full >&2; exit 1'
    for name, text in (("srun", ""), ("sbatch", keep)):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    words = ("-m", "seed=1,2", "hydra/launcher=submitit_slurm", "name=slurm",
             "hydra.launcher.partition=flowers", "hydra.launcher.mem_gb=7")
    done = execute(tmp_path, tiny, *words,
                   env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
    assert done.returncode == 1
    said, sentence = done.stderr.splitlines()
    assert said == "full"  # of sbatch itself
    assert sentence.startswith("flowerexp: the launcher could not run its jobs (full)")
    assert "not started: default+seed=1, default+seed=2" in done.stdout
    asked = {line.removeprefix("#SBATCH --") for line in
             (tmp_path / "script").read_text().splitlines() if line.startswith("#SBATCH")}
    assert asked >= {"partition=flowers", "mem=7GB", "time=240", "signal=USR2@120", "nodes=1",
                     "cpus-per-task=4", "gpus-per-node=1", "array=0-1%2", "open-mode=append"}
    elsewhere = execute(tmp_path, tiny, *words, env={**os.environ, "PATH": "/usr/bin:/bin"})
    assert "there is no srun here" in elsewhere.stderr
