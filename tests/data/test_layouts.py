"""One small case of each layout of records: what is recognised, read, squared and refused."""

import gzip
import io
import json
import unicodedata
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from flowerexp import composition
from flowerexp.config import Dataset
from flowerexp.data import class_names, photos, pipeline, records, resizing, splits, tfrecord
from flowerexp.data.features import Features, Labels, ReadSpec
from flowerexp.data.pipeline import Split
from flowerexp.data.sources import TFRecords, check_root, find
from flowerexp.errors import UserError
from flowerexp.train import launch
from tests.data.test_records import feature, jpeg, picture, write_serialized

NAMES = ["daisy", "rose", "tulip"]


def record(values):
    """A serialized record of features of any names."""
    return tf.train.Example(features=tf.train.Features(feature={
        name: feature(value) for name, value in values.items()})).SerializeToString(
            deterministic=True)


def one_hot(label, kind=int):
    return [kind(place == label) for place in range(3)]


# Layout -> (features of image `image`, class `label`, number `n`), whether there is an id.
LAYOUTS = {
    "competition": lambda image, label, n: {"image": image, "class": label, "id": b"i%d" % n},
    "TFDS": lambda image, label, n: {"image": image, "label": label, "file_name": b"i%d" % n},
    "TFDS without id": lambda image, label, n: {"image": image, "label": label},
    "later competitions": lambda image, label, n: {
        "image": image, "target": label, "image_name": b"i%d" % n},
    "image_raw": lambda image, label, n: {"image_raw": image, "label": label, "height": 9},
    "TF-Slim": lambda image, label, n: {
        "image/encoded": image, "image/class/label": label + 1,
        "image/class/text": NAMES[label].encode(), "image/filename": b"i%d" % n},
    "Object Detection": lambda image, label, n: {
        "image/encoded": image, "image/object/class/label": [label + 1] * 2,
        "image/filename": b"i%d" % n, "image/object/bbox/xmin": [0.5, 0.5]},
    "text": lambda image, label, n: {"image": image, "label": NAMES[label].encode()},
    "one-hot": lambda image, label, n: {"image": image, "label": one_hot(label)},
    "one-hot of floats": lambda image, label, n: {"image": image, "label": one_hot(label, float)},
    "float": lambda image, label, n: {"image": image, "target": float(label), "image_id": n},
}
IDS = {"TFDS without id", "image_raw", "text", "one-hot", "one-hot of floats"}


def write(root, layout, number=7, **names):
    """Writes the splits of a layout to files; images are of 16 px, class n % 3 is of image n."""
    make = LAYOUTS[layout] if isinstance(layout, str) else layout
    for name in names.values():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_serialized(path, [record(make(jpeg(n), n % 3, n)) for n in range(number)])
    return root


def load(root, **options):
    dataset = Dataset(source=TFRecords(str(root), **options))
    return splits.load(find(dataset.source), dataset, keep_images=True)


def mistake(call, *arguments, **options):
    with pytest.raises(UserError) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Features

@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_recognised(tmp_path, layout):
    write(tmp_path, layout, train="train/a.tfrec", val="val/b.tfrec")
    options = {"label_offset": 1} if layout == "Object Detection" else {}
    found = load(tmp_path, **options)
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    names = NAMES if layout in ("TF-Slim", "text") else ["0", "1", "2"]
    assert list(found.names) == names
    expected = [f"train/a.tfrec:{n}" for n in range(7)] if layout in IDS else [
        str(n) if layout == "float" else f"i{n}" for n in range(7)]
    assert found.train.ids == expected
    assert found.train.images.numpy().tolist() == [jpeg(n) for n in range(7)]


def test_the_layout_is_said(tmp_path):
    write(tmp_path, "TFDS", train="train/a.tfrec", val="val/b.tfrec")
    assert find(TFRecords(str(tmp_path))).reason.endswith(
        "; TFDS' layout: image, label, file_name")


