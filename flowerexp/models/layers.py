"""Keras objects: input scaling, keyed dropout, and a table of learning rates as a schedule.

Input scaling is part of the model, so that a saved model takes pixels. Uses only the API that
Keras 3 and tf_keras share.
"""

import contextlib
import contextvars
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.config import Model
from flowerexp.errors import UserError

_dropout_key: contextvars.ContextVar[tuple[tf.Tensor, tf.Tensor] | None] = contextvars.ContextVar(
    "dropout_key", default=None)


@contextlib.contextmanager
def dropout_key(seed: int, micro_batch: tf.Tensor) -> Iterator[None]:
    """Sets the key of dropout layers called inside the block: the seed of the run and the number
    of the micro-batch over all replicas and updates, int64 scalar.
    """
    token = _dropout_key.set((tf.constant(seed, tf.int64), micro_batch))
    try:
        yield
    finally:
        _dropout_key.reset(token)


@tf.keras.utils.register_keras_serializable(package="flowerexp")
class KeyedDropout(tf.keras.layers.Layer):  # type: ignore[misc]
    """Dropout (Srivastava et al. 2014) whose mask is a function of (seed, micro-batch, layer).

    Keras' Dropout keeps a random state that is not checkpointed and that all replicas share. Random
    bits are drawn as integers, which XLA does not change. Raises AssertionError if it is called in
    training mode outside `dropout_key`.

    Args:
        rate, noise_shape: as in keras.layers.Dropout.
        number: number of this layer in its model.
    """

    def __init__(self, rate: float, number: int, noise_shape: tuple[int | None, ...] | None = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.number = rate, number
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or not self.rate:
            return inputs
        key = _dropout_key.get()
        assert key is not None, f"{self.name} is trained outside dropout_key"
        shape = tf.shape(inputs)
        if self.noise_shape is not None:
            shape = tf.stack([shape[axis] if size is None else size
                              for axis, size in enumerate(self.noise_shape)])
        # Combines the three numbers, because the seed of a stateless op is two integers.
        seed = tf.stack([key[0] * 65_536 + self.number, key[1]])
        bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
        keep = bits >= tf.constant(int(self.rate * 2**32), tf.uint32)
        scale = tf.constant(1 / (1 - self.rate), inputs.dtype)
        return tf.where(keep, inputs * scale, tf.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "number": self.number,
                "noise_shape": self.noise_shape}


class TableSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule whose learning rate in update u is entry u of `rates`, float [updates]."""

    def __init__(self, rates: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.rates = np.asarray(rates, np.float32)

    def __call__(self, step: Any) -> tf.Tensor:
        last = len(self.rates) - 1
        return tf.gather(tf.constant(self.rates), tf.minimum(tf.cast(step, tf.int64), last))


def scale_inputs(model: Model, inputs: Any) -> Any:
    """Scales pixels to what the backbone expects, in float32.

    raw: 0 to 255; unit: [0, 1]; symmetric: [-1, 1]; imagenet: ImageNet's mean and standard
    deviation on [0, 1]; preprocess_input: the function in the model's own module.
    """
    if model.input_scaling == "preprocess_input":
        return preprocess_input(model.backbone.name, inputs)
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    scale: Any
    scale, offset = {
        "raw": (1.0, 0.0),
        "unit": (1 / 255, 0.0),
        "symmetric": (1 / 127.5, -1.0),
        "imagenet": ((1 / (255 * std)).tolist(), (-mean / std).tolist()),
    }[model.input_scaling]
    return tf.keras.layers.Rescaling(scale, offset, dtype="float32", name="input_scaling")(inputs)


def preprocess_input(application: str, pixels: Any) -> Any:
    """The `preprocess_input` of a model from keras.applications, as layers that Keras can load.

    Each of these functions is affine in every channel, and some reverse the channels. Their
    constants are inferred from the output for four colors, because Keras does not publish them.
    """
    module = sys.modules[getattr(tf.keras.applications, application).__module__]
    black_red_green_blue = np.vstack([np.zeros(3), 255 * np.eye(3)])
    outputs = module.preprocess_input(black_red_green_blue[:, None, None],
                                      data_format="channels_last")[:, 0, 0]
    offset, matrix = outputs[0], (outputs[1:] - outputs[0]) / 255
    reverse = not matrix[0, 0]
    scale = np.diag(matrix[::-1] if reverse else matrix)
    # One sub-model, with the same path in checkpoints whether or not it reverses channels.
    inputs = tf.keras.Input(pixels.shape[1:])
    # tf_keras cannot save an Ellipsis.
    channels = inputs[:, :, :, ::-1] if reverse else inputs
    scaled = tf.keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32")(channels)
    return tf.keras.Model(inputs, scaled, name="input_scaling")(pixels)


def check_repeats(layer: Any) -> None:
    """Raises UserError for a layer that draws numbers of its own, which no checkpoint holds."""
    if not isinstance(layer, tf.keras.layers.Layer):  # an operation
        return
    for each in layer._flatten_layers():  # itself, and the layers inside it
        if isinstance(each, tf.keras.layers.Dropout):
            draws = each.rate
        else:
            draws = not isinstance(each, KeyedDropout) and any(
                getattr(each, name, None)
                for name in ("drop_path_rate", "seed_generator", "_random_generator"))
        if draws:
            raise UserError(f"its layer {each.name} ({type(each).__name__}) draws numbers that do "
                            "not repeat: take flowerexp.models.layers.KeyedDropout")


def with_keyed_dropout(backbone: Any) -> Any:
    """A copy of a backbone, with its weights, in which every Dropout is a KeyedDropout."""
    numbers = iter(range(1, 65_536))

    def keyed(layer: Any) -> Any:
        if not isinstance(layer, tf.keras.layers.Dropout):
            return check_repeats(layer)
        shape = layer.noise_shape
        if spatial := re.fullmatch(r"SpatialDropout(\d)D", type(layer).__name__):
            ones = (1,) * int(spatial[1])
            channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
            shape = (None, *ones, None) if channels_last else (None, None, *ones)
        return KeyedDropout(layer.rate, next(numbers), shape, name=layer.name,
                            dtype=layer.dtype_policy)

    return with_layers_replaced(backbone, keyed)


def portable(model: Any) -> Any:
    """A copy of a model in Keras layers only, which loads without this package.

    Its inference is identical bit for bit.
    """
    def plain(layer: Any) -> Any:
        if isinstance(layer, KeyedDropout):
            return tf.keras.layers.Dropout(layer.rate, layer.noise_shape, name=layer.name,
                                           dtype=layer.dtype_policy)
        activation: Any = getattr(layer, "activation", None)
        if getattr(activation, "__module__", "").startswith("efficientnet."):
            assert activation.__name__ == "swish", layer.name
            # The same forward computation; the package's swish has another gradient on Keras 3.
            return layer.from_config({**layer.get_config(),
                                      "activation": tf.keras.activations.swish})
        return None

    return with_layers_replaced(model, plain)


def with_layers_replaced(model: Any, replacement: Callable[[Any], Any]) -> Any:
    """A copy of a functional model in which `replacement(layer)`, unless None, replaces a layer.

    Raises UserError for a layer whose get_config() does not give the same layer again.
    """
    def clone(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return with_layers_replaced(layer, replacement)
        replaced = replacement(layer)
        return rebuilt(layer) if replaced is None else replaced

    copy = tf.keras.models.clone_model(model, clone_function=clone)
    copy.trainable = model.trainable
    copy.set_weights(model.get_weights())
    return copy


def rebuilt(layer: Any) -> Any:
    """A new layer of the same config; raises UserError if that does not hold all of its arguments.

    Keras would drop them without a word when it loads the saved model.
    """
    cls = type(layer)
    mistake = UserError(f"its layer {layer.name} ({cls.__name__}) cannot be saved: get_config() "
                        "must return every argument of the constructor")
    try:
        config = layer.get_config()
        copy = cls.from_config(config)
        whole = all(name in config or getattr(layer, name, None) == getattr(copy, name, None)
                    for name in inspect.signature(cls).parameters)
    except Exception as error:  # whatever a layer of the user's raises
        raise mistake from error
    if not whole:
        raise mistake
    return copy
