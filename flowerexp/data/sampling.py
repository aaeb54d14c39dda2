"""The order of an epoch: a pure function of labels, sampler, seed and epoch. NumPy only.

Oversampling repeats indices, never images. A custom sampler implements the protocol `Sampler`.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import check_range
from flowerexp.errors import UserError

Labels = npt.NDArray[np.integer]


class Sampler(Protocol):
    """A sampler, constructed with its config keys.

    Optional methods, as in `Original`: `examples_per_epoch` and `class_repeats` (default: those of
    the first epoch), `class_weights` (default: 1 for every class).
    """

    def __call__(self, labels: Labels, seed: int, epoch: int, draw: int = 0
                 ) -> npt.NDArray[np.int64]:
        """The indices of one epoch, int64 [examples], into `labels`; a pure function.

        Args:
            labels: int [images], class ids of the training set.
            seed: the run's seed.
            epoch: number of the epoch, from 0.
            draw: 0 for the epoch itself; if its order is shorter than planned, it is filled from
                the draws 1, 2 and so on, which differ as epochs do.
        """


@dataclass(frozen=True)
class Original:
    """Every image once per epoch, shuffled."""

    def __str__(self) -> str:
        return "every image once"

    def class_repeats(self, counts: Labels) -> npt.NDArray[np.float64]:
        """How often an image of each class is seen per epoch, on average.

        Args:
            counts: int [classes], training images of each class; 0 is allowed.

        Returns:
            float64 [classes]; 1 for every class that is not repeated.
        """
        return np.ones(len(counts))

    def examples_per_epoch(self, counts: Labels) -> int:
        """The planned number of examples per epoch: int(sum of counts * repeats)."""
        return int(counts.sum())

    def class_weights(self, counts: Labels) -> npt.NDArray[np.float64]:
        """The weight of an example's loss by its class, with mean 1 over the training set.

        Returns:
            float64 [classes].
        """
        return np.ones(len(counts))

    def __call__(self, labels: Labels, seed: int, epoch: int, draw: int = 0
                 ) -> npt.NDArray[np.int64]:
        """Repeats each image by the integer part of its class's repeats, and once more with the
        probability of the fractional part; shuffled.
        """
        counts = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
        repeats = self.class_repeats(counts)[labels]
        whole = np.floor(repeats)
        chance = np.random.default_rng((seed, epoch, draw, 0)).random(len(labels))
        order = np.repeat(np.arange(len(labels)),
                          (whole + (chance < repeats - whole)).astype(np.int64))
        return np.random.default_rng((seed, epoch, draw, 1)).permutation(order)


@dataclass(frozen=True)
class Oversample(Original):
    """Repeats each image of a class with c < N images N / c times, on average."""

    target_count: int
    """N: examples per epoch of a class with fewer images."""

    def __post_init__(self) -> None:
        check_range("target_count", self.target_count, 1)

    def __str__(self) -> str:
        return f"classes under {self.target_count} images repeated up to it"

    def class_repeats(self, counts: Labels) -> npt.NDArray[np.float64]:
        repeats = np.maximum(self.target_count / np.maximum(counts, 1), 1.0)
        return np.where(counts > 0, repeats, 1.0)

    def examples_per_epoch(self, counts: Labels) -> int:
        # A repeated class contributes exactly N, so this is a sum of integers.
        return int(np.maximum(counts, self.target_count)[counts > 0].sum())


@dataclass(frozen=True)
class ClassWeight(Original):
    """Every image once; the loss of a class with c images is weighted by total / (classes * c).

    These are scikit-learn's balanced weights. Empty classes are not counted; their weight is 0.
    """

    def __str__(self) -> str:
        return "every image once, the loss weighted by class"

    def class_weights(self, counts: Labels) -> npt.NDArray[np.float64]:
        present = counts > 0
        weights = np.zeros(len(counts))
        weights[present] = counts.sum() / (present.sum() * counts[present])
        return weights


def epoch_order(labels: Labels, sampler: Any, seed: int, epoch: int, draw: int = 0
                ) -> npt.NDArray[np.int64]:
    """The order that a sampler returns; raises UserError if it is invalid."""
    with parts.failures_named(sampler):
        order = np.asarray(parts.built(sampler)(labels, seed, epoch, draw))
    integers = order.dtype.kind in "iu" and order.size > 0
    if order.ndim != 1 or not integers or order.min() < 0 or order.max() >= len(labels):
        raise UserError(f"{sampler} must return indices of the {len(labels)} training images, "
                        f"int64 [examples], not {order.dtype} {list(order.shape)}"
                        + (f" from {order.min()} to {order.max()}" if integers else ""))
    return order.astype(np.int64)


def epoch_indices(labels: Labels, sampler: Any, seed: int, epoch: int, count: int
                  ) -> npt.NDArray[np.int64]:
    """The first `count` indices of an epoch, filled from further draws if it is shorter.

    Returns:
        int64 [count].
    """
    assert len(labels) > 0, "an epoch of no images"
    order, draw = epoch_order(labels, sampler, seed, epoch), 0
    while len(order) < count:
        draw += 1
        order = np.concatenate([order, epoch_order(labels, sampler, seed, epoch, draw)])
    return order[:count]


def example_repeats(labels: Labels, sampler: Any, seed: int, epoch: int, draw: int = 0
                    ) -> npt.NDArray[np.int64]:
    """How often each image is seen in one draw of an epoch, int64 [images]."""
    return np.bincount(epoch_order(labels, sampler, seed, epoch, draw), minlength=len(labels))


def examples_per_epoch(counts: Labels, sampler: Any, seed: int = 0) -> int:
    """The planned number of examples per epoch.

    Args:
        counts: int [classes], training images of each class.
    """
    if not hasattr(parts.built(sampler), "examples_per_epoch"):
        # The order of the labels is not known yet, and the length must not depend on it.
        return len(epoch_order(np.repeat(np.arange(len(counts)), counts), sampler, seed, 0))
    with parts.failures_named(sampler):
        examples = parts.built(sampler).examples_per_epoch(counts)
    if not isinstance(examples, Integral) or int(examples) < 0:
        raise UserError(f"{sampler}: examples_per_epoch must return an integer of at least 0, not "
                        f"{examples!r}")
    return int(examples)


def class_weights(counts: Labels, sampler: Any) -> npt.NDArray[np.float32]:
    """The weight of an example's loss by its class, float32 [classes]."""
    if not hasattr(parts.built(sampler), "class_weights"):
        return np.ones(len(counts), np.float32)
    return planned_by_class(counts, sampler, "class_weights").astype(np.float32)