def test_features_can_be_named(tmp_path):
    def make(image, label, n):
        return {"image": b"no", "scan": image, "grade": label, "eye": b"e%d" % n,
                "label": 1 - label % 2, "patient": n // 2}

    write(tmp_path, make, train="train/a.tfrec", val="val/b.tfrec")
    found = load(tmp_path, features={"image": "scan", "label": "grade", "id": "eye",
                                     "group": "patient"})
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.train.ids == [f"e{n}" for n in range(7)]
    assert found.train.groups == ("0", "0", "1", "1", "2", "2", "3")
    sentence = mistake(load, tmp_path, features={"image": "scan", "label": "grad"})
    assert "a.tfrec, record 0: the feature 'grad' is missing" in sentence


def test_unknown_features_are_listed(tmp_path):
    write(tmp_path, lambda image, label, n: {"picture": image, "y": label}, train="train/a.tfrec")
    sentence = mistake(load, tmp_path)
    assert "picture, y" in sentence
    assert "dataset.features.image=NAME" in sentence


def test_two_labels_need_a_choice(tmp_path):
    write(tmp_path, lambda image, label, n: {"image": image, "label": label, "target": 0},
          train="train/a.tfrec", val="val/b.tfrec")
    assert "label and target" in mistake(load, tmp_path)
    assert load(tmp_path, features={"label": "label"}).train.labels.max() == 2


@pytest.mark.parametrize(("label", "words"), [
    ([0, 1, 1], "one of them 1"), ([0, 2, 0], "one of them 1"), ([0, 0, 0], "one of them 1")])
def test_a_label_that_is_no_one_hot_list_is_named(tmp_path, label, words):
    write_serialized(tmp_path / "a.tfrec", [
        record({"image": jpeg(), "label": each}) for each in (one_hot(0), label)])
    spec = ReadSpec(16, features=Features("image", "label", id=None, label_kind="one-hot"))
    sentence = mistake(records.read, [str(tmp_path / "a.tfrec")], spec)
    assert "record 1" in sentence
    assert words in sentence


def test_classes_of_texts_are_those_of_both_splits_in_order(tmp_path):
    for split, texts in (("train", [b"10", b"2"]), ("val", [b"9", b"2"])):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec",
                         [record({"image": jpeg(), "label": text}) for text in texts])
    found = load(tmp_path)
    assert found.names == ("2", "9", "10")
    assert found.train.labels.tolist() == [2, 0]
    assert found.valid.labels.tolist() == [1, 0]


def test_a_text_that_no_class_has_is_named(tmp_path):
    write(tmp_path, "text", train="train/a.tfrec", val="val/b.tfrec")
    sentence = mistake(load, tmp_path, class_names=["daisy", "roses", "tulip"])
    assert "a.tfrec, record 1: its label 'rose' is none" in sentence
    assert "did you mean 'roses'" in sentence


def test_texts_in_another_normal_form_are_one_class(tmp_path):
    for split, form in (("train", "NFC"), ("val", "NFD")):
        text = unicodedata.normalize(form, "Gänseblümchen")
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec", [
            record({"image": jpeg(), "label": each.encode()}) for each in (text, "Rose")])
    assert load(tmp_path).names == ("Gänseblümchen", "Rose")


def test_a_label_with_two_names_is_refused(tmp_path):
    for split, text in (("train", b"a"), ("val", b"b")):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec", [record({
            "image/encoded": jpeg(), "image/class/label": 1, "image/class/text": text})])
    assert "'a'" in mistake(load, tmp_path)


@pytest.mark.parametrize("offset", [None, 1])
def test_labels_from_one(tmp_path, offset):
    write(tmp_path, lambda image, label, n: {"image": image, "label": label + 1},
          train="train/a.tfrec", val="val/b.tfrec")
    found = load(tmp_path, label_offset=offset)
    assert found.train.labels.min() == (0 if offset else 1)
    sentence = mistake(load, tmp_path, class_names=NAMES)
    assert "its label 3 is out of range: labels are from 0 to 2, by the 3 class names" in sentence
    assert "dataset.label_offset=1" in sentence
    assert load(tmp_path, class_names=NAMES, label_offset=1).train.labels.min() == 0


