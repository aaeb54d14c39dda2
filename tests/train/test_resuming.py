"""Resuming in this process: checkpoints intact, damaged or of another run, patience, time limits.

That real processes survive is proved by tests/proofs/faults.py.
"""

import json
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from flowerexp import composition, identity, metrics
from flowerexp.errors import UserError
from flowerexp.runs import provenance, store
from flowerexp.runs.log import RunLogger
from flowerexp.train import callbacks, checkpoint, experiment, launch, preview
from tests.processes import history_of, read, same_results, weights_of

OTHER_DATA = identity.Fingerprint("content-0123456789abcdef", "0123456789abcdef")
CHOSEN = ("hardware=cpu", "loop.epochs=3", "loop.batch_size_per_replica=4",
          "loop.steps_per_execution=2", "schedule.max_lr=1e-3", "dataset.cache=encoded",
          "callbacks=early_stopping")


def config_of(tiny, *overrides):
    composition.register()
    return composition.check(composed_of(tiny, *overrides))


def composed_of(tiny, *overrides):
    return composition.compose(["dataset=tfrecords", f"dataset.root='{tiny}'", *CHOSEN, *overrides])


def run(config, folder, stop=lambda: False):
    folder.mkdir(exist_ok=True)
    return experiment.run(config, folder, RunLogger(folder), stop) == 0


