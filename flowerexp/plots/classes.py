"""The F1 of every class, or its change, against the class's training images. No TensorFlow here."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from flowerexp import metrics
from flowerexp.metrics import Counts, Floats
from flowerexp.plots.style import BLUE, GREY, ORANGE, escape_mathtext, simplify
from flowerexp.runs.reader import THIRDS

LISTED = 5
"""The number of classes listed at each end."""
FEWEST_FOR_THIRDS = 9
TICKS = [digit * 10 ** power for power in range(7) for digit in (1, 2, 5)]
DISTANCE = 9.0
"""The distance in points from the center of a dot to its number."""


def draw(counts: Counts, scores: Floats, names: Sequence[str], changes: bool = False) -> Figure:
    """A dot per class; the classes at the ends are numbered and listed.

    Args:
        counts: int [classes], training images.
        scores: float [classes], NaN for a class that is not drawn; at least one is not NaN.
        changes: whether `scores` are differences from a baseline, drawn in two colors around zero.
    """
    dots = pd.DataFrame({"count": counts, "score": scores,
                         "name": [escape_mathtext(name, 28) for name in names]})
    for third, labels in zip(THIRDS, metrics.thirds(counts), strict=True):
        dots.loc[labels, "third"] = third
    dots = dots.dropna(subset="score")
    figure = Figure(figsize=(9.6, 4.8))
    figure.subplots_adjust(left=0.075, right=0.72, bottom=0.11, top=0.84)
    axis = figure.subplots()
    colors = (np.select([dots["score"] < 0, dots["score"] > 0], [ORANGE, BLUE], GREY) if changes
              else BLUE)
    axis.scatter(dots["count"], dots["score"], s=22, c=colors, alpha=0.75, linewidths=0, zorder=3)
    limit = 1.2 * max(dots["score"].abs().max(), 0.05)
    axis.set_ylim((-limit, limit) if changes else (-0.05, 1.05))
    if changes:
        axis.axhline(0, color="black", linewidth=1, zorder=2)
    fewest, most = dots["count"].min(), dots["count"].max()
    if fewest < 1:
        axis.set_xscale("symlog", linthresh=1, linscale=0.3)
        axis.set_xticks([0, *TICKS])
    else:
        axis.set_xscale("log")
        axis.set_xticks(TICKS)
    axis.set_xlim(fewest / 1.25 if fewest else -0.5, 1.25 * max(most, 2))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())
    if len(dots) >= FEWEST_FOR_THIRDS and fewest < most:
        shade_thirds(axis, dots, changes)
    list_extremes(axis, dots, changes)
    axis.set_xlabel("training images of the class", fontsize=9)
    axis.set_ylabel("change in F1" if changes else "F1", fontsize=9)
    axis.set_title("Change in F1 of each class (above zero: better than the baseline)"
                   if changes else "F1 of each class", fontsize=10, pad=34)
    simplify(axis)
    return figure


def shade_thirds(axis: Axes, dots: pd.DataFrame, changes: bool) -> None:
    """Shades the thirds of the classes, each with its mean as a line."""
    left, end = axis.get_xlim()
    parts = [part for third in reversed(THIRDS) if len(part := dots[dots["third"] == third])]
    for number, part in enumerate(parts):
        right = (end if part is parts[-1] else
                 np.sqrt(max(part["count"].max(), 0.5) * parts[number + 1]["count"].min()))
        mean, third = part["score"].mean(), part["third"].iloc[0]
        if third != "medium":
            axis.axvspan(left, right, color="black", alpha=0.04, linewidth=0, zorder=0)
        axis.plot([left, right], [mean, mean], color="black", linewidth=2, alpha=0.55, zorder=2,
                  solid_capstyle="butt")
        axis.annotate(f"{third}\nmean {score_text(mean, changes)}", (left, 1),
                      xycoords=axis.get_xaxis_transform(), xytext=(3, 3),
                      textcoords="offset points", va="bottom", fontsize=8, color="#404040")
        left = right


def list_extremes(axis: Axes, dots: pd.DataFrame, changes: bool) -> None:
    """Numbers the classes at the ends, each number on the dot's side with the most room, and lists
    their names next to the axes."""
    dots = dots.sort_values("score", kind="stable")
    groups = {"Lowest F1": dots[:LISTED]} if not changes else {
        "Highest gains": dots[dots["score"] > 0][::-1][:LISTED],
        "Highest losses": dots[dots["score"] < 0][:LISTED]}
    pixels = axis.figure.dpi / 72
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    sides = DISTANCE * np.column_stack([np.cos(angles), np.sin(angles)])
    taken = axis.transData.transform(dots[["count", "score"]]) / pixels
    lines, number = [], 0
    for title, group in groups.items():
        lines += [title] if len(group) else []
        for count, score, name, _ in group.itertuples(index=False):
            number += 1
            places = axis.transData.transform((count, score)) / pixels + sides
            room = np.linalg.norm(places[:, None] - taken, axis=2).min(axis=1)
            side = int(room.argmax())
            taken = np.vstack([taken, places[side]])
            axis.annotate(str(number), (count, score), xytext=sides[side], fontsize=7.5,
                          textcoords="offset points", ha="center", va="center", zorder=4)
            lines.append(f"{number}  {score_text(score, changes)}  {name}")
        lines.append("")
    axis.text(1.03, 1, "\n".join(lines), fontsize=8, transform=axis.transAxes, va="top",
              linespacing=1.5)


def score_text(score: float, changes: bool) -> str:
    text = f"{score:+.3f}" if changes else f"{score:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
