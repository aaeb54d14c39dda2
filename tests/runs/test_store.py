"""A run's files: whole or not at all, strict JSON, and what is read back."""

import csv
import json
import math
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from hydra import compose, initialize_config_dir

from flowerexp import composition, identity, metrics
from flowerexp.errors import UserError
from flowerexp.runs import store

ROOT = Path(__file__).parents[2]


def row(f1, loss=1.0):
    scores = {f"{split} {name}": 0.5 for split in ("train", "valid")
              for name in ("loss", "acc", "recall", "precision", "f1")}
    return scores | {"valid f1": f1, "train loss": loss, "train timing": 12.5}


# Whole or not at all

def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("value", [{"a": object()}, [1, {2}], {"loss": float("nan")},
                                   [float("inf")]], ids=["object", "set", "nan", "infinity"])
def test_value_that_is_no_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "history.json"
    store.write_json(path, {"old": 1})
    with pytest.raises((TypeError, ValueError)):
        store.write_json(path, value)
    assert json.loads(path.read_text()) == {"old": 1}
    assert names(tmp_path) == ["history.json"]


def test_failure_in_the_middle_of_a_file_leaves_the_old_one(tmp_path):
    def predictions():
        yield from [1, 2]
        raise RuntimeError("interrupted")

    store.write_submission(tmp_path, ["a"], [7])
    before = (tmp_path / "submission.csv").read_bytes()
    with pytest.raises(RuntimeError, match="interrupted"):
        store.write_submission(tmp_path, ["a", "b", "c"], predictions())
    assert (tmp_path / "submission.csv").read_bytes() == before
    assert names(tmp_path) == ["submission.csv"]


def test_more_ids_than_predictions_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        store.write_submission(tmp_path, ["a", "b"], [1])
    assert names(tmp_path) == []


def test_reader_of_the_old_file_sees_no_half_of_the_new_one(tmp_path):
    path = tmp_path / "status.json"
    store.write_json(path, {"epochs_done": 1})
    with path.open() as old:
        store.write_json(path, {"epochs_done": 2, "host": "a"})
        assert json.loads(old.read()) == {"epochs_done": 1}
    assert store.read_json(path) == {"epochs_done": 2, "host": "a"}


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from flowerexp.runs import store
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda: store.write_json(folder / "a.json", list(range(5000))),
              lambda: store.write_array(folder / "b.npy", np.zeros(5000)),
              lambda: store.write_submission(folder, ["x" * 50] * 5000, range(5000))):
    try:
        write()
    except OSError:
        print("refused")
print("tensorflow" in sys.modules)
"""


def test_disk_that_takes_no_more_leaves_the_old_files(tmp_path):
    folder = tmp_path / "run"
    store.write_json(folder / "a.json", [1])
    store.write_array(folder / "b.npy", np.arange(3))
    store.write_submission(folder, ["a"], [7])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, folder], cwd=ROOT, check=True,
                           capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["refused"] * 3 + ["False"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_temporary_path_has_the_suffix_of_its_file(tmp_path):
    # Keras chooses the format of a model by it.
    with store.atomic_write(tmp_path / "new" / "model.keras") as partial:
        assert partial.suffix == ".keras"
        assert partial.parent == tmp_path / "new"
        partial.write_text("weights")
        assert not (tmp_path / "new/model.keras").exists()
    assert names(tmp_path / "new") == ["model.keras"]


# Every kind of path that a user can name

def test_the_file_behind_a_symbolic_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("disk/real.csv")
    (tmp_path / "second.csv").symlink_to(tmp_path / "link.csv")
    store.write_text(tmp_path / "second.csv", "new")
    assert (tmp_path / "second.csv").is_symlink()
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "disk/real.csv").read_text() == "new"
    assert names(tmp_path / "disk") == ["real.csv"]


def test_a_link_to_a_file_that_does_not_exist_yet_creates_it(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "later/real.csv")
    store.write_text(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "later/real.csv").read_text() == "new"


def test_the_null_device_stays_a_device(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:  # who may not make one may not replace the machine's either
        null = Path("/dev/null")
    before = null.stat()
    (tmp_path / "link").symlink_to(null)
    for path in (null, tmp_path / "link"):
        store.write_text(path, "gone")
        store.write_array(path, np.arange(3))
        assert (null.stat().st_ino, null.stat().st_mode) == (before.st_ino, before.st_mode)
    assert stat.S_ISCHR(before.st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_device_that_takes_no_more_is_an_error():
    with pytest.raises(OSError, match="No space left"):
        store.write_text(Path("/dev/full"), "text")
    assert Path("/dev/full").is_char_device()


def test_a_pipe_gets_the_whole_file_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe.csv").read_text)
        store.write_text(tmp_path / "pipe.csv", "a\n" * 50_000)
        assert read.result(30) == "a\n" * 50_000
    assert (tmp_path / "pipe.csv").is_fifo()
    assert names(tmp_path) == ["pipe.csv"]


STREAM = """
import os, sys
from pathlib import Path
from flowerexp.runs import store
for path in sys.argv[1:]:
    os.write(1, b"before\\n")
    store.write_text(Path(path), f"{path}\\n")
    os.write(1, b"after\\n")
