"""Metrics by epoch, of one run, of several seeds, or against a baseline. No TensorFlow here."""

from collections.abc import Sequence

import numpy as np
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
SECONDS = "timing"
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
    histories = [history for several, *_ in groups for history in several]
    length = max(map(len, histories))
    found = dict.fromkeys(key.partition(" ")[2] for history in histories for row in history
                          for key in row)
    titles = TITLES | {metric: escape_mathtext(metric) for metric in found
                       if metric not in (*TITLES, SECONDS)} | {SECONDS: "Seconds of training"}
    lines = -(-len(titles) // 3)
    figure = Figure(figsize=(11, 0.4 + 3.1 * lines))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = dict(zip(titles, figure.subplots(lines, 3).ravel(), strict=False))
    for metric, axis in axes.items():
        for split, (_, *colors) in SPLITS.items():
            for several, _, dashed in reversed(groups):
                curve(axis, several, f"{split} {metric}", length, colors[dashed], dashed)
        axis.set_title(titles[metric], fontsize=10)
        axis.set_xlabel("epoch", fontsize=9)
        axis.set_xlim(0.5, length + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        simplify(axis)
    for axis in figure.axes[len(titles):]:
        axis.remove()
    # Not the automatic margin, which follows from the range of the values and not from zero.
    axes[SECONDS].set_ylim(0, 1.1 * max(axes[SECONDS].dataLim.y1, 0) or 1)
    if len(histories) == 1:
        mark_best(axes["f1"], runs[0])
    handles = legend_handles(groups, length)
    figure.legend(handles=handles, loc="outside upper center", frameon=False, fontsize=9,
                  ncols=-(-len(handles) // 2) if baseline else len(handles))
    return figure


def curve(axis: Axes, histories: Sequence[Sequence[Scores]], key: str, length: int, color: str,
          dashed: bool) -> None:
    """The mean of the histories in their band; dotted where a last epoch is repeated."""
    full = min(map(len, histories))
    # The seconds of a repeated epoch were never spent.
    end = full if key == f"train {SECONDS}" else length
    rows = [[*history, *[history[-1]] * (end - len(history))][:end] for history in histories]
    values = np.array([[row.get(key) for row in epochs] for epochs in rows], np.float64)
    if np.isnan(values).all():
        return
    mean, epochs = values.mean(0), np.arange(1, end + 1)
    marked = full == 1 or (full <= MOST_MARKERS and not dashed)
    axis.plot(epochs[:full], mean[:full], color=color, linestyle="--" if dashed else "-",
              linewidth=1.5, marker="o" if marked else None, markersize=2.5)
    if len(values) > 1:
        axis.fill_between(epochs[:full], values.min(0)[:full], values.max(0)[:full], color=color,
                          alpha=0.18, linewidth=0)
    if full < end:
        axis.plot(epochs[full - 1:], mean[full - 1:], color=color, linestyle=":", linewidth=1.2,
                  alpha=0.8)


def mark_best(axis: Axes, rows: Sequence[Scores]) -> None:
    """Marks the epoch with the highest validation F1."""
    if (best := metrics.best_epoch(rows)) is None:
        return
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
        for key, (split, *colors) in reversed(SPLITS.items()):
            if not any(name.startswith(f"{key} ") for rows in histories for name in rows[0]):
                continue
            handles.append(Line2D([], [], color=colors[dashed], label=split + suffix,
                                  linestyle="--" if dashed else "-"))
    if any(len(history) < length for histories, *_ in groups for history in histories):
        handles.append(Line2D([], [], color="black", linestyle=":", label="last epoch, repeated"))
    return handles
