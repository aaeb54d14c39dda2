"""Whole runs: what they leave, and how they end (kills: proofs/faults.py).

As real processes where signals, the terminal or the environment matter, else in this process.
"""

import csv
import os
import shutil
import signal
import subprocess

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from flowerexp import composition
from flowerexp.data import headers, records, tfrecord
from flowerexp.data.features import Labels, ReadSpec
from flowerexp.errors import UserError
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.train import checkpoint, experiment, launch
from tests.processes import (
    begin,
    command,
    execute,
    history_of,
    read,
    same_results,
    train,
    wait_for_epochs,
)

INTERRUPTED = "loop.max_minutes=1e-9"


def execute_here(folder, root, *overrides):
    """The exit code of a run of 4 epochs of 10 updates in this process."""
    composition.register()
    words = ["dataset=tfrecords", f"dataset.root='{root}'", "hardware=cpu", "loop.epochs=4",
             "loop.batch_size_per_replica=4", "loop.eval_batch_size_per_replica=8",
             "callbacks=none", *overrides]
    return launch.execute(folder, composition.compose(words), words)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("work place")


@pytest.fixture(scope="module")
def whole(place, tiny):
    """An uninterrupted run: (its folder, what it printed)."""
    done = execute(place, tiny, "name=whole")
    assert done.returncode == 0, done.stderr
    return place / "outputs/whole", done.stdout


def test_a_run_leaves_every_file_with_its_keys(whole):
    run, _ = whole
    history = read(run, "history.json")
    assert list(history) == ["0", "1", "2", "3"]
    names = ("loss", "acc", "recall", "precision", "f1")
    keys = {f"{split} {name}" for split in ("train", "valid") for name in names}
    assert all(set(row) == keys | {"train timing"} for row in history.values())
    assert [len(ids) for ids in read(run, "valid_preds.json").values()] == [13] * 4
    assert (run / ".hydra/config.yaml").read_text().startswith("seed: 0")
    assert "- name=whole" in (run / ".hydra/overrides.yaml").read_text()
    status = read(run, "status.json")
    assert (status["state"], status["epochs_done"]) == ("done", 4)
    assert "CPU" in status["hardware"]
    right = np.array(read(run, "valid_preds.json")["3"]) == read(run, "valid_labels.json")
    pictures = {"history.png", "confusion.png", "classes.png",
                *(() if right.all() else ("mistakes.png",))}
    assert {path.name for path in run.glob("*.png")} == pictures
    assert ("mistakes.png is not drawn" in (run / "run.log").read_text()) == bool(right.all())
    for picture in pictures:
        assert tf.io.decode_png((run / picture).read_bytes()).shape[0] > 300
    events = [str(path) for path in run.glob("events.out.tfevents.*")]
    values = [value.tag for event in tf.compat.v1.train.summary_iterator(events[0])
              for value in event.summary.value]
    assert values.count("valid/f1") == 4


def test_its_numbers_are_those_of_scikit_learn(whole):
    run, _ = whole
    labels = read(run, "valid_labels.json")
    assert labels == [index % 3 for index in range(13)]
    for epoch, predictions in read(run, "valid_preds.json").items():
        row = read(run, "history.json")[epoch]
        macro = precision_recall_fscore_support(labels, predictions, average="macro",
                                                zero_division=0)
        assert row["valid acc"] == pytest.approx(accuracy_score(labels, predictions), abs=1e-12)
        for name, value in zip(("precision", "recall", "f1"), macro, strict=False):
            assert row[f"valid {name}"] == pytest.approx(value, abs=1e-12)
    probabilities = np.load(run / "valid_probs.npy")
    assert (probabilities.dtype, probabilities.shape) == (np.float16, (13, 3))
    last = read(run, "history.json")["3"]
    assert log_loss(labels, probabilities.astype(float)) == pytest.approx(last["valid loss"],
                                                                          rel=0.01)
    np.testing.assert_array_equal(probabilities.argmax(1), read(run, "valid_preds.json")["3"])


