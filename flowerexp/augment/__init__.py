"""Augmentation of training images on the host, in the input pipeline.

`base` holds the protocols `Transform` and `MixingTransform` and the `Augment` that applies the
transforms of a run; `geometric` moves pixels (`Perspective`, `Flip`, `Rotation`), `color` changes
their values (`ColorJitter`), `erasing` blackens some (`GridMask`), `mixing` combines two images
(`CutMix`, `MixUp`), and `keras_layers` adapts preprocessing layers of Keras. To add a transform,
write one class here, or in a module of your own, and one file in `conf/augmentation` that names it.
Nothing here imports TensorFlow before it is used.
"""

from flowerexp.augment.base import Augment, MixingTransform, Transform, build, check_transforms
from flowerexp.augment.color import ColorJitter
from flowerexp.augment.erasing import GridMask
from flowerexp.augment.geometric import Flip, Perspective, Rotation
from flowerexp.augment.mixing import CutMix, MixUp

__all__ = ["Augment", "ColorJitter", "CutMix", "Flip", "GridMask", "MixUp", "MixingTransform",
           "Perspective", "Rotation", "Transform", "build", "check_transforms"]
