"""A data set of arrays in memory is the data set of the same images in lossless records."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import composition
from flowerexp.config import Dataset
from flowerexp.data import pipeline, sources, splits
from flowerexp.data.prepare import checks
from flowerexp.data.sources import Arrays, Source, TFRecords
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment
from tests.data.test_pipeline import (
    ORIGINAL,
    OVERSAMPLE,
    Workers,
    elements,
    images_of,
    joined,
    plan_of,
)
from tests.processes import history_of, read


def arrays_of(root, split):
    """The decoded images of a split, its labels and ids."""
    images = images_of(root, split, "decoded")
    labels = None if split == "test" else images.table.labels
    return Arrays(images.decoded.numpy(), labels, images.table.ids)


@pytest.fixture(scope="module")
def source(tiny):
    return Source.of_arrays(*(arrays_of(tiny, split) for split in ("train", "val", "test")))


@pytest.mark.parametrize("policy", [ORIGINAL, OVERSAMPLE], ids=["original", "oversample"])
def test_training_batches_are_those_of_records(tiny, source, policy):
    expected = images_of(tiny, "train", "encoded")
    split = pipeline.Split(splits.read_split(source, "train", True, "stop"), 16)
    assert not split.streamed
    assert pipeline.cache_decoded(split) is split
    for epoch in (0, 1):
        one, other = (elements(images, policy, plan_of(), epoch) for images in (split, expected))
        np.testing.assert_array_equal(joined(one), joined(other))
        np.testing.assert_array_equal(joined(one, "label"), joined(other, "label"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_batches_are_those_of_records(tiny, source, split):
    def shown(table):
        batches, rows = pipeline.evaluation_batches(Workers(), pipeline.Split(table, 16),
                                                    plan_of())
        return np.stack(list(batches.as_numpy_iterator())), rows

    table, expected = splits.read_split(source, split, True, "stop"), images_of(
        tiny, split, "encoded").table
    for one, other in zip(shown(table), shown(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert table.ids == expected.ids
    assert table.labels.tolist() == expected.labels.tolist()


def test_a_run_on_arrays_is_the_run_on_records(tiny, source, tmp_path, monkeypatch):
    """Trained, evaluated, predicted; and resumed on the same arrays only."""
    composition.register()
    config = composition.check(composition.compose([
        "dataset=tfrecords", f"dataset.root='{tiny}'", "hardware=cpu", "loop.epochs=1",
        "callbacks=none"]))
    folders = {"records": tmp_path / "records", "arrays": tmp_path / "arrays"}
    for name, folder in folders.items():
        folder.mkdir()
        if name == "arrays":
            monkeypatch.setattr(sources, "find", lambda dataset, all_gather=None: source)
        assert experiment.run(config, folder, RunLogger(folder), lambda: False) == 0
    assert history_of(folders["arrays"]) == history_of(folders["records"])
    for name in ("valid_preds.json", "test_preds.json", "submission.csv", "test_probs.npy"):
        one, other = ((folder / name).read_bytes() for folder in folders.values())
        assert one == other, name
    assert read(folders["arrays"], "status.json")["data"]["folder"] == "memory"
    changed = source.arrays["val"].images.copy()
    changed[3, 2, 1, 0] ^= 1
    other = dataclasses.replace(source, arrays=source.arrays | {
        "val": dataclasses.replace(source.arrays["val"], images=changed)})
    monkeypatch.setattr(sources, "find", lambda dataset, all_gather=None: other)
    with pytest.raises(UserError, match="data"):
        experiment.run(config, folders["arrays"], RunLogger(folders["arrays"]), lambda: False)


def test_a_fingerprint_is_that_of_every_byte(source):
    found = splits.load(source, Dataset(), keep_images=False)
    assert found.counts.tolist() == np.bincount(source.arrays["train"].labels).tolist()
    assert splits.load(source, Dataset(), keep_images=True).fingerprint == found.fingerprint
    train = source.arrays["train"]
    pixels, labels = train.images.copy(), train.labels[::-1].copy()
    pixels[-1, -1, -1, -1] ^= 1
    for changed in ({"images": pixels}, {"labels": labels}, {"ids": None}):
        other = dataclasses.replace(source, arrays=source.arrays | {
            "train": dataclasses.replace(train, **changed)})
        assert splits.load(other, Dataset(), False).fingerprint != found.fingerprint, changed.keys()


def test_streaming_arrays_is_a_mistake(source, monkeypatch):
    monkeypatch.setattr(sources, "find", lambda dataset, all_gather: source)
    with pytest.raises(UserError, match="cache=none streams files"):
        experiment.load_data(Dataset(TFRecords("/nowhere"), cache="none"),
                             RunLogger(chief=False))


def test_the_first_record_of_arrays_has_words(source):
    place, features = checks.first_record(splits.read_split(source, "train", True, "stop"))
    assert place == "image train0 in memory"
    assert [(each.name, each.value) for each in features] == [
        ("class", "0"), ("id", "train0"), ("image", "16 x 16 x 3")]


def test_images_without_ids_are_numbered():
    table = Arrays(np.zeros([3, 8, 8, 3], np.uint8)).table()
    assert table.ids == ["0", "1", "2"]
    assert table.labels.tolist() == [-1] * 3
    assert table.labels.dtype == np.int32


@pytest.mark.parametrize("make", [
    lambda pixels: pixels, lambda pixels: pixels[:, ::-1], lambda pixels: pixels[1:]],
    ids=["as it is", "reversed", "shifted"])
def test_pixels_of_any_memory_are_those_of_the_tensor(make):
    pixels = make(np.random.default_rng(0).integers(0, 256, [4, 5, 5, 3], np.uint8))
    pixels.flags.writeable = False
    tensor = Arrays(pixels).table().images
    assert tensor.dtype == tf.uint8
    np.testing.assert_array_equal(tensor, pixels)


PIXELS = np.zeros([4, 8, 8, 3], np.uint8)
LABELS = np.arange(4)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Arrays(PIXELS.astype(np.float32), LABELS), "images must be uint8 .* not float32"),
    (lambda: Arrays(PIXELS[:, :7], LABELS), r"not uint8 \[4, 7, 8, 3\]"),
    (lambda: Arrays(PIXELS[..., 0], LABELS), r"not uint8 \[4, 8, 8\]"),
    (lambda: Arrays(PIXELS[:0], LABELS[:0]), "at least one image"),
    (lambda: Arrays(PIXELS, LABELS[:3]), "labels must be 4 integers"),
    (lambda: Arrays(PIXELS, LABELS - 1), "labels must be 4 integers from 0"),
    (lambda: Arrays(PIXELS, LABELS / 2), "labels must be 4 integers"),
    (lambda: Arrays(PIXELS, LABELS, ["a"]), "ids must be 4 texts"),
    (lambda: Source.of_arrays(Arrays(PIXELS, LABELS), Arrays(PIXELS)), "labels of val are missing"),
    (lambda: Source.of_arrays(Arrays(PIXELS, LABELS), Arrays(PIXELS[:, :4, :4], LABELS)),
     "one size, not {'train': 8, 'val': 4}"),
    (lambda: Source.of_arrays(Arrays(PIXELS, LABELS), Arrays(PIXELS, LABELS), None, ["a", "b"]),
     "labels of train must be under 2"),
])
def test_wrong_arrays_are_a_mistake(make, words):
    with pytest.raises(UserError, match=words) as mistake:
        make()
    assert "\n" not in str(mistake.value)


def test_a_source_of_ones_own_imports_no_tensorflow():
    code = "import sys, flowerexp.data.sources; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
