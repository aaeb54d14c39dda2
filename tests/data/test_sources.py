"""Which files a run uses: layouts, sizes, class names, the competition and its places."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import parts
from flowerexp.data import sources, tfrecord
from flowerexp.data.sources import Source, TFRecords
from flowerexp.errors import UserError


@pytest.fixture(autouse=True)
def no_competition(monkeypatch, tmp_path):
    """This machine has neither $FLOWERS_ROOT nor Kaggle's folder, unless a test says so."""
    monkeypatch.delenv("FLOWERS_ROOT", raising=False)
    monkeypatch.setattr(sources, "KAGGLE_FOLDER", str(tmp_path / "no-kaggle"))


def make_split(folder, images, size=8, name=None):
    folder.mkdir(parents=True)
    image = tf.io.encode_jpeg(np.full((size, size, 3), 99, np.uint8)).numpy()
    tfrecord.write(folder / (name or f"00-{size}x{size}-{images}.tfrec"), [image] * images,
                  None if folder.name == "test" else [label % 2 for label in range(images)],
                  [f"i{number}" for number in range(images)])


def make_splits(folder, size=8, splits=("train", "val", "test")):
    for images, split in enumerate(splits, 2):
        make_split(folder / split, images, size)
    return folder


KINDS = {"auto": sources.Auto, "sample": sources.Sample, "flowers": sources.Flowers,
         "tfrecords": TFRecords}


def find(root=None, kind="tfrecords", **options):
    return sources.find(KINDS[kind](None if root is None else str(root), **options))


