"""Builds a Keras model from backbone, dropout and head: pixels (0 to 255) -> logits."""

import math
from typing import Any

import tensorflow as tf

from flowerexp import parts
from flowerexp.config import Model
from flowerexp.errors import UserError
from flowerexp.models import backbones, layers


def build(model: Model, image_size: int, num_classes: int, precision: str = "float32",
          seed: int = 0) -> Any:
    """A Keras model: images [n, size, size, 3], 0 to 255 -> float32 logits [n, classes].

    Dropout comes before the head, as in the method that this reproduces. Sets the global dtype
    policy of Keras, which keras.applications reads. Raises UserError for weights that are
    unavailable or do not fit, images that are too small, or a part that returns something else.
    """
    tf.keras.mixed_precision.set_global_policy(precision)
    tf.keras.utils.set_random_seed(seed)
    backbone = build_backbone(model.backbone, image_size)
    backbone.trainable = model.trainable
    inputs = tf.keras.Input((image_size, image_size, 3), name="image")
    scaled = layers.scale_inputs(model, inputs)
    # A frozen backbone runs in inference mode: BatchNorm keeps its statistics, dropout is off.
    features = backbone(scaled) if model.trainable else backbone(scaled, training=False)
    features = layers.KeyedDropout(model.dropout, number=0, name="head_dropout")(features)
    with parts.failures_named(model.head):
        logits = parts.built(model.head)(features, num_classes)
        network = tf.keras.Model(inputs, logits, name=backbones.name_of(model.backbone))
        check_head(model.head, features, logits, num_classes)
    return network


def build_backbone(part: Any, image_size: int) -> Any:
    """The backbone with keyed dropout; raises UserError for anything but a model of features."""
    backbones.check_weights_exist(part)
    with parts.failures_named(part):
        backbone = parts.built(part)(image_size)
        shape = getattr(backbone, "output_shape", None)
        if not isinstance(backbone, tf.keras.Model) or not (isinstance(shape, tuple)
                                                            and len(shape) == 4):
            raise UserError(f"{part} must return a functional Keras model of feature maps, "
                            f"[n, height, width, channels], not {type(backbone).__name__}"
                            + (f" with outputs {shape}" if shape else ""))
        return layers.with_keyed_dropout(backbone)


def check_head(head: Any, features: Any, logits: Any, num_classes: int) -> None:
    """Raises UserError for wrong logits, or a layer that draws without a key or cannot be saved."""
    if tuple(logits.shape) != (None, num_classes) or tf.as_dtype(logits.dtype) != tf.float32:
        raise UserError(f"{head} must return logits float32 [n, {num_classes}], not "
                        f"{tf.as_dtype(logits.dtype).name} {list(logits.shape)}")
    layers.with_layers_replaced(tf.keras.Model(features, logits), layers.check_repeats)


def parameter_counts(model: Any) -> tuple[int, int]:
    """The number of parameters of a model, and of trainable ones."""
    everything, trained = (sum(math.prod(variable.shape) for variable in variables)
                           for variables in (model.weights, model.trainable_weights))
    return everything, trained
