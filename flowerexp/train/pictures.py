"""The pictures that a finished run leaves in its folder, and why one is not drawn. No TensorFlow.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from flowerexp import metrics
from flowerexp.plots import curves, gallery
from flowerexp.runs.log import RunLogger
from flowerexp.runs.store import Scores

HISTORY = "history.png"
CONFUSION = "confusion.png"
MISTAKES = "mistakes.png"
CLASSES = "classes.png"
MOST_MISTAKES = 24
"""In the grid of mistakes."""


def draw(folder: Path, logger: RunLogger, history: Sequence[Scores], names: Sequence[str],
         counts: npt.NDArray[np.integer], labels: npt.NDArray[np.integer],
         probabilities: npt.NDArray[np.floating], mistaken: npt.NDArray[np.uint8]) -> None:
    """Draws history, confusion matrix, mistakes and scores of the classes into a run folder.

    Args:
        folder: of the run.
        journal: shows how far it is, and says what is not drawn.
        history: of every epoch.
        names, counts: of the classes, int [classes] training images.
        labels: int [images] of the validation set.
        probabilities: float [images, classes], predicted of it.
        mistaken: uint8 [n, height, width, 3], the images of `worst_mistakes`.
    """
    matrix = metrics.confusion_matrix(labels, probabilities.argmax(-1), len(names))
    figures: dict[str, Callable[[], Figure]] = {HISTORY: lambda: curves.history([history])}
    if len(names) <= curves.MOST_CLASSES:
        figures[CONFUSION] = lambda: curves.confusion(matrix, names)
    else:
        logger.info(f"{CONFUSION} is not drawn, nor is TensorBoard's matrix of every epoch: "
                    f"{len(names)} classes are more than {curves.MOST_CLASSES}")
    wrong = confident_mistakes(labels, probabilities)
    if len(wrong):
        figures[MISTAKES] = lambda: mistakes(worst_mistakes(labels, probabilities), len(wrong),
                                             names, labels, probabilities, mistaken)
    else:
        logger.info(f"{MISTAKES} is not drawn: every validation image is right")
    figures[CLASSES] = lambda: curves.class_scores(counts, metrics.f1_where_present(matrix), names)
    with logger.steps("pictures", len(figures)) as advance:
        for name, figure in figures.items():
            curves.save(figure(), folder / name)
            advance()


def confident_mistakes(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
                       ) -> npt.NDArray[np.int64]:
    """int64 [mistakes], indices of the images that are called another class than their own.

    From the highest probability of what they are called; of equal ones the first image is first.
    """
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")]


def worst_mistakes(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
                   ) -> npt.NDArray[np.int64]:
    """Those of `confident_mistakes` that a picture has room for."""
    return confident_mistakes(labels, probabilities)[:MOST_MISTAKES]


def mistakes(shown: npt.NDArray[np.integer], count: int, names: Sequence[str],
             labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating],
             images: npt.NDArray[np.uint8]) -> Figure:
    """The grid of these mistakes, of `count` in all; the other arguments are those of `draw`."""
    called = probabilities.argmax(-1)
    lines = [(f"true {names[labels[index]]}", f"called {names[called[index]]}",
              f"with probability {probabilities[index].max():.3f}") for index in shown.tolist()]
    which = (f"The {len(shown)} most confident of {count} mistakes among {len(labels)} validation "
             "images" if len(shown) < count else
             f"Mistakes among {len(labels)} validation images: {count}, the most confident first")
    return gallery.grid(images, lines, which)
