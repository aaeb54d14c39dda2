"""Run folders found and read, their numbers, and damaged ones, which do not stop the others."""

import fcntl
import json
import math
import shutil
from pathlib import Path

import filelock
import numpy as np
import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from flowerexp import composition, identity, metrics
from flowerexp.comparison import comparison
from flowerexp.errors import UserError
from flowerexp.inference import trained
from flowerexp.runs import reader, store
from flowerexp.runs.status import RunStatus
from flowerexp.train import launch
from tests.folders import (
    LABELS,
    PREDICTIONS,
    compose_of_seed,
    write_experiment,
    write_healthy,
    write_run,
)

ROOT = Path(__file__).parents[2]
# Finding folders

def test_folders_are_found_in_natural_order_each_once(tmp_path):
    for name in ("x+seed=10", "x+seed=2", "b/deep/x+seed=1", "a"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra/config.yaml").touch()
    # What a run folder holds is its own affair.
    (tmp_path / "a/inner/.hydra").mkdir(parents=True)
    (tmp_path / "a/inner/.hydra/config.yaml").touch()
    (tmp_path / "b/again").symlink_to(tmp_path / "a")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    every = [tmp_path / name for name in ("a", "b/deep/x+seed=1", "x+seed=2", "x+seed=10")]
    assert reader.find_folders([tmp_path]) == every
    assert reader.find_folders([every[3], tmp_path, tmp_path / "b/.."]) == [every[3],
                                                                               *every[:3]]
    assert reader.find_folders(str(tmp_path / "b/again")) == [tmp_path / "b/again"]


@pytest.mark.parametrize(("path", "message"), [
    ("nowhere", "nowhere does not exist"), ("empty", "empty holds no run"),
    ("file", "file is not a folder")])
def test_path_without_a_run_is_refused(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    write_experiment(tmp_path, "original")
    with pytest.raises(UserError, match=message):
        reader.find_folders([tmp_path / "original+seed=0", tmp_path / path])


def test_no_path_is_refused():
    with pytest.raises(UserError, match="name at least one"):
        reader.find_folders([])


# Reading one

def test_run_is_what_its_folder_holds(tmp_path):
    folder = write_experiment(tmp_path, "optimized_loop", "seed=3", "loop.epochs=5",
                              "dataset.root=/nowhere", "+hydra.job.num=3", epochs=5,
                              names=["a", "b", "c", "d"])
    found = reader.read_run(folder)
    assert (found.folder, found.name, found.seed) == (folder, "optimized_loop", 3)
    assert (found.state, found.error, found.epochs) == ("done", None, 5)
    assert found.variant == {"loop.epochs=5"}
    assert found.compared_with == ("original",)
    assert found.labels.tolist() == LABELS
    assert found.predictions.tolist() == PREDICTIONS
    assert found.class_names == ("a", "b", "c", "d")
    assert found.class_counts.tolist() == [100, 50, 33, 25]
    assert found.history == store.read_history(folder)
    assert found.keys["loop.epochs"] == 5
    assert (found.keys["replicas"], found.keys["data"]) == (1, "content-0123456789abcdef")
    absent = {"seed", *identity.PLACE_KEYS, *identity.INERT_KEYS}
    assert not absent & found.keys.keys()
    assert {array.dtype for array in (found.labels, found.predictions, found.class_counts)} == {
        np.dtype(np.int64)}


@pytest.mark.parametrize(("folder", "overrides", "name"), [
    ("default+seed=4", ["seed=4"], "default"), ("mine", ["name=mine"], "mine"),
    ("loop.epochs=2+seed=0", ["loop.epochs=2"], "loop.epochs=2"),
    ("original+seed=0.2", ["experiment=original", "fresh=true"], "original"),
    ("default+seed=0.2", ["fresh=true"], "default"),
    ("x", ["experiment='original'"], "original")])
def test_name_is_the_experiment_or_the_folder_without_its_seed(tmp_path, folder, overrides, name):
    write_run(tmp_path / folder, overrides, LABELS, PREDICTIONS)
    assert reader.read_run(tmp_path / folder).name == name


@pytest.mark.parametrize(("override", "is_one"), [
    ("model=mobilenet", True), ("+loop.shiny=1", True), ("~loss", True), ("hydrangea=1", True),
    ("experiment=original", False), ("seed=3", False), ("sweep=notebook", False),
    ("hydra.job.num=1", False), ("+hydra/launcher=joblib", False), ("name=x", False),
    ("++on_failure=stop", False), ("dataset.root=/x", False), ("loop.log_interval=1", False)])
def test_variant_is_what_makes_another_run(tmp_path, override, is_one):
    folder = write_experiment(tmp_path, "original")
    store.write_text(folder / store.OVERRIDES, f"- {override}\n")
    assert reader.read_run(folder).variant == ({override} if is_one else set())


@pytest.mark.parametrize("overrides", [
    *([f"experiment={path.stem}"] for path in sorted((ROOT / "conf/experiment").glob("*.yaml"))),
    ["model=keras_application", "model.name=ResNet50", "model.weights=null",
     "optimizer=sgd", "schedule.max_lr=1e-3"], ["augmentation=[flip,cutmix]", "loss=focal"]],
    ids=" ".join)
def test_config_is_read_as_omegaconf_reads_it(tmp_path, overrides):
    write_run(tmp_path / "x", overrides, LABELS, PREDICTIONS)
    plain = OmegaConf.to_container(OmegaConf.load(tmp_path / "x/.hydra/config.yaml"), resolve=True)
    wanted = identity.keys(plain)
    del wanted["seed"]
    found = reader.read_run(tmp_path / "x").keys
    assert {key: value for key, value in found.items() if key not in reader.MEASURED} == wanted
    assert found["schedule.max_lr"] == plain["schedule"]["max_lr"]
    assert list(map(type, found.values()))[:len(wanted)] == list(map(type, wanted.values()))


def test_a_config_of_another_schema_is_comparable(tmp_path):
    folders = [write_experiment(tmp_path, "original", f"seed={seed}") for seed in (0, 1)]
    path = folders[1] / ".hydra/config.yaml"
    config = OmegaConf.load(path)
    del config.loop.lr_scaling
    config.loop.shiny = [1, 2]
    OmegaConf.save(config, path)
    found = comparison.compare(tmp_path)
    assert [row.differing for row in found.rows] == [
        {"loop.lr_scaling": 1.0, "loop.shiny": "not set"},
        {"loop.lr_scaling": "not set", "loop.shiny": [1, 2]}]


@pytest.mark.parametrize("state", ["new", "running", "interrupted", "failed", "done"])
def test_state_is_that_of_the_status(tmp_path, state):
    (tmp_path / ".lock").touch()
    status = RunStatus(state=state)
    assert reader.state_of(tmp_path, status) == ("interrupted" if state == "running"
                                                     else state)


def test_running_is_only_what_holds_its_lock(tmp_path):
    status = RunStatus(state="running")
    assert reader.state_of(tmp_path, status) == "interrupted"
    assert list(tmp_path.iterdir()) == []
    with filelock.FileLock(tmp_path / ".lock"):
        assert reader.state_of(tmp_path, status) == "running"
        assert reader.state_of(tmp_path, RunStatus(state="failed")) == "failed"
    assert reader.state_of(tmp_path, status) == "interrupted"
    # Two that look at once are not taken for the run itself.
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert reader.state_of(tmp_path, status) == "interrupted"


def test_reading_writes_nothing(tmp_path):
    folder = write_experiment(tmp_path, "original", state="running")
    (folder / ".lock").touch()
    (folder / ".lock").chmod(0o444)
    before = {path: path.stat() for path in [tmp_path, *tmp_path.rglob("*")]}
    folder.chmod(0o555)
    found = comparison.compare(tmp_path)
    folder.chmod(0o755)
    assert found.rows[0].runs[0].state == "interrupted"
    assert set(before) == {tmp_path, *tmp_path.rglob("*")}
    assert all(path.stat().st_mtime_ns == then.st_mtime_ns for path, then in before.items())


def test_an_epoch_that_is_half_written_is_not_counted(tmp_path):
    folder = write_experiment(tmp_path, "original", state="interrupted", epochs=9)
    store.write_predictions(folder, PREDICTIONS[:2])
    found = reader.read_run(folder)
    assert found.state == "interrupted"
    assert len(found.history) == len(found.predictions) == 2


# Damaged folders

DAMAGES = {
    "config.yaml of nothing": (".hydra/config.yaml", ""),
    "config.yaml cut off": (".hydra/config.yaml", "loop: {epochs: "),
    "config.yaml without a seed": (".hydra/config.yaml", "loop: {epochs: 3}"),
    "config.yaml of a list": (".hydra/config.yaml", "- 1"),
    "config.yaml of numbers": (".hydra/config.yaml", "1: 2\nseed: 0"),
    "config.yaml that resolves to nothing": (".hydra/config.yaml", "seed: 0\na: ${b.c}"),
    "config.yaml with a resolver": (".hydra/config.yaml", "seed: 0\na: ${oc.env:HOME}"),
    "config.yaml with an alias": (".hydra/config.yaml", "seed: 0\na: &a [1]\nb: *a"),
    "config.yaml deep": (".hydra/config.yaml", "[" * 1_000_000),
    "config.yaml of bytes": (".hydra/config.yaml", b"\xff\xfe\x00"),
    "overrides.yaml of a text": (".hydra/overrides.yaml", "abc"),
    "overrides.yaml cut off": (".hydra/overrides.yaml", "- 'a"),
    "status.json cut off": ("status.json", '{"state": "do'),
    "status.json of a list": ("status.json", "[]"),
    "status.json of bytes": ("status.json", b"\xff"),
    "unknown state": ("status.json", '{"state": "tired"}'),
    "history.json cut off": ("history.json", '{"0": {"valid'),
    "history.json without scores": ("history.json", '{"0": {"valid acc": 1}}'),
    "history.json of texts": ("history.json", '{"0": {"valid acc": "good"}}'),
    "history.json of lists": ("history.json", '{"0": [1]}'),
    "history.json of no epoch": ("history.json", "{}"),
    "history.json of other epochs": ("history.json", '{"1": {}}'),
    "history.json gone": ("history.json", None),
    "classes.json cut off": ("classes.json", '{"names": ["a'),
    "classes.json of few": ("classes.json", '{"names": ["a", "b"], "train counts": [1, 2]}'),
    "labels cut off": ("valid_labels.json", "[0, 1"),
    "labels of texts": ("valid_labels.json", '["a"]'),
    "labels of a number": ("valid_labels.json", "3"),
    "labels of fractions": ("valid_labels.json", "[0.5]"),
    "labels under zero": ("valid_labels.json", "[-1]"),
    "labels gone": ("valid_labels.json", None),
    "predictions cut off": ("valid_preds.json", '{"0": [0, 1'),
    "predictions of few images": ("valid_preds.json", '{"0": [0], "1": [0], "2": [0]}'),
    "predictions of few epochs": ("valid_preds.json", json.dumps({"0": PREDICTIONS[0]})),
    "predictions of other classes": (
        "valid_preds.json", json.dumps({str(epoch): [9] * 10 for epoch in range(3)}) + "\n"),
    "predictions of epochs in another order": (
        "valid_preds.json", json.dumps({str(epoch): [0] * 10 for epoch in (0, 1, 3)}) + "\n"),
    "predictions of lists": ("valid_preds.json", '{"0": [[0]], "1": [1], "2": [2]}'),
    "predictions of nothing": ("valid_preds.json", '{"0": null, "1": null, "2": null}'),
    "predictions deep": ("valid_preds.json", "[" * 100_000)}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return write_healthy(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folder_is_a_sentence_and_the_others_stand(tmp_path, healthy, damage):
    shutil.copytree(healthy, tmp_path, dirs_exist_ok=True)
    file, content = DAMAGES[damage]
    path = tmp_path / "original+seed=0" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = comparison.compare(tmp_path)
    assert [failure.folder for failure in found.failures] == [tmp_path / "original+seed=0"]
    assert found.failures[0].state == "unreadable"
    assert str(tmp_path / "original+seed=0") in found.failures[0].error
    assert "\n" not in found.failures[0].error
    assert [(pair.name, pair.baseline, pair.seeds) for pair in found.pairs] == [
        ("optimized_loop", "original", (1,))]
    assert len(found.rows) == 2
    table = comparison.load(tmp_path)
    assert table["state"].tolist().count("unreadable") == 1
    assert len(table) == 4


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name.startswith("history.json")])
def test_a_finished_run_without_its_history_is_a_sentence_to_every_command(tmp_path, damage):
    folder = write_experiment(tmp_path, "original")
    content = DAMAGES[damage][1]
    (folder / "history.json").unlink()
    if content is not None:
        (folder / "history.json").write_text(content)
    for read in (launch.summary, launch.resume, trained.find):
        with pytest.raises(UserError, match=r"history.json") as mistake:
            read(folder)
        assert str(folder) in str(mistake.value)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.floats()
                    | st.text(max_size=3) | st.sampled_from([0, "0", "done", "${seed}"]),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
                        st.text(max_size=3) | st.sampled_from(["0", "1", "valid f1", "_target_"]),
                        inner, max_size=4), max_leaves=12)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("damaged"), "original")


