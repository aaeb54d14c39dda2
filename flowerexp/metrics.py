"""Accuracy and macro recall, precision and F1 from one confusion matrix. No TensorFlow here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import check_range
from flowerexp.errors import UserError

NAMES = ("acc", "recall", "precision", "f1")


class Metric(Protocol):
    """A further validation metric, constructed with its keys in the config; higher is better.

    Its value is `valid NAME` in the history, where NAME is its entry in the group `metrics`.
    """

    def __call__(self, confusion: npt.NDArray[np.int64], labels: npt.NDArray[np.integer],
                 probabilities: npt.NDArray[np.float64]) -> float:
        """The metric of the validation set.

        Args:
            confusion: int64 [classes, classes], rows are labels.
            labels: int [images], class ids.
            probabilities: float64 [images, classes].
        """


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa (Cohen 1960): agreement beyond chance, 1 if all are correct."""

    def __call__(self, confusion: npt.NDArray[np.int64], labels: npt.NDArray[np.integer],
                 probabilities: npt.NDArray[np.float64]) -> float:
        images = confusion.sum()
        chance = float(confusion.sum(0) @ confusion.sum(1)) / images**2
        return float((np.trace(confusion) / images - chance) / (1 - chance))


@dataclass(frozen=True)
class TopK:
    """Share of the images whose class is among the k most probable ones."""

    k: int = 5

    def __post_init__(self) -> None:
        check_range("k", self.k, 1)

    def __call__(self, confusion: npt.NDArray[np.int64], labels: npt.NDArray[np.integer],
                 probabilities: npt.NDArray[np.float64]) -> float:
        own = probabilities[np.arange(len(labels)), labels]
        return float(((probabilities > own[:, None]).sum(-1) < self.k).mean())


def further(chosen: Mapping[str, Any], confusion: npt.NDArray[np.int64],
            labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.float64]
            ) -> dict[str, float | None]:
    """The further metrics of a run, as a part of the history; non-finite values are None.

    Args:
        chosen: name -> part.

    Raises:
        UserError: for a metric that does not return a number.
    """
    row: dict[str, float | None] = {}
    for name, part in chosen.items():
        with parts.failures_named(part):
            value = parts.built(part)(confusion, labels, probabilities)
        if not isinstance(value, int | float | np.integer | np.floating):
            raise UserError(f"{part} must return a number, not {type(value).__name__}")
        row[f"valid {name}"] = float(value) if math.isfinite(value) else None
    return row


def confusion_matrix(labels: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer],
                     num_classes: int) -> npt.NDArray[np.int64]:
    """Counts by (label, prediction).

    Args:
        labels, predictions: int [examples], class ids below `num_classes`.

    Returns:
        int64 [classes, classes], rows are labels.
    """
    cells = np.asarray(labels, np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.float64]]:
    """Recall, precision and F1 of every class, 0 if undefined.

    Args:
        confusion: int [classes, classes], rows are labels.

    Returns:
        float64 [classes] by name.
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes a second

    labels, predictions = np.nonzero(confusion)  # a cell is weighted by its count
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=range(len(confusion)), zero_division=0,
        sample_weight=confusion[labels, predictions])
    return {"recall": recall, "precision": precision, "f1": f1}


def f1_where_present(confusion: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """float64 [classes], every class's F1; NaN if neither labels nor predictions have it."""
    present = confusion.sum(0) + confusion.sum(1) > 0
    return np.where(present, class_scores(confusion)["f1"], np.nan)


def recalls(labels: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer], classes: int
            ) -> npt.NDArray[np.float64]:
    """float64 [classes], the recall of every class, NaN for one without images.

    Args:
        labels, predictions: int [examples], class ids; labels below `classes`.
    """
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == predictions], minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def thirds(train_counts: npt.NDArray[np.integer]) -> list[npt.NDArray[np.int64]]:
    """Head, medium and tail: the classes by training count, in three parts of nearly equal size.

    Args:
        train_counts: int [classes], training images.

    Returns:
        Three int64 arrays of class ids; of classes with equal counts the lower id is first.
    """
    return np.array_split(np.argsort(-train_counts, kind="stable"), 3)


def scores(confusion: npt.NDArray[np.integer]) -> dict[str, float]:
    """Accuracy and the macro averages over the classes present in labels or predictions.

    Args:
        confusion: int [classes, classes], rows are labels; at least one example.
    """
    examples = confusion.sum()
    assert examples > 0, "scores of no examples"
    present = (confusion.sum(0) + confusion.sum(1)) > 0
    by_class = class_scores(confusion)
    return {"acc": float(np.trace(confusion) / examples),
            **{name: float(by_class[name][present].mean()) for name in NAMES[1:]}}


def epoch_scores(prefix: str, loss: float, confusion: npt.NDArray[np.integer]
                 ) -> dict[str, float | None]:
    """A split's part of the history: `train loss`, `train acc` and so on for the prefix `train`.

    A loss that is not finite is None, because JSON has no number for it.
    """
    values = {"loss": loss if math.isfinite(loss) else None, **scores(confusion)}
    return {f"{prefix} {name}": value for name, value in values.items()}


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Probabilities as they are stored: float16 [images, classes]."""
    from scipy.special import softmax as of_rows

    probabilities: npt.NDArray[np.float16] = of_rows(logits, axis=-1).astype(np.float16)
    return probabilities


def best_epoch(history: Sequence[Mapping[str, float | None]]) -> int | None:
    """The epoch with the highest valid F1, the earliest on a tie; None before the first."""
    if not history:
        return None
    return max(range(len(history)), key=lambda epoch: (history[epoch]["valid f1"] or 0.0, -epoch))


def should_stop_early(history: Sequence[Mapping[str, float | None]], patience: int | None) -> bool:
    """Whether validation F1 has not risen above its best for `patience` epochs; None: never."""
    best = best_epoch(history)
    return patience is not None and best is not None and len(history) - 1 - best >= patience


def describe(row: Mapping[str, float | None]) -> str:
    """An epoch's metrics in a line."""
    def of(prefix: str) -> str:
        values = {name: value for key, value in row.items()
                  for start, _, name in [key.partition(" ")]
                  if start == prefix and name != "timing"}
        return ", ".join(f"{name} {score_text(value)}" for name, value in values.items())

    return f"train {of('train')}; valid {of('valid')}; {row['train timing']:.1f} s"


def score_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
