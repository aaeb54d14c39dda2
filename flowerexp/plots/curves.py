"""Pictures of runs, drawn without a display. No TensorFlow here.

Every function returns a Figure, so that what it draws can be read back; `save` writes it.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from flowerexp import metrics
from flowerexp.runs import store
from flowerexp.runs.store import Scores

DPI = 130
PANELS = {"loss": "Loss", "acc": "Accuracy", "f1": "Macro F1", "recall": "Macro recall",
          "precision": "Macro precision"}
GREY, BLUE, ORANGE = "#7f7f7f", "#0072b2", "#d55e00"
"""Told apart by every kind of colour blindness (Okabe and Ito)."""
SPLITS = {"train": ("training", GREY, GREY), "valid": ("validation", BLUE, ORANGE)}
"""What a split is called, its colour, and its colour in a baseline."""
MOST_NAMES = 40
"""Class names beside a confusion matrix up to this many classes; the worst mistakes beyond."""
MOST_CLASSES = 1000
"""A confusion matrix of more is no picture."""
MISTAKES = 13
MOST_MARKERS = 40
"""A marker for every epoch up to this many."""
LABELLED = 4
"""Classes named at each end of a picture of classes."""
LINE = 0.042
"""The height of a line of such names over that of the axes."""
THIRDS = ("head", "medium", "tail")
"""The classes in thirds, from those with the most training images."""
FEWEST_FOR_THIRDS = 9


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    store.write_bytes(path, png(figure))


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; users need no warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def plain(text: str, longest: int = 40) -> str:
    """A name from a file as one line for Matplotlib, which would set $...$ as mathematics."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    cut = line if len(line) <= longest else f"{line[:longest - 1]}…"
    return cut.replace("$", r"\$")


# By epoch

