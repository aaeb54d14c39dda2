"""Transforms that blacken a part of an image."""

from __future__ import annotations

from dataclasses import dataclass

from flowerexp import rng
from flowerexp.augment.base import compiled, image_size
from flowerexp.config import Checked, key
from flowerexp.errors import UserError
from flowerexp.lazy import tf


@dataclass(frozen=True)
class GridMask(Checked):
    """Blackens squares in a grid of units of d pixels; `ratio` d of each edge are kept.

    Chen, Liu, Zhao and Jia 2020, "GridMask data augmentation", section 3: d uniform between its
    bounds, the grid's offsets uniform in [0, d - 1].
    """

    probability: float = key(0.8, least=0, most=1)
    """Probability that an image is masked; constant, while the paper raises it up to this value."""
    d_min: float = key(96 / 224, above=0)
    """Smallest edge of a unit of the grid, as a share of the image's shorter edge."""
    d_max: float = key(1.0, above=0)
    """Largest edge of a unit; the paper's 96 to 224 pixels of 224 are 0.43 to 1."""
    ratio: float = key(0.6, least=0, most=1)
    """Share of a unit's edge that is kept: (1 - ratio)^2 of the image is black."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_max < self.d_min:
            raise UserError(f"d_max must be at least d_min, {self.d_min:g}, not {self.d_max:g}")

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        edges = image_size(images)
        shorter = tf.cast(tf.minimum(*edges), tf.float64)
        smallest, largest = (tf.cast(tf.maximum(tf.round(bound * shorter), 1), tf.int32)
                             for bound in (self.d_min, self.d_max))
        uniform = rng.uniform(keys, 4)
        unit = rng.integers(uniform[:, 0], smallest, largest + 1)
        kept = tf.cast(self.ratio * tf.cast(unit, tf.float64) + 0.5, tf.int32)
        # A unit that is kept whole has no square, so the other images are unchanged.
        kept = tf.where(uniform[:, 1] < self.probability, kept, unit)
        offsets = rng.integers(uniform[:, 2:], 0, unit[:, None])
        rows, columns = ((tf.range(edge) + offsets[:, axis, None]) % unit[:, None] >= kept[:, None]
                         for axis, edge in enumerate(edges))
        return compiled(blacken)(images, rows, columns)


def blacken(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Black where bool [n, height] and bool [n, width] are both true."""
    black = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(black, tf.zeros([], images.dtype), images)
