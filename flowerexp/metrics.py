"""Accuracy and macro recall, precision and F1 from one confusion matrix. No TensorFlow here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import Checked, key
from flowerexp.errors import UserError

NAMES = ("acc", "recall", "precision", "f1")
TOP = 5
"""The number of classes reported for an image."""

Counts = npt.NDArray[np.integer]
"""A confusion matrix, int64 [classes, classes], rows are labels; or images, int64 [classes]."""
Ids = npt.NDArray[np.integer]
"""Class ids, int [images]."""
Floats = npt.NDArray[np.float64]
Row = Mapping[str, float | None]
"""An epoch of the history."""


def top_classes(ids: Sequence[str], names: Sequence[str], probabilities: Floats) -> Any:
    """A DataFrame with a row per image: `id`, `class_id`, `class_name`, `probability`, then
    `top2_class_id`, `top2_class_name`, `top2_probability` and so on to the fifth class.

    Args:
        names: class names in label order.
        probabilities: float [images, classes]; among equal ones the lower class is first.
    """
    import pandas as pd  # slow, and few need it

    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :TOP]
    chances = np.take_along_axis(probabilities, order, -1)
    columns: dict[str, Any] = {"id": list(ids)}
    for place in range(order.shape[1]):
        prefix = f"top{place + 1}_" if place else ""
        columns |= {f"{prefix}class_id": order[:, place],
                    f"{prefix}class_name": [names[label] for label in order[:, place]],
                    f"{prefix}probability": chances[:, place]}
    return pd.DataFrame(columns)


class Metric(Protocol):
    """A further validation metric, constructed with its keys in the config; higher is better.

    Its value is `valid NAME` in the history, where NAME is its entry in the group `metrics`.
    """

    def __call__(self, confusion: Counts, labels: Ids, probabilities: Floats) -> float:
        """The metric of the validation set; probabilities are float64 [images, classes]."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa (Cohen 1960): agreement beyond chance, 1 if all are correct."""

    def __call__(self, confusion: Counts, labels: Ids, probabilities: Floats) -> float:
        images = confusion.sum()
        chance = float(confusion.sum(0) @ confusion.sum(1)) / images**2
        return float((np.trace(confusion) / images - chance) / (1 - chance))


@dataclass(frozen=True)
class TopK(Checked):
    """Share of the images whose class is among the k most probable ones."""

    k: int = key(5, least=1)

    def __call__(self, confusion: Counts, labels: Ids, probabilities: Floats) -> float:
        own = probabilities[np.arange(len(labels)), labels]
        return float(((probabilities > own[:, None]).sum(-1) < self.k).mean())


def further(chosen: Mapping[str, Any], confusion: Counts, labels: Ids, probabilities: Floats
            ) -> dict[str, float | None]:
    """The further metrics of a run, parts by name, as a part of the history.

    Non-finite values are None. Raises UserError for a metric that does not return a number.
    """
    row: dict[str, float | None] = {}
    for name, part in chosen.items():
        with parts.failures_named(part):
            value = parts.built(part)(confusion, labels, probabilities)
        if not isinstance(value, int | float | np.integer | np.floating):
            raise UserError(f"{part} must return a number, not {type(value).__name__}")
        row[f"valid {name}"] = float(value) if math.isfinite(value) else None
    return row


def confusion_matrix(labels: Ids, predictions: Ids, num_classes: int) -> npt.NDArray[np.int64]:
    """Counts by (label, prediction), int64 [classes, classes], of ids below `num_classes`."""
    cells = np.asarray(labels, np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: Counts) -> dict[str, Floats]:
    """Recall, precision and F1 by name, float64 [classes]: 0 for a class without labels or
    predictions, NaN for one without both.
    """
    right, labels, predictions = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    absent = labels + predictions == 0
    return {name: np.where(absent, np.nan, hits / np.maximum(of, 1)) for name, hits, of in (
        ("recall", right, labels), ("precision", right, predictions),
        ("f1", 2 * right, labels + predictions))}


def recalls(labels: Ids, predictions: Ids, classes: int) -> Floats:
    """float64 [classes], the recall of every class, NaN for one without images."""
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == predictions], minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def thirds(train_counts: Counts) -> list[npt.NDArray[np.int64]]:
    """Head, medium and tail: class ids by training count, int [classes], in three arrays of nearly
    equal size; of classes with equal counts the lower id is first.
    """
    return np.array_split(np.argsort(-train_counts, kind="stable"), 3)


def scores(confusion: Counts) -> dict[str, float]:
    """Accuracy and the macro averages over the classes present in labels or predictions, of at
    least one example.
    """
    examples = confusion.sum()
    assert examples > 0, "scores of no examples"
    means = {name: float(values[~np.isnan(values)].mean())
             for name, values in class_scores(confusion).items()}
    return {"acc": float(np.trace(confusion) / examples), **means}


def epoch_scores(prefix: str, loss: float, confusion: Counts) -> dict[str, float | None]:
    """A split's part of the history: `train loss`, `train acc` and so on for the prefix `train`.

    A loss that is not finite is None, because JSON has no number for it.
    """
    values = {"loss": loss if math.isfinite(loss) else None, **scores(confusion)}
    return {f"{prefix} {name}": value for name, value in values.items()}


def best_epoch(history: Sequence[Row]) -> int | None:
    """The epoch with the highest valid F1, the earliest on a tie; None before the first, and
    without validation.
    """
    validated = (epoch for epoch, row in enumerate(history) if "valid f1" in row)
    return max(validated, key=lambda epoch: history[epoch]["valid f1"] or 0.0, default=None)


def should_stop_early(history: Sequence[Row], patience: int | None) -> bool:
    """Whether validation F1 has not risen above its best for `patience` epochs; None: never."""
    best = best_epoch(history)
    return patience is not None and best is not None and len(history) - 1 - best >= patience


def describe(row: Row) -> str:
    """An epoch's metrics in a line."""
    def of(split: str) -> str:
        return ", ".join(f"{key.removeprefix(split)} {score_text(row[key])}" for key in row
                         if key.startswith(split) and key != "train timing")

    splits = [f"{split} {scores}" for split in ("train", "valid") if (scores := of(f"{split} "))]
    return f"{'; '.join(splits)}; {row['train timing']:.1f} s"


def score_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
