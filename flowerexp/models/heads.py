"""Heads: a feature map -> logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from flowerexp.lazy import tf


class Head(Protocol):
    """A head, constructed with its config keys."""

    def __call__(self, features: Any, num_classes: int) -> Any:
        """Features [n, height, width, channels] -> logits float32 [n, classes], Keras tensors.

        Random layers must be reproducible: for dropout, use
        `flowerexp.models.layers.KeyedDropout` with a number of at least 65,536.
        """


@dataclass(frozen=True)
class Pooled:
    """Global average pooling and one dense layer, in float32."""

    def __call__(self, features: Any, num_classes: int) -> Any:
        pooled = tf.keras.layers.GlobalAveragePooling2D(name="pool")(features)
        return tf.keras.layers.Dense(num_classes, dtype="float32", name="logits")(pooled)
