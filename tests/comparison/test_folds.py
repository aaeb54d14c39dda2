"""Folds are runs of one row, and pairs are compared on the validation images of all folds."""

import numpy as np
import pytest

from flowerexp.comparison import comparison, significance, wording
from flowerexp.runs import reader
from tests.folders import write_run

LABELS = np.array([0, 0, 0, 1, 1, 2])
RIGHT, WRONG = LABELS, (LABELS + 1) % 3


def fold(place, model, number, predictions, seed=0, data="content-0123456789abcdef", **other):
    """A fold whose validation images have ids of their own."""
    overrides = [f"model={model}", "dataset.folds=3", f"dataset.fold={number}", f"seed={seed}"]
    name = f"dataset.fold={number}+model={model}+seed={seed}"
    return write_run(place / name, overrides, LABELS.tolist(), [list(map(int, predictions))],
                     ids=[f"image {number} {row}" for row in range(6)], data=data, **other)


@pytest.fixture
def swept(tmp_path):
    """Three folds of two models: the first model is right in two folds, the second in one."""
    for number in range(3):
        fold(tmp_path, "small_cnn", number, WRONG if number == 1 else RIGHT)
        fold(tmp_path, "mobilenet", number, RIGHT if number == 0 else WRONG)
    return tmp_path


def test_a_row_has_the_mean_of_its_folds(swept):
    table = comparison.compare(swept).table.set_index("name")
    assert sorted(table.index) == ["model=mobilenet", "model=small_cnn"]
    assert table["n"].tolist() == [3, 3]
    assert set(table["seeds"]) == {"0"}
    assert table.loc["model=small_cnn", "last acc"] == pytest.approx(2 / 3)
    assert table.loc["model=mobilenet", "last acc std"] == pytest.approx(np.std([1, 0, 0], ddof=1))
    assert not {"data", "dataset.fold"} & {*table.columns}


def test_a_pair_is_compared_on_all_folds_together(swept):
    found = comparison.compare(swept, "model=small_cnn:model=mobilenet")
    (pair,) = found.pairs
    labels = np.tile(LABELS, 3)
    expected = significance.bootstrap(labels, np.concatenate([RIGHT, WRONG, RIGHT])[None],
                                      np.concatenate([RIGHT, WRONG, WRONG])[None])
    assert pair.seeds == (0,)
    assert pair.differences["acc"].value == pytest.approx(1 / 3)
    for name, numbers in expected.items():
        difference = pair.differences[name]
        assert (difference.value, difference.low, difference.high) == pytest.approx(numbers)
    assert any("on the validation images of 3 folds together" in note for note in found.notes)


def test_folds_that_one_side_lacks_are_left_out(swept):
    fold(swept, "mobilenet", 2, RIGHT, state="failed", error="gone")
    found = comparison.compare(swept, "model=small_cnn:model=mobilenet")
    assert found.pairs[0].differences["acc"].value == pytest.approx(0.0)
    assert any("only folds 0, 1 finished for every seed" in note for note in found.notes)
    (failed,) = found.failures
    assert "seed 0, fold 2: failed" in wording.failure(failed)


def test_folds_of_other_data_and_single_folds_keep_their_names(tmp_path):
    fold(tmp_path, "small_cnn", 0, RIGHT)
    fold(tmp_path, "small_cnn", 1, RIGHT, data="content-other")
    assert len(comparison.compare(tmp_path).rows) == 2
    assert reader.named_after_folder(tmp_path / "cv" / "dataset.fold=1+seed=0") == "cv"
    assert reader.named_after_folder(tmp_path / "dataset.fold=1+loop.epochs=2+seed=3") == (
        "loop.epochs=2")
