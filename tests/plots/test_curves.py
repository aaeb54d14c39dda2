"""What the pictures draw, read back from the figures: curves, dots, colours and words."""

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from matplotlib.colors import to_hex

from flowerexp import metrics
from flowerexp.plots import curves

FLOWERS = json.loads((Path(curves.__file__).parents[1] / "data/flower_classes.json").read_text())
HOSTILE = ["$x^$", "_private", "<b>&amp;</b>", "two\nlines\ttabs", "\N{CJK UNIFIED IDEOGRAPH-82B1}",
           "a\ud800b", r"back\slash$", "$$$", "", "very long " * 30]


def epochs(count, start=0.0, seconds=8.0):
    """A history whose values all differ: start + epoch / 100 + something for each metric."""
    return [{f"{split} {name}": start + epoch / 100 + offset / 1000 + (split == "train") / 2
             for split in ("train", "valid") for offset, name in enumerate(curves.PANELS)}
            | {"train timing": seconds + epoch} for epoch in range(count)]


def lines(figure, panel, style):
    """The drawn lines of a panel and style, (x, y, colour) each."""
    return [(line.get_xdata().tolist(), line.get_ydata().tolist(), line.get_color())
            for line in figure.axes[panel].lines if line.get_linestyle() == style]


def values(history, key):
    return [row[key] for row in history]


# By epoch

def test_every_metric_of_a_run_is_drawn_for_training_and_validation():
    run = epochs(5)
    figure = curves.history([run])
    assert [axis.get_title() for axis in figure.axes] == [
        "Loss", "Accuracy", "Macro F1", "Macro recall", "Macro precision", "Seconds of training"]
    for panel, name in enumerate(curves.PANELS):
        drawn = {colour: (x, y) for x, y, colour in lines(figure, panel, "-")}
        assert drawn == {curves.GREY: ([1, 2, 3, 4, 5], values(run, f"train {name}")),
                         curves.BLUE: ([1, 2, 3, 4, 5], values(run, f"valid {name}"))}
    assert lines(figure, 5, "-") == [([1, 2, 3, 4, 5], [8, 9, 10, 11, 12], curves.GREY)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["validation", "training"]


def test_best_epoch_of_a_run_is_marked_and_of_several_none():
    run = epochs(5)
    run[2]["valid f1"] = 0.9
    axis = curves.history([run]).axes[2]
    assert [line.get_xdata() for line in axis.lines if line.get_linestyle() == ":"] == [[3, 3]]
    assert [text.get_text() for text in axis.texts] == ["best 0.900"]
    assert not curves.history([run, run]).axes[2].texts


def test_several_runs_are_their_mean_in_the_band_between_them():
    figure = curves.history([epochs(4), epochs(4, 0.3), epochs(4, 0.06)])
    (_, validation, _), = [line for line in lines(figure, 1, "-") if line[2] == curves.BLUE]
    assert validation == pytest.approx(values(epochs(4, 0.12), "valid acc"))
    band = [area.get_paths()[0].vertices[:, 1] for area in figure.axes[1].collections][1]
    assert band.min() == values(epochs(4), "valid acc")[0]
    assert band.max() == values(epochs(4, 0.3), "valid acc")[-1]
    assert "mean of 3 runs" in figure.legends[0].get_texts()[0].get_text()


@pytest.mark.parametrize("shorter", ["run", "baseline"])
def test_baseline_is_dashed_and_the_shorter_history_goes_on_with_its_last_epoch(shorter):
    run, baseline = (epochs(count, start) for count, start in
                     (((3, 0.0), (6, 0.2)) if shorter == "run" else ((6, 0.0), (3, 0.2))))
    figure = curves.history([run], [baseline], "changed", "original")
    for panel, name in enumerate(curves.PANELS):
        for history, style, colour in ((run, "-", curves.BLUE), (baseline, "--", curves.ORANGE)):
            assert [line[:2] for line in lines(figure, panel, style) if line[2] == colour] == [
                (list(range(1, len(history) + 1)), values(history, f"valid {name}"))]
        last = (run if shorter == "run" else baseline)[-1]
        goes_on = {colour: (x, y) for x, y, colour in lines(figure, panel, ":")}
        assert goes_on == {
            curves.GREY: ([3, 4, 5, 6], [last[f"train {name}"]] * 4),
            curves.BLUE if shorter == "run" else curves.ORANGE: (
                [3, 4, 5, 6], [last[f"valid {name}"]] * 4)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "validation, changed", "training, changed", "validation, original", "training, original",
        "last epoch, repeated"]
    assert not lines(figure, 5, ":"), "seconds that nobody spent"


def test_equal_lengths_repeat_nothing():
    figure = curves.history([epochs(3)], [epochs(3, 0.2)], "a", "b")
    assert not any(lines(figure, panel, ":") for panel in range(6))
    assert len(figure.legends[0].get_texts()) == 4


def test_what_is_undefined_is_a_gap():
    run = epochs(4)
    run[1]["valid loss"] = None
    del run[3]["train loss"]
    figure = curves.history([run])
    drawn = {colour: y for _, y, colour in lines(figure, 0, "-")}
    assert np.flatnonzero(np.isnan(drawn[curves.BLUE])).tolist() == [1]
    assert np.flatnonzero(np.isnan(drawn[curves.GREY])).tolist() == [3]


def test_one_epoch_is_a_dot_even_of_a_baseline():
    figure = curves.history([epochs(1)], [epochs(1, 0.1)], "a", "b")
    assert {line.get_marker() for line in figure.axes[0].lines} == {"o"}


# By class

def matrix_of(classes, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 30 * classes)
    predictions = np.where(random.random(len(labels)) < 0.7, labels,
                           random.integers(0, classes, len(labels)))
    return metrics.confusion_matrix(labels, predictions, classes), labels, predictions


@pytest.mark.parametrize("classes", [3, 104])
def test_confusion_shows_shares_of_the_true_class(classes):
    matrix, _, _ = matrix_of(classes)
    matrix[1] = 0  # a class without validation images
    figure = curves.confusion(matrix, FLOWERS[:classes], runs=3)
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image.sum(1), np.arange(classes) != 1)
    assert image[2, 0] == matrix[2, 0] / matrix[2].sum()
    right = int(np.trace(matrix))
    assert figure.axes[0].get_title() == (
        f"Validation: {right} of {matrix.sum()} images right, 3 runs together")