# Files

FILES = {
    "folders": {"train": "train/a.tfrec", "val": "val/b.tfrec", "test": "test/c.tfrec"},
    "spelled otherwise": {"train": "training_set/a.tfrec", "val": "Validation/b.tfrec",
                          "test": "test_images/c.tfrec"},
    "TFDS": {"train": "flowers/1.0.0/my_test-train.tfrecord-00000-of-00001",
             "val": "flowers/1.0.0/my_test-validation.tfrecord-00000-of-00001",
             "test": "flowers/1.0.0/my_test-test.tfrecord-00000-of-00001"},
    "TF-Slim": {"train": "flowers_train_00000-of-00001.tfrecord",
                "val": "flowers_validation_00000-of-00001.tfrecord"},
    "no ending": {"train": "train-00000-of-00001", "val": "validation-00000-of-00001"},
    "flat": {"train": "train00-130.tfrec", "test": "test00-99.tfrec"},
    "tfrecords folders": {"train": "train_tfrecords/ld_train00-1338.tfrec",
                          "test": "test_tfrecords/ld_test00-1.tfrec"},
    "gz": {"train": "train.tfrecord.gz", "val": "val.tfrecords"},
    "one split": {"train": "flowers-0.tfrec"},
}


@pytest.mark.parametrize("kind", FILES)
def test_files_are_found(tmp_path, kind):
    write(tmp_path, "competition", 2, **FILES[kind])
    if kind == "spelled otherwise":
        (tmp_path / "annotations").mkdir()
        (tmp_path / "train_images").mkdir()  # of JPEGs, beside the records
    source = find(TFRecords(str(tmp_path)))
    assert source.files == {split: (str(tmp_path / name),) for split, name in FILES[kind].items()}


def test_files_can_be_given(tmp_path):
    write(tmp_path, "competition", 2, a="x/a0.bin", b="x/a1.bin", c="y/b.bin")
    files = {"train": "x/a*.bin", "val": "*/b.bin"}
    source = find(TFRecords(str(tmp_path), files=files))
    assert source.files == {"train": (f"{tmp_path}/x/a0.bin", f"{tmp_path}/x/a1.bin"),
                            "val": (f"{tmp_path}/y/b.bin",)}
    for files, words in (({"train": "*.no"}, "matches no file"),
                         ({"val": "*/b.bin"}, "files.train"),
                         ({"train": "*/*.bin", "val": "*/b.bin"}, "b.bin is matched by")):
        assert words in mistake(find, TFRecords(str(tmp_path), files=files))


def test_one_of_several_data_sets_is_chosen(tmp_path):
    (tmp_path / "docs").mkdir()
    write(tmp_path / "one", "TFDS", 2, train="x/train/a.tfrec")
    assert find(TFRecords(str(tmp_path))).folder == f"{tmp_path}/one/x"
    write(tmp_path / "two", "TFDS", 2, train="train/a.tfrec")
    assert f"several data sets: give one of them as dataset.root, as {tmp_path}/one/x" in mistake(
        find, TFRecords(str(tmp_path)))


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path, "TFDS", 2, a="f-train.tfrecord-00000-of-00003",
          b="f-train.tfrecord-00002-of-00003")
    sentence = mistake(find, TFRecords(str(tmp_path)))
    assert "2 of 3 shards" in sentence
    assert "number 1 is missing" in sentence


