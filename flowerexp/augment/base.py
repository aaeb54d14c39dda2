"""The protocols of transforms, and the augmentation of a batch by several of them in order.

Every random number is keyed by (seed, name of the transform, epoch, position in the epoch), so
that an image gets the same pixels in any batch, process and order.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowerexp import parts, rng
from flowerexp.errors import UserError
from flowerexp.lazy import tf


class Transform(Protocol):
    """Changes the images of a batch; constructed with its config keys before TensorFlow is
    imported. The log of the run shows its `str`. `Noise` in examples/own_parts is one.
    """

    def __call__(self, images: tf.Tensor, keys: tf.Tensor, /) -> tf.Tensor:
        """The transformed images, uint8 [n, height, width, 3]; raises UserError if they are too
        small.

        It is traced for a `tf.data` pipeline on the CPU, without AutoGraph: TensorFlow operations
        only. An image must depend on nothing but itself and its key.

        Args:
            images: uint8 [n, height, width, 3].
            keys: uint64 [n], the key of each image, for `flowerexp.rng`.
        """


class MixingTransform(Protocol):
    """Mixes every image with another one of its micro-batch; a run has at most one of these."""

    def mix(self, images: tf.Tensor, keys: tf.Tensor, micro_batch: int, /
            ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The images, each mixed with a partner, of the arguments of `Transform`; n is a multiple
        of `micro_batch`.

        Returns:
            images: uint8 [n, height, width, 3].
            partner: int32 [n], the partners' rows in the batch; an image may be its own.
            share: float64 [n] in [0, 1], the weight of each image itself.
        """


@dataclass(frozen=True)
class Augment:
    """The augmentation of a run; a call applies it to one replica's images of one update."""

    transforms: Mapping[str, Any]
    """Name in the config -> part, in the order of application."""
    seed: int
    micro_batch: int
    """Number of images in a micro-batch, within which pairs are mixed."""

    @property
    def sentence(self) -> str:
        texts = {name: str(built(part)) for name, part in self.transforms.items()}
        # The default repr of an object shows an address in memory.
        return "augmentation: " + "; then ".join(
            name if text.startswith("<") else text for name, text in texts.items())

    def check(self, images: int, image_size: int) -> None:
        """Traces the transforms of `images` images, so that a wrong one is found early."""
        batch = {"image": tf.TensorSpec([images, image_size, image_size, 3], tf.uint8),
                 "label": tf.TensorSpec([images], tf.int32)}
        tf.function(self.__call__, autograph=False).get_concrete_function(
            batch, tf.TensorSpec([], tf.int64), tf.TensorSpec([images], tf.int64))

    def __call__(self, batch: Mapping[str, tf.Tensor], epoch: Any, positions: Any
                 ) -> dict[str, tf.Tensor]:
        """The transformed batch, on the host.

        Args:
            batch: `image` uint8 [n, height, width, 3] and `label` int32 [n]; n may be unknown.
            epoch: int64 scalar.
            positions: int64 [n], positions of the images in the epoch.

        Returns:
            The same keys; with a mixing transform also `second_label` int32 [n] and `mix_weight`
            float32 [n] in [0.5, 1], the weight of `label` in the loss; `second_label` has the rest.

        Raises:
            UserError: for images that are too small for a transform, or a transform that returns
                anything but uint8 images of the same shape.
        """
        batch = dict(batch)
        with tf.device("CPU:0"):
            for name, part in self.transforms.items():
                transform = built(part)
                images, keys = batch["image"], rng.keys(self.seed, name, epoch, positions)
                with parts.failures_named(part):
                    if hasattr(transform, "mix"):
                        batch["image"], *mixed = transform.mix(images, keys, self.micro_batch)
                        batch |= mixed_labels(batch["label"], *mixed)
                    else:
                        batch["image"] = transform(images, keys)
                check_images(name, part, images, batch["image"])
        return batch


def build(transforms: Mapping[str, Any], seed: int, micro_batch: int) -> Augment | None:
    """The augmentation of a run, or None without transforms; raises UserError for a wrong one."""
    check_transforms({name: built(part) for name, part in transforms.items()})
    return Augment(dict(transforms), seed, micro_batch) if transforms else None


