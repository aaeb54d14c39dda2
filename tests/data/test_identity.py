"""Data are identified by their content: a run resumes, and is found finished, on the same only."""

import shutil

import pytest
import tensorflow as tf

from flowerexp import composition, identity
from flowerexp.data import tfrecord
from flowerexp.errors import UserError
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.runs.status import RunStatus
from flowerexp.train import experiment, launch, preview
from tests.data.test_records import write_serialized
from tests.train.test_resuming import CHOSEN, after


def overrides(root):
    return ["dataset=tfrecords", f"dataset.root='{root}'", *CHOSEN, "loop.epochs=2"]


def run(root, folder, stop=lambda: False):
    composition.register()
    composed = composition.compose(overrides(root))
    store.write_config(folder, composed, overrides(root))
    return experiment.run(composition.check(composed), folder, RunLogger(folder), stop)


def serialized(path):
    return [each.numpy() for each in tf.data.TFRecordDataset(str(path))]


def reorder(root):
    """Validation records in another order: no name, size or count differs."""
    path = next((root / "val").glob("00-*"))
    write_serialized(path, serialized(path)[::-1])


def swap(root):
    """The training labels of two images swapped: no name, size or count differs."""
    paths = tfrecord.list_files(str(root / "train"))
    examples = {path: [tf.train.Example.FromString(each) for each in serialized(path)]
                for path in paths}
    by_label = {each.features.feature["class"].int64_list.value[0]:
                each.features.feature["class"].int64_list for found in examples.values()
                for each in found}
    by_label[0].value[0], by_label[1].value[0] = 1, 0
    for path, found in examples.items():
        write_serialized(path, [each.SerializeToString(deterministic=True) for each in found])


def rename(root):
    (root / "classes.txt").write_text("b\na\nc\n")


CHANGES = {"reordered validation records": reorder, "swapped training labels": swap,
           "reversed class names": rename}


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """A data set, and a run on it that stopped in its second epoch."""
    place = tmp_path_factory.mktemp("identity")
    root = shutil.copytree(tiny, place / "data")
    (root / "classes.txt").write_text("a\nb\nc\n")
    assert run(root, place / "run", after(7))
    return place


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_go_on_over_other_data(stopped, tmp_path, change):
    place = shutil.copytree(stopped, tmp_path / "copy")
    before = (place / "run/valid_ids.json").read_bytes()
    change(place / "data")
    with pytest.raises(UserError, match=r"belongs to another run \(data: content-"):
        run(place / "data", place / "run")
    assert (place / "run/valid_ids.json").read_bytes() == before


def test_a_finished_run_is_that_of_its_data_only(stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "preview",  # in this process
                        lambda configs: preview.preview_in_child(configs, False, False))
    place = shutil.copytree(stopped, tmp_path / "copy")
    root, folder = place / "data", place / "run"
    assert run(root, folder) == 0
    RunLogger(folder).record(state="done")
    config = store.read_config(folder)
    found = launch.data_of_finished(composition.check(composition.compose(overrides(root))), folder)
    launch.check_same_run(config, folder, found)
    reorder(root)
    changed = launch.data_of_finished(
        composition.check(composition.compose(overrides(root))), folder)
    with pytest.raises(UserError, match=r"another config \(data: content-"):
        launch.check_same_run(config, folder, changed)
    shutil.rmtree(root)
    with pytest.raises(UserError, match=r"contains the finished run of this command, but its data "
                                        r"cannot be checked: .* does not exist"):
        launch.data_of_finished(composition.check(composition.compose(overrides(root))), folder)


def test_a_folder_of_the_first_versions_resumes_by_its_weaker_fingerprint(tiny, tmp_path, capsys):
    """It is made here as they made it, over the whole of the same data; the result is the same."""
    root, folder = shutil.copytree(tiny, tmp_path / "data"), tmp_path / "run"
    counts = experiment.load_data(composition.check(composition.compose(overrides(root))).dataset,
                                  RunLogger(chief=False))
    folder.mkdir()
    RunLogger(folder).record(provenance={"data": counts.fingerprint.listing})
    assert run(root, folder, after(7))
    recorded = RunStatus.load(folder).provenance["data"]
    assert identity.is_listing(recorded)
    assert run(root, folder) == 0
    assert "were identified by the names and sizes" in (folder / "run.log").read_text()
    path = tfrecord.list_files(str(root / "train"))[0]
    write_serialized(root / "train/09-16x16-1.tfrec", serialized(path)[:1])
    with pytest.raises(UserError, match="belongs to another run"):
        run(root, folder)


def test_the_fingerprint_of_names_and_sizes_is_that_of_the_first_version(tiny):
    """As kept from a run of that version on these files."""
    found = experiment.load_data(composition.check(composition.compose(overrides(tiny))).dataset,
                                 RunLogger(chief=False))
    assert found.fingerprint.listing == FIRST_VERSION


FIRST_VERSION = "426cab02fd16094b"
