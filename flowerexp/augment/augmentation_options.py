"""The parameters of every transform: their meaning, default and range. No TensorFlow here.

`OPTIONS` is the list of transforms; `describe` is the sentence of those a run has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowerexp.config import finite, one_of, positive
from flowerexp.errors import UserError


@dataclass
class Perspective:
    """Corners drawn around the image's own, rotated and reflected; the image warped to them."""

    probability: float = 0.35
    """Chance that corners are drawn; the others keep the unmoved ones."""
    rotate: bool = True
    """Rotate the corners by 0 to 3 places, moved or not."""
    reflect: bool = True
    """Leave the corners, turn them up/down or left/right, moved or not."""

    def __post_init__(self) -> None:
        between("perspective.probability", self.probability, 0, 1)

    def sentence(self) -> str:
        then = " and ".join(word for word, chosen in (("rotated", self.rotate),
                                                      ("reflected", self.reflect)) if chosen)
        return (f"perspective with probability {self.probability:g}"
                + (f", {then} corners" if then else ""))


@dataclass
class Flip:
    """Mirror images (Krizhevsky et al. 2012)."""

    horizontal: float = 0.5
    """Chance of exchanging left and right."""
    vertical: float = 0.0
    """Chance of exchanging up and down."""

    def __post_init__(self) -> None:
        between("flip.horizontal", self.horizontal, 0, 1)
        between("flip.vertical", self.vertical, 0, 1)

    def sentence(self) -> str:
        return (f"flip left/right with probability {self.horizontal:g} and up/down with "
                f"{self.vertical:g}")


@dataclass
class Rotation:
    """Rotation, zoom and shift in one affine map (Simard et al. 2003), of every image."""

    angle: float = 15.0
    """Degrees; uniform in [-angle, angle]."""
    zoom: float = 0.1
    """Magnification by a factor uniform in [1 - zoom, 1 + zoom]."""
    shift: float = 0.1
    """Share of the edge, up/down and left/right; uniform in [-shift, shift]."""
    fill: str = "reflect"
    """constant (black) | nearest | reflect: what is seen beyond the image's edge."""

    def __post_init__(self) -> None:
        between("rotation.angle", self.angle, 0, 180)
        below_one("rotation.zoom", self.zoom)
        between("rotation.shift", self.shift, 0, 1)
        one_of("augmentation.rotation.fill", self.fill, ("constant", "nearest", "reflect"))

    def sentence(self) -> str:
        return (f"rotation up to {self.angle:g} degrees, zoom up to {self.zoom:g}, shift up to "
                f"{self.shift:g} of the edge")


@dataclass
class Colour:
    """Brightness, contrast and saturation (Howard 2013), of every image."""

    brightness: float = 0.4
    """Factor uniform in [1 - brightness, 1 + brightness]: 0 is black, 1 the image."""
    contrast: float = 0.4
    """Factor uniform in [1 - contrast, 1 + contrast]: 0 is the image's mean grey."""
    saturation: float = 0.4
    """Factor uniform in [1 - saturation, 1 + saturation]: 0 is the image in grey."""

    def __post_init__(self) -> None:
        between("colour.brightness", self.brightness, 0, 1)
        between("colour.contrast", self.contrast, 0, 1)
        between("colour.saturation", self.saturation, 0, 1)

    def sentence(self) -> str:
        return (f"colour: brightness up to {self.brightness:g}, contrast {self.contrast:g}, "
                f"saturation {self.saturation:g}")


@dataclass
class Cutmix:
    """A rectangle of another image of the micro-batch (Yun et al. 2019)."""

    alpha: float = 1.0
    """The share is drawn from Beta(alpha, alpha), once a micro-batch."""
    probability: float = 1.0
    """Chance of a micro-batch to be mixed: 1 on ImageNet in the paper, 0.5 on CIFAR."""

    def __post_init__(self) -> None:
        positive("augmentation.cutmix.alpha", self.alpha)
        between("cutmix.probability", self.probability, 0, 1)

    def sentence(self) -> str:
        return f"cutmix with alpha {self.alpha:g} and probability {self.probability:g}"


@dataclass
class Mixup:
    """The weighted mean with another image of the micro-batch (Zhang et al. 2018)."""

    alpha: float = 0.2
    """The weight is drawn from Beta(alpha, alpha), once a micro-batch."""

    def __post_init__(self) -> None:
        positive("augmentation.mixup.alpha", self.alpha)

    def sentence(self) -> str:
        return f"mixup with alpha {self.alpha:g} and probability 1"


@dataclass
class Gridmask:
    """A grid of black squares (Chen et al. 2020)."""

    probability: float = 0.8
    """Chance that an image is masked; constant, where the paper lets it rise to this."""
    d_min: float = 96 / 224
    """Least edge of a unit of the grid, as a share of the image's shorter edge."""
    d_max: float = 1.0
    """Greatest edge of a unit; the paper's 96 to 224 pixels of 224 are 0.43 to 1."""
    ratio: float = 0.6
    """Share of a unit's edge that stays: (1 - ratio)^2 of the image is black."""

    def __post_init__(self) -> None:
        between("gridmask.probability", self.probability, 0, 1)
        positive("augmentation.gridmask.d_min", self.d_min)
        finite("augmentation.gridmask.d_max", self.d_max)
        if self.d_max < self.d_min:
            raise UserError(f"augmentation.gridmask.d_max must be at least d_min, {self.d_min:g}, "
                            f"not {self.d_max:g}")
        between("gridmask.ratio", self.ratio, 0, 1)

    def sentence(self) -> str:
        return (f"gridmask with probability {self.probability:g}, units of {self.d_min:.2g} to "
                f"{self.d_max:.2g} of the edge, ratio {self.ratio:g}")


OPTIONS: dict[str, type] = {"perspective": Perspective, "flip": Flip, "rotation": Rotation,
                            "colour": Colour, "cutmix": Cutmix, "mixup": Mixup,
                            "gridmask": Gridmask}
"""Every transform by its name in the config."""

MIXING = ("cutmix", "mixup")
"""Transforms that give an image a second label."""


def check_together(options: Mapping[str, Any]) -> None:
    """Raises UserError for more than one mixing transform: an image has two labels at most."""
    if all(name in options for name in MIXING):
        raise UserError("augmentation.cutmix and augmentation.mixup give an image a second label "
                        "each, and it can have one only: leave out one of the two")


def describe(options: Mapping[str, Any]) -> str:
    """One sentence for a run's opening, in the order of the transforms."""
    return "augmentation: " + ("; then ".join(each.sentence() for each in options.values())
                               or "none")


def between(key: str, value: float, least: float, most: float) -> None:
    # Written so that NaN, which compares with nothing, is refused too.
    if not least <= value <= most:
        raise UserError(f"augmentation.{key} must be from {least} to {most}, not {value}")


def below_one(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(f"augmentation.{key} must be at least 0 and under 1, not {value}")
