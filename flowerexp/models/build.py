"""Backbone, dropout and head as one Keras model from pixels (0 to 255) to logits.

Input scaling is a layer of the model, so that a saved model takes pixels. Written to the interface
that Keras 3 and tf_keras share.
"""

import contextlib
import contextvars
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from flowerexp.config import Model, nearest
from flowerexp.errors import UserError, first_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DropoutKey = tuple[tf.Tensor, tf.Tensor]
_dropout_key: contextvars.ContextVar[DropoutKey | None] = contextvars.ContextVar(
    "dropout_key", default=None)


@contextlib.contextmanager
def dropout_key(seed: int, micro_batch: tf.Tensor) -> Iterator[None]:
    """Gives every dropout layer that is called inside its key: the seed and a micro-batch number.

    Args:
        seed: of the run.
        micro_batch: int64 scalar, the number of the micro-batch over all replicas and updates.
    """
    token = _dropout_key.set((tf.constant(seed, tf.int64), micro_batch))
    try:
        yield
    finally:
        _dropout_key.reset(token)


@tf.keras.utils.register_keras_serializable(package="flowerexp")
class KeyedDropout(tf.keras.layers.Layer):  # type: ignore[misc]
    """Dropout (Srivastava et al. 2014) whose mask is a function of (seed, micro-batch, layer).

    Keras' own keeps a random state that no checkpoint holds and that every replica shares. Masks
    are drawn as integers, which are the same under XLA. Raises AssertionError when it is trained
    outside `dropout_key`.

    Args:
        rate: share of the units that are dropped.
        number: of this layer in its model.
        noise_shape: as in keras.layers.Dropout; None in it is the input's own size.
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
        # One mix of the three numbers; the seed of a stateless draw is two integers.
        seed = tf.stack([key[0] * 65_536 + self.number, key[1]])
        bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
        keep = bits >= tf.constant(int(self.rate * 2**32), tf.uint32)
        scale = tf.constant(1 / (1 - self.rate), inputs.dtype)
        return tf.where(keep, inputs * scale, tf.zeros_like(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "number": self.number,
                "noise_shape": self.noise_shape}


@tf.keras.utils.register_keras_serializable(package="flowerexp")
class PreprocessInput(tf.keras.layers.Layer):  # type: ignore[misc]
    """The `preprocess_input` of a model of keras.applications, pixels 0 to 255 -> its own scale.

    Args:
        application: the model's name, for example ResNet50.
    """

    def __init__(self, application: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.application = application
        factory = getattr(tf.keras.applications, application)
        self.preprocess = sys.modules[factory.__module__].preprocess_input

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.preprocess(tf.cast(inputs, tf.float32))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "application": self.application}


def build(model: Model, image_size: int, num_classes: int, precision: str = "float32",
          seed: int = 0) -> Any:
    """A Keras model: images [n, size, size, 3], 0 to 255 -> float32 logits [n, classes].

    Head: dropout, global average pooling, dense (the order of the method this follows). Sets the
    process-wide precision policy, which the backbones of keras.applications read.

    Raises:
        UserError: for an unknown name, weights that cannot be had or do not fit, or images that
            are too small for the backbone.
    """
    tf.keras.mixed_precision.set_global_policy(precision)
    tf.keras.utils.set_random_seed(seed)
    backbone = with_keyed_dropout(build_backbone(model, image_size))
    backbone.trainable = model.trainable
    inputs = tf.keras.Input((image_size, image_size, 3), name="image")
    scaled = scale_inputs(model, inputs)
    # A frozen backbone runs in inference mode: BatchNorm keeps its statistics, dropout rests.
    features = backbone(scaled) if model.trainable else backbone(scaled, training=False)
    features = KeyedDropout(model.dropout, number=0, name="head_dropout")(features)
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="pool")(features)
    logits = tf.keras.layers.Dense(num_classes, dtype="float32", name="logits")(pooled)
    return tf.keras.Model(inputs, logits, name=model.name)


def is_named(weights: str | None) -> bool:
    """Whether weights are none or a name that the backbone's library knows, not a file."""
    return weights in (None, "imagenet", "noisy-student")


def check_weights_exist(model: Model) -> None:
    """Raises UserError for weights of a file that does not exist."""
    if not is_named(model.weights) and not tf.io.gfile.exists(model.weights):
        raise UserError(f"model.weights={model.weights} does not exist: give imagenet, null or the "
                        "path of a weight file")


def build_backbone(model: Model, image_size: int) -> Any:
    """The convolutional part, images as the backbone expects them -> a feature map."""
    check_weights_exist(model)
    if model.source == "flowerexp":
        backbone = small_cnn(image_size)
        if model.weights:
            load_weights(backbone, model)
        return backbone
    factory = find_factory(model)
    arguments: dict[str, Any] = {"include_top": False, "weights": model.weights,
                                 "input_shape": (image_size, image_size, 3)}
    if model.alpha is not None:
        arguments["alpha"] = model.alpha
    if "classifier_activation" in inspect.signature(factory).parameters:
        arguments["classifier_activation"] = None
    try:
        return factory(**arguments)
    except Exception as error:  # every backbone has its own kinds
        raise backbone_error(model, image_size, error) from error


