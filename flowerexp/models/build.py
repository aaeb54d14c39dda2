"""Backbone, dropout and head as one Keras model from pixels (0 to 255) to logits.

Written to the interface that Keras 3 and tf_keras share.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from flowerexp.config import Model, nearest
from flowerexp.errors import UserError, first_line
from flowerexp.models import layers


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
    backbone = layers.with_keyed_dropout(build_backbone(model, image_size))
    backbone.trainable = model.trainable
    inputs = tf.keras.Input((image_size, image_size, 3), name="image")
    scaled = layers.scale_inputs(model, inputs)
    # A frozen backbone runs in inference mode: BatchNorm keeps its statistics, dropout rests.
    features = backbone(scaled) if model.trainable else backbone(scaled, training=False)
    features = layers.KeyedDropout(model.dropout, number=0, name="head_dropout")(features)
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