def test_few_classes_are_named_and_of_many_the_most_frequent_mistakes():
    few = curves.confusion(matrix_of(40)[0], FLOWERS[:40]).axes[0]
    assert [label.get_text() for label in few.get_yticklabels()] == FLOWERS[:40]
    assert not few.texts
    matrix, _, _ = matrix_of(104)
    matrix[7, 50], matrix[50, 7] = 90, 80
    words = curves.confusion(matrix, FLOWERS).axes[0].texts[0].get_text().split("\n\n")
    assert words[0] == "Most frequent mistakes"
    assert words[1] == (f"90 of {matrix[7].sum()}: {FLOWERS[7]} (7)\n"
                        f"     called {FLOWERS[50]} (50)")
    assert words[2].startswith("80 of ")
    assert len(words) == 1 + curves.MISTAKES


def test_no_mistakes_list_none():
    words = curves.confusion(np.diag(np.arange(1, 51)), FLOWERS[:50]).axes[0].texts[0].get_text()
    assert words == "Most frequent mistakes"


def test_a_dot_is_a_class_at_its_count_and_f1():
    matrix, labels, predictions = matrix_of(104)
    counts = np.random.default_rng(1).integers(5, 782, 104)
    figure = curves.class_scores(counts, metrics.class_scores(matrix)["f1"], FLOWERS)
    f1 = sklearn.metrics.f1_score(labels, predictions, labels=range(104), average=None)
    dots = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots, np.column_stack([counts, f1]))
    assert figure.axes[0].get_xscale() == "log"
    worst = [FLOWERS[label] for label in np.argsort(f1, kind="stable")[:curves.LABELLED]]
    named = [text.get_text() for text in figure.axes[0].texts if text.get_text() in FLOWERS]
    assert sorted(named) == sorted(worst)


