"""The F1 of every class, or its change, against the class's training images. No TensorFlow here."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from flowerexp import metrics
from flowerexp.plots.style import BLUE, GREY, ORANGE, escape_mathtext, simplify

LISTED = 5
"""The number of classes listed at each end."""
THIRDS = ("head", "medium", "tail")
"""The classes in thirds, from those with the most training images."""
FEWEST_FOR_THIRDS = 9
TICKS = [digit * 10 ** power for power in range(7) for digit in (1, 2, 5)]
DISTANCE = 9.0
"""The distance in points from the center of a dot to its number."""


def draw(counts: npt.NDArray[np.integer], scores: npt.NDArray[np.floating],
         names: Sequence[str], changes: bool = False) -> Figure:
    """A dot per class; the classes at the ends are numbered and listed.

    Args:
        counts: int [classes], training images.
        scores: float [classes], NaN for a class that is not drawn; at least one is not NaN.
        names: the names of the classes.
        changes: whether `scores` are differences from a baseline, drawn in two colors around zero.
    """
    third = np.empty(len(counts), np.int64)
    for number, labels in enumerate(metrics.thirds(counts)):
        third[labels] = number
    shown = np.flatnonzero(~np.isnan(scores))
    counts, scores, third = counts[shown], scores[shown], third[shown]
    names = [escape_mathtext(names[label], 28) for label in shown.tolist()]
    figure = Figure(figsize=(9.6, 4.8))
    figure.subplots_adjust(left=0.075, right=0.72, bottom=0.11, top=0.84)
    axis = figure.subplots()
    colors = (np.select([scores < 0, scores > 0], [ORANGE, BLUE], GREY) if changes
              else np.full(len(scores), BLUE))
    axis.scatter(counts, scores, s=22, c=colors, alpha=0.75, linewidths=0, zorder=3)
    if changes:
        axis.axhline(0, color="black", linewidth=1, zorder=2)
        limit = 1.2 * max(float(np.abs(scores).max()), 0.05)
        axis.set_ylim(-limit, limit)
    else:
        axis.set_ylim(-0.05, 1.05)
    scale_counts(axis, counts)
    if len(counts) >= FEWEST_FOR_THIRDS and counts.min() < counts.max():
        shade_thirds(axis, counts, scores, third, changes)
    list_extremes(axis, counts, scores, names, changes)
    axis.set_xlabel("training images of the class", fontsize=9)
    axis.set_ylabel("change in F1" if changes else "F1", fontsize=9)
    axis.set_title("Change in F1 of each class (above zero: better than the baseline)"
                   if changes else "F1 of each class", fontsize=10, pad=34)
    simplify(axis)
    return figure


def scale_counts(axis: Axes, counts: npt.NDArray[np.integer]) -> None:
    """A logarithmic x axis with plain numbers, and a place for classes without images."""
    empty = bool(counts.min() < 1)
    if empty:
        axis.set_xscale("symlog", linthresh=1, linscale=0.3)
    else:
        axis.set_xscale("log")
    axis.set_xticks([0] * empty + TICKS)
    axis.set_xlim(-0.5 if empty else counts.min() / 1.25, 1.25 * max(int(counts.max()), 2))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())


def shade_thirds(axis: Axes, counts: npt.NDArray[np.integer], scores: npt.NDArray[np.floating],
                 third: npt.NDArray[np.integer], changes: bool) -> None:
    """Shades the THIRDS, each with its mean as a line.

    Args:
        third: int [classes], the index in THIRDS of every dot.
    """
    left, end = axis.get_xlim()
    for number in sorted(set(third.tolist()), reverse=True):
        members, larger = counts[third == number], counts[third < number]
        right = float(np.sqrt(max(members.max(), 0.5) * larger.min())) if len(larger) else end
        mean = float(scores[third == number].mean())
        if number != 1:
            axis.axvspan(left, right, color="black", alpha=0.04, linewidth=0, zorder=0)
        axis.plot([left, right], [mean, mean], color="black", linewidth=2, alpha=0.55, zorder=2,
                  solid_capstyle="butt")
        axis.annotate(f"{THIRDS[number]}\nmean {score_text(mean, changes)}", (left, 1),
                      xycoords=axis.get_xaxis_transform(), xytext=(3, 3),
                      textcoords="offset points", va="bottom", fontsize=8, color="#404040")
        left = right


def list_extremes(axis: Axes, counts: npt.NDArray[np.integer], scores: npt.NDArray[np.floating],
                  names: Sequence[str], changes: bool) -> None:
    """Numbers the classes at the ends, each number on the dot's side with the most room, and lists
    their names next to the axes."""
    order = np.argsort(scores, kind="stable").tolist()
    groups = {"Lowest F1": order[:LISTED]} if not changes else {
        "Highest gains": [label for label in order[::-1][:LISTED] if scores[label] > 0],
        "Highest losses": [label for label in order[:LISTED] if scores[label] < 0]}
    points = np.column_stack([counts, scores])
    pixels = axis.figure.dpi / 72
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    sides = DISTANCE * np.column_stack([np.cos(angles), np.sin(angles)])
    taken = axis.transData.transform(points) / pixels
    lines, number = [], 0
    for title, labels in groups.items():
        lines += [title] if labels else []
        for label in labels:
            number += 1
            places = taken[label] + sides
            room = np.linalg.norm(places[:, None] - taken, axis=2).min(axis=1)
            side = int(room.argmax())
            taken = np.vstack([taken, places[side]])
            axis.annotate(str(number), points[label], xytext=sides[side], fontsize=7.5,
                          textcoords="offset points", ha="center", va="center", zorder=4)
            lines.append(f"{number}  {score_text(scores[label], changes)}  {names[label]}")
        lines.append("")
    axis.text(1.03, 1, "\n".join(lines), fontsize=8, transform=axis.transAxes, va="top",
              linespacing=1.5)


def score_text(score: float, changes: bool) -> str:
    text = f"{score:+.3f}" if changes else f"{score:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