"""


@pytest.mark.parametrize("to_file", [False, True], ids=["pipe", "file"])
def test_standard_output_is_written_between_what_comes_before_and_after(tmp_path, to_file):
    (tmp_path / "link").symlink_to("/dev/stdout")
    paths = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"]
    with (tmp_path / "out").open("w+") as file:
        done = subprocess.run([sys.executable, "-c", STREAM, *paths], cwd=tmp_path, check=True,
                              stdout=file if to_file else subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
        file.seek(0)
        assert (file.read() if to_file else done.stdout) == "".join(
            f"before\n{path}\nafter\n" for path in paths)
    assert names(tmp_path) == ["link", "out"]


def test_a_folder_is_refused_by_a_sentence(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "link"):
        with pytest.raises(UserError, match="is a folder: give the name of a file"):
            store.write_text(tmp_path / name, "text")
    assert names(tmp_path / "folder") == []


# Histories and predictions

def test_history_is_read_back(tmp_path):
    history = [row(0.25, 2.0), row(0.5, None), *[row(0.4) for _ in range(10)]]
    store.write_history(tmp_path, history)
    assert store.read_history(tmp_path) == history
    written = json.loads((tmp_path / "history.json").read_text())
    assert list(written) == [str(epoch) for epoch in range(12)]
    assert set(written["0"]) == set(row(0))
    assert written["1"]["train loss"] is None


def test_predictions_are_read_back(tmp_path):
    predictions = [[0, 1, 2], [2, 1, 0]]
    store.write_predictions(tmp_path, predictions)
    found = store.read_predictions(tmp_path, 3)
    assert (found.tolist(), found.dtype) == (predictions, np.int64)
    assert json.loads((tmp_path / "valid_preds.json").read_text()) == {
        "0": [0, 1, 2], "1": [2, 1, 0]}


def test_folder_of_no_epoch_has_no_history(tmp_path):
    assert store.read_history(tmp_path) == []
    assert store.read_predictions(tmp_path, 3).shape == (0, 3)


@pytest.mark.parametrize("text", ['{"0": {}, "2": {}}', "[]", '{"a": {}}', '{"0": {', "", "null",
                                  '{"0": {"valid acc": 1}}', '{"0": [1]}',
                                  json.dumps({"0": row(0.5) | {"valid f1": "good"}}),
                                  json.dumps({"0": row(0.5) | {"valid kappa": [0.5]}}),
                                  json.dumps({"0": row(0.5) | {"train loss": math.inf}})])
def test_history_that_is_none_is_named(tmp_path, text):
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(UserError) as mistake:
        store.read_history(tmp_path)
    assert str(tmp_path / "history.json") in str(mistake.value)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_is_undefined(tmp_path, loss):
    found = metrics.epoch_scores("train", loss, np.eye(2, dtype=int))
    assert found["train loss"] is None
    found |= metrics.epoch_scores("valid", 1.0, np.eye(2, dtype=int)) | {"train timing": 1.0}
    store.write_history(tmp_path, [found])
    assert store.read_history(tmp_path) == [found]


def test_files_agree_with_sklearn(tmp_path):
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 9, 200), random.integers(0, 11, 200)
    confusion = metrics.confusion_matrix(labels, predictions, 14)
    history = [metrics.epoch_scores("valid", 1.0, confusion)]
    store.write_json(tmp_path / store.VALID_LABELS, labels.tolist())
    store.write_predictions(tmp_path, [predictions.tolist()])
    store.write_history(tmp_path, history)
    truth = json.loads((tmp_path / "valid_labels.json").read_text())
    predicted = json.loads((tmp_path / "valid_preds.json").read_text())["0"]
    written = json.loads((tmp_path / "history.json").read_text())["0"]
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, average="macro", zero_division=0)
    assert written["valid acc"] == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    assert (written["valid precision"], written["valid recall"], written["valid f1"]) == (
        pytest.approx((precision, recall, f1), abs=1e-12))


# Submission and arrays

def test_submission(tmp_path):
    store.write_submission(tmp_path, ["252d840db", "000017", 'a,"b"'], [67, 0, 103])
    text = (tmp_path / "submission.csv").read_bytes().decode()
    assert text == 'id,label\n252d840db,67\n000017,0\n"a,""b""",103\n'
    assert list(csv.reader(text.splitlines())) == [
        ["id", "label"], ["252d840db", "67"], ["000017", "0"], ['a,"b"', "103"]]


