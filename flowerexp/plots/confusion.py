"""The confusion matrix, with its most frequent errors in words. No TensorFlow here."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from flowerexp.errors import counted
from flowerexp.metrics import Counts
from flowerexp.plots.style import escape_mathtext

MOST_NAMES = 40
"""The most classes whose names fit next to the matrix; with more, errors are listed instead."""
MOST_CLASSES = 1000
"""The most classes for which a matrix is drawn."""
LISTED = 13
"""The number of kinds of errors listed."""


def draw(matrix: Counts, names: Sequence[str], runs: int = 1) -> Figure:
    """The share of each class's images (rows) that is predicted as each class (columns).

    Args:
        matrix: int [classes, classes], rows are labels; the sum over `runs` runs.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    labels = [escape_mathtext(name, 30) for name in names]
    few = len(names) <= MOST_NAMES
    side, margin = ((max(3.0, 0.25 * len(names)), 0.075 * max(map(len, labels))) if few
                    else (7.5, 0.6))
    figure = Figure(figsize=(side + margin + (1.3 if few else 2.9), side + margin + 0.5),
                    layout="constrained")
    axis = figure.subplots()
    # The square root, so that an error of a few per cent is not as white as none.
    image = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    bar = figure.colorbar(image, ax=axis, ticks=[0, 0.05, 0.2, 0.5, 1], format="%g",
                          **({"shrink": 0.8} if few else
                             {"location": "bottom", "shrink": 0.4, "aspect": 30, "pad": 0.02}))
    bar.set_label("share of the class's images", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    axis.tick_params(labelsize=8)
    if few:
        axis.set_xticks(range(len(names)), labels, rotation=90)
        axis.set_yticks(range(len(names)), labels)
    else:
        list_errors(axis, matrix, labels)
    axis.set_xlabel("predicted class" if few else "predicted class (number)", fontsize=9)
    axis.set_ylabel("true class" if few else "true class (number)", fontsize=9)
    images = counted(int(matrix.sum()), "image")
    axis.set_title(f"Validation: {np.trace(matrix)} of {images} correct"
                   + (f", sum of {runs} runs" if runs > 1 else ""), fontsize=10)
    return figure


def list_errors(axis: Axes, matrix: Counts, labels: Sequence[str]) -> None:
    """Lists the most frequent errors, because many names next to the rows would be unreadable."""
    errors = matrix - np.diag(np.diag(matrix))
    cells = [divmod(int(cell), len(labels))
             for cell in np.argsort(-errors, axis=None, kind="stable")[:LISTED]]
    lines = [f"{errors[true, predicted]} of {matrix[true].sum()}: {labels[true]} ({true})\n"
             f"     predicted {labels[predicted]} ({predicted})"
             for true, predicted in cells if errors[true, predicted]]
    axis.text(1.03, 1, "\n\n".join(["Most frequent errors", *lines]), fontsize=8,
              transform=axis.transAxes, va="top")
