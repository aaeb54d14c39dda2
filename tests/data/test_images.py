"""Photos trained straight from their files: the table, the memory and the import instead of it."""

import numpy as np
import platformdirs
import pytest
import tensorflow as tf

from flowerexp.config import Dataset
from flowerexp.data import formats, images, resizing, sources, splits
from flowerexp.data.prepare import photo_cache
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment
from tests.photo_folders import garden, picture, save

SILENT = RunLogger(chief=False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    return garden(tmp_path / "photos", {"rose": 12, "tulip": 8})


def dataset(root, columns=None, import_dir=None, **keys):
    return Dataset(sources.Images(str(root), 16, columns or {}, import_dir), **keys)


def loaded(root, columns=None, import_dir=None, **keys):
    return experiment.load_data(dataset(root, columns, import_dir, **keys), SILENT)


def pixels(data):
    """The decoded image of every id."""
    return {identifier: image for split in (data.train, data.valid)
            for identifier, image in zip(split.table.ids, split.decoded.numpy(), strict=True)}


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_photos_are_squared_as_predict_squares_them(root, resize):
    data = loaded(root, resize=resize)
    assert data.names == ("rose", "tulip")
    assert len(data.valid.table.ids) == 3  # 0.15 of 20
    found = pixels(data)
    assert len(found) == 20
    for identifier, image in found.items():
        wanted = resizing.square(resizing.decode((root / identifier).read_bytes()), 16, resize)
        np.testing.assert_array_equal(image, wanted)
    labels = dict(zip(data.train.table.ids, data.train.table.labels.tolist(), strict=True))
    assert all(data.names[label] == identifier.partition("/")[0]
               for identifier, label in labels.items())


def test_nothing_is_written_beside_the_photos_and_split_folders_are_kept(tmp_path):
    for split, count in (("training", 6), ("valid", 3), ("test", 2)):
        garden(tmp_path / "set" / split, {"rose": count, "tulip": count}, height=20 + count)
    before = sorted(tmp_path.joinpath("set").rglob("*"))
    data = loaded(tmp_path / "set")
    assert sorted(tmp_path.joinpath("set").rglob("*")) == before
    assert (data.train.count, data.valid.count) == (12, 6)
    test = experiment.load_test(dataset(tmp_path / "set"), data)
    assert test.ids == ["test/rose/0.jpg", "test/rose/1.jpg", "test/tulip/0.jpg",
                        "test/tulip/1.jpg"]
    assert test.images.shape == (4, 16, 16, 3)
    assert test.labels.tolist() == [-1] * 4


def test_the_plan_identifies_the_data_as_the_run_does_and_tells_changes(root):
    source = photo_cache.find(dataset(root), SILENT)
    planned = splits.load(source, dataset(root), keep_images=False).fingerprint
    assert planned == loaded(root).fingerprint
    assert loaded(root).fingerprint == planned  # by remembered checksums
    save(root / "rose/3.jpg", picture(77))
    assert loaded(root).fingerprint != planned


def test_a_photo_that_changes_under_a_run_is_refused(root):
    source = photo_cache.find(dataset(root), SILENT)
    table = images.table(source.listing, source.checked, str(root), "train")
    save(root / "tulip/1.jpg", picture(77))
    with pytest.raises(UserError, match=r"tulip/1.jpg has changed since the run started"):
        photo_cache.decoded(table, source, dataset(root))


def test_a_bad_photo_ends_the_run_or_is_left_out_and_listed(root, capsys):
    (root / "rose/3.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"rose/3.jpg is not a photo .* dataset.on_bad_record=skip"):
        loaded(root)
    for _ in range(2):  # found, and remembered
        data = loaded(root, on_bad_record="skip")
        assert len(pixels(data)) == 19
        (issue,) = data.skipped
        assert issue.sentence.startswith(f"{root}/rose/3.jpg is not a photo that can be read")
    (root / "rose/4.jpg").unlink()
    (root / "rose/4.jpg").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"rose/4.jpg cannot be read: No such file"):
        loaded(root)
    assert len(pixels(loaded(root, on_bad_record="skip"))) == 18


def test_copies_are_on_no_two_sides(root):
    (root / "rose/z.jpg").write_bytes((root / "rose/1.jpg").read_bytes())
    (root / "tulip/z.jpg").write_bytes((root / "rose/2.jpg").read_bytes())
    source = photo_cache.find(dataset(root), SILENT)
    assert {photo.identifier for photo in source.listing.photos} == {
        f"{name}/{number}.jpg" for name, count in (("rose", 12), ("tulip", 8))
        for number in range(count)} - {"rose/2.jpg"}
    assert "3 copies of other photos left out, first 'rose/2.jpg' (1 pictures are in" in (
        source.reason)


def test_photos_that_do_not_fit_are_imported_once_by_their_content(root, cache, tmp_path,
                                                                   monkeypatch):
    straight = loaded(root)
    small = {"memory_gb": 1e-6}
    data = loaded(root, **small)
    (place,) = (cache / "photos").iterdir()
    assert str(place) in data.source.reason
    assert data.cache == "encoded"
    assert {*data.valid.table.ids} == {*straight.valid.table.ids}  # divided by their ids alone
    assert data.names == straight.names
    decoded = pixels(loaded(root, memory_gb=1e-6, cache="decoded"))
    records = loaded(root, memory_gb=1.0, cache="encoded")  # of the same import
    for identifier, image in zip(records.train.table.ids, records.train.table.images.numpy(),
                                 strict=True):
        found = tf.io.decode_jpeg(image).numpy().astype(int)
        assert np.abs(found - decoded[identifier]).mean() < 6  # of the JPEG only
    assert [*(cache / "photos").iterdir()] == [place]
    monkeypatch.setattr(photo_cache.convert, "convert_listing", None)  # the second start needs none
    assert loaded(root, **small).fingerprint == data.fingerprint
    monkeypatch.undo()
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(cache))
    save(root / "rose/3.jpg", picture(77))
    assert loaded(root, **small).fingerprint != data.fingerprint
    assert len([*(cache / "photos").iterdir()]) == 2
    loaded(root, import_dir=str(tmp_path / "mine"), **small)
    assert len([*(tmp_path / "mine").iterdir()]) == 1


