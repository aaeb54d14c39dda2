"""The pictures of what will be trained on, read back from their axes."""

import json
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_hex

from flowerexp.data import sampling, sources
from flowerexp.data.sampling import Oversample
from flowerexp.models import schedules
from flowerexp.plots import distributions, style
from tests.plots.test_gallery import HOSTILE

FLOWERS = json.loads(sources.CLASSES_FILE.read_text())


def bars(axis, colour):
    return [patch.get_height() for patch in axis.patches
            if to_hex(patch.get_facecolor()) == colour]


def labels(axis):
    return [label.get_text() for label in axis.get_xticklabels()]


def test_bars_are_the_shares_of_both_sets_from_the_largest_of_the_first():
    figure = distributions.shares(np.array([2, 5, 3]), np.array([4, 1, 0]), ("one", "other"),
                                  ["a", "b", "c"], "a title")
    axis, = figure.axes
    assert labels(axis) == ["b", "c", "a"]
    assert bars(axis, style.GREY) == [0.5, 0.3, 0.2]
    assert bars(axis, style.BLUE) == [0.2, 0, 0.8]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "other"]


@pytest.mark.parametrize(("classes", "parts"), [(1, [1]), (60, [60]), (61, [31, 30]),
                                                (104, [52, 52])])
def test_over_60_classes_are_two_halves(classes, parts):
    counts = np.arange(1, classes + 1)
    figure = distributions.shares(counts, counts[::-1], ("one", "other"), FLOWERS, "")
    assert [len(bars(axis, style.GREY)) for axis in figure.axes] == parts
    assert [name for axis in figure.axes for name in labels(axis)] == FLOWERS[:classes][::-1]
    drawn = [share for axis in figure.axes for share in bars(axis, style.GREY)]
    np.testing.assert_allclose(drawn, counts[::-1] / counts.sum())
    assert sum(drawn) == pytest.approx(1)


def test_very_many_classes_are_steps_without_names():
    counts = np.arange(5000, 0, -1)
    figure = distributions.shares(counts, counts, ("one", "other"), ["x"] * 5000, "")
    for axis, part in zip(figure.axes, (counts[:2500], counts[2500:]), strict=True):
        steps = axis.patches[0].get_data()
        np.testing.assert_allclose(steps.values, part / counts.sum())
        assert axis.get_xlabel() == "2500 classes, too many to name"


def test_occurrences_are_the_mean_and_the_range_from_the_most_repeated_class():
    spread = np.array([[1, 1, 1], [np.nan] * 3, [2.5, 2, 3]])
    axis, = distributions.occurrences(np.array([1, 1, 2.4]), spread, ["a", "b", "c"], "").axes
    assert labels(axis) == ["c", "a"], "b has no images"
    assert axis.lines[0].get_ydata().tolist() == [2.5, 1]
    assert [line[:, 1].tolist() for line in axis.collections[0].get_segments()] == [[2, 3], [1, 1]]
    assert axis.patches[0].get_data().values.tolist() == [2.4, 1]


def test_occurrences_of_a_policy_are_counted_by_hand():
    spread = sampling.class_occurrences(np.array([0, 0, 0, 2, 2]), np.array([1, 3, 2, 5, 5]), 3)
    np.testing.assert_array_equal(spread, [[2, 1, 3], [np.nan] * 3, [5, 5, 5]])
    many = np.repeat([0, 1], [40, 16])
    repeats = sampling.example_repeats(many, Oversample(40), 0, 0)
    spread = sampling.class_occurrences(many, repeats, 2)
    assert spread[0].tolist() == [1, 1, 1]
    assert spread[1, 1:].tolist() == [2, 3], "40 / 16 is 2.5"


@pytest.mark.parametrize(("kind", "end"), [("constant", None), ("cosine", 2e-5)])
@pytest.mark.parametrize("updates", [1, 7, 30_000])
def test_curve_is_the_table_of_rates_with_its_three_numbers(kind, end, updates):
    schedule = getattr(schedules, kind.capitalize())(1e-4, 3e-3, end, 0.2)
    rates = schedules.learning_rates(schedule, updates, 2)
    axis, = distributions.learning_rate(rates, 5, "").axes
    x, y = axis.lines[0].get_data()
    np.testing.assert_array_equal(y, rates[np.round(x * 5).astype(int)])
    assert {x[0], x[-1]} == {0, (updates - 1) / 5}
    assert rates.max() in y
    assert [text.get_text() for text in axis.texts] == [
        f"first {rates[0]:.3g}", f"highest {rates.max():.3g}", f"last {rates[-1]:.3g}"]
    assert [line.get_ydata()[0] for line in axis.lines[1:]] == [rates[0], rates.max(), rates[-1]]


def test_names_of_any_text_are_drawn(tmp_path):
    counts = np.arange(1, len(HOSTILE) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a glyph that no font has
        figure = distributions.shares(counts, counts, ("one", "other"), HOSTILE, "")
        style.save(figure, tmp_path / "a.png")
    drawn = [text for axis in figure.axes for text in labels(axis)]
    assert len(drawn) == len(HOSTILE)
    assert {"two lines", r"\$x^\$", ""} <= set(drawn), "a $ is no mathematics"
    assert max(map(len, drawn)) <= 30
