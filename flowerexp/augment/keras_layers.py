"""Keras' preprocessing layers as transforms."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowerexp import rng
from flowerexp.errors import UserError
from flowerexp.lazy import tf


def is_keras_layer(part: Any) -> bool:
    """Whether an object is a layer of Keras or tf_keras, checked without importing either."""
    return any(cls.__name__ == "Layer" and cls.__module__.startswith(("keras.", "tf_keras."))
               for cls in type(part).__mro__)


@dataclass(frozen=True)
class KerasLayer:
    """A layer of Keras 3, for example RandomZoom, called with one image at a time.

    Its random numbers are drawn from the key of the image instead of the layer's own state, so
    that a resumed run repeats them. Pixels are rounded and clipped to uint8.
    """

    layer: Any

    def __str__(self) -> str:
        return f"{type(self.layer).__name__} of Keras"

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        def transform(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            image, key = pair
            with keyed(self.layer, key):
                pixels = self.layer(tf.cast(image, tf.float32)[None], training=True)[0]
            return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

        shape = tf.TensorSpec(images.shape[1:], tf.uint8)
        return tf.map_fn(transform, (images, keys), fn_output_signature=shape)


@contextlib.contextmanager
def keyed(layer: Any, key: tf.Tensor) -> Iterator[None]:
    """Makes the seed generators of a layer and its sublayers draw from `key`, uint64 scalar.

    Raises:
        UserError: for a layer that has no seed generator of Keras 3.
    """
    from keras.random import SeedGenerator

    generators = [value for each in layer._flatten_layers() for value in vars(each).values()
                  if isinstance(value, SeedGenerator)]
    if not generators:
        raise UserError(f"{type(layer).__name__} draws no random numbers from a seed generator of "
                        "Keras 3, so it cannot be a transform")
    count = itertools.count()

    def next_seed(ordered: bool = True) -> tf.Tensor:
        """Two numbers of 32 bits, as `SeedGenerator.next` returns them."""
        return tf.bitcast(rng.fold(key, next(count)), tf.uint32)

    for generator in generators:
        generator.next = next_seed
    try:
        yield
    finally:
        for generator in generators:
            del generator.next
