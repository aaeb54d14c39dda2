"""The drawn data set: its sizes, and that every machine draws the same pixels."""

import hashlib
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flowerexp.data import sample

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], list[str]]


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    return {split: sample.draw_split(split) for split in ("train", "val", "test")}


def place(id_: str) -> tuple[str, int, int]:
    """The split, label and index that an id names."""
    split, label, index = id_.split("-")
    return split, int(label), int(index)


def test_training_is_long_tailed_from_160_to_16() -> None:
    counts = sample.TRAIN_COUNTS
    assert (counts[0], counts[-1], len(counts)) == (160, 16, 12)
    # Geometric up to rounding to whole images.
    assert all(abs(count - 160 * 10 ** (-label / 11)) <= 1 for label, count in enumerate(counts))
    assert all(more > fewer for more, fewer in pairwise(counts))


def test_names_are_distinct() -> None:
    assert len(set(sample.CLASS_NAMES)) == 12


def test_shapes_and_counts(splits: dict[str, Split]) -> None:
    for split, (images, labels, ids) in splits.items():
        assert images.shape == (len(ids), 64, 64, 3)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        counts = np.bincount(labels, minlength=12).tolist()
        assert counts == list(sample.TRAIN_COUNTS if split == "train" else (24,) * 12)
        assert [place(id_)[:2] for id_ in ids] == [(split, label) for label in labels.tolist()]


def test_classes_are_shuffled(splits: dict[str, Split]) -> None:
    for _, labels, _ in splits.values():
        assert len(set(labels[:48].tolist())) >= 8


def test_ids_and_pictures_are_unique_over_all_splits(splits: dict[str, Split]) -> None:
    ids = [id_ for _, _, ids in splits.values() for id_ in ids]
    pictures = {image.tobytes() for images, _, _ in splits.values() for image in images}
    assert len(ids) == len(set(ids)) == len(pictures) == 778 + 2 * 288


def test_hash_covers_every_pixel_and_label(splits: dict[str, Split]) -> None:
    for split, (images, labels, _) in splits.items():
        digest = hashlib.sha256()
        for image in images:
            digest.update(bytes(image.ravel().tolist()))
        for label in labels.tolist():
            digest.update(label.to_bytes(4, "little"))
        assert digest.hexdigest() == sample.PIXELS_SHA256[split]


def test_golden_pixels() -> None:
    image = sample.draw_image("train", 0, 0)
    assert image[0, 0].tolist() == [42, 62, 60]
    assert image[32, 32].tolist() == [67, 101, 66]


def test_an_image_drawn_alone_is_that_of_its_split(splits: dict[str, Split]) -> None:
    for split, (images, _, ids) in splits.items():
        for number in (0, len(ids) // 2, len(ids) - 1):
            assert place(ids[number])[0] == split
            np.testing.assert_array_equal(sample.draw_image(*place(ids[number])),
                                          images[number])


def test_other_pixels_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    monkeypatch.setattr(sample, "draw_image", lambda split, label, index: black)
    with pytest.raises(AssertionError, match=r"val split .* other pixels"):
        sample.draw_split("val")


def test_the_processor_makes_no_difference() -> None:
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not extensions:
        pytest.skip("NumPy uses no extension of this processor that could be switched off")
    script = ("import numpy\n"
              "print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))\n"
              "from flowerexp.data import sample\n"
              "sample.draw_split('val')\n")
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(extensions)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, text=True,
                          capture_output=True, check=False,
                          cwd=Path(sample.__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_only_exactly_rounded_operations_are_used() -> None:
    source = Path(sample.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r"\bnp\.(?!ndarray)([a-z_]\w*(?:\.\w+)*)\(", source))
    # All that rounds here: sqrt, which IEEE 754 rounds exactly. The rest moves or compares.
    assert called <= {"abs", "arange", "argsort", "array", "asarray", "broadcast_to", "clip",
                      "empty", "flatnonzero", "floor", "maximum", "moveaxis", "random.Philox",
                      "reshape", "sqrt", "stack", "uint64", "zeros"}
    assert not re.search(r"import math|\*\*(?!9)|\.(mean|dot|std|prod)\(| @ ", source)
