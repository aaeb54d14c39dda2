"""`data check --near`: which images are near, the picture and the groups that a run takes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from flowerexp.config import Dataset
from flowerexp.data import splits
from flowerexp.data.prepare import checks, near
from flowerexp.data.sources import Arrays, Source
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger

pytest.importorskip("imagehash")


def scene(seed, size=48):
    """A random picture of low frequencies, like a photo."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def worse(image):
    """A JPEG of half the size, brighter."""
    content = io.BytesIO()
    ImageEnhance.Brightness(image.resize((24, 24))).enhance(1.2).save(content, "jpeg", quality=60)
    return Image.open(content).convert("RGB").resize(image.size)


@pytest.fixture(scope="module")
def source():
    """20 scenes to train; to validate, copies of 3 and 4 and two others; to test, another of 3."""
    def arrays(images, ids, labelled=True):
        labels = np.arange(len(images)) % 2 if labelled else None
        return Arrays(np.stack(list(map(np.asarray, images))), labels, ids)

    scenes = [scene(seed) for seed in range(24)]
    flat = Image.new("RGB", (48, 48), (90, 0, 0))
    return Source.of_arrays(
        arrays([*scenes[:20], flat], [f"t{row}" for row in range(21)]),
        arrays([worse(scenes[4]), scenes[20], worse(scenes[3]), flat], ["v4", "v20", "v3", "flat"]),
        arrays([scenes[3].rotate(1), scenes[22]], ["x3", "x22"], labelled=False), ["a", "b"])


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("near") / "out"
    near.run(source, folder, RunLogger(folder.parent))
    return folder


def test_copies_are_near_and_other_scenes_and_flat_images_are_not(source):
    images = near.read(source)
    found = {frozenset(map(images.id, pair[1:]))
             for pair in near.near_pairs(images.hashes, images.thumbnails)}
    assert found == {frozenset(pair) for pair in (
        ("t4", "v4"), ("t3", "v3"), ("t3", "x3"), ("v3", "x3"))}


def test_the_pairs_of_a_block_are_those_of_all(source, monkeypatch):
    images = near.read(source)
    whole = near.near_pairs(images.hashes, images.thumbnails, 24)
    monkeypatch.setattr(near, "BLOCK", 5)
    assert near.near_pairs(images.hashes, images.thumbnails, 24) == whole
    monkeypatch.setattr(near, "MOST_PAIRS", 2)
    with pytest.raises(UserError, match="more than 2 pairs"):
        near.near_pairs(images.hashes, images.thumbnails)


def test_the_picture_the_groups_and_the_sentences_are_written(written):
    assert (written / "groups.csv").read_text().splitlines() == [
        "id,group", "t3,near t3", "v3,near t3", "x3,near t3", "t4,near t4", "v4,near t4"]
    with Image.open(written / "near.png") as picture:
        assert picture.size[0] > 400
    log = (written.parent / "run.log").read_text()
    assert "warning: nearly the same image: train: a t4 and val: a v4 (" in log
    assert "near-duplicates: 4 pairs across splits and 0 within one, of 27 images" in log
    assert f"dataset.groups={written / 'groups.csv'}" in log


def test_a_run_keeps_the_groups_together(written, source):
    """Images 3 and 4 and their copies are in one fold each; the test copy is said."""
    for fold in range(3):
        found = splits.load(source, Dataset(groups=str(written / "groups.csv"), folds=3, fold=fold,
                                            pool="train+val"), False)
        sides = [{*table.ids} for table in (found.train, found.valid)]
        assert all(any({one, other} <= side for side in sides)
                   for one, other in (("t3", "v3"), ("t4", "v4")))
        assert ("1 group of test also in training" in str(found.sentences)) == ("t3" in sides[0])


def test_nothing_is_written_without_pairs(tmp_path):
    images = np.stack([np.asarray(scene(seed)) for seed in range(6)])
    near.run(Source.of_arrays(Arrays(images, np.arange(6) % 2)), tmp_path, RunLogger(chief=False))
    assert not list(tmp_path.iterdir())


def test_the_command_looks_for_them_on_demand(tiny, tmp_path, monkeypatch):
    from flowerexp.cli import data as commands

    asked = []
    monkeypatch.setattr(checks, "run", lambda *given: asked.append(given[2:]) or True)
    for near_too in (False, True):
        commands.check_data(str(tiny), None, None, None, near=near_too, bits=6, output=tmp_path)
    assert asked == [(None, 6), (tmp_path, 6)]