def test_array_is_read_back(tmp_path):
    array = np.random.default_rng(0).random((5, 3)).astype(np.float16)
    store.write_array(tmp_path / store.VALID_PROBABILITIES, array)
    found = np.load(tmp_path / "valid_probs.npy")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, array)


# The config of a run folder

def test_config_is_read_back(tmp_path):
    composition.register()
    overrides = ["model=mobilenet", "seed=3", "augmentation=[flip,perspective]", "loop=usual",
                 "dataset.class_names=[a,b]", "schedule=cosine"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", overrides=overrides)
    store.write_config(tmp_path, composed, overrides)
    found = store.read_config(tmp_path)
    assert identity.differences(found, composition.check(composed)) == []
    assert found.seed == 3
    assert list(found.augmentation) == ["flip", "perspective"]
    text = (tmp_path / ".hydra/overrides.yaml").read_text()
    assert text.splitlines() == [f"- {override}" for override in overrides]


def bomb(mark, reference):
    """Nine levels of nine references each: 387 million leaves."""
    lines = [f"a0: {mark}[x, x, x, x, x, x, x, x, x]".replace("&", "&a0 ")]
    for level in range(1, 9):
        inner = ", ".join([reference.format(level - 1)] * 9)
        lines.append(f"a{level}: {mark}[{inner}]".replace("&", f"&a{level} "))
    return "\n".join([*lines, "seed: 0"])


@pytest.mark.parametrize("text", [
    None, "a: [", "- 1\n", "loop:\n  epochs: 0\n", "foo: 1\n", "", "seed: 0\nfoo: 2020-01-01",
    "seed: 0\na: ${a}", "seed: 0\na: ${b}\nb: [1]", "seed: ${a}\na: 1", "seed: true",
    bomb("&", "*a{}"), bomb("", "'${{a{}}}'"), "[" * 1_000_000,
    "seed: 0\na: " + "[" * 60 + "]" * 60])
def test_config_that_is_none_is_named(tmp_path, text):
    (tmp_path / ".hydra").mkdir()
    if text is not None:
        (tmp_path / ".hydra/config.yaml").write_text(text)
    with pytest.raises(UserError) as mistake:
        store.read_config(tmp_path)
    assert str(tmp_path) in str(mistake.value) or "foo" in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "a${oc.env:SECRET}", "${${x}.env:SECRET}",
                                  r"\${oc.env:SECRET}", "${half}{oc.env:SECRET}",
                                  "${oc.decode:'${oc.env:SECRET}'}"])
def test_the_config_of_a_stranger_does_not_read_the_environment(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SECRET", "password")
    store.write_json(tmp_path / store.CONFIG, {"seed": 0, "x": "oc", "half": "$",
                                               "model": {"weights": [text]}})
    with pytest.raises(UserError) as mistake:
        store.read_plain(tmp_path)
    assert str(mistake.value).startswith(f"{tmp_path / store.CONFIG} holds {text}")
    assert "password" not in str(mistake.value)


def test_a_config_is_written_with_its_values(tmp_path, monkeypatch):
    """So that it is the same on another machine, and in the process of a sweep's job."""
    monkeypatch.setenv("PLACE", "/data")
    composition.register()
    composed = composition.compose(["dataset=tfrecords", "dataset.root='${oc.env:PLACE}'"])
    store.write_config(tmp_path, composed, [])
    schedule = composition.check(composed).schedule
    monkeypatch.delenv("PLACE")
    assert store.read_plain(tmp_path)["dataset"]["root"] == "/data"
    assert "${" not in (tmp_path / store.CONFIG).read_text()
    # Earlier versions wrote references to other keys.
    text = (tmp_path / store.CONFIG).read_text()
    rate = store.read_plain(tmp_path)["model"]["learning_rate"]
    (tmp_path / store.CONFIG).write_text(text.replace(f"max_lr: {rate}",
                                                      "max_lr: ${model.learning_rate}"))
    assert "${" in (tmp_path / store.CONFIG).read_text()
    assert store.read_config(tmp_path).schedule == schedule