def history(runs: Sequence[Sequence[Scores]], baseline: Sequence[Sequence[Scores]] = (),
            name: str = "", baseline_name: str = "") -> Figure:
    """Loss, accuracy, macro recall, precision and F1 by epoch, training and validation.

    Several runs are drawn as their mean, in the band from their lowest to their highest.

    Args:
        runs: histories of runs that differ in their seed, one at least, of an epoch at least.
        baseline: those of another row, dashed; what is shorter goes on, dotted, with its last
            epoch.
        name, baseline_name: for the legend, where there is a baseline.
    """
    figure = Figure(figsize=(11, 6.6))
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.08, hspace=0.34, wspace=0.18,
                           top=0.86 if baseline else 0.9)
    axes = figure.subplots(2, 3).ravel()
    groups = [(runs, False), *([(baseline, True)] if baseline else [])]
    length = max(len(rows) for histories, _ in groups for rows in histories)
    for axis, (metric, title) in zip(axes, PANELS.items(), strict=False):
        for split, (_, *colours) in SPLITS.items():
            for histories, dashed in reversed(groups):
                curve(axis, extended(histories, f"{split} {metric}", length),
                      min(map(len, histories)), colours[dashed], dashed)
        finish(axis, title, length)
    for histories, dashed in reversed(groups):
        shortest = min(map(len, histories))  # seconds that nobody spent are not drawn
        curve(axes[5], extended(histories, "train timing", length)[:, :shortest], shortest, GREY,
              dashed)
    axes[5].set_ylim(bottom=0)
    finish(axes[5], "Seconds of training", length)
    if len(runs) == 1 and not baseline:
        mark_best(axes[2], runs[0])
    extends = any(len(rows) < length for histories, _ in groups for rows in histories)
    handles = legend_of(runs, baseline, name, baseline_name, extends)
    figure.legend(handles=handles, loc="upper center", frameon=False, fontsize=9,
                  ncols=-(-len(handles) // 2) if baseline else len(handles))
    return figure


def extended(histories: Sequence[Sequence[Scores]], key: str, length: int
             ) -> npt.NDArray[np.float64]:
    """One value of every epoch, NaN where it is undefined; the last goes on up to `length`.

    Returns:
        float64 [runs, length].
    """
    rows = [[*history, *[history[-1]] * (length - len(history))] for history in histories]
    return np.array([[np.nan if (value := row.get(key)) is None else value for row in epochs]
                     for epochs in rows], np.float64)


def curve(axis: Axes, values: npt.NDArray[np.float64], full: int, colour: str, dashed: bool
          ) -> None:
    """The mean of float64 [runs, epochs] in the band of the runs, dotted after `full` epochs."""
    mean, epochs = values.mean(0), np.arange(1, values.shape[1] + 1)
    marked = full == 1 or (full <= MOST_MARKERS and not dashed)
    axis.plot(epochs[:full], mean[:full], color=colour, linestyle="--" if dashed else "-",
              linewidth=1.5, marker="o" if marked else None, markersize=2.5)
    if len(values) > 1:
        axis.fill_between(epochs[:full], values.min(0)[:full], values.max(0)[:full], color=colour,
                          alpha=0.18, linewidth=0)
    if full < len(epochs):
        axis.plot(epochs[full - 1:], mean[full - 1:], color=colour, linestyle=":", linewidth=1.2,
                  alpha=0.8)


def finish(axis: Axes, title: str, length: int) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch", fontsize=9)
    axis.set_xlim(0.5, length + 0.5)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    clear(axis)


def clear(axis: Axes) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def mark_best(axis: Axes, rows: Sequence[Scores]) -> None:
    """Marks the epoch with the highest validation F1."""
    best = metrics.best_epoch(rows)
    assert best is not None
    axis.axvline(best + 1, color=BLUE, linestyle=":", linewidth=1)
    axis.annotate(f"best {rows[best]['valid f1'] or 0:.3f}", (best + 1, 0.03),
                  xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
                  xytext=(-4, 0) if best else (4, 0), ha="right" if best else "left")


def legend_of(runs: Sequence[Sequence[Scores]], baseline: Sequence[Sequence[Scores]], name: str,
              baseline_name: str, extends: bool) -> list[Line2D]:
    """The entries of a history's legend; its columns are the names, below them the splits."""
    groups = [(runs, name, False), *([(baseline, baseline_name, True)] if baseline else [])]
    handles = []
    for histories, title, dashed in groups:
        of_runs = f", mean of {len(histories)} runs" if len(histories) > 1 else ""
        for split, *colours in reversed(SPLITS.values()):
            label = f"{split}, {plain(title)}{of_runs}" if baseline else f"{split}{of_runs}"
            handles.append(Line2D([], [], color=colours[dashed], label=label,
                                  linestyle="--" if dashed else "-"))
    if extends:
        handles.append(Line2D([], [], color="black", linestyle=":", label="last epoch, repeated"))
    return handles


# By class

def confusion(matrix: npt.NDArray[np.integer], names: Sequence[str], runs: int = 1) -> Figure:
    """The share of each class's images (rows) that is called each class (columns).

    Args:
        matrix: int [classes, classes], rows are labels; the sum over `runs` runs.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    labels = [plain(name, 30) for name in names]
    few = len(names) <= MOST_NAMES
    side, margin = ((max(3.0, 0.25 * len(names)), 0.075 * max(map(len, labels))) if few
                    else (7.5, 0.6))
    figure = Figure(figsize=(side + margin + (1.3 if few else 2.9), side + margin + 0.5),
                    layout="constrained")
    axis = figure.subplots()
    # The root, for a mistake of a few per cent would be as white as none.
    picture = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1),
                          interpolation="nearest")
    bar = figure.colorbar(picture, ax=axis, ticks=[0, 0.05, 0.2, 0.5, 1], format="%g",
                          **({"shrink": 0.8} if few else
                             {"location": "bottom", "shrink": 0.4, "aspect": 30, "pad": 0.02}))
    bar.set_label("share of the class's images", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    axis.tick_params(labelsize=8)
    if few:
        axis.set_xticks(range(len(names)), labels, rotation=90)
        axis.set_yticks(range(len(names)), labels)
    else:
        list_mistakes(axis, matrix, labels)
    axis.set_xlabel("predicted" if few else "predicted (number of the class)", fontsize=9)
    axis.set_ylabel("true" if few else "true (number of the class)", fontsize=9)
    together = f", {runs} runs together" if runs > 1 else ""
    axis.set_title(f"Validation: {np.trace(matrix)} of {matrix.sum()} images right{together}",
                   fontsize=10)
    return figure


def list_mistakes(axis: Axes, matrix: npt.NDArray[np.integer], labels: Sequence[str]) -> None:
    """The most frequent mistakes in words, for names beside 104 rows nobody can read."""
    mistakes = matrix - np.diag(np.diag(matrix))
    cells = [divmod(int(cell), len(labels))
             for cell in np.argsort(-mistakes, axis=None, kind="stable")[:MISTAKES]]
    lines = [f"{mistakes[true, called]} of {matrix[true].sum()}: {labels[true]} ({true})\n"
             f"     called {labels[called]} ({called})"
             for true, called in cells if mistakes[true, called]]
    axis.text(1.03, 1, "\n\n".join(["Most frequent mistakes", *lines]), fontsize=8,
              transform=axis.transAxes, va="top")


def class_scores(counts: npt.NDArray[np.integer], scores: npt.NDArray[np.floating],
                 names: Sequence[str], changes: bool = False) -> Figure:
    """A dot for every class: its F1, or the change of it, against its training images.

    Args:
        counts: int [classes], training images.
        scores: float [classes], NaN for a class that is not drawn; one at least is not.
        changes: `scores` are differences to a baseline: a line at zero, and two colours.
    """
    third = np.empty(len(counts), np.int64)
    for number, labels in enumerate(metrics.thirds(counts)):
        third[labels] = number
    shown = np.flatnonzero(~np.isnan(scores))
    counts, scores, third = counts[shown], scores[shown], third[shown]
    figure = Figure(figsize=(7.2, 4.8))
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.11, top=0.84)
    axis = figure.subplots()
    colours = (np.select([scores < 0, scores > 0], [ORANGE, BLUE], GREY) if changes
               else np.full(len(scores), BLUE))
    axis.scatter(counts, scores, s=22, c=colours, alpha=0.75, linewidths=0, zorder=3)
    if changes:
        axis.axhline(0, color="black", linewidth=1, zorder=2)
        limit = 1.3 * max(float(np.abs(scores).max()), 0.05)
        axis.set_ylim(-limit, limit)
    else:
        axis.set_ylim(-0.05, 1.05)
    size_scale(axis, counts)
    shaded = len(counts) >= FEWEST_FOR_THIRDS and counts.min() < counts.max()
    if shaded:
        shade_thirds(axis, counts, scores, third, changes)
    label_extremes(axis, counts, scores,
                   [plain(names[label], 28) for label in shown.tolist()], changes)
    axis.set_xlabel("training images of the class", fontsize=9)
    axis.set_title("Change of every class's F1 (above the line: better than the baseline)"
                   if changes else "F1 of every class", fontsize=10, pad=34 if shaded else 8)
    axis.tick_params(labelsize=8)
    clear(axis)
    return figure


def size_scale(axis: Axes, counts: npt.NDArray[np.integer]) -> None:
    """A logarithmic x axis in plain numbers, with a place for a class without images."""
    low, high = max(int(counts.min()), 1), max(int(counts.max()), 2)
    if counts.min() < 1:
        axis.set_xscale("symlog", linthresh=1, linscale=0.3)
    else:
        axis.set_xscale("log")
    axis.set_xlim(-0.5 if counts.min() < 1 else low / 1.25, high * 1.25)
    candidates = [digit * 10 ** power for power in range(7) for digit in (1, 2, 5)]
    ticks = [tick for tick in candidates if low <= tick <= high] or [low, high]
    axis.set_xticks([0, *ticks] if counts.min() < 1 else ticks)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())


def shade_thirds(axis: Axes, counts: npt.NDArray[np.integer],
                 scores: npt.NDArray[np.floating], third: npt.NDArray[np.integer],
                 changes: bool) -> None:
    """Shades the THIRDS, int [classes] of the dots, each with its mean as a line."""
    left, end = axis.get_xlim()
    for number in sorted(set(third.tolist()), reverse=True):
        members, larger = counts[third == number], counts[third < number]
        right = float(np.sqrt(max(members.max(), 0.5) * larger.min())) if len(larger) else end
        mean = float(scores[third == number].mean())
        if number != 1:
            axis.axvspan(left, right, color="black", alpha=0.04, linewidth=0, zorder=0)
        axis.plot([left, right], [mean, mean], color="black", linewidth=2, alpha=0.55, zorder=2,
                  solid_capstyle="butt")
        ends = axis.transData.transform([(left, 0), (right, 0)])
        middle = axis.transAxes.inverted().transform(ends.mean(0))[0]
        value = f"{mean:+.3f}".replace("-", "\N{MINUS SIGN}") if changes else f"{mean:.3f}"
        axis.text(middle, 1.015, f"{THIRDS[number]}\nmean {value}",
                  transform=axis.transAxes, ha="center", va="bottom", fontsize=8,
                  color="#404040")
        left = right


def label_extremes(axis: Axes, counts: npt.NDArray[np.integer],
                   scores: npt.NDArray[np.floating], names: Sequence[str], both: bool) -> None:
    """Names the classes with the lowest values, and with `both` those with the highest."""
    order = np.argsort(scores, kind="stable").tolist()
    lowest = [label for label in order[:LABELLED] if not both or scores[label] < 0]
    highest = [label for label in order[::-1][:LABELLED] if both and scores[label] > 0]
    to_axes = axis.transData + axis.transAxes.inverted()
    points = to_axes.transform(np.column_stack([counts, scores]))
    ends: tuple[tuple[int, list[int]], ...] = ((-1, lowest), (1, highest))
    for direction, labels in ends:
        heights: list[float] = []  # a line apart, outwards, where there are no dots
        for label in reversed(labels):
            beyond = heights[-1] + direction * LINE if heights else points[label, 1]
            heights.append(direction * max(direction * points[label, 1], direction * beyond))
        for label, height in zip(reversed(labels), heights, strict=True):
            inwards = np.clip(heights[-1], 0.02, 0.98) - heights[-1]
            side = 1 if points[label, 0] < 0.65 else -1
            text = axis.annotate(
                names[label], tuple(points[label]), xycoords="axes fraction",
                xytext=(points[label, 0] + 0.03 * side, height + inwards), fontsize=7.5,
                va="center", ha="left" if side > 0 else "right", zorder=4,
                arrowprops={"arrowstyle": "-", "color": "#808080", "linewidth": 0.6,
                            "shrinkA": 0, "shrinkB": 2})
            text.set_path_effects([withStroke(linewidth=2, foreground="white", alpha=0.8)])
