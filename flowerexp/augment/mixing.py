"""Transforms that mix an image and its label with another of the micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

from flowerexp import rng
from flowerexp.augment.base import compiled, image_size
from flowerexp.config import Checked, key
from flowerexp.lazy import tf


@dataclass(frozen=True)
class CutMix(Checked):
    """Pastes a rectangle of another image at the same place.

    Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable
    features", section 3.1: the rectangle's edges are sqrt(1 - lambda) of the image's, lambda from
    Beta(alpha, alpha), its center uniform; clipped at the image's edge, the share is that of the
    pixels. One rectangle per micro-batch, as in the authors' code.
    """

    alpha: float = key(1.0, above=0)
    """Parameter of Beta(alpha, alpha), from which the share is drawn once per micro-batch."""
    probability: float = key(1.0, least=0, most=1)
    """Probability that a micro-batch is mixed: 1 on ImageNet in the paper, 0.5 on CIFAR."""

    def mix(self, images: tf.Tensor, keys: tf.Tensor, micro_batch: int
            ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        common, partner = draw(keys, 6, micro_batch)
        kept = tf.where(common[:, 3] < self.probability,
                        rng.symmetric_beta(self.alpha, common[:, 1:3]), 1)
        edges = tf.stack(image_size(images))
        lengths = tf.cast(edges, tf.float64)
        half = tf.cast(tf.sqrt(1 - kept)[:, None] * lengths, tf.int32) // 2
        center = rng.integers(common[:, 4:], 0, edges)
        low, high = tf.maximum(center - half, 0), tf.minimum(center + half, edges)
        area = tf.reduce_prod(tf.cast(high - low, tf.float64), -1)
        return (compiled(paste)(images, partner, low, high), partner,
                1 - area / tf.reduce_prod(lengths))


@dataclass(frozen=True)
class MixUp(Checked):
    """Averages two images, weighted by lambda from Beta(alpha, alpha), rounded to nearest.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", section 2; one lambda per
    micro-batch, as in the authors' code. The distribution is symmetric and so is a random pairing:
    an image may always have the larger of lambda and 1 - lambda.
    """

    alpha: float = key(0.2, above=0)
    """Parameter of Beta(alpha, alpha), from which the weight is drawn once per micro-batch."""

    def mix(self, images: tf.Tensor, keys: tf.Tensor, micro_batch: int
            ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        common, partner = draw(keys, 3, micro_batch)
        weight = rng.symmetric_beta(self.alpha, common[:, 1:])
        share = tf.maximum(weight, 1 - weight)
        return compiled(average)(images, partner, share), partner, share


def draw(keys: tf.Tensor, count: int, micro_batch: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`count` numbers of the first image of every image's micro-batch, and the images' partners.

    The first number of each image draws its partner.
    """
    uniform, rows = rng.uniform(keys, count), tf.range(tf.shape(keys)[0])
    return tf.gather(uniform, rows - rows % micro_batch), partners(uniform[:, 0], micro_batch)


def partners(uniform: tf.Tensor, micro_batch: int) -> tf.Tensor:
    """A random permutation within every micro-batch, int32 [n], of float64 [n] in [0, 1)."""
    micro_batches = tf.range(tf.shape(uniform)[0]) // micro_batch
    return tf.argsort(tf.cast(micro_batches, tf.float64) + uniform)


def paste(images: tf.Tensor, partner: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """The images, with the partner's pixels from `low` to before `high`, both int32 [n, 2]."""
    rows, columns = ((tf.range(tf.shape(images)[axis + 1]) >= low[:, axis, None])
                     & (tf.range(tf.shape(images)[axis + 1]) < high[:, axis, None])
                     for axis in (0, 1))
    within = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(within, tf.gather(images, partner), images)


def average(images: tf.Tensor, partner: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """The means of the images, weighted by `share`, float64 [n], and their partners."""
    weight = tf.cast(share, tf.float32)[:, None, None, None]
    own = tf.cast(images, tf.float32)
    other = tf.cast(tf.gather(images, partner), tf.float32)
    return tf.cast(tf.round(weight * own + (1 - weight) * other), tf.uint8)
