"""Curves of metrics by epoch, read back from the figures."""

import numpy as np
import pytest

from flowerexp.plots import history
from flowerexp.plots.style import BLUE, GREY, ORANGE


def epochs(count, start=0.0, seconds=8.0):
    """A history whose values all differ: start + epoch / 100 + something for each metric."""
    return [{f"{split} {name}": start + epoch / 100 + offset / 1000 + (split == "train") / 2
             for split in ("train", "valid") for offset, name in enumerate(history.TITLES)}
            | {"train timing": seconds + epoch} for epoch in range(count)]


def lines(figure, panel, dashes):
    """The drawn lines of a panel and line style, (x, y, color) each."""
    return [(line.get_xdata().tolist(), line.get_ydata().tolist(), line.get_color())
            for line in figure.axes[panel].lines if line.get_linestyle() == dashes]


def values(rows, key):
    return [row[key] for row in rows]


def test_every_metric_of_a_run_is_drawn_for_training_and_validation():
    run = epochs(5)
    figure = history.draw([run])
    assert [axis.get_title() for axis in figure.axes] == [
        "Loss", "Accuracy", "Macro F1", "Macro recall", "Macro precision", "Seconds of training"]
    for panel, name in enumerate(history.TITLES):
        drawn = {color: (x, y) for x, y, color in lines(figure, panel, "-")}
        assert drawn == {GREY: ([1, 2, 3, 4, 5], values(run, f"train {name}")),
                         BLUE: ([1, 2, 3, 4, 5], values(run, f"valid {name}"))}
    assert lines(figure, 5, "-") == [([1, 2, 3, 4, 5], [8, 9, 10, 11, 12], GREY)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["validation", "training"]


def test_best_epoch_of_a_run_is_marked_and_of_several_none():
    run = epochs(5)
    run[2]["valid f1"] = 0.9
    axis = history.draw([run]).axes[2]
    assert [line.get_xdata() for line in axis.lines if line.get_linestyle() == ":"] == [[3, 3]]
    assert [text.get_text() for text in axis.texts] == ["best 0.900"]
    assert not history.draw([run, run]).axes[2].texts


def test_several_runs_are_their_mean_in_the_band_between_them():
    figure = history.draw([epochs(4), epochs(4, 0.3), epochs(4, 0.06)])
    (_, validation, _), = [line for line in lines(figure, 1, "-") if line[2] == BLUE]
    assert validation == pytest.approx(values(epochs(4, 0.12), "valid acc"))
    band = [area.get_paths()[0].vertices[:, 1] for area in figure.axes[1].collections][1]
    assert band.min() == values(epochs(4), "valid acc")[0]
    assert band.max() == values(epochs(4, 0.3), "valid acc")[-1]
    assert "mean of 3 runs" in figure.legends[0].get_texts()[0].get_text()


@pytest.mark.parametrize("shorter", ["run", "baseline"])
def test_baseline_is_dashed_and_the_shorter_history_goes_on_with_its_last_epoch(shorter):
    run, baseline = (epochs(count, start) for count, start in
                     (((3, 0.0), (6, 0.2)) if shorter == "run" else ((6, 0.0), (3, 0.2))))
    figure = history.draw([run], [baseline], "changed", "original")
    for panel, name in enumerate(history.TITLES):
        for rows, dashes, color in ((run, "-", BLUE), (baseline, "--", ORANGE)):
            assert [line[:2] for line in lines(figure, panel, dashes) if line[2] == color] == [
                (list(range(1, len(rows) + 1)), values(rows, f"valid {name}"))]
        last = (run if shorter == "run" else baseline)[-1]
        goes_on = {color: (x, y) for x, y, color in lines(figure, panel, ":")}
        assert goes_on == {
            GREY: ([3, 4, 5, 6], [last[f"train {name}"]] * 4),
            BLUE if shorter == "run" else ORANGE: (
                [3, 4, 5, 6], [last[f"valid {name}"]] * 4)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "validation, changed", "training, changed", "validation, original", "training, original",
        "last epoch, repeated"]
    assert not lines(figure, 5, ":"), "seconds that nobody spent"


def test_equal_lengths_repeat_nothing():
    figure = history.draw([epochs(3)], [epochs(3, 0.2)], "a", "b")
    assert not any(lines(figure, panel, ":") for panel in range(6))
    assert len(figure.legends[0].get_texts()) == 4


def test_what_is_undefined_is_a_gap():
    run = epochs(4)
    run[1]["valid loss"] = None
    del run[3]["train loss"]
    figure = history.draw([run])
    drawn = {color: y for _, y, color in lines(figure, 0, "-")}
    assert np.flatnonzero(np.isnan(drawn[BLUE])).tolist() == [1]
    assert np.flatnonzero(np.isnan(drawn[GREY])).tolist() == [3]


def test_one_epoch_is_a_dot_even_of_a_baseline():
    figure = history.draw([epochs(1)], [epochs(1, 0.1)], "a", "b")
    assert {line.get_marker() for line in figure.axes[0].lines} == {"o"}


def test_highest_seconds_are_inside_their_panel():
    for seconds in ([30.0, 2, 2], [20.0, 19.9], [0.0]):
        rows = epochs(len(seconds))
        for row, value in zip(rows, seconds, strict=True):
            row["train timing"] = value
        low, high = history.draw([rows]).axes[5].get_ylim()
        assert low == 0
        assert high >= 1.05 * max(seconds)


def test_a_metric_of_ones_own_has_a_panel():
    own, without = epochs(2), epochs(2)
    for row in own:
        row["valid $top$ 5"] = 0.25
    figure = history.draw([own], [without], "own", "without")
    assert [axis.get_title() for axis in figure.axes] == [
        *history.TITLES.values(), r"\$top\$ 5", "Seconds of training"]
    assert lines(figure, 5, "-")[-1][1:] == ([0.25, 0.25], BLUE)
