"""Grids of captioned images: samples, batches, mistakes, augmented pairs. No TensorFlow here."""

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, FigureBase

from flowerexp.plots.style import escape_mathtext

Pixels = npt.NDArray[np.uint8]
Grid = tuple[str, Pixels, Sequence[Sequence[str]]]
"""A title, uint8 [n, height, width, 3] with n at least 1, and the lines of each image's caption."""
TILE = 1.9
"""The side of an image in inches."""
LINE = 0.15
"""The height of a line of its caption in inches."""
LETTERS = 33
"""The most characters in a line of a caption; longer ones are cut."""
TITLE = 0.4
"""The height of the two-line title in inches."""
FEWEST = 3
"""The fewest columns that leave room for the title."""


def grid(images: Pixels, names: Sequence[Sequence[str]], title: str, columns: int = 6) -> Figure:
    """Images in rows, each below its caption; the arguments are those of a `Grid`."""
    return side_by_side([(title, images, names)], max(FEWEST, min(columns, len(images))))


def side_by_side(groups: Sequence[Grid], columns: int = 3) -> Figure:
    """Several grids of equally many images."""
    _, images, names = groups[0]
    rows, caption = -(-len(images) // columns), LINE * max(map(len, names)) + 0.1
    width, height = columns * (TILE + 0.15), rows * (TILE + caption) + TITLE + 0.05
    gap = 0.4 if len(groups) > 1 else 0
    figure = Figure(figsize=((width + gap) * len(groups), height))
    parts: list[FigureBase] = [figure]
    if gap:
        parts = figure.subfigures(1, len(groups), squeeze=False, wspace=gap / width)[0].tolist()
    for part, (title, images, names) in zip(parts, groups, strict=True):
        part.subplots_adjust(left=0.075 / width, right=1 - 0.075 / width, wspace=0.08,
                             top=1 - (TITLE + caption) / height, bottom=0.05 / height,
                             hspace=caption / TILE)
        axes = part.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, image, lines in zip(axes, images, names, strict=False):
            axis.imshow(image)
            axis.set_title("\n".join(escape_mathtext(line, LETTERS) for line in lines),
                           fontsize=7.5, loc="left", pad=3)
        part.suptitle("\n".join(textwrap.wrap(escape_mathtext(title, 36 * columns), 18 * columns)),
                      fontsize=9.5, y=1 - 0.08 / height, va="top")
    return figure


def pairs(before: Pixels, names_before: Sequence[str], after: Pixels, names_after: Sequence[str],
          title: str) -> Figure:
    """Images before and after a transform, four pairs per row, each below its name.

    Args:
        before, after: uint8 [n, height, width, 3].
        names_before, names_after: names, of one or several lines.
    """
    images = np.stack([before, after], axis=1).reshape(-1, *before.shape[1:])
    names = [name.split("\n") for pair in zip(names_before, names_after, strict=True)
             for name in pair]
    return grid(images, names, title, columns=min(8, len(images)))
