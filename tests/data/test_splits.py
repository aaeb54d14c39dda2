"""How a run's data are divided: folds, validation, groups and long tails of records and arrays."""

import dataclasses
import shutil

import numpy as np
import pytest

from flowerexp.config import Dataset
from flowerexp.data import pipeline, sources, splits
from flowerexp.data.sources import Arrays, Source, TFRecords
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment
from tests.data.test_pipeline import ORIGINAL, elements, joined, plan_of


@pytest.fixture(scope="module")
def without_val(tiny, tmp_path_factory):
    """`tiny` without its validation split."""
    root = tmp_path_factory.mktemp("without val") / "data"
    return shutil.copytree(tiny, root, ignore=shutil.ignore_patterns("val"))


def divided(root, keep_images=False, **keys):
    dataset = Dataset(TFRecords(str(root)), **keys)
    return splits.load(sources.find(dataset.source), dataset, keep_images)


def arrays(count=40, classes=4, ids=None, val=0):
    """Random images; the class of an image is its number modulo the classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count + val, 8, 8, 3), np.uint8)
    labels = np.arange(count + val) % classes
    names = ids or [f"plant {row // 3} photo {row}" for row in range(count + val)]
    each = [Arrays(pixels[rows], labels[rows], names[rows])
            for rows in (slice(count), slice(count, None))[:1 + bool(val)]]
    return Source.of_arrays(*each)


def load(source, **keys):
    train_on = keys.pop("train_on", "train")
    return splits.load(source, Dataset(**keys), False, train_on=train_on)


def test_data_without_validation_are_divided_and_the_run_says_how(without_val, tiny):
    found = divided(without_val)
    assert len(found.valid.ids) == 6
    assert len(found.train.ids) == 34
    assert sorted(found.train.ids + found.valid.ids) == sorted(divided(tiny).train.ids)
    (sentence,) = found.sentences
    assert sentence == ("validation: 6 images of the 40 images of train, 0.15 of every class, "
                        "dataset.split_seed=0, because the data have no validation split")
    assert divided(tiny).sentences == ()
    assert divided(without_val, validation=0.15).valid.ids == found.valid.ids
    assert divided(without_val, split_seed=1).valid.ids != found.valid.ids


@pytest.mark.parametrize("pool", ["train", "train+val"])
def test_every_image_validates_in_one_fold(tiny, pool):
    folds = [divided(tiny, folds=4, fold=fold, pool=pool) for fold in range(4)]
    whole = divided(tiny)
    ids = whole.train.ids + (whole.valid.ids if pool == "train+val" else [])
    assert sorted(each for fold in folds for each in fold.valid.ids) == sorted(ids)
    for fold in folds:
        assert sorted(fold.train.ids + fold.valid.ids) == sorted(ids)
        assert fold.valid.ids == [each for each in ids if each in fold.valid.ids], "in order"
    same = {fold.fingerprint.content for fold in folds}
    assert len(same) == 1, "the folds of one division"
    for keys in ({"split_seed": 1}, {"folds": 5}, {"group_pattern": r"\d$"}):
        other = divided(tiny, **{"folds": 4, "fold": 0, "pool": pool} | keys)
        assert other.fingerprint.content not in same, keys
    unused = "13 images of val are not used" in folds[1].sentences[0]
    assert unused == (pool == "train")
    assert f"of the {len(ids)} images of" in folds[1].sentences[0]
    assert "fold 1 of 4" in folds[1].sentences[0]


@pytest.mark.parametrize("keys", [{"validation": 0.3}, {"folds": 3, "fold": 1, "pool": "train+val"},
                                  {"long_tail": 3.0}])
def test_streamed_images_are_the_cached_ones(tiny, keys):
    """The same sets, in training and in validation; the labels go with their pixels."""
    logger = RunLogger(chief=False)
    dataset = Dataset(TFRecords(str(tiny)), **keys)
    cached = experiment.load_data(dataset, logger)
    streamed = experiment.load_data(dataclasses.replace(dataset, cache="none"), logger)
    assert streamed.fingerprint == cached.fingerprint
    for one, other in ((cached.train, streamed.train), (cached.valid, streamed.valid)):
        assert other.streamed
        assert one.table.ids == other.table.ids
        np.testing.assert_array_equal(
            pipeline.gather_images(other, np.arange(other.count)), one.decoded)
    count = cached.train.count // 2 * 2
    plan = plan_of(batch=2, updates=count // 2)

    def seen(images):
        parts_of = elements(images, ORIGINAL, plan)
        pixels = joined(parts_of).reshape(count, -1)
        return sorted(zip(map(bytes, pixels), joined(parts_of, "label").tolist(), strict=True))

    everything = {(bytes(image.tobytes()), label) for image, label in zip(
        cached.train.decoded.numpy(), cached.train.table.labels.tolist(), strict=True)}
    for images in (cached.train, streamed.train):
        assert len(set(seen(images))) == count
        assert set(seen(images)) <= everything


def test_the_order_of_records_changes_no_division():
    source, order = arrays(), np.random.default_rng(1).permutation(40)
    train = source.arrays["train"]
    other = Source.of_arrays(Arrays(train.images[order], train.labels[order],
                                    [train.ids[row] for row in order]))
    for keys in ({}, {"folds": 4, "fold": 2}, {"validation": 0.5, "group_pattern": r"plant \d+"},
                 {"long_tail": 5.0}):
        one, same = load(source, **keys), load(other, **keys)
        assert sorted(one.train.ids) == sorted(same.train.ids)
        assert sorted(one.valid.ids) == sorted(same.valid.ids)


def test_a_pattern_on_ids_keeps_groups_together():
    found = load(arrays(), folds=3, fold=0, group_pattern=r"^plant (\d+) ")
    plants = [{each.split()[1] for each in table.ids} for table in (found.train, found.valid)]
    assert plants[1]
    assert not plants[0] & plants[1]
    assert found.valid.groups == tuple(each.split()[1] for each in found.valid.ids)
    assert "14 groups each on one side" in found.sentences[0]


def test_groups_of_the_source_of_a_pattern_and_of_a_file_are_kept_together(tmp_path):
    source = arrays()
    table = splits.read_split(source, "train", False, "stop")
    table = dataclasses.replace(table, groups=tuple(f"pot {row % 20 // 4}" for row in range(40)))
    (tmp_path / "groups.csv").write_text(
        f"id,group\n{table.ids[0]},same\n{table.ids[39]},same\nunknown,other\n")
    dataset = Dataset(group_pattern=r"plant \d+", groups=str(tmp_path / "groups.csv"), folds=2,
                      fold=0)
    only_file = dataclasses.replace(dataset, group_pattern=None)
    found = splits.with_groups({"train": dataclasses.replace(table, groups=())}, only_file)
    assert [row for row, name in enumerate(found["train"].groups) if name] == [0, 39]
    merged = splits.with_groups({"train": table}, dataset)["train"].groups
    assert len(set(merged)) == 1, "pots and plants overlap in a chain"
    with pytest.raises(UserError, match="leaves no image to"):
        splits.divide({"train": table}, source, dataset)


def test_groups_that_the_data_themselves_divide_are_said():
    source = arrays(val=10)
    (sentence,) = load(source, group_pattern=r"plant \d+").sentences
    assert sentence == "warning: 1 group of validation also in training"
    assert load(source, group_pattern=r"\d+$").sentences == ()


def test_a_long_tail_is_of_the_training_images_alone():
    source = arrays(80)
    found = load(source, long_tail=5.0)
    assert found.counts.tolist() == [17, 9, 5, 3]
    assert found.valid.ids == load(source).valid.ids
    assert found.sentences[1] == (
        "long tail: 34 of 68 training images are kept, 17 of 0 to 3 of 3 (dataset.long_tail=5, "
        "dataset.split_seed=0)")
    folds = [load(source, long_tail=5.0, folds=3, fold=fold) for fold in range(3)]
    assert all((np.diff(fold.counts) < 0).all() for fold in folds), "one order of classes"


def test_all_images_are_trained_on():
    found = load(arrays(val=10), train_on="all")
    assert len(found.train.ids) == 50
    assert found.valid.ids == []
    assert "50 images of train and val are trained on and none is held out" in found.sentences[0]
    assert len(load(arrays(), train_on="all").train.ids) == 40


def test_a_small_class_is_named_where_folds_lack_it():
    pixels, labels = np.zeros((12, 8, 8, 3), np.uint8), np.array([0] * 10 + [1] * 2)
    found = load(Source.of_arrays(Arrays(pixels, labels, [*map(str, range(12))]),
                                  class_names=["rose", "lily"]), folds=5, fold=0)
    assert "1 class of fewer images than folds missing in some (lily 2)" in found.sentences[0]


@pytest.mark.parametrize(("keys", "message"), [
    ({"folds": 11, "fold": 0}, "more than the images of every class, at most 10"),
    ({"validation": 0.01}, "leaves no image to validate with: there are 40 images"),
    ({"pool": "train+val", "validation": 0.2}, "have no validation split"),
    ({"group_pattern": r"^pot (\d+)"}, "names no group in 40 of 40 ids, for example 'plant 0"),
    ({"groups": "/nowhere.csv"}, "cannot be read"),
    ({"long_tail": 50.0}, "leaves no image of 3, since the largest class .* give at most 9"),
])
def test_divisions_that_the_data_do_not_allow_are_sentences(keys, message):
    with pytest.raises(UserError, match=message):
        load(arrays(), **keys)


@pytest.mark.parametrize(("text", "message"), [
    ("name,group\na,b\n", "has the columns name, group where id and group are needed"),
    ("", "has the columns none"), ("id,group\n", "holds no row"),
    ("id,group\nrose,b\n", "names no image of the data, whose first id is 'plant 0 photo 0'"),
    ("id,group\n\xff", "cannot be read")])
def test_files_of_groups_that_do_not_fit_are_sentences(tmp_path, text, message):
    (tmp_path / "groups.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        load(arrays(), groups=str(tmp_path / "groups.csv"))


@pytest.mark.parametrize(("keys", "message"), [
    ({"fold": 1}, "needs dataset.folds"), ({"folds": 3}, "-m dataset.fold=0,1,2$"),
    ({"folds": 3, "fold": 3}, "dataset.fold=3 does not exist: with dataset.folds=3"),
    ({"folds": 3, "fold": 0, "validation": 0.2}, "exclude each other"),
    ({"pool": "train+val"}, "needs dataset.folds or dataset.validation"),
    ({"group_pattern": "(a"}, "is no regular expression"), ({"validation": 1.0}, "validation"),
    ({"long_tail": 1.0}, "long_tail"), ({"folds": 1, "fold": 0}, "folds")])
def test_keys_that_contradict_each_other_are_sentences(keys, message):
    with pytest.raises(UserError, match=message):
        Dataset(**keys)


def test_the_keys_of_divisions_are_those_that_reading_does_not_need():
    dataset = Dataset("source", folds=3, fold=1, long_tail=2.0, group_pattern="a", cache="none")
    assert splits.undivided(dataset) == Dataset("source", cache="none")
