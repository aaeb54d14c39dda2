"""Backbones: the part of a model that maps images to feature maps.

A custom backbone implements the protocol `Backbone`. Weights are random, a file, or named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from flowerexp import parts
from flowerexp.config import Model, check_range
from flowerexp.errors import UserError, first_line
from flowerexp.hints import nearest
from flowerexp.lazy import tf

NAMED_WEIGHTS = (None, "imagenet", "noisy-student")


class Backbone(Protocol):
    """A backbone, constructed with its config keys.

    Its Keras Dropout layers are replaced by `KeyedDropout`, whose masks are reproducible.
    """

    def __call__(self, image_size: int) -> Any:
        """A functional Keras model: images float32 [n, image_size, image_size, 3], scaled by
        `model.input_scaling` -> features float32 [n, height, width, channels].
        """


@dataclass(frozen=True)
class SmallCNN:
    """Four blocks of convolution, BatchNorm, ReLU and pooling: 16, 32, 64 and 128 channels."""

    name: str = "small_cnn"
    """Name of the Keras model."""
    weights: str | None = None
    """Path of a weight file; null: random initialization."""

    def __post_init__(self) -> None:
        if self.weights in ("imagenet", "noisy-student"):
            raise UserError(f"weights={self.weights} does not exist for {self.name}: choose null "
                            "or a path, or a backbone such as EfficientNet")

    def __call__(self, image_size: int) -> Any:
        inputs = tf.keras.Input((image_size, image_size, 3))
        features = inputs
        for block, channels in enumerate((16, 32, 64, 128), start=1):
            features = tf.keras.layers.Conv2D(channels, 3, padding="same", use_bias=False,
                                              name=f"block{block}_conv")(features)
            # With momentum 0.99 the statistics would lag five of the short epochs behind.
            features = tf.keras.layers.BatchNormalization(momentum=0.9,
                                                          name=f"block{block}_norm")(features)
            features = tf.keras.layers.ReLU(name=f"block{block}_relu")(features)
            features = tf.keras.layers.MaxPooling2D(padding="same",
                                                    name=f"block{block}_pool")(features)
        backbone = tf.keras.Model(inputs, features, name="small_cnn")
        if self.weights:
            load_weights(backbone, self.weights, self.name)
        return backbone


@dataclass(frozen=True)
class KerasApplication:
    """A model from keras.applications, without its top."""

    name: str
    """Name of the model, for example ResNet50V2."""
    weights: str | None = None
    """imagenet, the path of a weight file, or null (random initialization)."""
    alpha: float | None = None
    """Width multiplier of MobileNet."""

    def __post_init__(self) -> None:
        if self.alpha is not None and not self.name.startswith("MobileNet"):
            raise UserError(f"alpha is not supported by {self.name}: leave it out or choose "
                            "model=mobilenet")
        check_range("alpha", self.alpha, above=0)
        if self.weights == "noisy-student":
            raise UserError("weights=noisy-student exists for EfficientNet only, not for "
                            f"{self.name}: choose imagenet, null or a path")

    def __call__(self, image_size: int) -> Any:
        factory = find_factory(tf.keras.applications, "keras", self.name)
        return build(factory, self, image_size, {} if self.alpha is None else
                     {"alpha": self.alpha})


@dataclass(frozen=True)
class EfficientNet:
    """A model from the package efficientnet (Tan and Le 2019), without its top."""

    name: str
    """Name of the model, EfficientNetB0 to EfficientNetB7."""
    weights: str | None = None
    """imagenet, noisy-student (Xie et al. 2020), the path of a weight file, or null."""

    def __call__(self, image_size: int) -> Any:
        import efficientnet.tfkeras as library

        return build(find_factory(library, "efficientnet", self.name), self, image_size, {})


def check_scaling(model: Model) -> None:
    """Raises UserError for a scaling that the backbone's library does not have."""
    if model.input_scaling == "preprocess_input" and not isinstance(model.backbone,
                                                                    KerasApplication):
        raise UserError("model.input_scaling=preprocess_input is supported by models of "
                        "keras.applications only: choose raw, unit, symmetric or imagenet")


def find_factory(library: Any, source: str, name: str) -> Callable[..., Any]:
    """The function that builds a backbone, by name; raises UserError if the name is unknown."""
    names = [each for each in dir(library) if each[0].isupper()
             and callable(getattr(library, each)) and not inspect.isclass(getattr(library, each))]
    if name not in names:
        raise UserError(f"model.name={name} is not a model of {source}: choose one of "
                        f"{', '.join(names)}{nearest(name, names)}")
    factory: Callable[..., Any] = getattr(library, name)
    return factory


def build(factory: Callable[..., Any], backbone: Any, image_size: int, options: dict[str, Any]
          ) -> Any:
    """The backbone from a library's factory; raises UserError if it cannot be built."""
    arguments = {"include_top": False, "weights": backbone.weights,
                 "input_shape": (image_size, image_size, 3), **options}
    if "classifier_activation" in inspect.signature(factory).parameters:
        arguments["classifier_activation"] = None
    try:
        return factory(**arguments)
    except Exception as error:  # backbones raise different types
        raise backbone_error(backbone, image_size, error) from error


def backbone_error(backbone: Any, image_size: int, error: Exception) -> UserError:
    """The UserError for an exception from a backbone's factory."""
    first, weights = first_line(error), backbone.weights
    if "URL fetch failure" in str(error) or (weights in NAMED_WEIGHTS
                                             and isinstance(error, OSError)):
        return UserError(
            f"the {weights} weights of {backbone.name} cannot be downloaded ({first}): copy the "
            "file without its top (`no_top`, `notop`) to this machine and give "
            "model.weights=PATH, or model.weights=null for random ones")
    if weights not in NAMED_WEIGHTS:
        alpha = getattr(backbone, "alpha", None)
        return UserError(f"model.weights={weights} does not fit {backbone.name} without its "
                         f"top{f' at alpha {alpha}' if alpha else ''}: {first}")
    return UserError(f"{backbone.name} cannot be built at dataset.image_size={image_size} with "
                     f"model.weights={weights}: {first}")


def load_weights(backbone: Any, path: str, name: str) -> None:
    """Loads a weight file into a built backbone; raises UserError if it does not fit."""
    try:
        backbone.load_weights(path)
    except Exception as error:  # h5py, Keras and the file system raise different types
        raise UserError(f"model.weights={path} does not fit {name}: {first_line(error)}") from error


def name_of(backbone: Any) -> str:
    """The name of the Keras model."""
    return str(parts.plain(backbone).get("name") or parts.name(backbone))


def weights_of(backbone: Any) -> str | None:
    """The weights that a backbone's config names, or None."""
    weights: str | None = parts.plain(backbone).get("weights")
    return weights


def check_weights_exist(backbone: Any) -> None:
    """Raises UserError if the weight file does not exist."""
    weights = weights_of(backbone)
    if weights not in NAMED_WEIGHTS and not tf.io.gfile.exists(weights):
        raise UserError(f"model.weights={weights} does not exist: give imagenet, null or the path "
                        "of a weight file")