def mistake(root=None, kind="tfrecords", **options):
    with pytest.raises(UserError) as raised:
        find(root, kind, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Layouts and sizes

def test_three_folders_directly(tmp_path):
    source = find(make_splits(tmp_path / "mine", size=12))
    assert source.kind == "tfrecords"
    assert source.folder == str(tmp_path / "mine")
    assert source.image_size == 12  # of the first image
    assert {split: [tfrecord.stated_count(file) for file in files]
            for split, files in source.files.items()} == {"train": [2], "val": [3], "test": [4]}
    assert source.files["train"][0] == str(tmp_path / "mine/train/00-12x12-2.tfrec")
    assert source.class_names is None
    assert source.num_classes is None


@pytest.mark.parametrize("end", ["", "/"])
def test_root_of_one_size(tmp_path, end):
    make_splits(tmp_path / "tfrecords-jpeg-8x8")
    source = find(f"{tmp_path}{end}")
    assert source.image_size == 8
    assert source.folder == str(tmp_path / "tfrecords-jpeg-8x8")


def test_folder_of_a_size_given_directly(tmp_path):
    folder = make_splits(tmp_path / "tfrecords-jpeg-8x8")
    assert find(folder).image_size == 8


@pytest.mark.parametrize("size", [8, 16])
def test_image_size_picks_the_folder(tmp_path, size):
    for each in (8, 16):
        make_splits(tmp_path / f"tfrecords-jpeg-{each}x{each}", each)
    (tmp_path / "tfrecords-jpeg-4x6").mkdir()  # no square: not one of the sizes
    source = find(tmp_path, image_size=size)
    assert source.folder == f"{tmp_path}/tfrecords-jpeg-{size}x{size}"
    assert source.image_size == size


def test_several_sizes_need_a_choice(tmp_path):
    for each in (8, 16, 112):
        make_splits(tmp_path / f"tfrecords-jpeg-{each}x{each}", each)
    sentence = mistake(tmp_path)
    assert "8, 16, 112" in sentence
    assert "dataset.image_size" in sentence
    sentence = mistake(tmp_path, image_size=32)
    assert "8, 16, 112" in sentence
    assert "32" in sentence


def test_missing_root(tmp_path):
    assert str(tmp_path / "nowhere") in mistake(tmp_path / "nowhere")


def test_root_without_records(tmp_path):
    sentence = mistake(tmp_path)
    assert str(tmp_path) in sentence
    assert "tfrecords-jpeg-SxS" in sentence


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in mistake(tmp_path / "file")


def test_validation_folder_is_optional(tmp_path):
    source = find(make_splits(tmp_path / "mine", splits=("train",)))
    assert set(source.files) == {"train"}


def test_missing_training_folder(tmp_path):
    make_splits(tmp_path / "tfrecords-jpeg-8x8", splits=("val", "test"))
    assert str(tmp_path / "tfrecords-jpeg-8x8/train") in mistake(tmp_path)


def test_test_folder_is_optional(tmp_path):
    source = find(make_splits(tmp_path / "mine", splits=("train", "val")))
    assert set(source.files) == {"train", "val"}


def test_empty_split(tmp_path):
    make_splits(tmp_path / "mine", splits=("train",))
    (tmp_path / "mine/val").mkdir()
    assert str(tmp_path / "mine/val") in mistake(tmp_path / "mine")


# Class names

@pytest.mark.parametrize(("name", "text"), [
    ("classes.txt", "pink primrose\n colt's foot \n\nsilverbush\n"),
    ("classes.json", '["pink primrose", "colt\'s foot", "silverbush"]'),
    ("windows.txt", "pink primrose\r\ncolt's foot\r\nsilverbush"),
])
def test_class_names_of_a_file(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    source = find(make_splits(tmp_path / "mine"), class_names=str(tmp_path / name))
    assert source.class_names == ("pink primrose", "colt's foot", "silverbush")
    assert source.num_classes == 3


def test_class_names_of_a_list(tmp_path):
    source = find(make_splits(tmp_path / "mine"), class_names=["a", "b"])
    assert source.class_names == ("a", "b")
    assert source.num_classes == 2


def test_number_of_classes_without_names(tmp_path):
    source = find(make_splits(tmp_path / "mine"), num_classes=5)
    assert source.class_names is None
    assert source.num_classes == 5


def test_another_number_of_names_than_of_classes(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    sentence = mistake(make_splits(tmp_path / "mine"), class_names=str(tmp_path / "names.txt"),
                       num_classes=4)
    assert "dataset.class_names" in sentence
    assert "3" in sentence
    assert "4" in sentence
    with pytest.raises(UserError, match=r"^class_names holds 2 names"):
        TFRecords(str(tmp_path), class_names=["a", "b"], num_classes=3)


@pytest.mark.parametrize(("name", "content"), [
    ("missing.txt", None), ("empty.txt", b""), ("blank.txt", b"\n \n"), ("list.json", b"[]"),
    ("half.json", b'["a", "b"'), ("bytes.txt", b"\xff\xfe\x00a")])
def test_class_names_that_cannot_be_read(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    sentence = mistake(make_splits(tmp_path / "mine"), class_names=str(tmp_path / name))
    assert f"dataset.class_names={tmp_path / name}" in sentence


# The competition

def competition(root, size=192, counts=(2, 2, 2)):
    folder = root / f"tfrecords-jpeg-{size}x{size}"
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        make_split(folder / split, count, name=f"00-{size}x{size}-{count}.tfrec")
    return root


def test_competition_classes_are_the_reference(shared, tmp_path):
    names = json.loads((shared / "reference/flower_classes.json").read_text())
    assert len(names) == 104
    assert json.loads(sources.CLASSES_FILE.read_text(encoding="utf-8")) == names
    source = find(competition(tmp_path), "flowers", image_size=192)
    assert list(source.class_names) == names


def test_competition_has_104_classes(tmp_path):
    source = find(competition(tmp_path), "flowers", image_size=192)
    assert source.kind == "flowers"
    assert source.num_classes == len(set(source.class_names)) == 104
    assert source.class_names[0] == "pink primrose"
    assert source.class_names[103] == "wild rose"


def test_competition_at_dataset_root(tmp_path):
    source = find(competition(tmp_path), "flowers", image_size=192)
    assert source.folder == f"{tmp_path}/tfrecords-jpeg-192x192"
    assert f"dataset.root={tmp_path}" in source.reason


def test_competition_at_the_environments_root(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_ROOT", str(competition(tmp_path, 224)))
    source = find(None, "flowers", image_size=224)
    assert source.folder == f"{tmp_path}/tfrecords-jpeg-224x224"
    assert f"$FLOWERS_ROOT={tmp_path}" in source.reason


def test_competition_at_kaggles_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "KAGGLE_FOLDER", str(competition(tmp_path)))
    source = find(None, "flowers", image_size=192)
    assert source.folder == f"{tmp_path}/tfrecords-jpeg-192x192"
    assert str(tmp_path) in source.reason


def test_dataset_root_goes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_ROOT", str(competition(tmp_path / "one")))
    source = find(competition(tmp_path / "other"), "flowers", image_size=192)
    assert source.folder.startswith(str(tmp_path / "other"))


def test_competition_that_is_nowhere():
    sentence = mistake(None, "flowers", image_size=192)
    for word in ("tpu-getting-started", "dataset.root", "FLOWERS_ROOT"):
        assert word in sentence


def test_competition_in_another_size(tmp_path):
    sentence = mistake(competition(tmp_path, 224), "flowers", image_size=512)
    assert "224" in sentence
    assert "512" in sentence


def test_counts_that_are_not_the_competitions_are_said(tmp_path):
    reason = find(competition(tmp_path, counts=(3, 2, 1)), "flowers", image_size=192).reason
    for words in ("train holds 3", "12753", "val holds 2", "3712", "test holds 1", "7382"):
        assert words in reason


def test_counts_that_are_the_competitions_are_not_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "COMPETITION_COUNTS", {"train": 4, "val": 3, "test": 2})
    reason = find(competition(tmp_path, counts=(4, 3, 2)), "flowers", image_size=192).reason
    assert "holds" not in reason


def test_competition_counts():
    assert sources.COMPETITION_COUNTS == {"train": 12753, "val": 3712, "test": 7382}
    assert sources.COMPETITION == "tpu-getting-started"


# dataset=auto

def test_auto_takes_the_competition_where_it_is(tmp_path, monkeypatch):
    competition(tmp_path, 192)
    competition(tmp_path, 512)
    monkeypatch.setenv("FLOWERS_ROOT", str(tmp_path))
    source = find(None, "auto")
    assert source.kind == "flowers"
    assert source.image_size == 192
    assert source.folder == f"{tmp_path}/tfrecords-jpeg-192x192"
    assert "flowers_192" in source.reason
    assert "$FLOWERS_ROOT" in source.reason


def test_auto_takes_the_size_that_is_asked_for(tmp_path, monkeypatch):
    competition(tmp_path, 192)
    competition(tmp_path, 331)
    monkeypatch.setenv("FLOWERS_ROOT", str(tmp_path))
    source = find(None, "auto", image_size=331)
    assert source.image_size == 331
    assert "flowers_331" in source.reason


def test_auto_takes_kaggles_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "KAGGLE_FOLDER", str(competition(tmp_path)))
    source = find(None, "auto")
    assert source.kind == "flowers"
    assert str(tmp_path) in source.reason


def test_auto_refuses_a_root_that_does_not_hold_the_competition(tmp_path, monkeypatch):
    assert str(tmp_path / "nowhere") in mistake(tmp_path / "nowhere", "auto")
    monkeypatch.setenv("FLOWERS_ROOT", str(tmp_path / "lost"))
    assert str(tmp_path / "lost") in mistake(None, "auto")


def test_auto_takes_the_sample_elsewhere(tmp_path, monkeypatch):
    drawn = make_splits(tmp_path / "tfrecords-jpeg-64x64")
    monkeypatch.setattr(sources.sample, "write", lambda parent: drawn)
    source = find(None, "auto")
    assert source.kind == "sample"
    assert source.image_size == 64
    assert "sample" in source.reason
    assert "FLOWERS_ROOT" in source.reason


# A source of one's own

class Own:
    """A source that returns `value`, or raises it."""

    def __init__(self, value):
        self.value = value

    def __call__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(("value", "words"), [
    (KeyError("mine"), "failed: KeyError: 'mine'"), (UserError("beta is missing"), "beta is"),
    ([], "must return a flowerexp.data.sources.Source, not list"),
    (Source("mine", "", "", 8, None, None, {"val": ("a",)}), "split train, not val")])
def test_what_an_own_source_does_wrong_is_one_sentence_that_names_it(value, words):
    part = parts.Part("dataset", f"{__name__}.Own", {"value": value})
    with pytest.raises(UserError, match=f"^{re.escape(str(part))}") as raised:
        sources.find(part)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_own_source_of_files_need_not_know_their_size(tmp_path):
    make_splits(tmp_path)
    files = {split: tfrecord.list_files(f"{tmp_path}/{split}") for split in ("train", "val")}
    assert sources.find(Own(Source("mine", "", "", 0, None, None, files))).image_size == 8
