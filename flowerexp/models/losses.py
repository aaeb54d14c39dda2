"""Losses of single examples, so that their sums can be weighted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import Checked, key
from flowerexp.errors import UserError
from flowerexp.lazy import tf

Counts = npt.NDArray[np.int64]
ExampleLoss = Callable[[Any, Any], Any]
"""(labels int [n], logits float32 [n, classes]) -> float32 [n]"""


class Loss(Protocol):
    """A loss, constructed with its config keys; traced once into the graph of an update."""

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor, class_counts: Counts) -> tf.Tensor:
        """The loss of every example, float32 [n], of labels, int [n], and logits, float32
        [n, classes]; class_counts, int64 [classes], are the training images of each class.
        """


def bind(part: Any, class_counts: Counts) -> ExampleLoss:
    """A run's loss; calling it raises UserError if the part returns a wrong shape or dtype."""
    def example_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        with parts.failures_named(part):
            losses = tf.convert_to_tensor(parts.built(part)(labels, logits, class_counts))
        if (losses.shape.rank != 1 or losses.dtype != tf.float32
                or not losses.shape.is_compatible_with(tf.convert_to_tensor(labels).shape)):
            raise UserError(f"{part} must return the loss of every example, float32 [n], not "
                            f"{losses.dtype.name} {losses.shape}")
        return losses

    return example_loss


@dataclass(frozen=True)
class CrossEntropy(Checked):
    """Softmax cross-entropy with label smoothing (Szegedy et al. 2016, section 7).

    The label is mixed with the uniform distribution, (1 - e) * one-hot + e / classes.
    """

    label_smoothing: float = key(0.0, least=0, below=1)
    """Fraction of a label that is spread over all classes."""

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor, class_counts: Counts) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if not self.label_smoothing:
            return losses
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        return (1 - self.label_smoothing) * losses + self.label_smoothing * uniform


@dataclass(frozen=True)
class Focal(Checked):
    """-(1 - p)^gamma log p, where p is the label's probability (Lin et al. 2017, equation 4)."""

    gamma: float = key(2.0, least=0)
    """Focusing parameter: greater values down-weight easy examples more."""

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor, class_counts: Counts) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        # 1 - p by expm1, kept away from 0, where a fractional power has no finite gradient.
        missing = tf.maximum(-tf.math.expm1(-losses), 1e-7)
        return missing ** self.gamma * losses


@dataclass(frozen=True)
class LogitAdjusted(Checked):
    """Cross-entropy of logits + tau * log(prior of the class) (Menon et al. 2021, equation 10).

    The prior is the class's fraction of the training images; an empty class counts as one image.
    """

    tau: float = key(1.0, least=0)
    """Strength of the adjustment in favor of rare classes."""

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor, class_counts: Counts) -> tf.Tensor:
        counts = np.maximum(class_counts, 1)
        adjustment = tf.constant(self.tau * np.log(counts / counts.sum()), tf.float32)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits + adjustment)
