"""Sweeps as real processes: planned, refused, to the end, and on every launcher."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from flowerexp import composition
from flowerexp.cli import run
from flowerexp.sweeps import jobs, session
from tests import forked
from tests.folders import write_run
from tests.processes import (
    RUN,
    command,
    execute,
    read,
    rows_of,
    same_results,
)

OWN = ("--config-dir=my conf", "loss=mine", "loop.epochs=2", "callbacks=none")
TWO = ("-m", "sampling=original,class_weight", *OWN)
NAMES = ("sampling=class_weight+seed=0", "sampling=original+seed=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return with_own_loss(tmp_path_factory.mktemp("sweep place"))


def with_own_loss(folder):
    (folder / "my conf/loss").mkdir(parents=True)
    (folder / "my conf/loss/mine.yaml").write_text("defaults: [focal, _self_]\ngamma: 0.5\n")
    return folder


@pytest.fixture(scope="module")
def basic(place, tiny):
    """A sweep of two jobs that has ended well: (its folder, what it printed)."""
    done = tensorflow_in(*command(tiny, *TWO)[2:], folder=place)
    assert (done.returncode, done.stderr) == (0, "False\n")  # the parent imports no TensorFlow
    return place / "outputs/sampling", done.stdout


def tensorflow_in(*overrides, folder):
    """What a command printed, and whether its own process imported TensorFlow."""
    program = ("import os, runpy, sys\ndel sys.argv[0]\n"
               "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
               "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
               "finally:\n    print('tensorflow' in sys.modules, file=sys.stderr)\n")
    return subprocess.run([sys.executable, "-c", program, str(RUN), *overrides], cwd=folder,
                          text=True, capture_output=True, timeout=240)


@pytest.fixture
def refused(tiny, tmp_path, monkeypatch):
    """A command as a call of its function, which ends in the returned sentence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # the command sets it
    monkeypatch.setattr(sys, "argv", [str(RUN)])

    def sentence_of(*overrides):
        with pytest.raises(SystemExit) as ended:
            run.main(command(tiny, *overrides)[2:])
        return ended.value.code

    return sentence_of


# Names

@pytest.mark.parametrize(("overrides", "params", "name"), [
    (["experiment=original,perspective", "seed=1,2"], {}, "experiment+seed"),
    (["seed=1,2", "model=a,b", "loop.epochs=3"], {}, "model+seed"),
    (["loop.epochs=range(1,4)"], {}, "loop.epochs"),
    (["seed=3"], {}, "default"),
    (["seed=1,2"], {"experiment": "a,b"}, "experiment+seed"),
    (["experiment=a"], {"experiment": "a,b"}, "default")])
def test_a_sweep_is_named_by_the_keys_it_sweeps(overrides, params, name):
    assert composition.sweep_name(None, None, overrides, params) == name


def test_a_name_or_an_option_comes_before_the_swept_keys():
    assert composition.sweep_name("mine", "notebook", ["seed=1,2"], {}) == "mine"
    assert composition.sweep_name(None, "notebook", ["seed=1,2"], {}) == "notebook"


def test_a_job_is_named_by_what_the_sweep_does_not_share():
    job = ["sweep=notebook", "dataset=sample", "loop.epochs=2", "seed=3", "experiment=original"]
    assert composition.run_name(None, 3, job, ["dataset", "loop.epochs"]) == "original+seed=3"


@given(st.lists(st.sampled_from(["a", "b", "c.d"]), unique=True, min_size=1),
       st.integers(0, 9), st.data())
def test_jobs_that_differ_in_a_swept_value_differ_in_name(swept, seed, data):
    values = [data.draw(st.integers(0, 99)) for _ in swept]
    others = list(values)
    others[data.draw(st.integers(0, len(swept) - 1))] += 100
    one, other = ([f"{key}={value}" for key, value in zip(swept, each, strict=True)]
                  for each in (values, others))
    assert composition.run_name(None, seed, [*one, "shared=1"], ["shared"]) != \
        composition.run_name(None, seed, [*other, "shared=1"], ["shared"])


# Before the first job

