"""The dots of classes, read back from the figures."""

import json

import numpy as np
import pytest
import sklearn.metrics
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from flowerexp import metrics
from flowerexp.data import sources
from flowerexp.plots import classes
from flowerexp.plots.style import BLUE, GREY, ORANGE
from tests.plots.test_confusion import matrix_of

FLOWERS = json.loads(sources.CLASSES_FILE.read_text())


def listed(axis):
    """The lines of the list beside the axes."""
    text, = (text.get_text() for text in axis.texts if "est " in text.get_text())
    return [line for line in text.split("\n") if line]


def test_a_dot_is_a_class_at_its_count_and_f1():
    matrix, labels, predictions = matrix_of(104)
    counts = np.random.default_rng(1).integers(5, 782, 104)
    figure = classes.draw(counts, metrics.class_scores(matrix)["f1"], FLOWERS)
    f1 = sklearn.metrics.f1_score(labels, predictions, labels=range(104), average=None)
    dots = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots, np.column_stack([counts, f1]))
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_ylabel() == "F1"
    numbered = {text.get_text(): tuple(text.xy) for text in figure.axes[0].texts
                if isinstance(text, Annotation)}
    worst = np.argsort(f1, kind="stable")[:classes.LISTED]
    assert listed(figure.axes[0]) == ["Lowest F1", *(
        f"{number}  {f1[label]:.3f}  {FLOWERS[label]}" for number, label in enumerate(worst, 1))]
    assert [numbered[str(number)] for number in range(1, 1 + classes.LISTED)] == [
        (counts[label], pytest.approx(f1[label])) for label in worst]


def test_thirds_have_their_means():
    counts, scores = np.arange(12, 0, -1) * 10, np.repeat([0.9, 0.6, 0.2], 4)
    axis = classes.draw(counts, scores, FLOWERS[:12]).axes[0]
    assert [text.get_text() for text in axis.texts if "mean" in text.get_text()] == [
        "tail\nmean 0.200", "medium\nmean 0.600", "head\nmean 0.900"]
    spans = [line.get_xdata() for line in axis.lines]
    assert [x[0] for x in spans[1:]] == [x[1] for x in spans[:-1]], "one begins where one ends"
    assert 40 < spans[0][1] < 50
    assert 80 < spans[1][1] < 90


def test_class_that_nobody_has_is_no_dot_but_counts_in_the_thirds():
    scores = np.repeat([0.9, 0.6, 0.2], 4)
    scores[3] = np.nan  # of the head
    axis = classes.draw(np.arange(12, 0, -1) * 10, scores, FLOWERS[:12]).axes[0]
    assert len(axis.collections[0].get_offsets()) == 11
    assert [text.get_text() for text in axis.texts if "head" in text.get_text()] == [
        "head\nmean 0.900"]


def test_changes_are_above_and_below_zero_in_two_colors():
    change = np.array([0.3, -0.1, 0.0])
    axis = classes.draw(np.array([10, 20, 40]), change, FLOWERS[:3], changes=True).axes[0]
    colors = [to_hex(color) for color in axis.collections[0].get_facecolor()]
    assert colors == [BLUE, ORANGE, GREY]
    assert listed(axis) == ["Highest gains", f"1  +0.300  {FLOWERS[0]}", "Highest losses",
                            f"2  \N{MINUS SIGN}0.100  {FLOWERS[1]}"]
    assert axis.get_ylabel() == "change in F1"
    low, high = axis.get_ylim()
    assert low == -high < -0.3


@pytest.mark.parametrize("spread", [0, 0.004])
def test_numbers_keep_apart_from_each_other_and_from_dots_and_inside(spread):
    scores = spread * np.arange(30)
    figure = classes.draw(np.full(30, 7), scores, FLOWERS[:30])
    axis, points = figure.axes[0], figure.dpi / 72
    numbers = [text for text in axis.texts if text.get_text().isdecimal()]
    assert len(numbers) == classes.LISTED
    places = np.array([axis.transData.transform(text.xy) / points + text.xyann
                       for text in numbers])
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    assert distances[distances > 0].min() >= 6, "points"
    dots = axis.transData.transform(axis.collections[0].get_offsets()) / points
    assert np.linalg.norm(places[:, None] - dots, axis=2).min() >= 0.6 * classes.DISTANCE
    low, high = axis.transAxes.transform([(0, 0), (1, 1)]) / points
    assert (places > low).all()
    assert (places < high).all()


def test_class_without_training_images_has_its_place():
    axis = classes.draw(np.array([0, 3, 50]), np.array([0.1, 0.5, 0.9]), FLOWERS[:3]).axes[0]
    x = axis.transData.transform([(0, 0), (3, 0), (50, 0)])[:, 0]
    inside = axis.transAxes.inverted().transform(np.column_stack([x, x]))[:, 0]
    assert 0 < inside[0] < inside[1] < inside[2] < 1