def test_its_predictions_are_of_the_saved_model_and_in_order(whole, tiny):
    run, _ = whole
    files = tfrecord.list_files(str(tiny / "test"))
    table = records.read(files, ReadSpec(16, Labels.ABSENT))
    pixels = np.stack([tf.io.decode_jpeg(image, dct_method="INTEGER_ACCURATE").numpy()
                       for image in table.images])
    model = tf.keras.models.load_model(run / "model.keras", compile=False)
    expected = model(pixels).numpy().argmax(1).tolist()
    assert read(run, "test_preds.json") == expected
    with (run / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["id", "label"], *([f"test{index}", str(label)]
                                       for index, label in enumerate(expected))]
    top = pd.read_csv(run / "predictions.csv", dtype={"class_name": str})
    assert top.split.tolist() == ["valid"] * 13 + ["test"] * len(expected)
    assert top.id.tolist() == [*read(run, "valid_ids.json"), *(row[0] for row in rows[1:])]
    names = read(run, "classes.json")["names"]
    assert top.class_name[top.split == "test"].tolist() == [names[label] for label in expected]
    stored = np.sort(np.load(run / "test_probs.npy").astype(float), -1)[:, ::-1]
    np.testing.assert_allclose(
        top[["probability", "top2_probability", "top3_probability"]][top.split == "test"], stored,
        rtol=1e-5)
    assert "top4_probability" not in top  # of three classes


def epochs_in(printed):
    return [line.split()[1] for line in printed.splitlines() if line.startswith("epoch ")]


def test_it_prints_first_what_it_derived_and_last_its_best_epoch(whole):
    run, printed = whole
    for sentence in ("CPU", "1 replica", "40 training and 13 validation images",
                     "every image once", "update: 4 images = 4 per replica x 1 replica x 1",
                     "10 updates per epoch, 4 epochs", "8 images a step",
                     "learning rate: 1e-05 in the first update, 0.001 at its greatest, 0.001 in",
                     "augmentation: none", "parameters", f"folder: {run}"):
        assert sentence in printed
    assert epochs_in(printed) == ["1", "2", "3", "4"]  # into a pipe, whatever loop.log_interval
    scores = [row["valid f1"] for row in read(run, "history.json").values()]
    best = scores.index(max(scores))
    assert f"best: epoch {best + 1}," in printed
    assert "epoch 3 of 4" in (run / "run.log").read_text()
    assert "oneDNN" not in (run / "run.log").read_text()


