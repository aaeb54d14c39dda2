"""Class shares, repeats and learning rates of a planned run. No TensorFlow here."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flowerexp.errors import counted
from flowerexp.metrics import Counts, Floats, Ids
from flowerexp.plots import style

WHOLE = 60
"""The most classes in one row of bars; more are drawn in two."""
MOST_NAMES = 300
"""The most classes with names and bars; more are drawn as steps."""


def shares(first: Counts, second: Counts, labels: Sequence[str], names: Sequence[str], title: str
           ) -> Figure:
    """The share of every class in two sets, as grouped bars, sorted by the first set.

    Args:
        first, second: int [classes], images of each class; at least one image in each set.
        labels: the names of the two sets.
    """
    order = np.argsort(-first, kind="stable")
    sets = [(counts / counts.sum(), name, color, side) for counts, name, color, side
            in zip((first, second), labels, (style.GREY, style.BLUE), (-1, 1), strict=True)]

    def draw(axis: Axes, part: Ids) -> None:
        for share, name, color, side in sets:
            if len(order) <= MOST_NAMES:
                axis.bar(np.arange(len(part)) + 0.21 * side, share[part], 0.42, color=color,
                         label=name)
            else:
                axis.stairs(share[part], np.arange(len(part) + 1) - 0.5, color=color, label=name,
                            fill=side < 0, linewidth=0.8)
        axis.yaxis.set_major_formatter(PercentFormatter(1))

    return by_class(order, names, title, "share of the set", draw)


def occurrences(planned: Floats, spread: Floats, names: Sequence[str], title: str) -> Figure:
    """How often images of every class are seen per epoch, from the most repeated class.

    Args:
        planned: float [classes], repeats of each class, averaged over epochs.
        spread: float [classes, 3], mean, minimum and maximum occurrences of its images in one
            epoch; NaN for a class without images, which is not drawn.
    """
    order = np.argsort(-planned, kind="stable")

    def draw(axis: Axes, part: Ids) -> None:
        places, few = np.arange(len(part)), len(part) <= WHOLE
        mean, low, high = spread[part].T
        axis.stairs(planned[part], np.arange(len(part) + 1) - 0.5, color=style.GREY, alpha=0.35,
                    fill=True, label="repeats of the class")
        axis.vlines(places, low, high, color=style.ORANGE, linewidth=2 if few else 1,
                    label="range over its images in the first epoch")
        axis.plot(places, mean, "o", color=style.BLUE, markersize=4 if few else 2,
                  linestyle="none", label="mean over its images")
        axis.set_ylim(0, 1.08 * max(spread[part, 2].max(), planned[part].max()))

    return by_class(order[~np.isnan(spread[order, 0])], names, title, "times per epoch", draw)


def by_class(order: Ids, names: Sequence[str], title: str, label: str,
             draw: Callable[[Axes, Ids], None]) -> Figure:
    """A figure with a place for every class in this order, in two rows if there are many.

    Args:
        label: the label of the y axis.
        draw: draws some of the classes from left to right.
    """
    halves = np.array_split(order, 2 if len(order) > WHOLE else 1)
    longest = len(halves[0])
    figure = Figure(figsize=(float(np.clip(0.21 * longest + 1.5, 6, 16)), 3.7 * len(halves) + 0.4),
                    layout="constrained")
    for number, part in enumerate(halves):
        axis = figure.add_subplot(len(halves), 1, number + 1)
        axis.set_xlim(-0.7, longest - 0.3)
        style.simplify(axis)
        axis.grid(visible=False, axis="x")
        draw(axis, part)
        axis.set_ylabel(f"{label} (different scale)" if number else label, fontsize=9)
        if len(order) <= MOST_NAMES:
            axis.set_xticks(range(len(part)),
                            [style.escape_mathtext(names[each], 30) for each in part],
                            rotation=90, fontsize=8 if longest <= WHOLE else 6)
        else:
            axis.set_xticks([])
            axis.set_xlabel(f"{counted(len(part), 'class')}, too many to name", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.axes[0].legend(loc="upper right", fontsize=8, framealpha=0.9)
    return figure


def learning_rate(rates: Floats, updates_per_epoch: int, title: str) -> Figure:
    """The learning rate by epoch, with its first, highest and last value as numbers.

    Args:
        rates: float [updates], of the whole run.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    highest = int(rates.argmax())
    axis.plot(np.arange(len(rates)) / updates_per_epoch, rates, color=style.BLUE, linewidth=1.5)
    side = 6 if 2 * highest < len(rates) else -6
    for update, word, place in ((0, "first", (16, 4)), (highest, "highest", (side, 15)),
                                (len(rates) - 1, "last", (-6, 4))):
        where = (update / updates_per_epoch, float(rates[update]))
        axis.plot(*where, "o", color=style.ORANGE, markersize=4)
        axis.annotate(f"{word} {rates[update]:.3g}", where, xytext=place, fontsize=8,
                      textcoords="offset points", ha="left" if place[0] > 0 else "right",
                      va="bottom")
    axis.set_xlabel("epoch", fontsize=9)
    axis.set_ylabel("learning rate", fontsize=9)
    axis.set_ylim(0, 1.2 * float(rates.max()))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    style.simplify(axis)
    axis.set_title(title, fontsize=10)
    return figure