def class_repeats(counts: Labels, sampler: Any, labels: Labels | None = None, seed: int = 0
                  ) -> npt.NDArray[np.float64]:
    """How often an image of each class is seen per epoch, on average, float64 [classes]: as the
    sampler plans it, else as in the first epoch; 1 for a class without images.
    """
    if hasattr(parts.built(sampler), "class_repeats"):
        return planned_by_class(counts, sampler, "class_repeats")
    labels = np.repeat(np.arange(len(counts)), counts) if labels is None else labels
    mean = class_occurrences(labels, example_repeats(labels, sampler, seed, 0), len(counts))[:, 0]
    return np.nan_to_num(mean, nan=1.0)


def planned_by_class(counts: Labels, sampler: Any, method: str) -> npt.NDArray[np.float64]:
    """What a sampler's method returns; raises UserError if it is not a number for each class."""
    with parts.failures_named(sampler):
        values = np.asarray(getattr(parts.built(sampler), method)(counts), np.float64)
    if values.shape != (len(counts),) or not np.isfinite(values).all():
        raise UserError(f"{sampler}: {method} must return {len(counts)} finite numbers, float64 "
                        f"[classes], not {list(values.shape)}")
    return values


def class_occurrences(labels: Labels, repeats: npt.NDArray[np.integer], num_classes: int
                      ) -> npt.NDArray[np.float64]:
    """Mean, minimum and maximum occurrences of the images of each class.

    Args:
        labels: int [images].
        repeats: int [images], how often each is seen.

    Returns:
        float64 [classes, 3]; NaN for a class without images.
    """
    spread = np.full((num_classes, 3), np.nan)
    images = np.bincount(labels, minlength=num_classes)
    totals = np.bincount(labels, repeats, num_classes)
    present = images > 0
    spread[present, 0] = totals[present] / images[present]
    np.fmin.at(spread[:, 1], labels, repeats)
    np.fmax.at(spread[:, 2], labels, repeats)
    return spread