def test_photos_are_no_records(tmp_path):
    for folder in ("train/rose", "val/rose"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.JPG").write_bytes(jpeg())
    sentence = mistake(find, TFRecords(str(tmp_path)))
    assert "dataset=images" in sentence
    assert mistake(check_root, TFRecords(str(tmp_path))) == sentence
    words = ["dataset=tfrecords", f"dataset.root={tmp_path}"]
    composition.register()
    assert sentence == mistake(launch.execute, tmp_path / "run", composition.compose(words), words)
    assert not (tmp_path / "run").exists()
    write(tmp_path, "TFDS", train="records/a.tfrec")
    check_root(TFRecords(str(tmp_path)))


@pytest.mark.parametrize(("name", "is_one"), [
    ("a.tfrec", True), ("a.tfrecords.gz", True), ("train-00000-of-00005", True),
    ("._a.tfrec", False), ("a.tfrec.partial", False), ("train.csv", False),
    ("model.data-00000-of-00001", False)])
def test_names_of_files_of_records(name, is_one):
    assert tfrecord.is_records(name) == is_one


@pytest.mark.parametrize(("name", "split"), [
    ("train_tfrecords", "train"), ("train", "train"), ("Training", "train"),
    ("training_set", "train"), ("trainset", "train"),
    ("test-data", "test"), ("valid", "val"), ("dev", "val"), ("images_val", "val"),
    ("rose", None), ("training_notes", None), ("train_test", None), ("latest", None)])
def test_names_of_splits(name, split):
    assert photos.split_of(name) == split


# Compression

def compressed(path, kind):
    data = path.read_bytes()
    path.write_bytes(gzip.compress(data[:99]) + gzip.compress(data[99:]) if kind == "members"
                     else gzip.compress(data) if kind == "GZIP" else zlib.compress(data))
    return str(path)


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB", "members"])
def test_compressed_files_are_read_and_streamed(tmp_path, kind):
    plain = write_serialized(tmp_path / "a.tfrec", [
        record(LAYOUTS["competition"](jpeg(n), n % 3, n)) for n in range(7)])
    expected = records.read([str(plain)], ReadSpec(16))
    packed = tmp_path / "b.tfrec"
    packed.write_bytes(plain.read_bytes())
    files = [str(plain), compressed(packed, kind)]
    table = records.read(files, ReadSpec(16))
    assert table.images.numpy().tolist() == 2 * expected.images.numpy().tolist()
    assert table.compression == ("", kind if kind == "ZLIB" else "GZIP")
    assert len(tfrecord.whole_spans(files[1])) == 7
    if kind == "members":
        return  # TensorFlow streams one member
    for rows in (np.full(14, True), np.arange(14) % 3 != 0):
        left = records.read(files, ReadSpec(16, keep_images=False)).take(rows)
        assert [each.numpy() for each in pipeline.stream_in_order(Split(left, 16))] == [
            image for image, row in zip(table.images.numpy(), rows, strict=True) if row]


@pytest.mark.parametrize(("change", "words"), [
    (lambda data: data[:-30], "record"), (lambda data: data[:200] + b"xxxx" + data[204:], "damage"),
    (lambda data: data[:15], "record 0")])
def test_a_damaged_compressed_file_is_named(tmp_path, change, words):
    path = write_serialized(tmp_path / "a.tfrec", [
        record(LAYOUTS["competition"](jpeg(n), n % 3, n)) for n in range(7)])
    compressed(path, "GZIP")
    path.write_bytes(change(path.read_bytes()))
    sentence = mistake(records.read, [str(path)], ReadSpec(16))
    assert sentence.startswith(str(path))
    assert words in sentence
    assert "damaged" in sentence


# Images

def encoded(kind, mode, height=20, width=28):
    image = Image.fromarray(picture(3, height, width))
    image = Image.fromarray(picture(3, height, width)[..., 0].astype(np.uint16) * 257
                            ) if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


KINDS = [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"),
         ("PNG", "I;16"), ("GIF", "RGB"), ("BMP", "RGB"), ("BMP", "L"), ("WEBP", "RGB")]


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_images_of_all_kinds_are_squared_as_predict_does(tmp_path, how, cache):
    images = [encoded(*kind) for kind in KINDS] + [jpeg(0)]
    path = write_serialized(tmp_path / "a.tfrec", [
        record({"image/encoded": image, "image/class/label": 0}) for image in images])
    spec = ReadSpec(16, keep_images=cache != "none",
                    features=Features("image/encoded", "image/class/label", id=None))
    table = records.read([str(path)], spec)
    assert not table.plain
    split = Split(table, 16, resize=how)
    if cache == "decoded":
        split = pipeline.cache_decoded(split)
    found = pipeline.gather_images(split, np.arange(len(images)))
    for image, pixels in zip(images, found, strict=True):
        np.testing.assert_array_equal(
            pixels, resizing.square(resizing.decode(tf.constant(image)), 16, how))
    np.testing.assert_array_equal(found[-1], tf.io.decode_jpeg(
        jpeg(0), dct_method="INTEGER_ACCURATE"))


@pytest.mark.parametrize("kind", ["palette", "turned"])
def test_an_image_that_tensorflow_misreads_is_named(tmp_path, kind):
    buffer, image = io.BytesIO(), Image.fromarray(picture(3))
    if kind == "palette":
        image.convert("P").save(buffer, "BMP")
    else:
        exif = Image.Exif()
        exif[0x112] = 6
        image.save(buffer, "PNG", exif=exif)
    path = write_serialized(tmp_path / "a.tfrec", [
        record({"image": buffer.getvalue(), "class": 0})])
    assert "record 0: its image is a BMP with a palette, or" in mistake(
        records.read, [str(path)], ReadSpec(16))


def test_squares_of_one_size_are_decoded_as_they_are(tmp_path):
    path = write(tmp_path, "competition", train="a.tfrec") / "a.tfrec"
    assert records.read([str(path)], ReadSpec(16)).plain
    assert not records.read([str(path)], ReadSpec(8)).plain


def test_a_photo_that_may_be_turned_takes_the_way_of_predict(tmp_path):
    turned = jpeg()[:2] + b"\xff\xe1\x00\x08Exif\0\0" + jpeg()[2:]
    path = write_serialized(tmp_path / "a.tfrec", [record({"image": turned, "class": 0})])
    assert not records.read([str(path)], ReadSpec(16)).plain


@pytest.mark.parametrize(("shapes", "size"), [
    ([(24, 24)] * 3 + [(9, 24)], 24), ([(9, 24)] * 4, 192), ([(8, 8), (9, 9), (10, 10)], 192)])
def test_size_of_images(tmp_path, shapes, size):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec", [
            record({"image": jpeg(0, *shape), "class": 0}) for shape in shapes])
    source = find(TFRecords(str(tmp_path)))
    assert source.image_size == size
    assert ("several shapes" in source.reason) == (size == 192)


