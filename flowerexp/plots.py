"""Pictures of a run, drawn without a display."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowerexp import results
from flowerexp.results import Scores

MOST_NAMES = 40
"""Class names beside a confusion matrix up to this many classes; ticks by number beyond."""


def save(figure: Figure, path: Path) -> None:
    with results.replacing(path) as partial:
        figure.savefig(partial, dpi=150, format="png")


def history(rows: Sequence[Scores], path: Path) -> None:
    """Loss, accuracy, and macro recall, precision and F1 by epoch, training and validation."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    epochs = range(1, len(rows) + 1)
    titles = {"loss": "Loss", "acc": "Accuracy", "f1": "Macro F1", "recall": "Macro recall",
              "precision": "Macro precision"}
    for axis, (name, title) in zip(axes, titles.items(), strict=False):
        for split, colour in (("train", "tab:gray"), ("valid", "tab:blue")):
            values = [np.nan if row[f"{split} {name}"] is None else row[f"{split} {name}"]
                      for row in rows]
            axis.plot(epochs, values, color=colour, marker="o" if len(rows) < 40 else None,
                      markersize=3, label={"train": "training", "valid": "validation"}[split])
        finish(axis, title)
    best = results.best_epoch(rows)
    if best is not None:
        axes[2].axvline(best + 1, color="tab:blue", linestyle=":", linewidth=1)
        axes[2].annotate(f"best {rows[best]['valid f1']:.3f}", (best + 1, 0.03),
                         xycoords=("data", "axes fraction"), xytext=(-4, 0),
                         textcoords="offset points", ha="right", fontsize=8)
    axes[0].legend(frameon=False)
    axes[5].plot(epochs, [row["train timing"] for row in rows], color="tab:gray", marker="o",
                 markersize=3)
    axes[5].set_ylim(bottom=0)
    finish(axes[5], "Seconds of training")
    save(figure, path)


def finish(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def confusion(matrix: npt.NDArray[np.integer], names: Sequence[str], path: Path) -> None:
    """The share of each class's images (rows) that is called each class (columns).

    Args:
        matrix: int [classes, classes], rows are labels.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    few = len(names) <= MOST_NAMES
    side = float(np.clip(0.3 * len(names), 5, 11)) if few else 10.0
    figure = Figure(figsize=(side + 1.5, side), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axis, label="share of the class's images", shrink=0.8)
    if few:
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(f"Validation: {np.trace(matrix)} of {matrix.sum()} images right", fontsize=10)
    save(figure, path)


def pairs(before: npt.NDArray[np.uint8], names_before: Sequence[str],
          after: npt.NDArray[np.uint8], names_after: Sequence[str], title: str,
          path: Path) -> None:
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
            axis.set_title(name, fontsize=8, loc="left")
    figure.suptitle("\n".join(textwrap.wrap(title, 40 * columns)), fontsize=9)
    save(figure, path)
