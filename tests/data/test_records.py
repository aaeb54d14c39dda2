"""Real TFRecords, read back and broken in every way that part of a disk or a writer can."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.config import Dataset
from flowerexp.data import records, tfrecord
from flowerexp.data.features import Labels, ReadSpec
from flowerexp.data.sources import Source
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment

SIZE = 16


def picture(number, height=SIZE, width=SIZE):
    """uint8 [height, width, 3], another gradient for every number."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8 + number, columns * 8, (rows + columns + 7 * number) * 4],
                    -1).astype(np.uint8)


def jpeg(number=0, height=SIZE, width=SIZE):
    return tf.io.encode_jpeg(picture(number, height, width), quality=95).numpy()


def feature(value):
    """A feature of the type of `value`: bytes, int, float or a list of them."""
    values = value if isinstance(value, list) else [value]
    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def example(**features):
    """A serialized record; `class_` stands for `class`."""
    named = {name.rstrip("_"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def good(number):
    return example(image=jpeg(number), class_=number % 3, id=f"id{number}".encode())


def write_serialized(path, serialized):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in serialized:
            writer.write(each)
    return path


def read(folder, labelled=True, classes=3, size=SIZE, keep_images=True):
    labels = Labels.REQUIRED if labelled else Labels.ABSENT
    return records.read(tfrecord.list_files(str(folder)),
                        ReadSpec(size, labels, classes, keep_images))


def fault_of(folder, **arguments):
    """The sentence of the mistake in a split."""
    with pytest.raises(UserError) as mistake:
        read(folder, **arguments)
    sentence = str(mistake.value)
    assert "\n" not in sentence
    return sentence


def split_with(folder, bad, before=2, after=1, name="part-B.tfrec"):
    """A good file and one whose record number `before` is `bad`; returns the path of that one."""
    write_serialized(folder / "part-A.tfrec", [good(number) for number in range(3)])
    return write_serialized(folder / name, [*(good(number) for number in range(before)), bad,
                                            *(good(number) for number in range(after))])


# What is read

def test_read_gives_back_what_write_wrote(tmp_path):
    images = [jpeg(number) for number in range(7)]
    labels = [2, 0, 1, 1, 0, 2, 2]
    ids = ["a", "b", "ü", "d", "e", "f", "g"]
    tfrecord.write(tmp_path / "01-16x16-3.tfrec", images[4:], labels[4:], ids[4:])
    tfrecord.write(tmp_path / "00-16x16-4.tfrec", images[:4], labels[:4], ids[:4])
    table = read(tmp_path)
    assert table.images.numpy().tolist() == images
    assert table.labels.tolist() == labels
    assert table.labels.dtype == np.int32
    assert table.ids == ids
    assert table.counts == (4, 3)
    assert table.files == (
        str(tmp_path / "00-16x16-4.tfrec"), str(tmp_path / "01-16x16-3.tfrec"))
    assert [tfrecord.stated_count(file) for file in table.files] == [4, 3]


def test_split_without_labels(tmp_path):
    tfrecord.write(tmp_path / "t-2.tfrec", [jpeg(0), jpeg(1)], None, ["x", "y"])
    table = read(tmp_path, labelled=False, classes=None)
    assert table.labels.tolist() == [-1, -1]
    assert table.ids == ["x", "y"]
    assert len(table.images) == 2


def test_class_in_a_test_split_is_not_read(tmp_path):
    write_serialized(tmp_path / "t.tfrec", [good(2), example(image=jpeg(), id=b"b", class_=b"?")])
    assert read(tmp_path, labelled=False).labels.tolist() == [-1, -1]


def test_id_is_optional_where_there_are_labels(tmp_path):
    write_serialized(tmp_path / "t.tfrec", [example(image=jpeg(), class_=1), good(2)])
    [numbered, named] = read(tmp_path).ids
    assert numbered.endswith("t.tfrec:0")
    assert named == "id2"


def test_file_without_a_count_is_counted(tmp_path):
    write_serialized(tmp_path / "flowers.tfrec", [good(number) for number in range(5)])
    (file,) = tfrecord.list_files(str(tmp_path))
    assert tfrecord.stated_count(file) is None
    assert read(tmp_path).counts == (5,)


@pytest.mark.parametrize(("name", "count"), [
    ("00-192x192-798.tfrec", 798), ("a-0.tfrec", None), ("flowers.tfrec", None),
    ("train-0.tfrec", None), ("train00-130.tfrec", None), ("a-00001-of-00005.tfrec", None),
    ("00-192x192.tfrec", None), ("798.tfrec", None), ("a-12-b.tfrec", None),
    ("gs://bucket/train/15-192x192-783.tfrec", 783)])
def test_count_that_a_name_promises(name, count):
    assert tfrecord.stated_count(name) == count


def test_more_records_than_a_batch_of_parsing_keep_their_order(tmp_path):
    number = records.BATCH + 40
    write_serialized(tmp_path / f"a-{number}.tfrec",
                     [example(image=jpeg(), class_=each % 3, id=str(each).encode())
                      for each in range(number)])
    table = read(tmp_path)
    assert table.ids == [str(each) for each in range(number)]
    assert table.labels.tolist() == [each % 3 for each in range(number)]


def test_images_need_not_be_kept(tmp_path):
    write_serialized(tmp_path / "a.tfrec", [good(0), good(1)])
    table = read(tmp_path, keep_images=False)
    assert table.images is None
    assert table.labels.tolist() == [0, 1]
    assert "record 1" in fault_of_image(tmp_path)


def fault_of_image(folder):
    split_with(folder, example(image=b"no image", class_=0), before=1)
    return fault_of(folder, keep_images=False)


def test_files_are_read_in_the_order_of_their_names(tmp_path):
    for number in np.random.default_rng(0).permutation(16).tolist():
        write_serialized(tmp_path / f"{number:02}-1.tfrec", [good(number)])
    assert read(tmp_path).ids == [f"id{number}" for number in range(16)]


def test_only_tfrec_files_are_read(tmp_path):
    write_serialized(tmp_path / "a-1.tfrec", [good(0)])
    (tmp_path / "README.txt").write_text("no records")
    (tmp_path / ".b-1.tfrec.partial").write_bytes(b"half a file")
    assert read(tmp_path).counts == (1,)


def test_folder_with_special_characters(tmp_path):
    folder = tmp_path / "flowers [v2] *"
    folder.mkdir()
    write_serialized(folder / "a-1.tfrec", [good(0)])
    assert read(folder).counts == (1,)


def test_labels_are_not_held_against_an_unknown_number_of_classes(tmp_path):
    write_serialized(tmp_path / "a.tfrec", [example(image=jpeg(), class_=500)])
    assert read(tmp_path, classes=None).labels.tolist() == [500]


def test_first_image_size(tmp_path):
    path = write_serialized(tmp_path / "a.tfrec", [example(image=jpeg(0, 24, 24), class_=0)])
    assert records.first_image_size([str(path)]) == 24


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_image_size_is_that_of_the_first_readable_file_whoever_reads_it(tmp_path, monkeypatch,
                                                                        workers):
    """Each worker its own files."""
    for name, height in (("a", 0), ("b", 24), ("c", 32), ("d", 0)):
        image = jpeg(0, height, height) if height else b"no"
        write_serialized(tmp_path / f"{name}.tfrec", [example(image=image, class_=0)])
    files = tfrecord.list_files(str(tmp_path))
    shapes, opened = records.most_common_shape, []
    monkeypatch.setattr(records, "most_common_shape",
                        lambda file, names: opened.append(file) or shapes(file, names))

    def all_gather(make):
        made = []
        for worker in range(workers):
            opened.clear()
            made.append(make(worker, workers))
            assert {*opened} <= {*files[worker::workers]}
        return made

    assert records.first_image_size(files, all_gather=all_gather) == 24


def test_write_leaves_no_file_that_is_not_whole(tmp_path):
    def images():
        yield jpeg()
        raise RuntimeError("the disk of the photos is gone")

    with pytest.raises(RuntimeError, match="photos"):
        tfrecord.write(tmp_path / "a-2.tfrec", images(), [0, 0], ["a", "b"])
    with pytest.raises(UserError, match=r"no \*\.tfrec file"):
        tfrecord.list_files(str(tmp_path))


# Mistakes

def test_folder_without_files(tmp_path):
    with pytest.raises(UserError) as mistake:
        tfrecord.list_files(str(tmp_path))
    assert str(tmp_path) in str(mistake.value)


@pytest.mark.parametrize("name", ["a.tfrec", "a-0.tfrec"])
def test_files_without_records(tmp_path, name):
    write_serialized(tmp_path / name, [])
    sentence = fault_of(tmp_path)
    assert str(tmp_path / name) in sentence
    assert "empty" in sentence


@pytest.mark.parametrize(("name", "records_written"), [
    ("0-16x16-3.tfrec", 2), ("0-16x16-1.tfrec", 2), ("0-16x16-2.tfrec", 0)])
def test_count_in_the_name_disagrees(tmp_path, name, records_written):
    write_serialized(tmp_path / "a.tfrec", [good(0)])
    path = write_serialized(tmp_path / name, [good(number) for number in range(records_written)])
    sentence = fault_of(tmp_path)
    assert f"{path} holds {records_written} records" in sentence
    assert f"says {name[8]}" in sentence


def record_ends(path):
    """Where the records of a file end, by its framing: length, CRC, data, CRC."""
    data, ends, position = path.read_bytes(), [], 0
    while position < len(data):
        position += 16 + struct.unpack_from("<Q", data, position)[0]
        ends.append(position)
    return ends


@pytest.mark.parametrize("left", [4, 11, 12, 200, -4, -1])
def test_truncated_file(tmp_path, left):
    path = split_with(tmp_path, good(5), before=2, after=0)
    second, third = record_ends(path)[1:]
    path.write_bytes(path.read_bytes()[:left + (second if left > 0 else third)])
    sentence = fault_of(tmp_path)
    assert f"{path}, record 2:" in sentence
    assert "truncated" in sentence


def test_truncated_file_that_ends_after_a_record(tmp_path):
    path = split_with(tmp_path, good(5), before=2, after=0, name="1-16x16-3.tfrec")
    path.write_bytes(path.read_bytes()[:record_ends(path)[1]])
    sentence = fault_of(tmp_path)
    assert str(path) in sentence
    assert "holds 2 records where its name says 3" in sentence


@pytest.mark.parametrize("offset", [0, 9, 12, 100, -1], ids=["length", "its CRC", "data start",
                                                              "data", "data CRC"])
def test_flipped_byte(tmp_path, offset):
    path = split_with(tmp_path, good(5), before=2, after=1)
    data = bytearray(path.read_bytes())
    second, third = record_ends(path)[1:3]
    data[(third if offset < 0 else second) + offset] ^= 0x40
    path.write_bytes(data)
    sentence = fault_of(tmp_path)
    assert f"{path}, record 2:" in sentence
    assert "damaged" in sentence


def test_file_that_is_no_tfrecord(tmp_path):
    path = tmp_path / "a.tfrec"
    path.write_bytes(b"these are words, not records, and there are enough of them to read")
    sentence = fault_of(tmp_path)
    assert f"{path}, record 0:" in sentence


def promising(serialized, length):
    """The record, whose JPEG says it is so many bytes, 2^31 to 2^32 - 1; other lengths stay right.

    The length stands before the JPEG in groups of 7 bits, the lowest first; the right one is in two
    of them, and the JPEG loses three bytes for the others.
    """
    start = serialized.index(b"\xff\xd8\xff")
    assert len(jpeg()) in range(2**7, 2**14)
    groups = bytes(length >> 7 * place & 127 | (place < 4) << 7 for place in range(5))
    return serialized[:start - 2] + groups + serialized[start + 3:]


def huge():
    """The first bytes of a PNG of 400 million pixels."""
    png = bytearray(tf.io.encode_png(picture(0)).numpy())
    png[16:24] = struct.pack(">II", 20_000, 20_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


# A function each, as TensorFlow shall not run while tests are collected.
BAD = {
    "foreign record": (lambda: b"\xff\xfeno example at all", "tf.train.Example"),
    "record without features": (lambda: b"", "'image' is missing"),
    "PNG cut in its header": (
        lambda: example(image=tf.io.encode_png(picture(0)).numpy()[:20], class_=0), "PNG"),
    "no image": (lambda: example(image=b"not an image", class_=0), "JPEG"),
    "empty image": (lambda: example(image=b"", class_=0), "JPEG"),
    "JPEG cut in its header": (lambda: example(image=jpeg()[:20], class_=0), "JPEG"),
    "huge image": (lambda: example(image=huge(), class_=0), "100,000,000 pixels"),
    "label too great": (lambda: example(image=jpeg(), class_=3), "label 3"),
    "negative label": (lambda: example(image=jpeg(), class_=-1), "label -1"),
    "label of many bits": (lambda: example(image=jpeg(), class_=2**32), "label 4294967296"),
    "no feature image": (lambda: example(class_=0, id=b"a"), "'image' is missing"),
    "feature of another name": (lambda: example(picture=jpeg(), class_=0), "'image' is missing"),
    "no feature class": (lambda: example(image=jpeg(), id=b"a"), "'class' is missing"),
    "label as text": (lambda: example(image=jpeg(), class_=b"1"), "'class'"),
    "label as float": (lambda: example(image=jpeg(), class_=1.0), "'class'"),
    "two labels": (lambda: example(image=jpeg(), class_=[0, 1]), "'class'"),
    "no label in the list": (lambda: example(image=jpeg(), class_=[]), "'class'"),
    "image as number": (lambda: example(image=1, class_=0), "'image'"),
    "two images": (lambda: example(image=[jpeg(), jpeg()], class_=0), "'image'"),
    "id as number": (lambda: example(image=jpeg(), class_=0, id=7), "'id'"),
    # TensorFlow's own parser ends the process at these.
    "image of 2^31 bytes": (lambda: promising(good(0), 2**31), "tf.train.Example"),
    "image of 2^32 - 1 bytes": (lambda: promising(good(0), 2**32 - 1), "tf.train.Example"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_record_is_named(tmp_path, bad):
    make, words = BAD[bad]
    path = split_with(tmp_path, make())
    sentence = fault_of(tmp_path)
    assert sentence.startswith(f"{path}, record 2: ")
    assert words in sentence


BAD_TEST = {
    "no feature id": (lambda: example(image=jpeg()), "'id' is missing"),
    "id as number": (lambda: example(image=jpeg(), id=7), "'id'"),
    "no feature image": (lambda: example(id=b"a"), "'image' is missing"),
    "no image": (lambda: example(image=b"not an image", id=b"a"), "JPEG"),
}


@pytest.mark.parametrize("bad", BAD_TEST)
def test_bad_record_of_a_test_split_is_named(tmp_path, bad):
    make, words = BAD_TEST[bad]
    path = split_with(tmp_path, make())
    sentence = fault_of(tmp_path, labelled=False, classes=None)
    assert sentence.startswith(f"{path}, record 2: ")
    assert words in sentence


def test_negative_label_is_refused_without_a_number_of_classes(tmp_path):
    path = split_with(tmp_path, example(image=jpeg(), class_=-1))
    assert f"{path}, record 2: its label -1" in fault_of(tmp_path, classes=None)


def test_label_that_int32_cannot_hold_is_refused_without_a_number_of_classes(tmp_path):
    path = split_with(tmp_path, example(image=jpeg(), class_=2**32))
    assert f"{path}, record 2: its label 4294967296" in fault_of(tmp_path, classes=None)


def test_first_of_several_faults_is_named(tmp_path):
    split_with(tmp_path, example(image=jpeg(), class_=9))
    write_serialized(tmp_path / "part-A.tfrec", [good(0), example(image=jpeg(), class_=-2)])
    assert f"{tmp_path}/part-A.tfrec, record 1: its label -2" in fault_of(tmp_path)


def test_jpeg_with_a_cut_body_is_named_when_it_is_decoded(tmp_path):
    broken = jpeg(3)[:-40]
    assert tf.io.extract_jpeg_shape(broken).numpy().tolist() == [SIZE, SIZE, 3]
    path = split_with(tmp_path, example(image=broken, class_=0, id=b"a"))
    table = read(tmp_path)
    source = Source("tfrecords", "", str(tmp_path), SIZE, None, 3, {})
    with pytest.raises(UserError) as mistake:
        experiment.as_images(table, source, Dataset(), "decoded", RunLogger(chief=False))
    assert str(mistake.value).startswith(f"{path}, record 2: ")
    assert "JPEG" in str(mistake.value)
    for labels in (Labels.REQUIRED, Labels.ABSENT):
        found = records.first_issue(table.files, ReadSpec(SIZE, labels, 3))
        assert found == str(mistake.value)


def test_good_split_has_no_fault(tmp_path):
    split_with(tmp_path, good(1))
    files = tfrecord.list_files(str(tmp_path))
    assert records.first_issue(files, ReadSpec(SIZE, num_classes=3)) is None


def test_size_of_an_unreadable_first_image(tmp_path):
    path = write_serialized(tmp_path / "a.tfrec", [example(image=b"no", class_=0)])
    with pytest.raises(UserError) as mistake:
        records.first_image_size([str(path)])
    assert str(path) in str(mistake.value)
    assert "dataset.image_size" in str(mistake.value)