def test_a_dry_run_prints_the_plan_of_all_eight_and_starts_nothing(tmp_path, tiny):
    done = forked.run([RUN, "sweep=notebook", "dataset=tfrecords", f"dataset.root={tiny}",
                       "model=small_cnn", "loop.epochs=3", "loop.batch_size_per_replica=1",
                       "dry_run=true"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "outputs/notebook, 8 jobs; swept: experiment" in done.stdout
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    # 40 images, of 24, 11 and 5; epochs, updates of an epoch and in all, images of an update
    assert lines["original+seed=0"] == ["3", "40", "120", "1", "new"]
    assert lines["accumulate_8_lr_x8+seed=0"] == ["3", "5", "15", "8", "new"]
    assert lines["oversample_100+seed=0"] == ["3", "37", "111", "8", "new"]  # 300 examples
    assert lines["oversample_300_fewer_epochs+seed=0"] == ["1", "112", "112", "8", "new"]
    assert len([line for line in lines if line.endswith("+seed=0")]) == 8
    assert list(tmp_path.rglob("status.json")) == []


def test_a_dry_run_plans_with_the_published_sizes_where_the_competition_is_not_here(tmp_path):
    if Path("/kaggle/input/tpu-getting-started").exists():
        pytest.skip("the competition is here")
    environment = {key: value for key, value in os.environ.items() if key != "FLOWERS_ROOT"}

    def execute_here(*overrides):
        return forked.run([RUN, "hardware=cpu", *overrides], tmp_path, environment)

    done = execute_here("sweep=notebook", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert ("planned with its published sizes: 12,753 training, 3,712 validation and 7,382 test "
            "images of 104 classes") in done.stdout
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert lines["original+seed=0"] == ["30", "797", "23910", "16", "new"]
    assert lines["accumulate_8_lr_x8+seed=0"] == ["30", "99", "2970", "128", "new"]
    # 31,682 examples where all but two classes are equal, 37,948 with 14 classes of 782
    assert lines["oversample_300+seed=0"] == ["30", "247-296", "7410-8880", "128", "new"]
    epochs, updates, total, *_ = lines["oversample_300_fewer_epochs+seed=0"]
    assert (epochs, updates, total[0]) == ("10-12", "247-296", "~")
    assert list(tmp_path.iterdir()) == []
    refused = execute_here("-m", "dataset=flowers_192", "seed=1,2")
    assert refused.returncode == 1
    assert "the competition's files" in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("overrides", "message"), [
    (["loop.epochs=1,0"], "loop.epochs must be at least 1, not 0"),
    (["sampling=original,class_weights"], "did you mean 'class_weight'?"),
    (["seed=1,1"], "two jobs of the sweep would be named default+seed=1"),
    (["name=a,b"], "name is a sweep-level option"),
    (["model=1,2"], "model=1 chooses no option"),
    (["seed=1,2", "hydra.sweep.subdir=a"], "hydra.sweep.subdir cannot be set"),
    (["loop.max_minutes=1,2"], "loop.max_minutes is a sweep-level option"),
    (["seed=1,2", "fresh=true"], "fresh=true is not supported in a sweep"),
    (["seed=1,2", "hardware=workers"], "hardware=workers is not supported in a sweep"),
    (["loop.batch_size_per_replica=8,64"],
     "loop.batch_size_per_replica=64+seed=0: an epoch of 40 examples makes no update of 64"),
    (["seed=1,2", "dataset.root=/nowhere"], "root /nowhere does not exist"),
    (["seed=1,2", "model=mobilenet", "model.weights=/nowhere.h5"], "/nowhere.h5 does not exist")])
def test_a_mistake_in_any_job_ends_the_sweep_before_the_first(tmp_path, refused, overrides,
                                                              message):
    sentence = refused("-m", *overrides)
    assert message in sentence
    assert "\n" not in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_our_own_in_the_callback_is_loud(capsys):
    """Hydra would warn and run the jobs unplanned."""
    with pytest.raises(SystemExit) as ended, session.sweep_session():
        session.Sweep().on_multirun_start(None)  # no config at all
    assert ended.value.code == 1
    assert "AttributeError" in capsys.readouterr().err


def test_a_request_to_stop_is_kept_after_the_reader_of_the_output_has_gone(tmp_path):
    terminal = os.dup(1)
    reader, writer = os.pipe()
    os.close(reader)
    with session.stop_on_signals(tmp_path):
        try:
            os.dup2(writer, 1)
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.dup2(terminal, 1)
    assert jobs.events(tmp_path, jobs.STOP) == [str(int(signal.SIGTERM))]


def test_events_are_read_by_kind_and_none_of_parallel_jobs_is_lost(tmp_path):
    assert jobs.events(tmp_path, jobs.STOP) == []
    jobs.add_event(tmp_path, jobs.DEADLINE, 12.5)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: jobs.add_event(tmp_path, jobs.REFUSED, f"{job}: stop it"),
                      range(200)))
    assert jobs.events(tmp_path, jobs.DEADLINE) == ["12.5"]
    assert sorted(jobs.events(tmp_path, jobs.REFUSED)) == sorted(
        f"{job}: stop it" for job in range(200))
    assert jobs.events(tmp_path, jobs.STOP) == []


def fail_in_the_midst(job, requests):
    with session.sweep_session():
        active = session.ACTIVE.get()
        write_run(job, ["experiment=original"], [0, 1], [[0, 1]], state="interrupted")
        active.folder, active.jobs = job.parent, (job,)
        for reason in requests:
            jobs.add_event(job.parent, jobs.STOP, reason)
        raise RuntimeError("a worker has gone")


@pytest.mark.parametrize(("requests", "code"), [
    ([], None), (["15"], 128 + 15), (["failure"], None)])
def test_an_exception_of_a_launcher_follows_the_table_unless_the_sweep_was_stopped(
        tmp_path, capsys, requests, code):
    with pytest.raises((SystemExit, RuntimeError)) as ended:
        fail_in_the_midst(tmp_path / "sweep/a+seed=0", requests)
    assert getattr(ended.value, "code", None) == code
    assert "1 of 1 jobs are not finished" in capsys.readouterr().out


