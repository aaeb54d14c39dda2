"""Heads: a feature map -> logits. A head of one's own is a `Head`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from flowerexp.lazy import tf


class Head(Protocol):
    """A head, constructed with its keys of the config."""

    def __call__(self, features: Any, num_classes: int) -> Any:
        """Logits float32 [n, classes], a Keras tensor, of features [n, height, width, channels].

        A layer that draws random numbers must repeat exactly: of dropout, take
        `flowerexp.models.layers.KeyedDropout` with a number from 65,536 on.
        """


@dataclass(frozen=True)
class Pooled:
    """Global average pooling and one dense layer, in float32."""

    def __call__(self, features: Any, num_classes: int) -> Any:
        pooled = tf.keras.layers.GlobalAveragePooling2D(name="pool")(features)
        return tf.keras.layers.Dense(num_classes, dtype="float32", name="logits")(pooled)