@given(st.sampled_from([store.CONFIG, store.OVERRIDES, store.STATUS, store.HISTORY, store.CLASSES,
                        store.VALID_LABELS, store.VALID_PREDICTIONS]), JSON, st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_a_file_holds_the_run_is_read(damaged, file, value, data):
    """The whole file is another value, or one of its keys has another value."""
    path = damaged / file
    before = path.read_bytes()
    whole = yaml.safe_load(before)
    if isinstance(whole, dict) and data.draw(st.booleans()):
        value = whole | {data.draw(st.sampled_from([*whole])): value}
    try:
        path.write_bytes(orjson.dumps(value))
        assert reader.run_numbers(reader.read_run(damaged))
        assert len(comparison.compare(damaged).rows) <= 1
    finally:
        path.write_bytes(before)


def test_folder_without_predictions_has_its_scores_and_no_pair(tmp_path, healthy):
    shutil.copytree(healthy, tmp_path, dirs_exist_ok=True)
    for file in ("valid_preds.json", "classes.json"):
        (tmp_path / "original+seed=0" / file).unlink()
    found = comparison.compare(tmp_path)
    assert not found.failures
    assert not found.pairs
    assert "original+seed=0 has no predictions for the validation set" in found.notes[0]
    numbers = reader.run_numbers(found.rows[0].runs[0])
    assert numbers["last acc"] == 0.7
    assert math.isnan(numbers["last head"])


# Numbers

def test_thirds_by_hand(tmp_path):
    # By count: 1 and 3 (a tie, the lower id first) and 0; 4 and 2; 5, which no image has, and 6.
    counts, labels = [7, 9, 2, 9, 5, 1, 0], [0, 0, 1, 1, 2, 3, 3, 3, 4, 6]
    predicted = [0, 1, 1, 1, 2, 3, 0, 0, 4, 0]
    folder = write_run(tmp_path / "x", ["experiment=original"], labels, [predicted],
                       names=list("abcdefg"), counts=counts)
    numbers = reader.run_numbers(reader.read_run(folder))
    assert numbers["last head"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert numbers["last medium"] == pytest.approx(1)
    assert numbers["last tail"] == pytest.approx(0)


def test_classes_of_equal_count_are_in_the_order_of_their_ids(tmp_path):
    # The odd ones are the commoner: 1, 3 ... 39, then 41 ... 59 and 0 ... 18, then 20 ... 58.
    labels = list(range(60))
    head = [label for label in labels if label % 2 and label < 40]
    folder = write_run(tmp_path / "x", ["experiment=original"], labels,
                       [[label if label in head else 0 for label in labels]], counts=[7, 9] * 30)
    numbers = reader.run_numbers(reader.read_run(folder))
    assert [numbers[f"last {third}"] for third in ("head", "medium", "tail")] == [1, 1 / 20, 0]


def test_thirds_without_a_class_are_undefined(tmp_path):
    write_run(tmp_path / "x", ["experiment=original"], [0], [[0]], names=["a", "b"])
    numbers = reader.run_numbers(reader.read_run(tmp_path / "x"))
    assert numbers["last head"] == 1
    assert math.isnan(numbers["last medium"])
    assert math.isnan(numbers["last tail"])


def test_best_epoch_is_the_earliest_of_the_highest_f1(tmp_path):
    folder = write_experiment(tmp_path, "original",
                              predictions=[PREDICTIONS[index] for index in (0, 1, 1, 2)])
    history = store.read_history(folder)
    numbers = reader.run_numbers(reader.read_run(folder))
    assert (numbers["best epoch"], numbers["last epoch"]) == (2, 4)
    for name in ("loss", *metrics.NAMES):
        assert numbers[f"best {name}"] == history[1][f"valid {name}"]
        assert numbers[f"last {name}"] == history[3][f"valid {name}"]


def test_undefined_values_pass_through(tmp_path):
    folder = write_experiment(tmp_path, "original", seconds=[3.0, 4.0, 6.0])
    path = folder / "history.json"
    history = store.read_history(folder)
    path.write_text(json.dumps({str(epoch): row | {"valid loss": None, "valid f1": None}
                                for epoch, row in enumerate(history)}))
    numbers = reader.run_numbers(reader.read_run(folder))
    assert math.isnan(numbers["last loss"])
    assert math.isnan(numbers["last f1"])
    assert numbers["best epoch"] == 1
    assert (numbers["first epoch seconds"], numbers["later epochs seconds"]) == (3, 5)
    assert reader.read_run(folder).history[0]["valid f1"] is None


def test_seeds_of_composed_configs_are_those_of_hydra():
    """The tests' own short cut."""
    assert compose_of_seed(["experiment=original", "seed=7"]) == composition.compose(
        ["experiment=original", "seed=7"])
