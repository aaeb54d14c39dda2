"""Grids of captioned images: samples, batches, mistakes, augmented pairs. No TensorFlow here."""

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, FigureBase

from flowerexp.plots.style import escape_mathtext

Pixels = npt.NDArray[np.uint8]
TILE = 1.9
"""The side of an image in inches."""
LINE = 0.15
"""The height of a line of its caption in inches."""
LETTERS = 33
"""The most characters in a line of a caption."""
TITLE = 0.4
"""The height of the two-line title in inches."""
FEWEST = 3
"""The fewest columns that leave room for the title."""


def grid(images: Pixels, names: Sequence[Sequence[str]], title: str, columns: int = 6) -> Figure:
    """Images in rows, each below its caption.

    Args:
        images: uint8 [n, height, width, 3], at least one.
        names: the lines of each image's caption, the same number for each; long ones are cut.
        title: the title of the grid.
    """
    columns = max(FEWEST, min(columns, len(images)))
    figure = Figure(figsize=size_of(len(images), columns, len(names[0])))
    fill(figure, images, names, title, columns)
    return figure


def side_by_side(groups: Sequence[tuple[str, Pixels, Sequence[Sequence[str]]]], columns: int = 3
           ) -> Figure:
    """Several grids of equally many images, each given as (title, images, names) of `grid`."""
    width, height = size_of(len(groups[0][1]), columns, len(groups[0][2][0]))
    figure = Figure(figsize=((width + 0.4) * len(groups), height))
    parts = figure.subfigures(1, len(groups), squeeze=False, wspace=0.4 / width).ravel()
    for part, (title, images, names) in zip(parts, groups, strict=True):
        fill(part, images, names, title, columns)
    return figure


def size_of(images: int, columns: int, lines: int) -> tuple[float, float]:
    """The width and height of a grid in inches."""
    rows = -(-images // columns)
    return columns * (TILE + 0.15), rows * (TILE + LINE * lines + 0.1) + TITLE + 0.05


def fill(figure: FigureBase, images: Pixels, names: Sequence[Sequence[str]], title: str,
         columns: int) -> None:
    """Draws the images of `grid` into a figure of this size."""
    width, height = size_of(len(images), columns, len(names[0]))
    rows, line = -(-len(images) // columns), LINE * len(names[0]) + 0.1
    figure.subplots_adjust(left=0.075 / width, right=1 - 0.075 / width, wspace=0.08,
                           top=1 - (TITLE + line) / height, bottom=0.05 / height,
                           hspace=line / TILE)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, lines in zip(axes, images, names, strict=False):
        axis.imshow(image)
        axis.set_title("\n".join(escape_mathtext(line, LETTERS) for line in lines), fontsize=7.5,
                       loc="left", pad=3)
    figure.suptitle("\n".join(textwrap.wrap(escape_mathtext(title, 200), 18 * columns)),
                    fontsize=9.5, y=1 - 0.08 / height, va="top")


def pairs(before: Pixels, names_before: Sequence[str], after: Pixels, names_after: Sequence[str],
          title: str) -> Figure:
    """Images before and after a transform, four pairs per row, each below its name.

    Args:
        before, after: uint8 [n, height, width, 3].
        title: the title of the figure.
    """
    rows, columns = -(-len(before) // 4), min(4, len(before))
    figure = Figure(figsize=(3.3 * columns, 2.1 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for number, (original, transformed) in enumerate(zip(before, after, strict=True)):
        left, right = axes[number // 4, 2 * (number % 4):2 * (number % 4) + 2]
        for axis, image, name in ((left, original, names_before[number]),
                                  (right, transformed, names_after[number])):
            axis.imshow(image)
            axis.set_title("\n".join(map(escape_mathtext, name.split("\n"))), fontsize=8,
                           loc="left")
    figure.suptitle("\n".join(textwrap.wrap(title, 40 * columns)), fontsize=9)
    return figure
