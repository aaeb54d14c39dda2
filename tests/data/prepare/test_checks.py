"""`data check`: which faults it lists, which of them stop a run, and how it prints them."""

import pickle
import shutil

import pytest
import tensorflow as tf
from rich.console import Console

from flowerexp.config import Dataset
from flowerexp.data import sources
from flowerexp.data.prepare import checks
from flowerexp.data.sources import TFRecords
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment
from tests import forked
from tests.data.test_records import (
    SIZE,
    example,
    good,
    jpeg,
    picture,
    record_ends,
    write_serialized,
)


def of(root, **options):
    dataset = TFRecords(str(root), **options)
    return checks.check(sources.find(dataset))


def run_refuses(root, **options):
    """The sentence with which a run of the same options would stop, or None."""
    dataset = Dataset(TFRecords(str(root), **options), cache="decoded")
    try:
        data = experiment.load_data(dataset, RunLogger(chief=False))
        test = experiment.load_test(dataset, data)
        if test is not None:  # decoded as it is predicted
            experiment.as_images(test, data.source, dataset, "decoded",
                                 RunLogger(chief=False))
    except UserError as error:
        return str(error)
    except tf.errors.InvalidArgumentError:
        return "a test image"
    return None


@pytest.fixture
def root(tmp_path):
    """12 training, 6 validation and 3 test images of three classes, two training files."""
    for split, numbers in (("train", range(6)), ("val", range(20, 26))):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a-16x16-6.tfrec", [good(number) for number in numbers])
    write_serialized(tmp_path / "train/b-16x16-6.tfrec", [good(number) for number in range(6, 12)])
    (tmp_path / "test").mkdir()
    write_serialized(tmp_path / "test/a-16x16-3.tfrec", [
        example(image=jpeg(number), id=f"id{number}".encode()) for number in (30, 31, 32)])
    return tmp_path


def put(root, bad, split="train", name="b-16x16-6.tfrec", number=2):
    """Replaces a record of a file; returns its path."""
    path = root / split / name
    data = [each.numpy() for each in tf.data.TFRecordDataset(str(path))]
    data[number] = bad
    return write_serialized(path, data)


def damage(path, place, flip=0x40):
    data = bytearray(path.read_bytes())
    data[place] ^= flip
    path.write_bytes(data)


def test_a_good_data_set_has_no_fault_and_every_count(root):
    checked = of(root)
    assert (checked.errors, checked.warnings) == ([], [])
    assert checked.records == {"train": 12, "val": 6, "test": 3}
    assert {split: counts.tolist() for split, counts in checked.counts.items()} == {
        "train": [4, 4, 4], "val": [2, 2, 2]}
    assert run_refuses(root) is None


