"""Random numbers as a function of their key: the same draw in any batch, process and order.

SplitMix64 (Steele, Lea and Flood 2014) with the finalizer Mix13 of Stafford (2011), on tensors.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

from flowerexp.lazy import tf

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: SplitMix64's increment."""


def mix(values: tf.Tensor) -> tf.Tensor:
    """The finalizer, a bijection of uint64 that spreads every bit."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        shifted = tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64))
        values = tf.bitwise.bitwise_xor(values, shifted) * tf.constant(factor, tf.uint64)
    return values


def fold(key: tf.Tensor, value: Any) -> tf.Tensor:
    """A new key, uint64 [...], from a key and an integer that broadcasts with it."""
    step = tf.cast(value, tf.uint64) + tf.constant(1, tf.uint64)
    return mix(key + step * tf.constant(GOLDEN, tf.uint64))


def keys(seed: int, purpose: str, epoch: Any, positions: Any) -> tf.Tensor:
    """One key, uint64 [n], for each of `positions`, int64 [n], in an epoch, int64 scalar.

    `purpose` separates the draws of one use from those of all others.
    """
    key = fold(fold(tf.constant(0, tf.uint64), seed), zlib.crc32(purpose.encode()))
    return fold(fold(key, epoch), positions)


def uniform(keys: tf.Tensor, count: int) -> tf.Tensor:
    """`count` numbers for every key: uint64 [n] -> float64 [n, count], uniform in [0, 1).

    Multiples of 2^-32, so that adding a small integer rounds nothing.
    """
    bits = fold(keys[:, None], tf.range(count, dtype=tf.int64)[None])
    high = tf.bitwise.right_shift(bits, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.float64) * 2.0**-32


def integers(uniform: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Numbers in [0, 1), float64, as int32 in [low, high); the three broadcast."""
    low, span = tf.cast(low, tf.int32), tf.cast(high - low, tf.float64)
    return low + tf.cast(uniform * span, tf.int32)


def symmetric_beta(alpha: float, uniform: tf.Tensor) -> tf.Tensor:
    """Beta(alpha, alpha) from two numbers in [0, 1): float64 [n, 2] -> float64 [n] in [0, 1].

    Devroye 1996, "Random variate generation in one line of code": Bailey's Student t with
    2 alpha degrees of freedom, mapped to the beta distribution; exact, and without rejection.
    """
    # Half a step from 0 keeps the power finite for alpha of 0.04 and more; below, 1 / inf is 0.
    radius = tf.pow(uniform[:, 0] + 2.0**-33, -1 / alpha) - 1
    cosine = tf.cos(2 * math.pi * uniform[:, 1])
    return (1 + tf.sign(cosine) / tf.sqrt(1 + 1 / (radius * cosine**2))) / 2