def built(part: Any) -> Any:
    """The `Transform` or `MixingTransform` of a part, which may be a layer of Keras."""
    transform = parts.built(part)
    return KerasLayer(transform) if is_keras_layer(transform) else transform


def check_transforms(transforms: Mapping[str, Any]) -> None:
    """Raises UserError for an object that is not a transform, or two that mix labels.

    A `parts.Part` is looked at when it is built.
    """
    mixing = []
    for name, transform in transforms.items():
        if isinstance(transform, parts.Part):
            continue
        try:
            if hasattr(transform, "mix"):
                mixing.append(f"augmentation.{name}")
                inspect.signature(transform.mix).bind("images", "keys", "micro_batch")
            else:
                inspect.signature(transform).bind("images", "keys")
        except TypeError as error:
            raise UserError(f"augmentation.{name} ({type(transform).__qualname__}) must have "
                            "__call__(images, keys) or mix(images, keys, micro_batch), see "
                            "flowerexp/augment/base.py") from error
    if len(mixing) > 1:
        raise UserError(f"{' and '.join(mixing)} each give an image a second label, and it can "
                        "have only one: leave out "
                        + ("one of the two" if len(mixing) == 2 else "all but one"))


def check_images(name: str, part: Any, images: tf.Tensor, result: Any) -> None:
    """Raises UserError if a part returned anything but images like `images`."""
    if not (tf.is_tensor(result) and result.dtype == images.dtype
            and result.shape.is_compatible_with(images.shape)):
        found = (f"{result.dtype.name} {result.shape.as_list()}" if tf.is_tensor(result)
                 else type(result).__name__)
        label = part if isinstance(part, parts.Part) else f"augmentation.{name}"
        raise UserError(f"{label} must return {images.dtype.name} images "
                        f"{images.shape.as_list()}, not {found}")


def mixed_labels(label: tf.Tensor, partner: tf.Tensor, share: tf.Tensor) -> dict[str, tf.Tensor]:
    """`label` of the larger share, `second_label` of the smaller, and `mix_weight`, the larger."""
    partner_label, own = tf.gather(label, partner), share >= 0.5
    return {"label": tf.where(own, label, partner_label),
            "second_label": tf.where(own, partner_label, label),
            "mix_weight": tf.cast(tf.maximum(share, 1 - share), tf.float32)}


@functools.cache
def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled with XLA, once per process and on first use."""
    return tf.function(function, autograph=False, jit_compile=True, reduce_retracing=True)


def image_size(images: tf.Tensor) -> tuple[Any, Any]:
    """Height and width of [n, height, width, channels]: ints if known, else int32 scalars."""
    shape = tf.shape(images)
    return tuple(shape[axis] if images.shape[axis] is None else images.shape[axis]
                 for axis in (1, 2))


# Preprocessing layers of Keras


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
        # Outside of map_fn, which does not restore TensorFlow's variable scope after an error.
        generators = seed_generators(self.layer)

        def transform(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            image, key = pair
            with keyed(generators, key):
                pixels = self.layer(tf.cast(image, tf.float32)[None], training=True)[0]
            return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

        shape = tf.TensorSpec(images.shape[1:], tf.uint8)
        return tf.map_fn(transform, (images, keys), fn_output_signature=shape)


def seed_generators(layer: Any) -> list[Any]:
    """The seed generators of a layer and its sublayers; raises UserError if there is none."""
    from keras.random import SeedGenerator

    generators = [value for each in layer._flatten_layers() for value in vars(each).values()
                  if isinstance(value, SeedGenerator)]
    if not generators:
        raise UserError(f"{type(layer).__name__} draws no random numbers from a seed generator of "
                        "Keras 3, so it cannot be a transform")
    return generators


@contextlib.contextmanager
def keyed(generators: Sequence[Any], key: tf.Tensor) -> Iterator[None]:
    """Makes seed generators draw from `key`, uint64 scalar."""
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
