"""Augmentation of training images on the host, in the input pipeline.

`base` holds the protocols and applies the transforms of a run, each a class in `geometric`,
`color`, `erasing` or `mixing`, or a layer of Keras. No TensorFlow before it is used.
"""

from flowerexp.augment.base import Augment, MixingTransform, Transform, build, check_transforms
from flowerexp.augment.color import ColorJitter
from flowerexp.augment.erasing import GridMask
from flowerexp.augment.geometric import Flip, Perspective, Rotation
from flowerexp.augment.mixing import CutMix, MixUp

__all__ = ["Augment", "ColorJitter", "CutMix", "Flip", "GridMask", "MixUp", "MixingTransform",
           "Perspective", "Rotation", "Transform", "build", "check_transforms"]