def test_a_sweep_level_key_is_refused_in_a_single_run(refused):
    assert "on_failure is supported in a sweep only" in refused("on_failure=stop")


def test_a_sweep_and_a_run_cannot_share_a_folder(tmp_path, refused):
    for folder in ("single", "sweep/job"):
        (tmp_path / "outputs" / folder / ".hydra").mkdir(parents=True)
        (tmp_path / "outputs" / folder / ".hydra/config.yaml").write_text("seed: 0\n")
    assert "outputs/sweep contains the runs of a sweep" in refused("name=sweep")
    assert "outputs/single contains a single run" in refused("-m", "seed=1,2", "name=single")


# To the end

def test_a_sweep_leaves_folders_named_by_what_they_are_and_a_table(basic):
    folder, printed = basic
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == list(NAMES)
    assert {read(folder / name, "status.json")["state"] for name in NAMES} == {"done"}
    rows = rows_of(folder)
    assert len(rows) == 2
    table = printed[printed.index("\noutputs/sampling ---"):]
    for name in NAMES:
        last = read(folder / name, "history.json")["1"]
        assert f"{last['valid f1']:.3f}" in table
        assert any(float(row["last f1"]) == pytest.approx(last["valid f1"]) for row in rows)
    assert "class_weight" in (folder / "comparison.md").read_text()


def test_a_job_is_the_run_of_its_own_command(basic, place, tiny):
    single_process = execute(place, tiny, "sampling=class_weight", *OWN, "name=alone")
    assert single_process.returncode == 0, single_process.stderr
    same_results(basic[0] / NAMES[0], place / "outputs/alone")


def test_the_same_command_again_starts_nothing_even_without_checkpoints(basic, place, tiny,
                                                                        tmp_path):
    """Nor where the data were moved, nor with other keys that cannot change a number."""
    folder, _ = basic
    shutil.rmtree(folder / NAMES[1] / "checkpoints")
    before = {path: path.stat().st_mtime_ns for name in NAMES for path in (folder / name).iterdir()
              if path.name != ".lock"}
    moved = tmp_path / "moved"
    shutil.copytree(tiny, moved)
    again = execute(place, moved, *TWO, "dataset.cache=encoded", "loop.log_interval=1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before") == 2
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_config_or_other_data_are_refused_by_name_before_the_first_job(
        basic, place, tiny, tmp_path):
    changed = execute(place, tiny, *TWO, "loop.epochs=3")
    assert changed.returncode == 1
    assert "loop.epochs: 2 there, 3 here" in changed.stderr
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    sorted((other / "val").iterdir())[0].unlink()
    refused = execute(place, other, *TWO)
    assert refused.returncode == 1
    assert "(data: " in refused.stderr


def test_joblib_makes_the_same_folders_and_the_same_table(basic, tmp_path, tiny):
    """Its workers compose the jobs themselves; submitit_local: tests/proofs/sweeps.py."""
    done = execute(with_own_loss(tmp_path), tiny, *TWO, "hydra/launcher=joblib",
                   "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs/sampling"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == list(NAMES)
    for name in NAMES:
        same_results(basic[0] / name, folder / name)
    assert rows_of(folder) == rows_of(basic[0])


def test_a_config_directory_of_ones_own_reaches_the_plan_and_the_jobs(basic, place, tiny):
    config = yaml.safe_load((basic[0] / NAMES[0] / ".hydra/config.yaml").read_text())
    assert config["loss"]["gamma"] == 0.5
    wrong = execute(place, tiny, *TWO, "loss=mine,yours")
    assert wrong.returncode == 1
    assert "loss=yours does not exist: loss is one of cross_entropy, focal, " in wrong.stderr
    assert "mine" in wrong.stderr


def test_optuna_gets_the_best_validation_f1_and_a_trial_that_cannot_run_costs_no_other(
        tmp_path, tiny):
    done = execute(tmp_path, tiny, "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3",
                   "hydra.sweeper.n_jobs=1", "hydra/sweeper/sampler=grid",
                   "loop.epochs=choice(0,1,3)", "callbacks=none")
    assert done.returncode == 1
    assert "loop.epochs=0+seed=0: loop.epochs must be at least 1, not 0" in done.stdout
    folder = tmp_path / "outputs/loop.epochs"
    runs = [path.parent for path in folder.glob("*/status.json")]
    assert [read(run, "status.json")["state"] for run in runs] == ["done", "done"]
    best = max(row["valid f1"] for run in runs for row in read(run, "history.json").values())
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(best)


@pytest.mark.parametrize(("overrides", "direction"), [
    ([], "maximize"), (["hydra.sweeper.direction=minimize"], "minimize")])
def test_optuna_maximises_and_its_trials_follow_from_the_seed_unless_told_otherwise(
        overrides, direction):
    hydra = OmegaConf.create({"overrides": {"hydra": overrides},
                              "sweeper": {"direction": "minimize", "sampler": {"seed": None}}})
    session.apply_optuna_defaults(hydra, 7)
    assert (hydra.sweeper.direction, hydra.sweeper.sampler.seed) == (direction, 7)