def test_thirds_have_their_means():
    counts, scores = np.arange(12, 0, -1) * 10, np.repeat([0.9, 0.6, 0.2], 4)
    axis = curves.class_scores(counts, scores, FLOWERS[:12]).axes[0]
    assert [text.get_text() for text in axis.texts if "mean" in text.get_text()] == [
        "tail\nmean 0.200", "medium\nmean 0.600", "head\nmean 0.900"]
    spans = [line.get_xdata() for line in axis.lines]
    assert [x[0] for x in spans[1:]] == [x[1] for x in spans[:-1]], "one begins where one ends"
    assert 40 < spans[0][1] < 50
    assert 80 < spans[1][1] < 90


def test_class_that_nobody_has_is_no_dot_but_counts_in_the_thirds():
    scores = np.repeat([0.9, 0.6, 0.2], 4)
    scores[3] = np.nan  # of the head
    axis = curves.class_scores(np.arange(12, 0, -1) * 10, scores, FLOWERS[:12]).axes[0]
    assert len(axis.collections[0].get_offsets()) == 11
    assert [text.get_text() for text in axis.texts if "head" in text.get_text()] == [
        "head\nmean 0.900"]


def test_changes_are_above_and_below_zero_in_two_colours():
    change = np.array([0.3, -0.1, 0.0])
    axis = curves.class_scores(np.array([10, 20, 40]), change, FLOWERS[:3], changes=True).axes[0]
    colours = [to_hex(colour) for colour in axis.collections[0].get_facecolor()]
    assert colours == [curves.BLUE, curves.ORANGE, curves.GREY]
    assert {text.get_text() for text in axis.texts} == {FLOWERS[0], FLOWERS[1]}
    low, high = axis.get_ylim()
    assert low == -high < -0.3


def test_labels_keep_a_line_apart_and_inside():
    scores = np.zeros(30)
    axis = curves.class_scores(np.full(30, 7), scores, FLOWERS[:30]).axes[0]
    heights = sorted(text.xyann[1] for text in axis.texts)
    assert min(np.diff(heights)) >= 0.99 * curves.LINE
    assert heights[0] >= 0.02


def test_class_without_training_images_has_its_place():
    axis = curves.class_scores(np.array([0, 3, 50]), np.array([0.1, 0.5, 0.9]), FLOWERS[:3]).axes[0]
    x = axis.transData.transform([(0, 0), (3, 0), (50, 0)])[:, 0]
    inside = axis.transAxes.inverted().transform(np.column_stack([x, x]))[:, 0]
    assert 0 < inside[0] < inside[1] < inside[2] < 1


# Files

@pytest.mark.parametrize("draw", [
    lambda: curves.history([epochs(2)], [epochs(3)], HOSTILE[0], HOSTILE[1]),
    lambda: curves.confusion(matrix_of(len(HOSTILE))[0], HOSTILE),
    lambda: curves.confusion(matrix_of(50)[0], HOSTILE * 5),
    lambda: curves.class_scores(np.arange(1, 11), np.linspace(-1, 1, 10), HOSTILE, changes=True),
], ids=["history", "confusion", "mistakes", "classes"])
def test_names_of_any_text_are_drawn(tmp_path, draw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves.save(draw(), tmp_path / "a.png")
    width, height = struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24])
    assert 500 < width < 2000
    assert 300 < height < 2000


def test_text_of_a_name_is_one_line_without_mathematics():
    assert curves.plain("two\nlines\ttabs") == "two lines tabs"
    assert curves.plain("$x^$") == r"\$x^\$"
    assert curves.plain("a" * 50) == "a" * 39 + "…"


def test_picture_is_the_same_bytes_again(tmp_path):
    for name in ("one.png", "two.png"):
        curves.save(curves.history([epochs(3)]), tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
