"""dataset.on_bad_record=skip: what is left out, what is said, and that nothing else changes."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import composition
from flowerexp.config import Dataset
from flowerexp.data import pipeline, records, sources, splits, tables, tfrecord
from flowerexp.data.batching import Plan
from flowerexp.data.features import Labels, ReadSpec
from flowerexp.data.sampling import Original
from flowerexp.data.sources import TFRecords
from flowerexp.data.tables import Table
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment
from tests.data.test_records import example, good, jpeg, record_ends, write_serialized
from tests.processes import execute, history_of, read, weights_of

SKIP = ReadSpec(16, skip_bad=True)
SKIP_TEST = ReadSpec(16, Labels.ABSENT, skip_bad=True)
DAMAGE = 300
"""Bytes into a record's data: inside the image."""


def flip(path, record, place=DAMAGE):
    data = bytearray(path.read_bytes())
    data[([0, *record_ends(path)])[record] + place] ^= 0x40
    path.write_bytes(data)


def serialized(path):
    return [each.numpy() for each in tf.data.TFRecordDataset(str(path))]


def labelled_with(image, label, identifier):
    return example(image=image, class_=label, id=identifier.encode())


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory):
    """(the tiny data set with bad records of every kind, one from which they were removed)."""
    bad, clean = (tmp_path_factory.mktemp(name) for name in ("bad", "clean"))
    for split in ("train", "val", "test"):
        for path in sorted((tiny / split).iterdir()):
            data = serialized(path)
            kept, dirty = list(data), list(data)
            name = path.name.rpartition("-")[0]
            image = tf.train.Example.FromString(data[2]).features.feature["image"]
            cut = image.bytes_list.value[0][:-40]
            if split == "train" and name.startswith("00"):
                dirty[3] = labelled_with(cut, 0, "train3")
                dirty[7] = labelled_with(b"no image", 0, "train7")
                dirty[11] = example(class_=0, id=b"train11")
                kept = [each for index, each in enumerate(data) if index not in (3, 7, 11, 13)]
            elif split == "train":  # cut off in its last record
                kept = data[:-1]
            elif split == "val" and name.startswith("00"):
                dirty[0] = labelled_with(jpeg(0), 2**25, "val0")
                kept = data[1:]
            elif split == "test":
                identifier = "test0" if name.startswith("00") else "test3"
                dirty[0] = example(image=cut, id=identifier.encode())
            for root, contents, ending in ((bad, dirty, len(data)), (clean, kept, len(kept))):
                (root / split).mkdir(exist_ok=True)
                write_serialized(root / split / f"{name}-{ending}.tfrec", contents)
    flip(bad / "train/00-16x16-20.tfrec", 13)
    flip(bad / "test/01-16x16-4.tfrec", 2)  # test5
    cut_off = bad / "train/01-16x16-20.tfrec"
    cut_off.write_bytes(cut_off.read_bytes()[:-9])
    return bad, clean


BAD_PLACES = [("train/00", 3), ("train/00", 7), ("train/00", 11), ("train/00", 13),
              ("train/01", 19), ("val/00", 0), ("test/00", 0), ("test/01", 0), ("test/01", 2)]
BAD_TEST = (0, 3, 5)


