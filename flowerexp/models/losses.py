"""Losses of single examples, from int labels and float32 logits, so that sums can be weighted."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.config import Loss

ExampleLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(labels int [n], logits float32 [n, classes]) -> float32 [n]"""


def build(loss: Loss, counts: npt.NDArray[np.integer]) -> ExampleLoss:
    """The loss that the config asks for.

    cross_entropy: softmax cross-entropy; `label_smoothing` e mixes the label with the uniform
    distribution, (1 - e) * one-hot + e / classes (Szegedy et al. 2016, section 7).
    focal: -(1 - p)^gamma log p, p the probability of the label (Lin et al. 2017, equation 4).
    logit_adjusted: cross-entropy of logits + tau * log(share of the class in the training set)
    (Menon et al. 2021, equation 10); a class without images counts as one image.

    Args:
        counts: int [classes], training images of each class.
    """
    smoothing = loss.label_smoothing or 0.0
    priors = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    adjustment = tf.constant((loss.tau or 0.0) * np.log(priors), tf.float32)

    def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if not smoothing:
            return losses
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        return (1 - smoothing) * losses + smoothing * uniform

    def focal(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        # 1 - p as expm1, and away from 0, where a fractional power has no gradient.
        missing = tf.maximum(-tf.math.expm1(-losses), 1e-7)
        return missing ** (loss.gamma or 0.0) * losses

    def logit_adjusted(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits + adjustment)

    return {"cross_entropy": cross_entropy, "focal": focal,
            "logit_adjusted": logit_adjusted}[loss.kind]
