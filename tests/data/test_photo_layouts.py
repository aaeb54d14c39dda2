"""The layouts in which people have photos: what is recognized, and what is not guessed."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowerexp.data import photos
from flowerexp.data.photos import Columns
from flowerexp.errors import UserError


def plant(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def rows(source, **columns):
    return {photo.identifier: (photo.label, photo.split)
            for photo in photos.listed(source, Columns(**columns)).photos}


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("train", "val", "test"), [
    ("train", "val", "test"), ("training", "validation", "testing"), ("Train", "Valid", "Test"),
    ("training_set", "validation_set", "test_set"), ("trainset", "dev", "testset"),
    ("train-images", "ImagesVal", "images.test")])
def test_split_folders_are_known_in_all_their_spellings(tmp_path, train, val, test):
    plant(tmp_path, f"{train}/rose/a.jpg", f"{train}/tulip/b.jpg", f"{val}/rose/c.jpg",
          f"{test}/tulip/d.jpg", "annotations/rose.xml", "readme.md")
    assert rows(tmp_path) == {
        f"{train}/rose/a.jpg": ("rose", "train"), f"{train}/tulip/b.jpg": ("tulip", "train"),
        f"{val}/rose/c.jpg": ("rose", "val"), f"{test}/tulip/d.jpg": ("tulip", "test")}


@pytest.mark.parametrize("name", ["train_station", "contest", "evaluate", "car", "latest", "valley",
                                  "test train", "setting"])
def test_other_names_are_no_splits(name):
    assert photos.split_of(name) is None


def test_classes_that_are_named_as_splits_stay_classes(tmp_path):
    plant(tmp_path, "train/a.jpg", "car/b.jpg", "bus/c.jpg")
    assert rows(tmp_path) == {"train/a.jpg": ("train", None), "car/b.jpg": ("car", None),
                              "bus/c.jpg": ("bus", None)}


def test_folders_beside_the_splits_are_said(tmp_path):
    plant(tmp_path, "train/rose/a.jpg", "train/tulip/a.jpg", "test/rose/a.jpg", "previews/a.jpg")
    assert "1 photo in folders beside the splits ignored: 'previews'." in photos.listed(
        tmp_path).notes


def test_a_split_folder_in_a_folder_of_its_name_is_entered(tmp_path):
    plant(tmp_path, "train/train/rose/a.jpg", "train/train/tulip/b.jpg", "test/test/c.jpg")
    assert rows(tmp_path) == {"train/train/rose/a.jpg": ("rose", "train"),
                              "train/train/tulip/b.jpg": ("tulip", "train"),
                              "test/test/c.jpg": ("", "test")}


def test_test_photos_may_have_no_classes_but_no_others(tmp_path):
    plant(tmp_path, "train/rose/a.jpg", "train/tulip/b.jpg", "test/unknown/c.jpg")
    assert rows(tmp_path)["test/unknown/c.jpg"] == ("", "test")
    plant(tmp_path, "test/rose/d.jpg")
    with pytest.raises(UserError, match=r"1 folder of the test split \('unknown'\) is named after"):
        photos.listed(tmp_path)


def test_classes_whose_names_look_the_same_are_the_same(tmp_path):
    plant(tmp_path, "train/Ga\N{COMBINING DIAERESIS}nse/a.jpg", "train/rose/b.jpg",
          "val/G\N{LATIN SMALL LETTER A WITH DIAERESIS}nse/c.jpg")
    assert photos.listed(tmp_path).classes == [
        "G\N{LATIN SMALL LETTER A WITH DIAERESIS}nse", "rose"]


def test_a_folder_too_high_is_refused_with_the_one_that_was_meant(tmp_path):
    plant(tmp_path, "archive/flower_photos/rose/a.jpg", "archive/flower_photos/tulip/b.jpg")
    for folder in (tmp_path, tmp_path / "archive"):
        listing = photos.listed(folder)
        with pytest.raises(UserError, match=f"did you mean {tmp_path}/archive/flower_photos"):
            photos.check_classes(folder, listing)
    assert "all photos of the class 'flower_photos' are in folders inside it: 'rose', 'tulip'." \
        in photos.listed(tmp_path / "archive").notes
    plant(tmp_path / "one", "rose/a.jpg")
    with pytest.raises(UserError, match="holds one class, 'rose', and a classifier needs two"):
        photos.check_classes(tmp_path / "one", photos.listed(tmp_path / "one"))


@pytest.mark.parametrize("lines", [
    ("image_id,label", "a,rose", "b,tulip", "c,rose"),
    ("id;species;price", "a.jpg;rose;1.5", "b.jpg;tulip;1.7", "c.jpg;rose;8"),
    ("species\tfile", "rose\timages\\a.jpg", "tulip\timages\\b.jpg", "rose\timages\\c.jpg"),
    ("a.jpg,rose", "b.jpg,tulip", "c.jpg,rose"),
    ("image,rose,tulip", "a,1,0", "b,0,1", "c,1.0,0.0"),
    ("\ufefffile,width,kind", "images/a.jpg,64,rose", "images/b.jpg,65,tulip",
     "images/c.jpg,66,rose")])
def test_the_columns_of_a_table_are_found_by_their_content(tmp_path, lines):
    plant(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg")
    table = write(tmp_path / "labels.csv", *lines)
    expected = {"images/a.jpg": ("rose", None), "images/b.jpg": ("tulip", None),
                "images/c.jpg": ("rose", None)}
    assert rows(tmp_path) == rows(table) == expected


def test_a_competition_of_kaggle_is_known(tmp_path):
    """A table for training, one without labels for the test, and a submission to imitate."""
    plant(tmp_path, "train_images/a.jpg", "train_images/b.jpg", "test_images/c.jpg")
    write(tmp_path / "train.csv", "image_id,healthy,rust", "a,1,0", "b,0,1")
    write(tmp_path / "test.csv", "image_id", "c")
    write(tmp_path / "sample_submission.csv", "image_id,healthy,rust", "c,0.5,0.5")
    expected = {"train_images/a.jpg": ("healthy", "train"), "train_images/b.jpg": ("rust", "train"),
                "test_images/c.jpg": ("", "test")}
    assert rows(tmp_path) == expected
    (tmp_path / "test.csv").unlink()
    assert {name: label for name, (label, _) in rows(tmp_path).items()} == {
        name: label for name, (label, _) in expected.items()}


def test_columns_can_be_named_and_hold_splits_and_groups(tmp_path):
    plant(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table = write(tmp_path / "all.csv", "file,one,other,plant,part", "a,x,u,p1,training",
                  "b,y,u,p1,valid", "c,y,v,p2,test")
    with pytest.raises(UserError, match=r"that may be labels .* give dataset.columns.label"):
        photos.listed(table)
    listing = photos.listed(table, Columns(label="one", group="plant", split="part"))
    assert [(photo.label, photo.group, photo.split) for photo in listing.photos] == [
        ("x", "p1", "train"), ("y", "p1", "val"), ("y", "p2", "test")]
    with pytest.raises(UserError, match=r"has no column 'kind': it has file, one"):
        photos.listed(table, Columns(label="kind"))
    with pytest.raises(UserError, match=r"row 1 of .* names the split 'u'"):
        photos.listed(table, Columns(label="one", split="other"))


def test_rows_of_two_classes_are_refused(tmp_path):
    plant(tmp_path, "a.jpg", "b.jpg")
    table = write(tmp_path / "all.csv", "file,healthy,rust", "a,1,0", "b,1,1")
    with pytest.raises(UserError, match=r"row 2 of .* has 2 classes \('healthy', 'rust'\)"):
        photos.listed(table)


def test_tables_and_folders_that_disagree_are_refused_and_not_guessed(tmp_path):
    plant(tmp_path, "rose/a.jpg", "tulip/b.jpg")
    write(tmp_path / "labels.csv", "file,label", "rose/a.jpg,rose", "tulip/b.jpg,tulip")
    assert rows(tmp_path) == {"rose/a.jpg": ("rose", None), "tulip/b.jpg": ("tulip", None)}
    write(tmp_path / "labels.csv", "file,label", "rose/a.jpg,red", "tulip/b.jpg,tulip")
    with pytest.raises(UserError, match=r"rose/a.jpg is of class 'rose' by its .* of 'red'"):
        photos.listed(tmp_path)
    assert rows(tmp_path / "labels.csv")["rose/a.jpg"] == ("red", None)
    write(tmp_path / "labels.csv", "price,width", "1,2", "3,4")
    assert rows(tmp_path)["rose/a.jpg"] == ("rose", None)


def shard(path, images, labels, names=None, struct=True, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [{"bytes": image, "path": f"{path.stem}-{number}.jpg"} if struct else image
              for number, image in enumerate(images)]
    table = pa.table({"image": values} | ({"label": labels} if labels else {}) | columns)
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=2)


def test_parquet_files_as_image_hubs_publish_them(tmp_path):
    shard(tmp_path / "data/train-00000-of-00002.parquet", [b"a", b"b", b"c"], [1, 0, 1],
          ["rose", "tulip"])
    shard(tmp_path / "data/train-00001-of-00002.parquet", [b"d"], [0], ["rose", "tulip"])
    shard(tmp_path / "data/test-00000-of-00001.parquet", [b"e"], [-1], ["rose", "tulip"])
    listing = photos.listed(tmp_path)
    assert [(photo.read(), photo.label, photo.split) for photo in listing.photos] == [
        (b"e", "", "test"), (b"a", "tulip", "train"), (b"b", "rose", "train"),
        (b"c", "tulip", "train"), (b"d", "rose", "train")]
    assert listing.photos[1].identifier == "train-00000-of-00002-0.jpg"
    assert listing.classes == ["rose", "tulip"]


def test_parquet_of_bytes_and_texts(tmp_path):
    shard(tmp_path / "all.parquet", [b"a", b"b", b"c"], ["x", "y", "x"], struct=False,
          group=["1", "1", "2"])
    listing = photos.listed(tmp_path / "all.parquet")
    assert [(photo.identifier, photo.read(), photo.label, photo.group, photo.split)
            for photo in listing.photos] == [
        ("all:0", b"a", "x", "1", None), ("all:1", b"b", "y", "1", None),
        ("all:2", b"c", "x", "2", None)]


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: path.write_bytes(b"no parquet"), "cannot be read as a Parquet file"),
    (lambda path: shard(path, [b"a"], None), "has no column of labels: it has image"),
    (lambda path: shard(path, [b"a"], [3], ["x", "y"]), "the label 3 is none of the 2 classes"),
    (lambda path: shard(path, [b"a"], [-1]), "holds one class, '-1'"),
    (lambda path: pq.write_table(pa.table({"label": [1]}), path), "has no columns of images")])
def test_parquet_files_that_are_wrong_are_refused(tmp_path, make, words):
    make(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=words):
        photos.check_classes(tmp_path, photos.listed(tmp_path))