def test_a_run_that_skips_is_the_run_without_the_bad_records(pair, tmp_path):
    """As it streams; for the other caches, it is the table that must be the same."""
    bad, clean = pair
    for root, policy in ((bad, "skip"), (clean, "stop")):
        done = execute(tmp_path, root, f"dataset.on_bad_record={policy}", "dataset.cache=none",
                       "loop.epochs=2", "hardware=cpu", "hardware.replicas=2",
                       "augmentation=[flip]", f"name={policy}")
        assert done.returncode == 0, done.stderr
    one, other = (tmp_path / "outputs" / policy for policy in ("skip", "stop"))
    assert "skipped 9 bad records, all listed in status.json; the first: " in (
        one / "run.log").read_text()
    assert history_of(one) == history_of(other)
    for name in ("valid_preds.json", "valid_labels.json", "valid_probs.npy", "classes.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for left, right in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(left, right)
    listed = read(one, "status.json")["skipped"]
    assert listed["count"] == 9
    assert [(each["file"].removeprefix(f"{bad}/")[:-len("-16x16-20.tfrec")]
             if "train" in each["file"] else each["file"].removeprefix(f"{bad}/").split("-")[0],
             each["record"]) for each in listed["records"]] == BAD_PLACES
    assert [each["id"] for each in listed["records"]] == [
        "train3", "train7", "train11", "train13", None, "val0", "test0", "test3", "test5"]
    assert all(each["fault"] for each in listed["records"])
    assert "skipped" not in read(other, "status.json")
    check_test_rows(one, bad, pair)


def check_test_rows(run, root, pair):
    """7 rows in order; the bad ones are class 0, of which the training set has the most."""
    predicted, probabilities = read(run, "test_preds.json"), np.load(run / "test_probs.npy")
    assert len(predicted) == 7
    with (run / "submission.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["id", "label"], *(
            [f"test{index}", str(label)] for index, label in enumerate(predicted))]
    assert [predicted[index] for index in BAD_TEST] == [0, 0, 0]
    assert probabilities[list(BAD_TEST)].tolist() == [[1, 0, 0]] * 3
    np.testing.assert_array_equal(probabilities.argmax(1), predicted)
    model = tf.keras.models.load_model(run / "model.keras", compile=False)
    images = [record.image for file in tfrecord.list_files(str(root / "test"))
              for record in records.inspect(file, ReadSpec(16, Labels.ABSENT))
              if not record.issues]
    pixels = np.stack([tf.io.decode_jpeg(image, dct_method="INTEGER_ACCURATE").numpy()
                       for image in images])
    good_rows = [index for index in range(7) if index not in BAD_TEST]
    assert [predicted[index] for index in good_rows] == model(pixels).numpy().argmax(1).tolist()


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_the_same_data_stop_a_run_by_default(pair, cache):
    """With the first fault of the files in their order, although lengths are walked before."""
    with pytest.raises(UserError) as mistake:
        experiment.load_data(Dataset(TFRecords(str(pair[0])), cache=cache),
                             RunLogger(chief=False))
    assert str(mistake.value) == (f"{pair[0]}/train/00-16x16-20.tfrec, record 3: its image is "
                                  "not a valid JPEG, PNG, GIF, BMP or WebP")


@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_what_is_kept_in_memory_is_that_of_the_clean_data(pair, cache):
    one, other = (experiment.load_data(Dataset(TFRecords(str(root)), cache=cache,
                                               on_bad_record=policy), RunLogger(chief=False))
                  for root, policy in zip(pair, ("skip", "stop"), strict=True))
    for left, right in ((one.train, other.train), (one.valid, other.valid)):
        assert (left.decoded is None) == (cache == "encoded")
        indices = tf.range(left.count)
        np.testing.assert_array_equal(pipeline.load(left, indices), pipeline.load(right, indices))
        np.testing.assert_array_equal(left.table.labels, right.table.labels)
    assert one.names == other.names
    assert len(one.skipped) == 9


def readable(root, split="train", classes=None, **options):
    files = tfrecord.list_files(str(root / split))
    return records.read(files, ReadSpec(16, Labels.of(split), classes, skip_bad=True, **options))


