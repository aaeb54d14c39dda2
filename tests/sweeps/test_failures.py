"""Sweeps whose jobs fail or are stopped; those that are killed: tests/proofs/sweeps.py."""

import json
import os
import signal
from pathlib import Path

from flowerexp.train import launch
from tests import forked
from tests.processes import begin, execute, read, wait_for_epochs


def test_a_job_that_raises_is_marked_and_the_next_one_starts(tmp_path, tiny):
    words = ("-m", "schedule.max_lr=1e30,1e-3", "schedule.warmup=0", "loop.epochs=1",
             "callbacks=none")
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


def test_a_quota_ends_the_sweep_as_a_whole_and_the_same_command_resumes_it(tmp_path, tiny):
    words = ("-m", "seed=1,2", "loop.epochs=5000", "name=quota")
    done = execute(tmp_path, tiny, *words, "loop.max_minutes=0.2")
    assert done.returncode == launch.OUT_OF_TIME, done.stderr
    runs = [tmp_path / f"outputs/quota/default+seed={seed}" for seed in (1, 2)]
    assert "interrupted by loop.max_minutes" in done.stdout
    (untouched,) = [line for line in done.stdout.splitlines() if line.startswith("not started: ")]
    assert runs[1].name in untouched
    assert not (runs[0].parent / ".sweep").exists()
    if runs[0].name not in untouched:  # a busy machine may take the quota for the plan
        assert read(runs[0], "status.json")["state"] == "interrupted"
        assert "interrupted by loop.max_minutes=0.2" in (runs[0] / "run.log").read_text()
    plan = execute(tmp_path, tiny, *words, "loop.max_minutes=99", "dry_run=true")
    assert plan.returncode == 0, plan.stderr  # another quota is no other run


def test_a_folder_resumes_by_itself_from_anywhere(tmp_path, tiny):
    (tmp_path / "data").symlink_to(tiny)
    words = ("dataset.root=data", "loop.epochs=5000", "loop.steps_per_execution=1", "name=moved")
    run = tmp_path / "outputs/moved"
    process = begin(tmp_path, tiny, *words)
    wait_for_epochs(run, 2, process)  # so that the first has its checkpoint
    other_place = tmp_path / "another place"
    other_place.mkdir()
    moved = run.rename(other_place / "run folder")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == (f"flowerexp: {run} was moved or removed while its run was writing to it: "
                      "resume it where it is now: python -m flowerexp resume FOLDER\n")
    assert not run.exists()
    resumed = forked.Command(["-m", "flowerexp", "resume", "run folder"], other_place)
    wait_for_epochs(moved, len(read(moved, "history.json")) + 1, resumed)
    resumed.terminate()
    output, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 128 + signal.SIGTERM
    assert "resuming from" in output
    nothing = forked.run(["-m", "flowerexp", "resume", other_place], tmp_path)
    assert nothing.returncode == 1
    assert "is not a run folder" in nothing.stderr
    assert Path(json.loads((moved / "status.json").read_text())["working_directory"]) == tmp_path


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
    slurm, sentence = done.stderr.splitlines()
    assert slurm == "full"  # of sbatch itself
    assert sentence.startswith("flowerexp: the launcher could not run its jobs (full)")
    assert "not started: default+seed=1, default+seed=2" in done.stdout
    asked = {line.removeprefix("#SBATCH --") for line in
             (tmp_path / "script").read_text().splitlines() if line.startswith("#SBATCH")}
    assert asked >= {"partition=flowers", "mem=7GB", "time=240", "signal=USR2@120", "nodes=1",
                     "cpus-per-task=4", "gpus-per-node=1", "array=0-1%2", "open-mode=append"}
    without = execute(tmp_path, tiny, *words, env={**os.environ, "PATH": "/usr/bin:/bin"})
    assert "srun not found" in without.stderr
