"""Pictures of what will be trained on: labels, repeats, learning rates. No TensorFlow here.

Every function returns a Figure, so that what it draws can be read back.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flowerexp.plots import style

WHOLE = 60
"""More classes are drawn in two halves."""
MOST_NAMES = 300
"""More classes have no names below them, and no bars of their own."""
MOST_POINTS = 2000
"""Of a curve, which more would not change."""


def shares(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer],
           called: Sequence[str], names: Sequence[str], title: str) -> Figure:
    """The share of every class in two sets, as grouped bars, from the largest of the first.

    Args:
        first, second: int [classes], images of each class; one image at least in each set.
        called: what the two sets are called.
        names: of the classes.
    """
    order = np.argsort(-first, kind="stable")
    figure, parts = by_class(order, names)
    sets = [(counts / counts.sum(), name, colour, side) for counts, name, colour, side
            in zip((first, second), called, (style.GREY, style.BLUE), (-1, 1), strict=True)]
    for axis, part in parts:
        places = np.arange(len(part))
        for share, name, colour, side in sets:
            if len(order) <= MOST_NAMES:
                axis.bar(places + 0.21 * side, share[part], 0.42, color=colour, label=name)
            else:
                axis.stairs(share[part], np.arange(len(part) + 1) - 0.5, color=colour, label=name,
                            fill=side < 0, linewidth=0.8)
        axis.set_ylabel("share of the set", fontsize=9)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    return finished(figure, parts, title)


def occurrences(planned: npt.NDArray[np.floating], spread: npt.NDArray[np.floating],
                names: Sequence[str], title: str) -> Figure:
    """How often an image of every class is seen in an epoch, from the most repeated class.

    Args:
        planned: float [classes], repeats of each class on the average over epochs.
        spread: float [classes, 3], mean, least and greatest occurrences of its images in one
            epoch; NaN for a class without images, which is not drawn.
        names: of the classes.
    """
    order = np.argsort(-planned, kind="stable")
    order = order[~np.isnan(spread[order, 0])]
    figure, parts = by_class(order, names)
    for axis, part in parts:
        places = np.arange(len(part))
        mean, low, high = spread[part].T
        axis.stairs(planned[part], np.arange(len(part) + 1) - 0.5, color=style.GREY, alpha=0.35,
                    fill=True, label="repeats of the class")
        axis.vlines(places, low, high, color=style.ORANGE,
                    linewidth=2 if len(part) <= WHOLE else 1,
                    label="range over its images in the first epoch")
        axis.plot(places, mean, "o", color=style.BLUE, markersize=4 if len(part) <= WHOLE else 2,
                  linestyle="none", label="their mean")
        axis.set_ylabel("times in an epoch", fontsize=9)
        axis.set_ylim(0, 1.08 * max(spread[part, 2].max(), planned[part].max()))
    return finished(figure, parts, title)


def by_class(order: npt.NDArray[np.integer], names: Sequence[str]
             ) -> tuple[Figure, list[tuple[Axes, npt.NDArray[np.integer]]]]:
    """A figure with a place for every class in this order, in two halves where there are many.

    Returns:
        The figure, and its axes with the classes of each.
    """
    halves = np.array_split(order, 2 if len(order) > WHOLE else 1)
    longest = len(halves[0])
    figure = Figure(figsize=(float(np.clip(0.21 * longest + 1.5, 6, 16)), 3.7 * len(halves) + 0.4),
                    layout="constrained")
    axes = figure.subplots(len(halves), 1, squeeze=False).ravel().tolist()
    for axis, part in zip(axes, halves, strict=True):
        axis.set_xlim(-0.7, longest - 0.3)
        axis.tick_params(labelsize=8)
        if len(order) <= MOST_NAMES:
            axis.set_xticks(range(len(part)),
                            [style.escape_mathtext(names[label], 30) for label in part],
                            rotation=90, fontsize=8 if longest <= WHOLE else 6)
        else:
            axis.set_xticks([])
        style.simplify(axis)
        axis.grid(visible=False, axis="x")
    return figure, list(zip(axes, halves, strict=True))


def finished(figure: Figure, parts: Sequence[tuple[Axes, npt.NDArray[np.integer]]], title: str
             ) -> Figure:
    """The figure with its title and legend, and what must be said of its axes."""
    for axis, part in parts:
        if axis is not parts[0][0]:
            axis.set_ylabel(f"{axis.get_ylabel()} (other scale)", fontsize=9)
        if not axis.get_xticks().size and len(part):
            axis.set_xlabel(f"{len(part)} classes, too many for their names", fontsize=9)
    figure.suptitle(title, fontsize=10)
    parts[0][0].legend(loc="upper right", fontsize=8, framealpha=0.9)
    return figure


def learning_rate(rates: npt.NDArray[np.floating], updates_per_epoch: int, title: str) -> Figure:
    """The learning rate over the epochs, with the first, the greatest and the last in numbers.

    Args:
        rates: float [updates], of the whole run.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    greatest = int(rates.argmax())
    steps = np.linspace(0, len(rates) - 1, MOST_POINTS).astype(int)
    chosen = np.unique([*steps, greatest])
    axis.plot(chosen / updates_per_epoch, rates[chosen], color=style.BLUE, linewidth=1.5)
    side = 6 if 2 * greatest < len(rates) else -6
    for update, word, place in ((0, "first", (16, 4)), (greatest, "greatest", (side, 15)),
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
    axis.tick_params(labelsize=8)
    style.simplify(axis)
    axis.set_title(title, fontsize=10)
    return figure
