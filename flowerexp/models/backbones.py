"""Backbones: the part of a model that maps images to feature maps.

Weights are random, a file, or named.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from flowerexp import parts
from flowerexp.config import Checked, Model, key
from flowerexp.errors import UserError, first_line
from flowerexp.hints import nearest
from flowerexp.lazy import tf

NAMED_WEIGHTS = (None, "imagenet", "noisy-student")


class Backbone(Protocol):
    """A backbone, constructed with its config keys."""

    def __call__(self, image_size: int) -> Any:
        """A functional Keras model: images float32 [n, image_size, image_size, 3], scaled by
        `model.input_scaling` -> features float32 [n, height, width, channels].

        Its Keras Dropout layers are replaced by `KeyedDropout`, whose masks are reproducible.
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
        layers, features = tf.keras.layers, inputs
        for block, channels in enumerate((16, 32, 64, 128), start=1):
            features = layers.Conv2D(channels, 3, padding="same", use_bias=False,
                                     name=f"block{block}_conv")(features)
            # With momentum 0.99 the statistics would lag five of the short epochs behind.
            features = layers.BatchNormalization(momentum=0.9, name=f"block{block}_norm")(features)
            features = layers.ReLU(name=f"block{block}_relu")(features)
            features = layers.MaxPooling2D(padding="same", name=f"block{block}_pool")(features)
        backbone = tf.keras.Model(inputs, features, name="small_cnn")
        if self.weights:
            with failures_explained(self, image_size):
                backbone.load_weights(self.weights)
        return backbone


@dataclass(frozen=True)
class KerasApplication(Checked):
    """A model from keras.applications, without its top."""

    name: str
    """Name of the model, for example ResNet50V2."""
    weights: str | None = None
    """imagenet, the path of a weight file, or null (random initialization)."""
    alpha: float | None = key(None, above=0)
    """Width multiplier of MobileNet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not self.name.startswith("MobileNet"):
            raise UserError(f"alpha is not supported by {self.name}: leave it out or choose "
                            "model=mobilenet")
        if self.weights == "noisy-student":
            raise UserError("weights=noisy-student exists for EfficientNet only, not for "
                            f"{self.name}: choose imagenet, null or a path")

    def __call__(self, image_size: int) -> Any:
        options = {} if self.alpha is None else {"alpha": self.alpha}
        return from_library(tf.keras.applications, "keras", self, image_size, **options)


@dataclass(frozen=True)
class EfficientNet:
    """A model from the package efficientnet (Tan and Le 2019), without its top."""

    name: str
    """Name of the model, EfficientNetB0 to EfficientNetB7."""
    weights: str | None = None
    """imagenet, noisy-student (Xie et al. 2020), the path of a weight file, or null."""

    def __call__(self, image_size: int) -> Any:
        import efficientnet.tfkeras as library

        return from_library(library, "efficientnet", self, image_size)


def from_library(library: Any, source: str, backbone: Any, image_size: int, **options: Any) -> Any:
    """A library's model of the backbone's name; raises UserError if it cannot be built."""
    names = [each for each in dir(library) if each[0].isupper()
             and callable(getattr(library, each)) and not inspect.isclass(getattr(library, each))]
    if backbone.name not in names:
        raise UserError(f"model.name={backbone.name} is not a model of {source}: choose one of "
                        f"{', '.join(names)}{nearest(backbone.name, names)}")
    with failures_explained(backbone, image_size):
        return getattr(library, backbone.name)(
            include_top=False, weights=backbone.weights,
            input_shape=(image_size, image_size, 3), **options)


@contextlib.contextmanager
def failures_explained(backbone: Any, image_size: int) -> Iterator[None]:
    """Converts any exception of a library that builds a backbone into a UserError."""
    name, weights = backbone.name, backbone.weights
    try:
        yield
    except Exception as error:  # h5py, Keras and the file system raise different types
        first = first_line(error)
        if "URL fetch failure" in str(error) or (weights in NAMED_WEIGHTS
                                                 and isinstance(error, OSError)):
            raise UserError(
                f"the {weights} weights of {name} cannot be downloaded ({first}): copy the file "
                "without its top (`no_top`, `notop`) to this machine and give "
                "model.weights=PATH, or model.weights=null for random ones") from error
        if weights not in NAMED_WEIGHTS:
            alpha = getattr(backbone, "alpha", None)
            raise UserError(f"model.weights={weights} does not fit {name} without its top"
                            f"{f' at alpha {alpha}' if alpha else ''}: {first}") from error
        raise UserError(f"{name} cannot be built at dataset.image_size={image_size} with "
                        f"model.weights={weights}: {first}") from error


def check_scaling(model: Model) -> None:
    """Raises UserError for a scaling that the backbone's library does not have."""
    if model.input_scaling == "preprocess_input" and not isinstance(model.backbone,
                                                                    KerasApplication):
        raise UserError("model.input_scaling=preprocess_input is supported by models of "
                        "keras.applications only: choose raw, unit, symmetric or imagenet")


def name_of(backbone: Any) -> str:
    """The name of the Keras model."""
    return str(parts.plain(backbone).get("name") or parts.name(backbone))


def check_weights_exist(backbone: Any) -> None:
    """Raises UserError if a built-in backbone's weight file does not exist."""
    weights = getattr(backbone, "weights", None)  # a part of the user's keeps its own
    if weights not in NAMED_WEIGHTS and not tf.io.gfile.exists(weights):
        raise UserError(f"model.weights={weights} does not exist: give imagenet, null or the path "
                        "of a weight file")
