"""Photos to records: right, the same however it is done, and nothing lost unsaid."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from flowerexp.cli.main import app
from flowerexp.data import class_names, photos, records, resizing
from flowerexp.data.prepare import checks, convert
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.errors import UserError
from tests import forked
from tests.photo_folders import files_of, garden, picture, records_of, run, save, source_of
from tests.processes import RUN, read

HOSTILE = {"rose": 20, "Tulip [wild], é": 9, "sweet 'pea'": 3}


def test_a_folder_becomes_a_data_set_without_fault(tmp_path, capsys):
    images, out = garden(tmp_path / "my photos", HOSTILE), tmp_path / "out [1]"
    assert run(images, out)
    source, by_id = records_of(out)
    assert source.class_names == tuple(sorted(HOSTILE))
    assert set(by_id) == {f"{name}/{index}.jpg" for name, number in HOSTILE.items()
                          for index in range(number)}
    for identifier, (_, label, image) in by_id.items():
        assert source.class_names[label] == identifier.partition("/")[0]
        square = resizing.square(resizing.decode((images / identifier).read_bytes()), 16)
        found = tf.io.decode_jpeg(image, dct_method="INTEGER_ACCURATE").numpy().astype(int)
        assert np.abs(found - square.numpy()).mean() < 3  # of the JPEG only
    counts = {split: sum(value[0] == split for value in by_id.values()) for split in source.files}
    assert counts == {"train": 22, "val": 5, "test": 5}  # 32 photos
    checked = checks.check(source)
    assert (checked.errors, checked.warnings) == ([], [])
    assert sorted(path.name for path in out.iterdir()) == [".lock", "tfrecords-jpeg-16x16"]
    assert f"'dataset.root=\"{out}\"'" in capsys.readouterr().out  # as Hydra reads it


def test_a_csv_becomes_the_same_data_set(tmp_path):
    images = garden(tmp_path / "photos", HOSTILE)
    with (images / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for name, number in reversed(HOSTILE.items()):
            place = [images / name, name]  # absolute and relative
            writer.writerows([f"{place[index % 2]}/{index}.jpg", name] for index in range(number))
    assert run(images / "list.csv", tmp_path / "one")
    (images / "list.csv").unlink()
    assert run(images, tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_workers_and_the_order_on_the_disk_change_no_byte(tmp_path):
    images = garden(tmp_path / "photos", {"a": 150, "b": 30}, height=20, width=20)
    assert run(images, tmp_path / "one", workers=1)
    copy = tmp_path / "copy"
    for path in sorted(images.rglob("*.jpg"), reverse=True):
        (copy / path.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy / path.relative_to(images))
    assert run(copy, tmp_path / "four", workers=4)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "four")
    assert run(copy, tmp_path / "other", seed=1)
    splits = [{key: value[0] for key, value in records_of(tmp_path / name)[1].items()}
              for name in ("one", "other")]
    assert splits[0] != splits[1]


def test_long_splits_are_several_files_and_classes_are_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "SHARD", 10)
    run(garden(tmp_path / "photos", {"a": 40, "b": 40}), tmp_path / "out", test=0)
    source = source_of(tmp_path / "out")
    assert set(source.files) == {"train", "val"}  # and no test
    names = [Path(file).name for file in source.files["train"]]
    assert names == [f"{number:02d}-16x16-{count}.tfrec"
                     for number, count in enumerate([10, 10, 10, 10, 10, 9, 9])]
    table = records.read(source.files["train"], source.spec("train"))
    assert 0 < table.labels[:10].mean() < 1


KINDS = {
    "grey": lambda path: save(path, picture(1, mode="L")),
    "print colours": lambda path: save(path, picture(2, mode="CMYK")),
    "png with alpha": lambda path: save(path, picture(3, mode="RGBA"), "PNG"),
    "16 bit": lambda path: save(path, Image.fromarray(
        np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 30), "PNG"),
    "palette": lambda path: save(path, picture(5, mode="P"), "GIF"),
    "animation": lambda path: save(path, picture(6), "GIF", save_all=True,
                                   append_images=[picture(7)]),
    "bitmap": lambda path: save(path, picture(8), "BMP"),
    "tiny": lambda path: save(path, picture(9, 3, 5)),
    "one pixel": lambda path: save(path, picture(10, 1, 1)),
    "long": lambda path: save(path, picture(11, 2, 400)),
    "print square": lambda path: save(path, picture(12, 16, 16, "CMYK")),
    "progressive": lambda path: save(path, picture(13), progressive=True),
}


def test_every_kind_of_picture_is_read(tmp_path, capsys):
    for name, make in KINDS.items():
        make(tmp_path / "photos/all" / f"{name}.jpg")  # the name does not decide
    save(tmp_path / "photos/other/one.jpg", picture(14))
    assert run(tmp_path / "photos", tmp_path / "out")
    _, by_id = records_of(tmp_path / "out")
    assert set(by_id) == {"other/one.jpg", *(f"all/{name}.jpg" for name in KINDS)}
    for _, _, image in by_id.values():
        assert tf.io.extract_jpeg_shape(image).numpy().tolist() == [16, 16, 3]
    said = capsys.readouterr().out
    assert "3 photos with a side of less than 16 pixels enlarged" in said
    assert ("enlarged by more than 4 times: 'all/long.jpg', 'all/one pixel.jpg', "
            "'all/tiny.jpg'\n") in said


def test_photos_are_turned_as_exif_says_unless_it_is_off(tmp_path, capsys):
    images = garden(tmp_path / "photos", {"a": 9, "z": 1})
    for number, orientation in ((20, 1), (21, 6), (22, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(images / f"a/{number}.jpg", picture(number, 16, 16), exif=exif)  # a size that is kept
    means = {}
    for follows in (True, False):
        run(images, tmp_path / str(follows), exif=follows)
        said = "2 photos turned as" if follows else "2 photos not turned as"
        assert f"{said} their EXIF orientation says" in capsys.readouterr().out
        by_id = records_of(tmp_path / str(follows))[1]
        for number, turns in ((20, 0), (21, 3), (22, 2)):  # quarters, counterclockwise
            stored = tf.io.decode_jpeg((images / f"a/{number}.jpg").read_bytes()).numpy()
            wanted = np.rot90(stored, turns * follows)
            found = tf.io.decode_jpeg(by_id[f"a/{number}.jpg"][2]).numpy()
            means[number, follows] = np.abs(found - wanted.astype(int)).mean()
    assert max(means.values()) < 4  # of the JPEG only
    with pytest.raises(UserError, match="made with --exif False where this command says True"):
        run(images, tmp_path / "False")


def test_a_jpeg_of_the_right_size_is_kept_byte_for_byte(tmp_path):
    images = garden(tmp_path / "photos", {"a": 6, "z": 1}, height=16, width=16)
    run(images, tmp_path / "out")
    for identifier, (_, _, image) in records_of(tmp_path / "out")[1].items():
        assert image == (images / identifier).read_bytes()


def spoil(images):
    """Files that cannot be read, and why; returns what is listed of them."""
    file = io.BytesIO()
    picture(500).save(file, "TIFF")
    whole = (images / "rose/0.jpg").read_bytes()
    for name, data in (("empty.jpg", b""), ("cut.jpg", whole[:-50]), ("text.jpg", b"no photo"),
                       ("a.tif", file.getvalue()[:300]),
                       ("head.png", b"\x89PNG\r\n\x1a\n" + bytes(40)),
                       ("b.heic", b"\0\0\0 ftypheic" + bytes(50))):
        (images / "rose" / name).write_bytes(data)
    (images / "rose/gone.jpg").symlink_to(images / "nowhere.jpg")
    (images / "rose/folder.jpg").mkdir()
    return {"a.tif": "it is a damaged, truncated or unusual TIFF",
            "b.heic": "it is a damaged, truncated or unusual HEIC",
            "cut.jpg": "it is a damaged, truncated or unusual JPEG",
            "empty.jpg": "it is an empty file", "gone.jpg": "No such file or directory",
            "head.png": "it is a damaged, truncated or unusual PNG",
            "text.jpg": "it is not a photo that can be read; JPEG, "}


def test_what_cannot_be_read_is_listed_and_the_rest_converted(tmp_path):
    images, out = garden(tmp_path / "photos", {"rose": 10, "tulip": 5}), tmp_path / "out"
    expected = spoil(images)
    (images / "bad").mkdir()
    (images / "bad/a.jpg").write_bytes(b"")
    words = ["data", "from-folder", str(images), str(out), "--size", "16"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "8 photos could not be used" in done.output
    assert "rose/a.tif: it is a damaged" in done.output
    assert "classes left out because none of their photos can be used: 'bad'" in done.output
    with (out / "tfrecords-jpeg-16x16/unreadable.csv").open(newline="") as file:
        header, first, *listed = csv.reader(file)
    assert (header, first) == (["path", "reason"], ["bad/a.jpg", "it is an empty file"])
    assert [path for path, _ in listed] == [f"rose/{name}" for name in expected]
    for (_, reason), start in zip(listed, expected.values(), strict=True):
        assert reason.startswith(start)
    source, by_id = records_of(out)
    assert source.class_names == ("rose", "tulip")
    assert len(by_id) == 15
    again = CliRunner().invoke(app, [*words, "--strict"])
    assert again.exit_code == 1
    assert "was made before" in again.output


def test_copies_of_a_picture_are_left_out_and_listed(tmp_path):
    """In two splits they would let a run validate on what it was trained on."""
    images = garden(tmp_path / "photos", {"rose": 10, "tulip": 10})
    shutil.copy(images / "rose/3.jpg", images / "rose/z.jpg")
    shutil.copy(images / "rose/3.jpg", images / "rose/y.jpg")
    shutil.copy(images / "rose/4.jpg", images / "tulip/4 of rose.jpg")
    assert run(images, tmp_path / "out")
    with (tmp_path / "out/tfrecords-jpeg-16x16/duplicates.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["rose/4.jpg", "the same picture is in 2 classes: rose, tulip"],
            ["rose/y.jpg", "the same picture as rose/3.jpg"],
            ["rose/z.jpg", "the same picture as rose/3.jpg"],
            ["tulip/4 of rose.jpg", "the same picture is in 2 classes: rose, tulip"]]
    assert len(records_of(tmp_path / "out")[1]) == 19
    checked = checks.check(source_of(tmp_path / "out"))
    assert (checked.errors, checked.warnings) == ([], [])


@pytest.mark.parametrize("names", [
    ["two\nlines", 'a, "b"'], ["[x]", "y"], ["x\u2028y", "z"], ["0", "1"], ["é", " "]])
def test_names_of_classes_are_read_back_as_they_are(tmp_path, names):
    (tmp_path / "classes.txt").write_text(convert.as_lines(names), encoding="utf-8")
    read_back = class_names.read(str(tmp_path / "classes.txt"))
    assert list(read_back.names) == [name.strip() for name in names if name.strip()]


def test_five_thousand_classes(tmp_path):
    every = pd.DataFrame([photos.Photo(tmp_path / "none", f"{label}/{number}", str(label))
                          for label in range(5000) for number in range(3)])
    splits = convert.assign_splits(every, photos.in_order(every.label), ConversionOptions(16))
    assert every.label[np.array(splits) == "train"].nunique() == 5000


@pytest.mark.parametrize(("options", "words"), [
    ({"val": 0}, "--val must be greater than 0"), ({"val": 0.5, "test": 0.5}, "less than 1"),
    ({"val": 0.7, "test": 0.3}, "less than 1"), ({"test": -0.1}, "--test 0 or more"),
    ({"val": float("nan")}, "--val must be"), ({"size": 9000}, "--size must be from 1 to 8192")])
def test_recipes_that_give_no_data_set_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        ConversionOptions(**{"size": 16, **options})


def test_photos_too_few_to_validate_with_are_refused_before_one_is_read(tmp_path):
    images = garden(tmp_path / "photos", {"a": 1, "b": 1})
    with pytest.raises(UserError, match="2 photos of 2 classes leave none to validate with"):
        run(images, tmp_path / "out", test=0)
    assert not list((tmp_path / "out").rglob("photos*"))


def test_nothing_that_can_be_read_is_refused(tmp_path):
    for name in "abcdefgh":
        save(tmp_path / f"photos/{name < 'e'}/{name}.jpg", picture(1)).write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 8 photos can be read \(False/e.jpg: it is"):
        run(tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out/tfrecords-jpeg-16x16").exists()


def test_copies_alone_are_refused(tmp_path):
    images = garden(tmp_path / "photos", {"a": 9})
    shutil.copytree(images / "a", images / "b")
    with pytest.raises(UserError, match="0 photos of 0 classes leave none to validate with"):
        run(images, tmp_path / "out")
    assert not (tmp_path / "out/tfrecords-jpeg-16x16").exists()


def test_places_that_cannot_be_are_refused(tmp_path):
    images = garden(tmp_path / "photos", {"a": 9, "z": 1})
    for out in (images, images / "a", images / "new/out"):
        with pytest.raises(UserError, match="is inside"):
            run(images, out)
    with pytest.raises(UserError, match="is not a local folder"):
        run(images, Path("gs://bucket/out"))
    (tmp_path / "other/train").mkdir(parents=True)
    with pytest.raises(UserError, match="holds a folder train, val or test"):
        run(images, tmp_path / "other")
    (tmp_path / "foreign/tfrecords-jpeg-16x16").mkdir(parents=True)
    with pytest.raises(UserError, match="made from other photos"):
        run(images, tmp_path / "foreign")
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["data", "from-folder", str(images), str(tmp_path / "file")])
    assert done.exit_code == 1
    assert "file" in done.output
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("mine")
    assert run(images, tmp_path / "home")  # other files are no harm
    assert (tmp_path / "home/letter.txt").read_text() == "mine"


def test_names_beside_the_records_are_taken_and_said(tmp_path):
    images = garden(tmp_path / "photos", {"a": 9, "b": 5})
    run(images, tmp_path / "out")
    folder = tmp_path / "out/tfrecords-jpeg-16x16"
    for root in (tmp_path / "out", folder):
        source = source_of(root)
        assert source.class_names == ("a", "b")
        assert f"class names of {folder}/classes.txt" in source.reason
    assert source_of(folder, class_names=["x", "y"]).class_names == ("x", "y")
    with pytest.raises(UserError, match=r"classes.txt holds 2 names where dataset.num_classes"):
        source_of(folder, num_classes=3)
    (folder / "classes.txt").rename(tmp_path / "out/classes.txt")
    assert source_of(tmp_path / "out").class_names == ("a", "b")
    assert source_of(folder).class_names is None


def test_split_folders_and_tables_with_named_columns_are_imported(tmp_path):
    for split in ("training", "valid", "test"):
        garden(tmp_path / "set" / split, {"rose": 3, "tulip": 2}, height=20 + len(split))
    words = ["data", "import", str(tmp_path / "set"), str(tmp_path / "one"), "--size", "16"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "folders of splits: training (train), valid (val), test (test), 2 classes" in done.output
    by_id = records_of(tmp_path / "one")[1]
    assert {key: value[0] for key, value in by_id.items()} == {
        f"{folder}/{name}/{number}.jpg": split
        for folder, split in (("training", "train"), ("valid", "val"), ("test", "test"))
        for name, count in (("rose", 3), ("tulip", 2)) for number in range(count)}
    photos_here = garden(tmp_path / "images", {"x": 12}) / "x"
    (photos_here / "all.csv").write_text("file;a;b\n" + "".join(
        f"{number};{number % 2};{number % 3}\n" for number in range(12)))
    for kind, classes in (("a", 2), ("b", 3)):
        done = CliRunner().invoke(app, [
            "data", "import", str(photos_here / "all.csv"), str(tmp_path / kind), "--size", "16",
            "--column", f"label={kind}", "--resize", "pad"])
        assert done.exit_code == 0, done.output
        assert len(source_of(tmp_path / kind).class_names) == classes


@pytest.mark.parametrize(("words", "message"), [
    (["s3://bucket/x"], "photos are read from a local folder, not from s3://bucket/x: copy"),
    ([".", "--column", "lable=x"], "--column must be one of path, label, group, split"),
    ([".", "--resize", "bend"], "--resize must be one of crop, pad, stretch, not 'bend'")])
def test_wrong_imports_are_one_sentence(tmp_path, words, message):
    done = CliRunner().invoke(app, ["data", "from-folder", words[0], str(tmp_path / "out"),
                                    *words[1:]])
    assert done.exit_code == 1
    assert message in done.output


def test_from_photos_to_a_trained_run(tmp_path):
    images = garden(tmp_path / "my photos", {"rose, red": 12, "tulip": 20})
    done = CliRunner().invoke(app, ["data", "from-folder", str(images), str(tmp_path / "my data"),
                                    "--size", "16"])
    assert done.exit_code == 0, done.output
    ended = forked.run([RUN, "dataset=tfrecords", f"dataset.root='{tmp_path}/my data'",
                        "model=small_cnn", "loop.epochs=1", "loop.batch_size_per_replica=4",
                        f"hydra.run.dir='{tmp_path}/run'"], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert read(tmp_path / "run", "classes.json")["names"] == ["rose, red", "tulip"]
    listed = (tmp_path / "my data/tfrecords-jpeg-16x16/test_labels.csv").read_text().splitlines()
    predicted = (tmp_path / "run/submission.csv").read_text().splitlines()
    assert len(predicted) == len(listed) > 3
    assert {row.rpartition(",")[0] for row in listed} == {
        row.rpartition(",")[0] for row in predicted}