def backbone_error(model: Model, image_size: int, error: Exception) -> UserError:
    """The sentence for what a backbone's factory raised."""
    first = first_line(error)
    if "URL fetch failure" in str(error) or (is_named(model.weights)
                                             and isinstance(error, OSError)):
        return UserError(
            f"the {model.weights} weights of {model.name} cannot be downloaded ({first}): copy the "
            "file without its top (`no_top`, `notop`) to this machine and give "
            "model.weights=PATH, or model.weights=null for random ones")
    if not is_named(model.weights):
        return UserError(f"model.weights={model.weights} does not fit {model.name} without its "
                         f"top{f' at alpha {model.alpha}' if model.alpha else ''}: {first}")
    return UserError(f"{model.name} cannot be built at dataset.image_size={image_size} with "
                     f"model.weights={model.weights}: {first}")


def load_weights(backbone: Any, model: Model) -> None:
    """Loads a weight file into a built backbone."""
    try:
        backbone.load_weights(model.weights)
    except Exception as error:  # h5py, Keras and the file system each have their own
        raise UserError(f"model.weights={model.weights} does not fit {model.name}: "
                        f"{first_line(error)}") from error


def find_factory(model: Model) -> Callable[..., Any]:
    """The function that builds the backbone of this name; raises UserError for an unknown one."""
    if model.source == "efficientnet":
        import efficientnet.tfkeras as library
    else:
        library = tf.keras.applications
    names = [name for name in dir(library) if name[0].isupper()
             and callable(getattr(library, name)) and not inspect.isclass(getattr(library, name))]
    if model.name not in names:
        raise UserError(f"model.name={model.name} is no model of {model.source}: choose of "
                        f"{', '.join(names)}{nearest(model.name, names)}")
    factory: Callable[..., Any] = getattr(library, model.name)
    return factory


def scale_inputs(model: Model, inputs: Any) -> Any:
    """The pixels as the backbone expects them, in float32.

    raw: 0 to 255; unit: [0, 1]; symmetric: [-1, 1]; imagenet: ImageNet's mean and standard
    deviation on [0, 1]; preprocess_input: the function of the model's own module.
    """
    if model.input_scaling == "preprocess_input":
        return PreprocessInput(model.name, dtype="float32", name="input_scaling")(inputs)
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    scale: Any
    scale, offset = {
        "raw": (1.0, 0.0),
        "unit": (1 / 255, 0.0),
        "symmetric": (1 / 127.5, -1.0),
        "imagenet": ((1 / (255 * std)).tolist(), (-mean / std).tolist()),
    }[model.input_scaling]
    return tf.keras.layers.Rescaling(scale, offset, dtype="float32", name="input_scaling")(inputs)


def with_keyed_dropout(backbone: Any) -> Any:
    """The same backbone with every Dropout as a KeyedDropout, and the same weights."""
    numbers = iter(range(1, 65_536))

    def keyed(layer: Any) -> Any:
        assert not hasattr(layer, "drop_path_rate"), f"{layer.name} draws without a key"
        if not isinstance(layer, tf.keras.layers.Dropout):
            return None
        return KeyedDropout(layer.rate, next(numbers), layer.noise_shape, name=layer.name,
                            dtype=layer.dtype_policy)

    return with_layers_replaced(backbone, keyed)


def portable(model: Any) -> Any:
    """The same model with Keras' own Dropout, to be loaded where there is no flowerexp."""
    def plain(layer: Any) -> Any:
        if not isinstance(layer, KeyedDropout):
            return None
        return tf.keras.layers.Dropout(layer.rate, layer.noise_shape, name=layer.name,
                                       dtype=layer.dtype_policy)

    return with_layers_replaced(model, plain)


def with_layers_replaced(model: Any, replacement: Callable[[Any], Any]) -> Any:
    """A copy of a functional model in which `replacement(layer)` stands where it is not None."""
    def clone(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return with_layers_replaced(layer, replacement)
        replaced = replacement(layer)
        return layer.__class__.from_config(layer.get_config()) if replaced is None else replaced

    copy = tf.keras.models.clone_model(model, clone_function=clone)
    copy.trainable = model.trainable
    copy.set_weights(model.get_weights())
    return copy


def small_cnn(image_size: int) -> Any:
    """Four blocks of convolution, BatchNorm, ReLU and pooling: 16, 32, 64 and 128 channels."""
    inputs = tf.keras.Input((image_size, image_size, 3))
    features = inputs
    for block, channels in enumerate((16, 32, 64, 128), start=1):
        features = tf.keras.layers.Conv2D(channels, 3, padding="same", use_bias=False,
                                          name=f"block{block}_conv")(features)
        # Epochs here are short: statistics of 0.99 would lag five of them behind.
        features = tf.keras.layers.BatchNormalization(momentum=0.9,
                                                      name=f"block{block}_norm")(features)
        features = tf.keras.layers.ReLU(name=f"block{block}_relu")(features)
        features = tf.keras.layers.MaxPooling2D(padding="same", name=f"block{block}_pool")(features)
    return tf.keras.Model(inputs, features, name="small_cnn")


def parameter_counts(model: Any) -> tuple[int, int]:
    """All parameters of a model, and those that are trained."""
    def total(variables: Any) -> int:
        return int(sum(np.prod(variable.shape) for variable in variables))

    return total(model.weights), total(model.trainable_weights)