def test_a_bad_photo_in_an_import_ends_the_run_too(root):
    (root / "rose/3.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"rose/3.jpg: it is not a photo .*on_bad_record=skip"):
        loaded(root, cache="encoded")
    data = loaded(root, cache="encoded", on_bad_record="skip")
    assert data.train.count + data.valid.count == 19


def test_groups_stay_together_in_memory_and_in_an_import(root, tmp_path):
    lines = [f"{path.relative_to(root)},{path.parent.name},{index // 4}"
             for index, path in enumerate(sorted(root.rglob("*.jpg")))]
    (root / "table.csv").write_text("\n".join(["file,kind,plant", *lines]))
    columns = {"label": "kind", "group": "plant"}
    for keys in ({}, {"cache": "encoded"}):
        data = loaded(root, columns, validation=0.3, **keys)
        assert {*data.train.table.groups} | {*data.valid.table.groups} == set("01234")
        assert not {*data.train.table.groups} & {*data.valid.table.groups}


def test_small_photos_are_named(root, capsys):
    save(root / "rose/tiny.jpg", picture(5, 3, 3))
    experiment.load_data(dataset(root), RunLogger())
    assert "1 photo enlarged by more than 4 times: 'rose/tiny.jpg'" in capsys.readouterr().out


@pytest.mark.parametrize(("keys", "words"), [
    ({"root": "s3://bucket/photos"}, "photos are read from a local folder, not from s3://bucket"),
    ({"root": "/nowhere"}, "/nowhere does not exist: give a folder"),
    ({"root": None}, "root must say where the photos are"),
    ({"root": ".", "image_size": 0}, "image_size must be"),
    ({"root": ".", "columns": {"lable": "x"}}, r"columns.lable does not exist: .* label")])
def test_wrong_keys_are_refused(keys, words):
    with pytest.raises(UserError, match=words):
        sources.Images(**keys)()


def test_bytes_that_no_one_decodes_are_named():
    with pytest.raises(formats.UnreadablePhotoError, match="is a damaged"):
        images.Squares(8)(b"\xff\xd8\xff no JPEG")
