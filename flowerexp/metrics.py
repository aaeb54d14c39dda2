"""Accuracy and macro recall, precision and F1 from one confusion matrix. NumPy only."""

import numpy as np
import numpy.typing as npt

NAMES = ("acc", "recall", "precision", "f1")


def confusion_matrix(labels: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer],
                     num_classes: int) -> npt.NDArray[np.int64]:
    """Counts by (label, prediction).

    Args:
        labels, predictions: int [examples], class ids under `num_classes`.

    Returns:
        int64 [classes, classes], rows are labels.
    """
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.float64]]:
    """Recall, precision and F1 of every class, 0 where undefined.

    Returns:
        float64 [classes] by name.
    """
    hits = np.diag(confusion).astype(np.float64)
    of_label, of_prediction = confusion.sum(1), confusion.sum(0)

    def share(part: npt.NDArray[np.float64], whole: npt.NDArray[np.integer]
              ) -> npt.NDArray[np.float64]:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    return {"recall": share(hits, of_label), "precision": share(hits, of_prediction),
            "f1": share(2 * hits, of_label + of_prediction)}


def scores(confusion: npt.NDArray[np.integer]) -> dict[str, float]:
    """Accuracy and the macro averages over the classes present in labels or predictions.

    The same numbers as `sklearn.metrics` with `average="macro", zero_division=0`.

    Args:
        confusion: int [classes, classes], rows are labels; at least one example.
    """
    examples = confusion.sum()
    assert examples > 0, "scores of no examples"
    present = (confusion.sum(0) + confusion.sum(1)) > 0
    by_class = class_scores(confusion)
    return {"acc": float(np.trace(confusion) / examples),
            **{name: float(by_class[name][present].mean()) for name in NAMES[1:]}}