# Class names

NAMED = {
    "lines": "daisy\nrose\ntulip\n", "BOM": "\ufeffdaisy\r\nrose\r\ntulip\r\n",
    "JSON list": json.dumps(NAMES), "JSON map": json.dumps(dict(enumerate(NAMES))),
    "JSON map of labels": json.dumps({name: row for row, name in enumerate(NAMES)}),
    "numbered": "2:tulip\n0:daisy\n1:rose\n",
    "label map": "\n".join(f'item {{\n  id: {row}\n  name: "{name}"\n}}'
                           for row, name in enumerate(NAMES))}


@pytest.mark.parametrize("kind", NAMED)
def test_class_names_are_read_by_their_format(kind):
    assert class_names.of_text(NAMED[kind].removeprefix("\ufeff")) == (tuple(NAMES), None)


def test_class_names_of_a_file_with_a_byte_order_mark(tmp_path):
    (tmp_path / "names.txt").write_text(NAMED["BOM"], encoding="utf-8")
    assert class_names.read(str(tmp_path / "names.txt")).names == tuple(NAMES)


@pytest.mark.parametrize("text", ['{"a": "b"}', '{"a": 1, "b": 1}', "item { name: 'a' }", "[1.5]",
                                  "item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "a\x07\nb"])
def test_a_wrong_file_of_names_is_one_sentence(tmp_path, text):
    (tmp_path / "names.json").write_text(text)
    assert f"dataset.class_names={tmp_path}/names.json cannot be read" in mistake(
        class_names.read, str(tmp_path / "names.json"))


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt", "label.labels.txt",
                                  "label_map.pbtxt"])
