"""Metrics by epoch, of one run, of several seeds, or against a baseline. No TensorFlow here."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from flowerexp import metrics
from flowerexp.plots.style import BLUE, GREY, ORANGE, escape_mathtext, simplify
from flowerexp.runs.store import Scores

TITLES = {"loss": "Loss", "acc": "Accuracy", "f1": "Macro F1", "recall": "Macro recall",
          "precision": "Macro precision"}
SPLITS = {"train": ("training", GREY, GREY), "valid": ("validation", BLUE, ORANGE)}
"""The label of a split, its color, and its color for a baseline."""
SECONDS = "train timing"
MOST_MARKERS = 40
"""The most epochs that are drawn with markers."""
Group = tuple[Sequence[Sequence[Scores]], str, bool]
"""Histories of runs that differ in their seed, their name, and whether they are a baseline."""


def draw(runs: Sequence[Sequence[Scores]], baseline: Sequence[Sequence[Scores]] = (),
         name: str = "", baseline_name: str = "") -> Figure:
    """Loss and metrics by epoch, training and validation, and the seconds of training.

    Several runs are drawn as their mean, in the band from their lowest to their highest value.

    Args:
        runs: histories of runs that differ in their seed, each with at least one epoch.
        baseline: histories of the baseline, dashed. The last epoch of whichever is shorter is
            repeated as a dotted line.
        name, baseline_name: names for the legend; used only with a baseline.
    """
    groups: list[Group] = [(runs, name, False)]
    groups += [(baseline, baseline_name, True)] if baseline else []
    length = max(len(history) for histories, *_ in groups for history in histories)
    titles = TITLES | {metric: escape_mathtext(metric) for histories, *_ in groups
                       for history in histories for row in history for key in row
                       if (metric := key.partition(" ")[2]) not in TITLES and key != SECONDS}
    lines = -(-(len(titles) + 1) // 3)
    figure = Figure(figsize=(11, 0.4 + 3.1 * lines))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = figure.subplots(lines, 3).ravel()
    for axis, (metric, title) in zip(axes, titles.items(), strict=False):
        for split, (_, *colors) in SPLITS.items():
            for histories, _, dashed in reversed(groups):
                curve(axis, extended(histories, f"{split} {metric}", length),
                      min(map(len, histories)), colors[dashed], dashed)
        finish(axis, title, length)
    draw_seconds(axes[len(titles)], groups, length)
    for axis in axes[len(titles) + 1:]:
        axis.remove()
    if len(runs) == 1 and not baseline:
        mark_best(axes[list(titles).index("f1")], runs[0])
    handles = legend_handles(groups, length)
    figure.legend(handles=handles, loc="outside upper center", frameon=False, fontsize=9,
                  ncols=-(-len(handles) // 2) if baseline else len(handles))
    return figure


def draw_seconds(axis: Axes, groups: Sequence[Group], length: int) -> None:
    """The seconds of every epoch that was trained; none are repeated."""
    longest = 0.0
    for histories, _, dashed in reversed(groups):
        shortest = min(map(len, histories))
        seconds = extended(histories, SECONDS, length)[:, :shortest]
        curve(axis, seconds, shortest, GREY, dashed)
        longest = max(longest, float(np.nanmax(seconds, initial=0)))
    # Not the automatic margin, which follows from the range of the values and not from zero.
    axis.set_ylim(0, 1.1 * longest or 1)
    finish(axis, "Seconds of training", length)


def extended(histories: Sequence[Sequence[Scores]], key: str, length: int
             ) -> npt.NDArray[np.float64]:
    """One value by epoch, NaN if undefined; the last one is repeated up to `length`.

    Returns:
        float64 [runs, length].
    """
    rows = [[*history, *[history[-1]] * (length - len(history))] for history in histories]
    return np.array([[np.nan if (value := row.get(key)) is None else value for row in epochs]
                     for epochs in rows], np.float64)


def curve(axis: Axes, values: npt.NDArray[np.float64], full: int, color: str, dashed: bool
          ) -> None:
    """The mean of float64 [runs, epochs] in the band of the runs, dotted after `full` epochs."""
    mean, epochs = values.mean(0), np.arange(1, values.shape[1] + 1)
    marked = full == 1 or (full <= MOST_MARKERS and not dashed)
    axis.plot(epochs[:full], mean[:full], color=color, linestyle="--" if dashed else "-",
              linewidth=1.5, marker="o" if marked else None, markersize=2.5)
    if len(values) > 1:
        axis.fill_between(epochs[:full], values.min(0)[:full], values.max(0)[:full], color=color,
                          alpha=0.18, linewidth=0)
    if full < len(epochs):
        axis.plot(epochs[full - 1:], mean[full - 1:], color=color, linestyle=":", linewidth=1.2,
                  alpha=0.8)


def finish(axis: Axes, title: str, length: int) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch", fontsize=9)
    axis.set_xlim(0.5, length + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    simplify(axis)


def mark_best(axis: Axes, rows: Sequence[Scores]) -> None:
    """Marks the epoch with the highest validation F1."""
    best = metrics.best_epoch(rows)
    assert best is not None
    axis.axvline(best + 1, color=BLUE, linestyle=":", linewidth=1)
    axis.annotate(f"best {rows[best]['valid f1'] or 0:.3f}", (best + 1, 0.03),
                  xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
                  xytext=(-4, 0) if best else (4, 0), ha="right" if best else "left")


def legend_handles(groups: Sequence[Group], length: int) -> list[Line2D]:
    """The entries of the legend, a column per group."""
    handles = []
    for histories, name, dashed in groups:
        suffix = f", {escape_mathtext(name)}" if len(groups) > 1 else ""
        suffix += f", mean of {len(histories)} runs" if len(histories) > 1 else ""
        for split, *colors in reversed(SPLITS.values()):
            handles.append(Line2D([], [], color=colors[dashed], label=split + suffix,
                                  linestyle="--" if dashed else "-"))
    if any(len(history) < length for histories, *_ in groups for history in histories):
        handles.append(Line2D([], [], color="black", linestyle=":", label="last epoch, repeated"))
    return handles
