"""Transforms of pixel values."""

from __future__ import annotations

from dataclasses import dataclass

from flowerexp import rng
from flowerexp.augment.base import compiled
from flowerexp.config import Checked, key
from flowerexp.lazy import tf

GRAY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class ColorJitter(Checked):
    """Scales brightness, contrast and saturation, in this order, by uniform factors per image.

    Howard 2013, "Some improvements on deep convolutional neural network based image
    classification", section 2; blending and the default 0.4 as in fb.resnet.torch (2016).
    """

    brightness: float = key(0.4, least=0, most=1)
    """Factor uniform in [1 - brightness, 1 + brightness]: 0 is black, 1 the image."""
    contrast: float = key(0.4, least=0, most=1)
    """Factor uniform in [1 - contrast, 1 + contrast]: 0 is the image's mean gray."""
    saturation: float = key(0.4, least=0, most=1)
    """Factor uniform in [1 - saturation, 1 + saturation]: 0 is the image in grayscale."""

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        spread = tf.constant([self.brightness, self.contrast, self.saturation], tf.float64)
        return compiled(adjust_color)(images, 1 + (2 * rng.uniform(keys, 3) - 1) * spread)


def adjust_color(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """The three blends, by float64 [n, 3], as one linear map of a pixel, its gray and the image's
    mean gray, rounded and clipped once.
    """
    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in tf.unstack(tf.cast(factors, tf.float32), axis=1))
    weights = tf.constant(GRAY)
    pixels = tf.cast(images, tf.float32)
    gray = tf.reduce_sum(pixels * weights, -1, keepdims=True)
    # Sums of integers are the same in any order of summation, and so in a batch of any size.
    sums = tf.reduce_sum(tf.cast(images, tf.int32), (1, 2), keepdims=True)
    area = tf.cast(tf.shape(images)[1] * tf.shape(images)[2], tf.float32)
    mean = tf.reduce_sum(tf.cast(sums, tf.float32) / area * weights, -1, keepdims=True)
    blended = brightness * (contrast * (saturation * pixels + (1 - saturation) * gray)
                            + (1 - contrast) * mean)
    return tf.cast(tf.clip_by_value(tf.round(blended), 0, 255), tf.uint8)