def test_a_terminal_gets_every_log_intervalth_epoch(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(RunLogger, "is_interactive", True)
    train(tmp_path / "run", tiny, "loop.log_interval=3", "callbacks=none")
    assert epochs_in(capsys.readouterr().out) == ["1", "3", "4"]


def test_rerun_it_says_that_it_is_finished_and_changes_nothing(whole, place, tiny):
    run, _ = whole
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
    again = execute(place, tiny, "name=whole")
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert "best: epoch" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_config_is_refused_and_fresh_starts_a_second_folder(whole, place, tiny):
    refused = execute(place, tiny, "name=whole", "loop.epochs=5", "seed=1")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "loop.epochs: 4 there, 5 here" in refused.stderr
    assert "seed: 0 there, 1 here" in refused.stderr
    fresh = execute(place, tiny, "name=whole", "fresh=true")
    assert fresh.returncode == 0, fresh.stderr
    same_results(whole[0], place / "outputs/whole.2")


def test_an_augmented_oversampled_run_repeats_exactly_whatever_the_cache(tiny, tmp_path, capsys):
    chosen = ("augmentation=[flip,perspective,cutmix]", "sampling=oversample",
              "sampling.target_count=12", "loop.gradient_accumulation_steps=2")
    for name, cache in (("one", "decoded"), ("two", "encoded")):
        assert execute_here(tmp_path / name, tiny, f"dataset.cache={cache}", *chosen) == 0
        printed = capsys.readouterr().out
        assert "Flip(horizontal=" in printed
        assert "Perspective(probability=0.35" in printed
        assert "make 48 examples" in printed
    same_results(tmp_path / "one", tmp_path / "two")


def test_a_run_that_is_stopped_at_the_end_of_an_epoch_has_that_epoch(place, tiny):
    """With a call an epoch, a signal can only be seen there."""
    long = ("name=stopped", "loop.epochs=5000", "loop.steps_per_execution=10", "callbacks=none")
    run, ended = place / "outputs/stopped", 0
    for _ in range(2):
        process = begin(place, tiny, *long)
        wait_for_epochs(run, ended + 2, process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT, errors
        assert "SIGINT: stopping after the current updates" in output
        ended = len(read(run, "history.json"))
        saved = sorted(path.name for path in (run / "checkpoints").iterdir())
        assert saved[-1] == f"update-{10 * ended:08d}"
        assert read(run, "status.json")["epochs_done"] == ended
        assert len(read(run, "valid_preds.json")) == ended
    assert "of 5000 epochs are done" in output


def test_four_replicas_and_the_best_epoch_predict_every_image_in_order(place, tiny):
    done = execute(place, tiny, "name=four", "hardware=cpu", "hardware.replicas=4",
                   "loop.batch_size_per_replica=1", "results.use=best", "callbacks=none")
    assert done.returncode == 0, done.stderr
    assert "4 replicas" in done.stdout
    run = place / "outputs/four"
    scores = [row["valid f1"] for row in read(run, "history.json").values()]
    best = str(scores.index(max(scores)))
    predictions = np.load(run / "valid_probs.npy").argmax(1).tolist()
    assert predictions == read(run, "valid_preds.json")[best]
    assert len(read(run, "test_preds.json")) == 7


def corrupt(tiny, tmp_path, split, change):
    """The data set with one image of a split changed by a function of its bytes."""
    root = tmp_path / "data"
    for name in ("train", "val", "test"):
        (root / name).mkdir(parents=True)
        for file in (tiny / name).iterdir():
            (root / name / file.name).write_bytes(file.read_bytes())
    path = sorted((root / split).iterdir())[1]
    kept = [tf.train.Example.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(path))]
    feature = kept[3].features.feature["image"].bytes_list
    feature.value[0] = change(feature.value[0])
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in kept:
            writer.write(example.SerializeToString())
    return root, path


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_a_broken_jpeg_is_named_whenever_it_is_decoded(tiny, tmp_path, cache):
    root, path = corrupt(tiny, tmp_path, "train", lambda image: image[:len(image) // 2])
    with pytest.raises(UserError) as refused:
        execute_here(tmp_path / "broken", root, f"dataset.cache={cache}")
    assert str(refused.value) == (
        f"{path}, record 3: {headers.BROKEN_IMAGE}")
    status = read(tmp_path / "broken", "status.json")
    assert status["state"] == "failed"
    assert "record 3" in status["error"]


@pytest.mark.parametrize(("overrides", "message"), [
    (["loop.batch_size_per_replica=64"], "an epoch of 40 examples makes no update of 64"),
    (["schedule.max_lr=1e30", "schedule.warmup=0"], "the loss is NaN or infinite from update"),
    (["augmentation=perspective", "dataset.root=TINIEST"], "needs images of 4 x 4 pixels"),
    (["hardware=gpu"], "TensorFlow finds no GPU"),
    (["model.weights=/nowhere.h5"], "/nowhere.h5 does not exist")])
def test_a_mistake_ends_in_one_sentence(tiny, tmp_path, overrides, message):
    if "hardware=gpu" in overrides and tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    if "dataset.root=TINIEST" in overrides:
        for split in ("train", "val"):
            (tmp_path / split).mkdir()
            images = [tf.io.encode_jpeg(np.zeros((3, 3, 3), np.uint8)).numpy()] * 8
            tfrecord.write(tmp_path / split / "00-3x3-8.tfrec", images, [0, 1] * 4, ["a"] * 8)
        overrides = [overrides[0], f"dataset.root={tmp_path}"]
    with pytest.raises(UserError) as refused:
        execute_here(tmp_path / "run", tiny, *overrides)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert read(tmp_path / "run", "status.json")["error"] == str(refused.value)


@pytest.mark.parametrize(("override", "message", "begun"), [
    ("dataset.root=/nowhere", "the data set's root /nowhere does not exist", True),
    ("hardware=workers", "hardware=workers needs TF_CONFIG", False)])
def test_the_command_prints_that_sentence_and_leaves_no_empty_folder(tiny, tmp_path, override,
                                                                     message, begun):
    environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
    done = execute(tmp_path, tiny, override, env=environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "outputs").exists() == begun


def test_a_traceback_is_shown_where_it_is_asked_for(tiny, tmp_path):
    done = execute(tmp_path, tiny, "dataset.root=/nowhere",
                   env={**os.environ, "HYDRA_FULL_ERROR": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("cache", ["decoded", "none"])
def test_a_run_resumes_in_the_middle_of_an_epoch(tiny, tmp_path, cache):
    """Stopped after update 7, with 6 an epoch and all that is random; in this process."""
    composition.register()
    config = composition.check(composition.compose([
        "dataset=tfrecords", f"dataset.root='{tiny}'", f"dataset.cache={cache}", "loop.epochs=3",
        "hardware=cpu", "model.dropout=0.5", "loop.batch_size_per_replica=4", "callbacks=none",
        "loop.gradient_accumulation_steps=2",
        "loop.steps_per_execution=1", "augmentation=[perspective,cutmix]",
        "sampling=oversample", "sampling.target_count=12"]))
    stops = iter([False] * 7 + [True])  # asked after each call, and once more after an epoch
    for name, stop in (("straight", lambda: False), ("resumed", lambda: next(stops)),
                       ("resumed", lambda: False)):
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        saved = checkpoint.saved_updates(run)
        finished = experiment.run(config, run, RunLogger(run), stop) == 0
        assert finished == (saved != [] or name == "straight")
    assert saved[-1] == 7
    assert "1 of 3 epochs and 1 of 6 updates are done" in (run / store.LOG).read_text()
    same_results(tmp_path / "straight", tmp_path / "resumed")


def test_rerunning_the_command_of_a_fresh_run_resumes_it(tiny, tmp_path):
    run, resumed = tmp_path / "again", tmp_path / "again.2"
    for folder in (run, resumed):
        assert not folder.exists()
        assert execute_here(run, tiny, "fresh=true", INTERRUPTED) == launch.OUT_OF_TIME
        assert checkpoint.saved_updates(folder)
    assert execute_here(run, tiny, "fresh=true") == 0
    assert f"resuming from {resumed}" in (resumed / store.LOG).read_text()
    assert not run.with_name("again.3").exists()


def test_a_chosen_folder_a_stream_a_summary_and_legacy_keras(tiny, tmp_path):
    words = command(tiny, f"hydra.run.dir={tmp_path}/my run", "dataset.cache=none",
                    "model.summary=true", "loop.epochs=2")
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "block1_conv" in done.stdout
    run = tmp_path / "my run"
    history = history_of(run)
    assert len(history) == 2
    assert np.load(run / "test_probs.npy").argmax(1).tolist() == read(run, "test_preds.json")
    assert history["1"]["train loss"] < history["0"]["train loss"]


def test_a_mistake_is_corrected_in_the_same_folder_even_one_with_brackets(tiny, tmp_path):
    """Whose started run neither other data nor another config may go on with."""
    root, run = shutil.copytree(tiny, tmp_path / "data"), tmp_path / "mend [it]"
    with pytest.raises(UserError, match="/nowhere does not exist"):
        execute_here(run, "/nowhere")
    assert execute_here(run, root, INTERRUPTED) == launch.OUT_OF_TIME
    extra = root / "train" / "02-16x16-20.tfrec"
    extra.write_bytes((root / "train" / "01-16x16-20.tfrec").read_bytes())
    with pytest.raises(UserError, match="belongs to another run") as refused:
        execute_here(run, root)
    assert "updates_per_epoch: 10 there, 15 here" in str(refused.value)
    extra.unlink()
    for epochs in (1, 5):
        with pytest.raises(UserError, match=rf"loop\.epochs: 4 there, {epochs} here"):
            execute_here(run, root, f"loop.epochs={epochs}")
    assert execute_here(run, root) == 0
    assert "resuming from" in (run / store.LOG).read_text()
