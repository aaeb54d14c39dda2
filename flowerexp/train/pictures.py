"""Figures in the folder of a finished run; logs why one is missing. Imports no TensorFlow."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from flowerexp import metrics
from flowerexp.plots import classes, confusion, gallery, history, style
from flowerexp.runs.log import RunLogger
from flowerexp.runs.store import Scores

HISTORY = "history.png"
CONFUSION = "confusion.png"
MISTAKES = "mistakes.png"
CLASSES = "classes.png"
MOST_MISTAKES = 24
"""Maximum number of images in the grid of mistakes."""


def draw(folder: Path, logger: RunLogger, rows: Sequence[Scores], names: Sequence[str],
         counts: npt.NDArray[np.integer], labels: npt.NDArray[np.integer],
         probabilities: npt.NDArray[np.floating], mistaken: npt.NDArray[np.uint8]) -> None:
    """Draws history, confusion matrix, mistakes and class scores into a run folder.

    Args:
        folder: run folder.
        logger: shows the progress and names what is not drawn.
        rows: the history, a row per epoch.
        names: class names in label order.
        counts: int [classes], training images of each class.
        labels: int [images], labels of the validation set.
        probabilities: float [images, classes], predicted for the validation set.
        mistaken: uint8 [n, height, width, 3], the images of `worst_mistakes`.
    """
    matrix = metrics.confusion_matrix(labels, probabilities.argmax(-1), len(names))
    figures: dict[str, Callable[[], Figure]] = {HISTORY: lambda: history.draw([rows])}
    if len(names) <= confusion.MOST_CLASSES:
        figures[CONFUSION] = lambda: confusion.draw(matrix, names)
    else:
        logger.info(f"{CONFUSION} and TensorBoard's confusion matrices are not drawn: "
                    f"{len(names)} classes are more than {confusion.MOST_CLASSES}")
    wrong = confident_mistakes(labels, probabilities)
    if len(wrong):
        figures[MISTAKES] = lambda: mistakes(worst_mistakes(labels, probabilities), len(wrong),
                                             names, labels, probabilities, mistaken)
    else:
        logger.info(f"{MISTAKES} is not drawn: every validation image is classified correctly")
    figures[CLASSES] = lambda: classes.draw(counts, metrics.f1_where_present(matrix), names)
    with logger.steps("pictures", len(figures)) as advance:
        for name, figure in figures.items():
            style.save(figure(), folder / name)
            advance()


def confident_mistakes(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
                       ) -> npt.NDArray[np.int64]:
    """int64 [mistakes], the indices of the misclassified images, the most confident first.

    Images of equal probability keep their order.
    """
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")]


def worst_mistakes(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
                   ) -> npt.NDArray[np.int64]:
    """The first MOST_MISTAKES of `confident_mistakes`."""
    return confident_mistakes(labels, probabilities)[:MOST_MISTAKES]


def mistakes(shown: npt.NDArray[np.integer], count: int, names: Sequence[str],
             labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating],
             images: npt.NDArray[np.uint8]) -> Figure:
    """The grid of these mistakes out of `count`; the other arguments are those of `draw`."""
    predicted = probabilities.argmax(-1)
    lines = [(f"true: {names[labels[index]]}", f"pred: {names[predicted[index]]}",
              f"probability {probabilities[index].max():.3f}") for index in shown.tolist()]
    which = (f"the {len(shown)} most confident of {count}" if len(shown) < count else
             f"{count}, the most confident first")
    return gallery.grid(images, lines,
                        f"Misclassified among {len(labels)} validation images: {which}")