def test_files_of_names_are_found(tmp_path, name):
    labels = (3, 5, 9) if name.endswith("pbtxt") else (0, 1, 2)
    write(tmp_path, lambda image, label, n: {"image": image, "label": labels[label]},
          train="train/a.tfrec", val="val/b.tfrec")
    (tmp_path / name).write_text("".join(
        f'item {{ id: {label} name: "x" display_name: \'{each}\' }}\n' if labels[0] else f"{each}\n"
        for label, each in zip(labels, NAMES, strict=True)))
    found = load(tmp_path)
    assert list(found.names) == NAMES
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_several_files_of_labels_need_a_choice(tmp_path):
    write(tmp_path, "TFDS", train="train/a.tfrec", val="val/b.tfrec")
    for name in ("coarse", "fine"):
        (tmp_path / f"{name}.labels.txt").write_text("\n".join(NAMES))
    assert "dataset.class_names=FILE" in mistake(load, tmp_path)


def test_prediction_reads_records_of_any_layout(tmp_path):
    from flowerexp.inference import prediction
    from flowerexp.inference.inputs import Input

    path = write_serialized(tmp_path / "a.tfrec", [
        record({"image/encoded": jpeg(n), "image/filename": b"p%d" % n}) for n in range(3)])
    found = list(prediction.pictures(Input(tmp_path, (path,))))
    assert [each.identifier for each in found] == ["p0", "p1", "p2"]
    assert [each.data for each in found] == [jpeg(n) for n in range(3)]


def test_labels_of_a_test_split_are_not_needed(tmp_path):
    write(tmp_path, "later competitions", train="train0-7.tfrec", val="val0-7.tfrec")
    write(tmp_path, lambda image, label, n: {"image": image, "image_name": b"t%d" % n},
          test="test0-7.tfrec")
    found = load(tmp_path)
    assert found.test.ids == [f"t{n}" for n in range(7)]
    assert Labels.of("test") is Labels.ABSENT


def test_a_command_trains_predicts_and_exports_such_records(tmp_path):
    """TFDS' layout without val, with PNGs of many shapes, texts as labels, padded to squares."""
    from flowerexp.inference import export, prediction, trained
    from flowerexp.inference.inputs import Input
    from tests.processes import train

    def png(n):
        return tf.io.encode_png(picture(9 * n, 20 + n % 5, 30)).numpy()

    root = tmp_path / "data/flowers/1.0.0"
    for split, number in (("train", 24), ("test", 6)):
        path = root / f"flowers-{split}.tfrecord-00000-of-00001"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_serialized(path, [record({
            "image": png(n), "label": NAMES[n % 3].encode(), "file_name": b"%s%d" % (
                split.encode(), n)}) for n in range(number)])
    run = train(tmp_path / "run", tmp_path / "data", "dataset.class_names=null",
                "dataset.image_size=16", "dataset.resize=pad", "loop.epochs=1")
    log = (run / "run.log").read_text()
    assert "TFDS' layout: image, label (text), file_name" in log
    assert "images of 16x16 pixels (resized: pad), 3 classes" in log
    assert "because the data have no validation split" in log
    assert json.loads((run / "classes.json").read_text())["names"] == NAMES
    found = trained.find(run)
    file = root / "flowers-test.tfrecord-00000-of-00001"
    batches = list(prediction.Ensemble([found]).predict(Input(root, (file,)), None))
    assert [name for batch in batches for name in batch.ids] == [f"test{n}" for n in range(6)]
    expected = np.load(run / "test_probs.npy")
    np.testing.assert_allclose(np.concatenate([batch.probabilities for batch in batches]),
                               expected, atol=1e-3)
    assert np.ptp(expected) > 0.01
    model, size = trained.load(found)
    served = export.classifier(model, size, found.names, resize="pad").classify(
        tf.constant([png(n) for n in range(6)]))["probabilities"]
    np.testing.assert_allclose(served, expected, atol=1e-3)