def after(calls):
    """True from the call of this number on."""
    answers = iter([False] * calls)
    return lambda: next(answers, True)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An uninterrupted run of three epochs of ten updates."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(config_of(tiny), folder)
    return folder


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """A run that ended in its third epoch: checkpoints of updates 20 and 24, and of the best."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert not run(config_of(tiny), folder, after(13))  # of 5 calls an epoch and one after it
    assert checkpoint.saved_updates(folder)[-2:] == [20, 24]
    return folder


@pytest.fixture
def partial(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


# Checkpoints

def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def change(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def rewrite(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


DAMAGES = {
    "data truncated": lambda last: truncate(last / "state.data-00000-of-00001"),
    "data changed": lambda last: change(last / "state.data-00000-of-00001"),
    "data missing": lambda last: (last / "state.data-00000-of-00001").unlink(),
    "index truncated": lambda last: truncate(last / "state.index"),
    "index missing": lambda last: (last / "state.index").unlink(),
    "manifest missing": lambda last: (last / checkpoint.MANIFEST).unlink(),
    "manifest no JSON": lambda last: (last / checkpoint.MANIFEST).write_text("{"),
    "manifest too deep": lambda last: (last / checkpoint.MANIFEST).write_text("[" * 99999),
    "manifest a list": lambda last: (last / checkpoint.MANIFEST).write_text("[]"),
    "manifest of another": lambda last: rewrite(last / checkpoint.MANIFEST, update=10),
    "manifest without files": lambda last: rewrite(last / checkpoint.MANIFEST, files={}),
    "file a folder": lambda last: ((last / "state.index").unlink(),
                                   (last / "state.index").mkdir()),
    "empty": lambda last: [file.unlink() for file in last.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_without_tensorflow(partial, damage):
    assert checkpoint.find_damage(partial, 24) is None
    DAMAGES[damage](checkpoint.folder_of(partial, 24))
    assert checkpoint.find_damage(partial, 24)


def test_the_one_before_an_unreadable_checkpoint_is_used_and_logged(tiny, whole, partial):
    """Neither a damaged status nor what a kill left half written prevents it."""
    last, before = (checkpoint.folder_of(partial, update) for update in (24, 20))
    truncate(last / "state.data-00000-of-00001")
    half = last.with_name(".partial-half")
    half.mkdir()
    (partial / store.STATUS).write_text("{")
    asked = after(0)  # the first call of the loop, and the checkpoint of update 22
    assert not run(config_of(tiny), partial, asked)
    log = (partial / store.LOG).read_text()
    assert f"the checkpoint {last} cannot be read (state.data-00000-of-00001 is damaged)" in log
    assert f"resuming from {before}: 2 of 3 epochs are done" in log
    assert not last.exists()
    assert not half.exists()
    assert checkpoint.saved_updates(partial)[-2:] == [20, 22]
    assert run(config_of(tiny), partial)
    same_results(whole, partial)


def test_without_a_readable_checkpoint_all_are_named(tiny, partial):
    saved = checkpoint.saved_updates(partial)
    for update in saved:
        truncate(checkpoint.folder_of(partial, update) / "state.index")
    with pytest.raises(UserError, match="to train from the start") as refused:
        run(config_of(tiny), partial)
    assert all(checkpoint.folder_of(partial, update).name in str(refused.value)
               for update in saved)
    assert checkpoint.saved_updates(partial) == saved


@pytest.mark.parametrize(("overrides", "message"), [
    (["model.dropout=0.5"], "belongs to another run (model.dropout: 0.05 there, 0.5 here)"),
    (["seed=1"], "belongs to another run (seed: 0 there, 1 here)"),
    (["loop.patience=5"], "belongs to another run (loop.patience: None there, 5 here)")])
def test_a_checkpoint_of_another_config_is_refused_by_name(tiny, partial, overrides, message):
    then = read(checkpoint.folder_of(partial, 24), checkpoint.MANIFEST)["run"]
    now = identity.keys(identity.plain(config_of(tiny, *overrides)))
    with pytest.raises(UserError) as refused:
        checkpoint.restore(tf.train.Checkpoint(), partial, 24, then | now)
    assert message in str(refused.value)
    assert str(checkpoint.folder_of(partial, 24)) in str(refused.value)


def test_checkpoints_that_cannot_be_listed_are_an_error(tmp_path):
    """A restart would overwrite the history of the run; root may read every folder."""
    assert checkpoint.saved_updates(tmp_path) == []
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(NotADirectoryError):
        checkpoint.saved_updates(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_by_name(stopped):
    """As after an update of the package that builds the model."""
    manifest = read(checkpoint.folder_of(stopped, 24), checkpoint.MANIFEST)
    other = tf.train.Checkpoint(model=tf.keras.Sequential([tf.keras.Input((2,)),
                                                           tf.keras.layers.Dense(2)]))
    with pytest.raises(UserError, match="belongs to another model"):
        checkpoint.restore(other, stopped, 24, manifest["run"])


@pytest.mark.parametrize("name", [store.HISTORY, store.VALID_PREDICTIONS])
@pytest.mark.parametrize("text", [None, '{"0": ', '{"0": {}}', '{"0": {}, "1": {}}',
                                  '{"0": 5, "1": 5}', '{"0": [1], "1": [1]}'])
def test_missing_epochs_before_a_checkpoint_are_an_error_with_a_remedy(partial, name, text):
    """They are written before the checkpoint, so no kill can lose them."""
    (partial / name).unlink()
    if text is not None:
        (partial / name).write_text(text)
    with pytest.raises(UserError, match="rerun the command to train from the start") as refused:
        checkpointer_of(partial).completed_before(24, 13, 3)
    assert str(partial / name) in str(refused.value)
    assert "fresh" not in str(refused.value)


def test_a_status_with_damaged_provenance_blocks_nothing(tiny, partial):
    """It is valid JSON, and only a report: the manifests of the checkpoints hold the same."""
    store.write_config(partial, composed_of(tiny), [])
    store.write_json(partial / store.STATUS, {"state": "interrupted", "beginning": "x"})
    launch.check_same_run(config_of(tiny), partial, OTHER_DATA)
    with pytest.raises(UserError, match="contains a run with another config"):
        launch.check_same_run(config_of(tiny, "seed=1"), partial, OTHER_DATA)


def test_a_fresh_run_resumes_only_a_run_of_its_config_code_and_data(
        tiny, partial, tmp_path, monkeypatch):
    """The plan is made in this process and not in a child."""
    monkeypatch.setattr(preview, "exit_with_parent", lambda parent: None)
    monkeypatch.setattr(preview, "preview",
                        lambda configs: preview.preview_in_child(configs, False, False))
    store.write_config(partial, composed_of(tiny), [])
    second, third = shutil.copytree(partial, tmp_path / "run.2"), tmp_path / "run.3"
    other = shutil.copytree(tiny, tmp_path / "other data")
    file = next((other / "val").iterdir())
    shutil.copy(file, file.with_name(f"02{file.name[2:]}"))

    def folder(root, *overrides):
        return launch.fresh_folder(config_of(root, *overrides), partial)

    assert folder(tiny) == second
    assert folder(tiny, "seed=1") == third
    assert folder(other) == third
    monkeypatch.setattr(launch.identity, "sources", lambda config: {"source of loss (my.L)": "1"})
    assert folder(tiny) == third
    shutil.rmtree(second / "checkpoints")
    (second / store.HISTORY).unlink()
    assert folder(tiny) == second, "nothing is lost where nothing was trained"


def test_a_finished_run_is_compared_once(copied, tiny, tmp_path, monkeypatch):
    """Its sources are hashed once, and its data are read once."""
    composed, calls = OmegaConf.create(store.read_plain(copied)), []
    composed.dataset.root = str(shutil.copytree(tiny, tmp_path / "moved data"))
    monkeypatch.setattr(launch.identity, "sources", lambda config: calls.append("sources") or {})
    monkeypatch.setattr(preview, "preview", lambda configs: calls.append("data") or {
        copied.name: preview.Preview((), identity.Fingerprint(
            read(copied, store.STATUS)["provenance"]["data"], ""), (), 16)})
    assert launch.execute(copied, composed, []) == 0
    assert calls == ["data", "sources"]


def checkpointer_of(folder, minutes=None):
    """With as much of a trainer as these tests need: ten updates an epoch, one worker."""
    return checkpoint.Checkpointer(folder, RunLogger(folder), SimpleNamespace(
        plan=SimpleNamespace(updates_per_epoch=10), greatest=float), {}, minutes)


def test_an_unreadable_best_epoch_is_named_when_it_is_needed_to_predict(partial):
    truncate(checkpoint.folder_of(partial, 20) / "state.index")
    with pytest.raises(UserError, match="of the best epoch, 2, cannot be read"):
        checkpointer_of(partial).load_epoch(1)


def test_checkpoints_inside_an_epoch_calls_cache_and_threads_change_no_number(
        tiny, whole, tmp_path, monkeypatch):
    saved, states, folder = [], [], tmp_path / "run"
    monkeypatch.setattr(tf.data, "AUTOTUNE", 3)  # of every map that decodes
    plain = checkpoint.Checkpointer.save

    def save(self, history):
        plain(self, history)
        saved.append(checkpoint.saved_updates(folder))

    monkeypatch.setattr(checkpoint.Checkpointer, "save", save)
    monkeypatch.setattr(callbacks.Figures, "on_train_end", lambda self, state: states.append(state))
    assert run(config_of(tiny, "loop.checkpoint_minutes=1e-9", "loop.steps_per_execution=5",
                         "dataset.cache=decoded", "callbacks=figures"), folder)
    assert [each[-1] for each in saved] == list(range(5, 31, 5)), "after every call, once an epoch"
    assert max(map(len, saved)) <= 3
    same_results(whole, folder)
    stored = np.load(folder / store.VALID_PROBABILITIES)
    np.testing.assert_array_equal(states[0].probabilities.astype(np.float16), stored)


def test_a_checkpoint_is_due_by_the_clock_alone(tmp_path, monkeypatch):
    never, hourly = checkpointer_of(tmp_path), checkpointer_of(tmp_path, 60)
    assert not hourly.is_due()
    later = time.monotonic() + 3601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert hourly.is_due()
    assert not never.is_due()


# Stopping

def scores(*values):
    return [{"valid f1": value} for value in values]


@pytest.mark.parametrize(("history", "patience", "over"), [
    ([], 1, False), ([0.5], 1, False), ([0.5, 0.5], 1, True), ([0.5, 0.6], 1, False),
    ([0.5, 0.4, 0.45], 2, True), ([0.5, 0.4, 0.45], 3, False), ([0.5, 0.4, 0.6, 0.6], 2, False),
    ([None, None, None], 2, True), ([0.5] * 9, None, False)])
def test_patience_counts_epochs_since_the_best(history, patience, over):
    assert metrics.should_stop_early(scores(*history), patience) == over


def test_a_run_stops_early_and_says_so_and_a_resumed_one_stops_there_too(tiny, tmp_path):
    # F1 does not move at this rate.
    chosen = ("loop.patience=2", "schedule.max_lr=1e-9", "loop.epochs=9", "loop.log_interval=9")
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    composed = composed_of(tiny, *chosen)
    assert launch.execute(straight, composed, chosen) == 0
    status = read(straight, store.STATUS)
    assert (status["state"], status["epochs_done"], status["epochs"]) == ("done", 3, 9)
    early = "stopped early after epoch 3 of 9: validation F1 has not risen for 2 epochs"
    assert early in launch.summary(straight)
    log = (straight / store.LOG).read_text()
    assert early in log
    assert "epoch 3 of 9: train" in log
    config = config_of(tiny, *chosen)
    assert not run(config, resumed, after(9))
    # As after a kill between the last checkpoint and the predictions.
    assert run(config, resumed)
    same_results(straight, resumed)


def test_the_minutes_of_a_run_end_it_in_order_and_it_resumes(tiny, whole, tmp_path, capsys):
    folder = tmp_path / "run"
    for quota in (["loop.max_minutes=1e-9"], []):
        code = launch.execute(folder, composed_of(tiny, *quota), quota)
        state = read(folder, store.STATUS)["state"]
        assert (code, state) == ((launch.OUT_OF_TIME, "interrupted") if quota else (0, "done"))
    status = read(folder, store.STATUS)
    assert {"python", "tensorflow", "keras", "numpy", "flowerexp"} <= set(status["versions"])
    assert status.get("git") == provenance.commit()
    assert status["provenance"]["data"].startswith(identity.CONTENT)
    assert "interrupted by loop.max_minutes=1e-09; rerun the command to resume" in (
        folder / store.LOG).read_text()
    assert "resuming from" in capsys.readouterr().out
    same_results(whole, folder)


def test_the_time_is_the_sooner_of_the_runs_own_and_the_sweeps():
    assert not launch.StopRequest()()
    assert not launch.StopRequest(1)()
    assert not launch.StopRequest(1, time.time() + 60)()
    assert launch.StopRequest(1, time.time() - 1)()
    assert launch.StopRequest(1e-9, time.time() + 60)()
    stopped = launch.StopRequest()
    stopped.handle_signal(signal.SIGTERM, None)
    assert stopped()


# What a run is made with, and what repeats

def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder,
                   check=True, capture_output=True)


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    assert provenance.commit(tmp_path) is None
    git(tmp_path, "init")
    assert set(provenance.commit(tmp_path)) == {"error"}, "there is no commit yet"
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    found = provenance.commit(tmp_path)
    assert len(found["commit"]) == 40
    assert not found["changed"]
    (tmp_path / "file").write_text("2")
    assert provenance.commit(tmp_path) == {**found, "changed": True}
    (tmp_path / "inside").mkdir()
    assert provenance.commit(tmp_path / "inside") is None
    monkeypatch.setenv("PATH", "")
    assert "git" in provenance.commit(tmp_path)["error"]


def test_the_seed_changes_the_numbers_and_nothing_else(tiny, whole, tmp_path):
    """Order and weights here; augmentation in test_base, dropout in test_trainer."""
    folder = tmp_path / "other"
    assert run(config_of(tiny, "seed=1"), folder)
    assert history_of(folder) != history_of(whole)
    for name in (store.VALID_LABELS, store.CLASSES):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    ids = [(each / store.SUBMISSION).read_text().split("\n") for each in (folder, whole)]
    assert [line.split(",")[0] for line in ids[0]] == [line.split(",")[0] for line in ids[1]]
    assert read(folder, store.STATUS)["provenance"] == read(whole, store.STATUS)["provenance"]
    assert any((one != other).any() for one, other in zip(weights_of(folder), weights_of(whole),
                                                          strict=True))


def test_the_first_weights_are_a_function_of_the_seed(tiny):
    from flowerexp.models import build

    def first(seed):
        options = config_of(tiny).model
        return build.build(options, 16, 3, "float32", seed).get_weights()

    one, same, other = first(0), first(0), first(1)
    assert all((left == right).all() for left, right in zip(one, same, strict=True))
    assert any((left != right).any() for left, right in zip(one, other, strict=True))
    assert [weight.shape for weight in one] == [weight.shape for weight in other]
    assert np.isfinite(one[0]).all()
