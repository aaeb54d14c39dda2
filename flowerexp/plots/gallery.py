"""Grids of images under their names: samples, batches, mistakes, augmented pairs. No TensorFlow.

Every function returns a Figure, so that what it draws can be read back.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, FigureBase

from flowerexp.plots.style import escape_mathtext

Pixels = npt.NDArray[np.uint8]
TILE = 1.9
"""Inches of an image's side."""
LINE = 0.15
"""Inches of a line under it."""
LETTERS = 33
"""That fit into a line."""
TITLE = 0.4
"""Inches of the title, two lines."""
FEWEST = 3
"""Columns that a title needs."""


def grid(images: Pixels, names: Sequence[Sequence[str]], title: str, columns: int = 6) -> Figure:
    """Images in rows, each under its lines.

    Args:
        images: uint8 [n, height, width, 3], one at least.
        names: n times the lines of an image, as many for each; a long one is cut.
        title: over the whole.
    """
    columns = max(FEWEST, min(columns, len(images)))
    figure = Figure(figsize=size_of(len(images), columns, len(names[0])))
    fill(figure, images, names, title, columns)
    return figure


def side_by_side(groups: Sequence[tuple[str, Pixels, Sequence[Sequence[str]]]], columns: int = 3
           ) -> Figure:
    """Several grids side by side, (title, images, names) each as of `grid`, of as many images."""
    width, height = size_of(len(groups[0][1]), columns, len(groups[0][2][0]))
    figure = Figure(figsize=((width + 0.4) * len(groups), height))
    parts = figure.subfigures(1, len(groups), squeeze=False, wspace=0.4 / width).ravel()
    for part, (title, images, names) in zip(parts, groups, strict=True):
        fill(part, images, names, title, columns)
    return figure


def size_of(images: int, columns: int, lines: int) -> tuple[float, float]:
    """Width and height of a grid in inches."""
    rows = -(-images // columns)
    return columns * (TILE + 0.15), rows * (TILE + LINE * lines + 0.1) + TITLE + 0.05


def fill(figure: FigureBase, images: Pixels, names: Sequence[Sequence[str]], title: str,
         columns: int) -> None:
    """Draws the images of `grid` into a figure of their size."""
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
    """Images beside what became of them, four pairs a row, each under its label.

    Args:
        before, after: uint8 [n, height, width, 3].
        title: over the whole.
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