BAD = {
    "missing image": (lambda: example(class_=0, id=b"x"), "'image' is missing"),
    "missing label": (lambda: example(image=jpeg(), id=b"x"), "'class' is missing"),
    "broken header": (lambda: example(image=b"no", class_=0, id=b"x"), "not a valid JPEG"),
    "broken body": (lambda: example(image=jpeg(3)[:-40], class_=0, id=b"x"), "not a valid JPEG"),
    "text": (lambda: example(image=jpeg(3), class_=b"rose", id=b"x"), "'class' must be"),
    "label": (lambda: example(image=jpeg(3), class_=-1, id=b"x"), "label -1"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_bad_record_is_listed_with_its_id_and_stops_a_run(root, bad, split):
    make, words = BAD[bad]
    path = put(root, make(), split, "a-16x16-6.tfrec")
    (fault,) = of(root).errors
    assert (fault.file, fault.record, fault.id) == (str(path), 2, "x")
    assert words in fault.message
    assert run_refuses(root) == fault.sentence


def test_every_fault_of_a_record_and_of_a_set_is_listed(root):
    put(root, example(image=b"none", class_=-5, id=b"two"))
    put(root, example(id=b"three"), name="a-16x16-6.tfrec", number=5)
    put(root, example(image=b"", id=b"four"), "test", "a-16x16-3.tfrec", 0)
    found = [(fault.id, fault.record, fault.message.partition(" ")[0])
             for fault in of(root).errors]
    assert [each[:2] for each in found] == [("three", 5), ("three", 5), ("two", 2), ("two", 2),
                                            ("four", 0)]


def test_crc_error_of_one_record_leaves_the_others_readable(root):
    path = root / "train/b-16x16-6.tfrec"
    second = record_ends(path)[1]
    damage(path, second + 300)  # in the image, wherever the id stands
    checked = of(root)
    (fault,) = checked.errors
    assert (fault.record, fault.id) == (2, "id8")
    assert "CRC" in fault.message
    assert checked.records["train"] == 12
    assert checked.counts["train"].sum() == 11
    assert run_refuses(root) == fault.sentence


@pytest.mark.parametrize(("place", "words"), [(0, "CRC error of the record's length"),
                                              (9, "CRC error of the record's length")])
def test_damaged_length_says_how_many_records_are_lost(root, place, words):
    path = root / "train/b-16x16-6.tfrec"
    damage(path, record_ends(path)[1] + place)
    (fault,) = of(root).errors
    assert fault.record == 2
    assert words in fault.message
    assert "4 of the 6 records that its name promises are lost" in fault.message
    assert run_refuses(root) == fault.sentence


def test_truncated_file_and_one_that_ends_after_a_record(root):
    path, other = root / "train/b-16x16-6.tfrec", root / "val/a-16x16-6.tfrec"
    path.write_bytes(path.read_bytes()[:-7])
    other.write_bytes(other.read_bytes()[:record_ends(other)[3]])
    cut, short = of(root).errors
    assert (cut.record, cut.id) == (5, None)
    assert "truncated" in cut.message
    assert short.record is None
    assert short.sentence.startswith(f"{other} holds 4 records where its name says 6")
    assert run_refuses(root) == cut.sentence


def test_length_of_two_to_the_forty_with_a_right_crc_is_named(root):
    import struct

    from flowerexp.data import tfrecord

    path = root / "train/b-16x16-6.tfrec"
    data, place = bytearray(path.read_bytes()), record_ends(path)[0]
    data[place:place + 8] = struct.pack("<Q", 2**40)
    data[place + 8:place + 12] = struct.pack("<I", tfrecord.masked_crc(struct.pack("<Q", 2**40)))
    path.write_bytes(data)
    (fault,) = of(root).errors
    assert f"a record of {2**40} bytes" in fault.message
    assert run_refuses(root) == fault.sentence


def test_empty_split_stops(root):
    write_serialized(root / "val/a-16x16-6.tfrec", [])
    (root / "val/a-16x16-6.tfrec").rename(root / "val/a.tfrec")
    (fault,) = of(root).errors
    assert fault.sentence.endswith("the split is empty")
    assert "empty" in run_refuses(root)


def test_doubts_stop_no_run(root):
    put(root, example(image=jpeg(2), class_=2, id=b"id21"), number=5)  # twice in train
    commented = jpeg(1)[:2] + b"\xff\xfe\x00\x05abc" + jpeg(1)[2:]  # other bytes, the same pixels
    put(root, example(image=commented, class_=0, id=b"id0"), "val", "a-16x16-6.tfrec", 4)
    put(root, example(image=jpeg(22), id=b"t"), "test", "a-16x16-3.tfrec", 1)
    checked = of(root, num_classes=5)
    assert checked.errors == []
    train, val = root / "train", root / "val/a-16x16-6.tfrec"
    assert [fault.sentence for fault in checked.warnings] == [
        f"{val}, record 1: its id is also that of {train}/b-16x16-6.tfrec, record 5",
        f"{val}, record 4: its id is also that of {train}/a-16x16-6.tfrec, record 0",
        f"{val}, record 4: its image (the same pixels) is also in train: "
        f"{train}/a-16x16-6.tfrec, record 1",
        f"{root}/test/a-16x16-3.tfrec, record 1: its image (the same pixels) is also in val: "
        f"{val}, record 2",
        f"{train} holds no good image of 2 of 5 classes: 3, 4"]
    assert run_refuses(root, num_classes=5) is None


def test_labels_out_of_the_range_that_was_given(root):
    (fault, *_) = of(root, num_classes=2).errors
    assert "its label 2 is out of range: labels are from 0 to 1" in fault.message
    assert run_refuses(root, num_classes=2) == fault.sentence


def test_a_label_of_a_million_is_no_reason_to_count_so_many_classes(root):
    put(root, example(image=jpeg(), class_=2**30, id=b"x"))
    (fault,) = of(root).errors
    assert f"its label {2**30} is out of range" in fault.message


def test_a_bad_first_image_does_not_decide_the_size(root):
    put(root, example(image=b"no", class_=0, id=b"first"), name="a-16x16-6.tfrec", number=0)
    (fault,) = of(root).errors
    assert fault.id == "first"
    assert run_refuses(root) == fault.sentence
    put(root, example(image=jpeg(0, 24, 24), class_=0, id=b"first"),
        name="a-16x16-6.tfrec", number=0)
    assert sources.find(TFRecords(str(root))).image_size == 16


def test_masked_crc_is_that_of_tensorflow(tmp_path):
    import struct

    from flowerexp.data import tfrecord

    data = [b"", b"123456789", bytes(range(256)) * 5]
    path = write_serialized(tmp_path / "a.tfrec", data)
    written, position = path.read_bytes(), 0
    for each in data:
        assert struct.unpack_from("<QI", written, position) == (
            len(each), tfrecord.masked_crc(struct.pack("<Q", len(each))))
        position += 12 + len(each)
        assert struct.unpack_from("<I", written, position)[0] == tfrecord.masked_crc(each)
        position += 4
    assert tfrecord.whole_spans(str(path)) == [(12, 0), (28, 9), (53, 1280)]
    assert [(record.data, record.damage) for record in tfrecord.raw_records(str(path))] == [
        (each, None) for each in data]


def test_a_record_of_two_faults_is_counted_once(root, capsys):
    put(root, example(image=b"none", class_=-5, id=b"two"))
    checks.run(TFRecords(str(root)), RunLogger())
    assert "; 2 errors, 1 bad record (dataset.on_bad_record=stop ends a run)" in (
        capsys.readouterr().out)


def command(*words, folder="."):
    return forked.run(["-m", "flowerexp", "data", "check", *words], folder)


def test_the_command_lists_faults_counts_and_a_verdict(root):
    path = put(root, example(image=b"none", class_=0, id=b"[small]"))
    done = command(root, "--classes", "4", folder=root)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines.pop(0) == ("dataset: TFRecords; the competition's layout: image, class, id")
    assert lines[0] == (f"error: {path}, record 2 (id '[small]'): its image is not a valid JPEG, "
                        "PNG, GIF, BMP or WebP")
    assert lines[1] == f"warning: {root}/train holds no good image of 1 of 4 classes: 3"
    assert [line.split() for line in lines[2:7]] == [
        ["class", "train", "val"], ["0", "4", "2"], ["1", "4", "2"], ["2", "3", "2"],
        ["3", "0", "0"]]
    assert ("12 in train, 6 in val, 3 in test; 1 error, 1 bad record "
            "(dataset.on_bad_record=stop ends a run), 1 warning") in lines[7]
    assert len(lines) == 8


def test_the_command_ends_with_zero_where_a_run_would_start(root):
    put(root, good(0), "val", "a-16x16-6.tfrec")
    (root / "names.txt").write_text("pink [rose]\nlily\ntulip\n")
    done = command(root, "--size", SIZE, "--names", root / "names.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" in done.stdout
    assert "0 pink [rose]" in done.stdout
    assert ("0 errors, 0 bad records (dataset.on_bad_record=stop ends a run), 2 warnings"
            in done.stdout)


def test_a_first_file_without_a_readable_image_does_not_end_the_check(root):
    path = root / "train/a-16x16-6.tfrec"
    path.write_bytes(b"")
    (fault,) = of(root).errors
    assert fault.sentence.startswith(f"{path} holds 0 records where its name says 6")


def test_a_stray_label_makes_no_million_rows(root, capsys):
    put(root, example(image=jpeg(8), class_=900_000, id=b"id8"))
    checks.run(TFRecords(str(root)), RunLogger())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-6:-1]] == ["class", "0", "1", "2", "900000"]


@pytest.mark.parametrize("missing", [".", "train", "val/*"])
def test_missing_folders_are_a_mistake(root, missing):
    place = root / missing.rstrip("/*")
    shutil.rmtree(place)
    if missing.endswith("*"):
        place.mkdir()
    with pytest.raises(UserError) as mistake:
        checks.run(TFRecords(str(root)), RunLogger(chief=False))
    assert str(root if missing == "train" else place) in str(mistake.value)


def test_a_mistake_ends_the_command_in_a_sentence(tmp_path):
    done = command(tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith(f"flowerexp: the data set's root {tmp_path}/nowhere")
    assert done.stderr.count("\n") == 1


def test_a_file_as_root_is_said_to_be_none(root):
    with pytest.raises(UserError, match="is not a folder: give"):
        checks.run(TFRecords(str(root / "train/a-16x16-6.tfrec")), RunLogger(chief=False))


def test_lines_are_whole_in_a_narrow_terminal(root, capsys):
    path = put(root, good(0), "val", "a-16x16-6.tfrec")
    logger = RunLogger()
    logger.console = Console(width=30, force_terminal=True, color_system=None)
    assert checks.run(TFRecords(str(root)), logger)
    printed = capsys.readouterr().out
    assert f"warning: {path}, record 2 (id 'id0'): its id is also that of" in printed


@pytest.mark.parametrize("classes", [2, 5000])
def test_two_classes_and_five_thousand(tmp_path, classes):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec", [
            example(image=jpeg(len(split)), class_=label) for label in {0, classes - 1}])
    checked = of(tmp_path)
    assert checked.errors == []
    assert checked.counts["train"].shape == (classes,)
    assert len(checked.warnings) == (classes > 2)
    assert run_refuses(tmp_path) is None


def test_records_of_texts_and_of_any_image_are_read(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec", [
            example(image=image, label=label) for image, label in (
                (tf.io.encode_png(picture(len(split), 20, 12)).numpy(), b"rose"),
                (jpeg(2 * len(split)), b"lily"), (jpeg(3 * len(split), 9, 9), b"rose"))])
    checked = of(tmp_path)
    assert (checked.errors, checked.warnings) == ([], [])
    assert checked.names == ("lily", "rose")
    assert checked.counts["train"].tolist() == checked.counts["val"].tolist() == [1, 2]


def test_images_are_not_kept(root):
    """What stays of a record does not grow with its image."""
    result = of(root)
    assert (len(result.ids), len(result.images)) == (21, 21)
    assert all(len(digest) == 16 for digest in result.images)
    assert sum(map(len, result.ids)) < 100
    kept = [value for name, value in vars(result).items() if name not in ("ids", "images")]
    assert len(pickle.dumps(kept)) < len(jpeg(0)) * 21 / 2