def test_the_table_of_what_is_left(pair):
    bad, clean = pair
    for split in ("train", "val"):
        left = readable(bad, split)
        expected = records.read(tfrecord.list_files(str(clean / split)), ReadSpec(16))
        assert left.images.numpy().tolist() == expected.images.numpy().tolist()
        assert left.labels.tolist() == expected.labels.tolist()
        assert left.labels.dtype == np.int32
        assert left.ids == expected.ids
        assert left.counts == expected.counts
    assert readable(clean).issues == ()


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_parts_that_several_workers_read_are_the_split_of_one(pair, policy, workers):
    """With three, one of them has no file."""
    def all_gather(make):
        return [make(worker, workers) for worker in range(workers)]

    source = sources.find(sources.TFRecords(str(pair[policy == "stop"])))
    for split in source.files:
        one = splits.read_split(source, split, False, policy)
        several = splits.read_split(source, split, False, policy, all_gather)
        assert several.labels.tolist() == one.labels.tolist()
        assert several.kept.tolist() == one.kept.tolist()
        for name in ("ids", "counts", "files", "images", "all_ids", "issues"):
            assert getattr(several, name) == getattr(one, name), name
        assert (several.issues == ()) == (policy == "stop")
        np.testing.assert_array_equal(several.spans, one.spans)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_leaves_out_the_same_records(pair, workers):
    """In the order of the clean data set, from any update on, on every worker."""
    from tests.data.test_pipeline import Workers

    bad, clean = pair
    plan = Plan(workers, workers, 4, 1, 4, 35, 8 // workers, 1)
    for start in (0, 2):
        parts = []
        for table in (readable(bad, keep_images=False),
                      records.read(tfrecord.list_files(str(clean / "train")),
                                   ReadSpec(16, keep_images=False))):
            images = pipeline.Split(table, 16, shuffle_bytes=1e6)
            assert images.streamed
            for worker in range(workers):
                batches = pipeline.training_batches(Workers(worker), images, Original(), plan, 3,
                                                    None)(1, start)
                parts.append(np.concatenate([each["image"] for each
                                             in batches.as_numpy_iterator()]))
        for one, other in zip(parts[:workers], parts[workers:], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_validation_stream_is_in_order(pair):
    images = pipeline.Split(readable(pair[0], "val", keep_images=False), 16)
    streamed = list(pipeline.stream_in_order(images).as_numpy_iterator())
    expected = readable(pair[0], "val").images.numpy().tolist()
    assert len(expected) == 12
    assert streamed == expected


def test_a_split_of_bad_records_is_a_mistake(tmp_path):
    write_serialized(tmp_path / "a.tfrec", [example(class_=0), b"no example"])
    with pytest.raises(UserError) as mistake:
        records.read(tfrecord.list_files(str(tmp_path)), SKIP)
    assert "leaves the split empty" in str(mistake.value)
    assert f"{tmp_path}/a.tfrec, record 0" in str(mistake.value)


def test_a_test_split_of_bad_records_keeps_its_rows(tmp_path):
    bad = [example(image=b"none", id=f"t{number}".encode()) for number in range(3)]
    write_serialized(tmp_path / "0-16x16-3.tfrec", bad)
    found = records.read(tfrecord.list_files(str(tmp_path)), SKIP_TEST)
    assert found.all_ids == ["t0", "t1", "t2"]
    assert found.kept.tolist() == [False] * 3
    none = np.zeros((0, 2), np.float32)
    _, predicted = experiment.test_rows(found, none, np.array([1, 5]))
    assert predicted == [1, 1, 1]
    for keep_images in (True, False):
        left = records.read(tfrecord.list_files(str(tmp_path)),
                            dataclasses.replace(SKIP_TEST, keep_images=keep_images))
        batches, rows = pipeline.evaluation_batches(
            tf.distribute.get_strategy(), pipeline.Split(left, 16), Plan(1, 1, 4, 1, 4, 4, 1, 1))
        assert len(rows) == len(list(batches)) == 0


def in_test(number):
    return example(image=jpeg(number), id=f"t{number}".encode())


@pytest.mark.parametrize("kind", ["cut off", "cut after a record", "too many", "no id",
                                  "foreign record", "another's id"])
def test_a_test_row_that_cannot_be_named_stops_even_then(tmp_path, kind):
    bad = {"no id": example(image=jpeg()), "foreign record": b"\xff\xfe",
           "another's id": example(image=b"none", id=b"t1")}.get(kind, in_test(2))
    path = write_serialized(tmp_path / "0-16x16-4.tfrec", [in_test(0), in_test(1), bad, in_test(3),
                                                     *[in_test(4)] * (kind == "too many")])
    ends = record_ends(path)
    cut = {"cut off": ends[2] + 30, "cut after a record": ends[2]}.get(kind)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError) as mistake:
        records.read(tfrecord.list_files(str(tmp_path)), SKIP_TEST)
    assert str(path) in str(mistake.value)
    assert "on_bad_record=skip cannot name" in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_filling_keeps_the_order():
    test = Table(None, np.full(3, -1), ["b", "c", "e"], bad={0: "a", 3: "d"})
    assert test.kept.tolist() == [False, True, True, False, True]
    assert test.all_ids == ["a", "b", "c", "d", "e"]
    logits = np.eye(4, dtype=np.float32)[[1, 2, 3]] * 99
    probabilities, predicted = experiment.test_rows(test, logits, np.array([5, 1, 1, 1]))
    assert predicted == [0, 1, 2, 0, 3]
    np.testing.assert_array_equal(probabilities, np.eye(4)[predicted])
    assert probabilities.dtype == np.float16


def test_the_commonest_class_is_the_lowest_on_a_tie():
    test = Table(None, np.array([-1]), ["a"], bad={1: "b"})
    logits = np.array([[0, 0, 9]], np.float32)
    probabilities, predicted = experiment.test_rows(test, logits, np.array([1, 5, 5]))
    assert predicted == [2, 1]
    assert probabilities[1].tolist() == [0, 1, 0]


def test_another_error_is_not_blamed_on_a_record_that_was_left_out(pair):
    table = readable(pair[0])
    error = tf.errors.InvalidArgumentError(None, None, "of another thing")
    with pytest.raises(tf.errors.InvalidArgumentError, match="of another thing"), \
            experiment.bad_records_named(pipeline.Split(table, 16)):
        raise error
    everything = pipeline.Split(dataclasses.replace(table, issues=()), 16)
    with pytest.raises(UserError, match="record 3: its image is not a valid JPEG"), \
            experiment.bad_records_named(everything):
        raise error


def test_the_classes_and_the_fingerprint_are_those_of_what_is_left(pair):
    """A label far out of range is left out before it counts as a class."""
    write = Dataset(TFRecords(str(pair[0])), on_bad_record="skip")
    source = sources.find(write.source)
    data = experiment.load_data(write, RunLogger(chief=False))
    assert len(data.names) == 3
    planned = splits.load(source, write, keep_images=False)
    assert data.counts.tolist() == planned.counts.tolist() == [20, 11, 4]
    assert data.fingerprint == planned.fingerprint


def begin(root, folder):
    """The first update of a run that skips."""
    chosen = ("dataset=tfrecords", f"dataset.root='{root}'", "dataset.on_bad_record=skip",
              "hardware=cpu", "loop.steps_per_execution=1")
    composition.register()
    folder.mkdir(exist_ok=True)
    assert experiment.run(composition.check(composition.compose(chosen)), folder, RunLogger(folder),
                          lambda: True)


def test_a_run_that_skips_does_not_go_on_where_other_records_are_bad(tiny, tmp_path):
    """Mended in place, or another one of the same class is bad: no size and no count differs."""
    root, folder = shutil.copytree(tiny, tmp_path / "data"), tmp_path / "run"
    paths = {split: next((root / split).glob("00-*")) for split in ("train", "val", "test")}
    whole = {split: path.read_bytes() for split, path in paths.items()}
    for path in paths.values():
        flip(path, 2)
    bad = {split: path.read_bytes() for split, path in paths.items()}
    begin(root, folder)
    begin(root, folder)
    for split, other in (("val", None), ("test", None), ("train", 3)):
        paths[split].write_bytes(whole[split])
        if other is not None:
            flip(paths[split], other)
        with pytest.raises(UserError, match=r"belongs to another run \(data: "):
            begin(root, folder)
        paths[split].write_bytes(bad[split])


@pytest.mark.parametrize(("kept", "lost"), [(0, 3), (1, 2), (2, 1)])
@pytest.mark.parametrize("more", [0, 5])
def test_every_record_that_a_name_promises_and_that_is_lost_counts(tmp_path, kept, lost, more):
    """Of a file that is empty, ends after a record, or in the middle of one."""
    write_serialized(tmp_path / "0-16x16-1.tfrec", [good(0)])
    path = write_serialized(tmp_path / "1-16x16-3.tfrec", [good(number) for number in range(3)])
    path.write_bytes(path.read_bytes()[:[0, *record_ends(path)][kept] + more])
    left = records.read(tfrecord.list_files(str(tmp_path)), SKIP)
    assert tables.skipped_status(left.issues)["count"] == lost
    assert f"skipped {lost} bad records" in tables.skipped_sentence(left.issues)


def test_a_status_lists_nothing_of_an_earlier_attempt(tiny, tmp_path):
    for policy in ("skip", "stop"):
        experiment.load_data(Dataset(TFRecords(str(tiny)), on_bad_record=policy),
                             RunLogger(tmp_path))
        assert ("skipped" in read(tmp_path, "status.json")) == (policy == "skip")


def test_good_records_only_is_no_change(tmp_path):
    write_serialized(tmp_path / "0-16x16-3.tfrec", [good(number) for number in range(3)])
    left = records.read(tfrecord.list_files(str(tmp_path)), SKIP)
    assert left.issues == ()
    assert left.kept.all()
    assert tables.skipped_sentence(()) == "skipped 0 records"
    assert tables.skipped_status(()) == {"count": 0, "records": []}
