"""Transforms of a training batch on the host: seven of them, composed in the order of the config.

Every draw is keyed by (seed, epoch, position in the epoch); images are uint8 from end to end.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from flowerexp.augment import augmentation_options as options
from flowerexp.augment import draws
from flowerexp.augment.geometric import (
    corners_of,
    images_size,
    perspective_matrix,
    random_corners,
    resample,
    source_corners,
    warp,
)

__all__ = ["Augment", "build", "perspective_matrix", "random_corners", "warp"]

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augment:
    """The transforms of a run; a call applies them to one replica's share of one update."""

    transforms: Mapping[str, Any]
    """Name -> options, in the order in which they are applied."""
    seed: int
    micro_batch: int
    """Images of a micro-batch, within which pairs are mixed."""

    @property
    def sentence(self) -> str:
        """What is done, with its probability, for a run's opening."""
        return options.describe(self.transforms)

    def __call__(self, batch: Mapping[str, tf.Tensor], epoch: Any, positions: Any
                 ) -> dict[str, tf.Tensor]:
        """The batch, transformed on the host.

        Args:
            batch: `image` uint8 [n, height, width, 3] and `label` int32 [n]; n may be unknown.
            epoch: int64 scalar.
            positions: int64 [n], positions of the images in the epoch.

        Returns:
            The same keys; with a mixing transform also `second_label` int32 [n] and `share`
            float32 [n] in [0.5, 1], the weight of `label` in the loss, where `second_label` has
            the rest.

        Raises:
            UserError: for images that are too small for a transform.
        """
        batch = dict(batch)
        with tf.device("CPU:0"):
            for name, chosen in self.transforms.items():
                key = draws.keys(self.seed, draws.stream(name), epoch, positions)
                if name in MIXING:
                    mixed = MIXING[name](batch["image"], key, chosen, self.micro_batch)
                    batch |= labels_of(batch["label"], mixed) | {"image": mixed.images}
                else:
                    batch["image"] = SINGLE[name](batch["image"], key, chosen)
        return batch


def build(transforms: Mapping[str, Any], seed: int, micro_batch: int) -> Augment | None:
    """The augmentation of a run, or None without transforms.

    Args:
        transforms: name -> options of `augmentation_options`, in the order of application.
        seed: of the run.
        micro_batch: images of a micro-batch.

    Raises:
        UserError: for two transforms that mix labels.
    """
    options.check_together(transforms)
    return Augment(dict(transforms), seed, micro_batch) if transforms else None


def perspective(images: tf.Tensor, key: tf.Tensor, chosen: options.Perspective) -> tf.Tensor:
    """The images warped to corners drawn around their own: flowerexp/augment/geometric.py."""
    height, width = images_size(images)
    target = corners_of(key, height, width, chosen.probability, chosen.rotate, chosen.reflect)
    source = tf.broadcast_to(source_corners(height, width), tf.shape(target))
    return warp(images, perspective_matrix(source, target))


def flip(images: tf.Tensor, key: tf.Tensor, chosen: options.Flip) -> tf.Tensor:
    """Left and right, up and down exchanged, each with its probability.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 4.1, which has left/right only.
    """
    return compiled_flipped(images, draws.uniform(key, 2) < [chosen.horizontal, chosen.vertical])


def flipped(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """`chosen`: bool [n, 2], left/right and up/down."""
    for column, axis in ((0, 2), (1, 1)):
        here = chosen[:, column, None, None, None]
        images = tf.where(here, tf.reverse(images, [axis]), images)
    return images


compiled_flipped = tf.function(flipped, jit_compile=True, reduce_retracing=True)


def rotation(images: tf.Tensor, key: tf.Tensor, chosen: options.Rotation) -> tf.Tensor:
    """A rotation, a zoom and a shift about the image's centre, by the nearest pixel.

    Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks applied to
    visual document analysis", section 2; parameters as in Keras' RandomRotation.
    """
    signed = 2 * draws.uniform(key, 4) - 1
    inverses = affine_inverse(*images_size(images), signed[:, 0] * math.radians(chosen.angle),
                              1 + signed[:, 1] * chosen.zoom, signed[:, 2:] * chosen.shift)
    return resample(images, inverses, chosen.fill)


def affine_inverse(height: Any, width: Any, angle: tf.Tensor, zoom: tf.Tensor, shift: tf.Tensor
                   ) -> tf.Tensor:
    """The map from a target pixel's (y, x, 1) to the point of the source under its middle.

    Args:
        angle: float64 [n] in radians, counter-clockwise.
        zoom: float64 [n], magnification.
        shift: float64 [n, 2], down and right, shares of the edges.

    Returns:
        float64 [n, 3, 3].
    """
    edges = tf.cast(tf.stack([height, width]), tf.float64)
    cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    linear = tf.stack([tf.stack([cosine, sine], -1), tf.stack([-sine, cosine], -1)], 1)
    moved = 0.5 - edges / 2 - shift * edges
    offset = tf.linalg.matvec(linear, moved) + edges / 2
    rows = tf.concat([linear, offset[..., None]], -1)
    last = tf.zeros_like(rows[:, :1]) + tf.constant([0, 0, 1], tf.float64)
    return tf.concat([rows, last], 1)


def colour(images: tf.Tensor, key: tf.Tensor, chosen: options.Colour) -> tf.Tensor:
    """Brightness, contrast and saturation by uniform factors, in this order.

    Howard 2013, "Some improvements on deep convolutional neural network based image
    classification", section 2; blending and the default 0.4 as in fb.resnet.torch (2016).
    """
    spread = tf.constant([chosen.brightness, chosen.contrast, chosen.saturation], tf.float64)
    return compiled_recoloured(images, 1 + (2 * draws.uniform(key, 3) - 1) * spread)


def recoloured(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """The three blends in one linear map of a pixel, its grey and the image's mean grey.

    Rounded and clipped once, at the end. `factors`: float64 [n, 3].
    """
    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in tf.unstack(tf.cast(factors, tf.float32), axis=1))
    weights = tf.constant(GREY)
    pixels = tf.cast(images, tf.float32)
    grey = tf.reduce_sum(pixels * weights, -1, keepdims=True)
    # Whole sums are the same in any order of summation, and so in a batch of any size.
    sums = tf.reduce_sum(tf.cast(images, tf.int32), (1, 2), keepdims=True)
    area = tf.cast(tf.shape(images)[1] * tf.shape(images)[2], tf.float32)
    mean = tf.reduce_sum(tf.cast(sums, tf.float32) / area * weights, -1, keepdims=True)
    blended = brightness * (contrast * (saturation * pixels + (1 - saturation) * grey)
                            + (1 - contrast) * mean)
    return tf.cast(tf.clip_by_value(tf.round(blended), 0, 255), tf.uint8)


compiled_recoloured = tf.function(recoloured, jit_compile=True, reduce_retracing=True)


def gridmask(images: tf.Tensor, key: tf.Tensor, chosen: options.Gridmask) -> tf.Tensor:
    """Black squares in a grid of units of d pixels, of which `ratio` d stay on each edge.

    Chen, Liu, Zhao and Jia 2020, "GridMask data augmentation", section 3: d uniform between its
    bounds, the grid's offsets uniform in [0, d - 1].
    """
    edges = images_size(images)
    shorter = tf.cast(tf.minimum(*edges), tf.float64)
    least, most = (tf.cast(tf.maximum(tf.round(bound * shorter), 1), tf.int32)
                   for bound in (chosen.d_min, chosen.d_max))
    uniform = draws.uniform(key, 4)
    unit = draws.integers(uniform[:, 0], least, most + 1)
    kept = tf.cast(chosen.ratio * tf.cast(unit, tf.float64) + 0.5, tf.int32)
    # A unit that is kept as a whole has no square: so the unchosen images stay.
    kept = tf.where(uniform[:, 1] < chosen.probability, kept, unit)
    offsets = draws.integers(uniform[:, 2:], 0, unit[:, None])
    rows, columns = ((tf.range(edge) + offsets[:, axis, None]) % unit[:, None] >= kept[:, None]
                     for axis, edge in enumerate(edges))
    return compiled_masked(images, rows, columns)


def masked(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Black where bool [n, height] and bool [n, width] are both true."""
    black = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(black, tf.zeros([], images.dtype), images)


compiled_masked = tf.function(masked, jit_compile=True, reduce_retracing=True)


@dataclass(frozen=True)
class Mixed:
    """Images of which each holds `share`, float64 [n], of its own and the rest of a partner's."""

    images: tf.Tensor
    partner: tf.Tensor
    """int32 [n], rows of the batch; the image itself now and then, as in the papers."""
    share: tf.Tensor


def cutmix(images: tf.Tensor, key: tf.Tensor, chosen: options.Cutmix, micro_batch: int) -> Mixed:
    """A rectangle of another image pasted at the same place.

    Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable
    features", section 3.1: the rectangle's edges are sqrt(1 - lambda) of the image's, lambda from
    Beta(alpha, alpha), its middle uniform; cut at the image's edge, the share is that of the
    pixels. One rectangle a micro-batch, as in the authors' code.
    """
    own, common = common_draws(draws.uniform(key, 6), micro_batch)
    kept = tf.where(common[:, 3] < chosen.probability,
                    draws.symmetric_beta(chosen.alpha, common[:, 1:3]), 1)
    edges = tf.stack(images_size(images))
    lengths = tf.cast(edges, tf.float64)
    half = tf.cast(tf.sqrt(1 - kept)[:, None] * lengths, tf.int32) // 2
    middle = draws.integers(common[:, 4:], 0, edges)
    low, high = tf.maximum(middle - half, 0), tf.minimum(middle + half, edges)
    area = tf.reduce_prod(tf.cast(high - low, tf.float64), -1)
    partner = partners(own[:, 0], micro_batch)
    return Mixed(compiled_pasted(images, partner, low, high), partner,
                 1 - area / tf.reduce_prod(lengths))


def pasted(images: tf.Tensor, partner: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """The partner's pixels from `low` up to before `high`, both int32 [n, 2]."""
    rows, columns = ((tf.range(tf.shape(images)[axis + 1]) >= low[:, axis, None])
                     & (tf.range(tf.shape(images)[axis + 1]) < high[:, axis, None])
                     for axis in (0, 1))
    within = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(within, tf.gather(images, partner), images)


compiled_pasted = tf.function(pasted, jit_compile=True, reduce_retracing=True)


def mixup(images: tf.Tensor, key: tf.Tensor, chosen: options.Mixup, micro_batch: int) -> Mixed:
    """The mean of two images weighted by lambda from Beta(alpha, alpha), rounded to nearest.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", section 2; one lambda a
    micro-batch, as in the authors' code. The distribution is symmetric and so is a random pairing:
    an image may always have the larger of lambda and 1 - lambda.
    """
    own, common = common_draws(draws.uniform(key, 3), micro_batch)
    weight = draws.symmetric_beta(chosen.alpha, common[:, 1:])
    share = tf.maximum(weight, 1 - weight)
    partner = partners(own[:, 0], micro_batch)
    return Mixed(compiled_averaged(images, partner, share), partner, share)


def averaged(images: tf.Tensor, partner: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    weight = tf.cast(share, tf.float32)[:, None, None, None]
    own = tf.cast(images, tf.float32)
    other = tf.cast(tf.gather(images, partner), tf.float32)
    return tf.cast(tf.round(weight * own + (1 - weight) * other), tf.uint8)


compiled_averaged = tf.function(averaged, jit_compile=True, reduce_retracing=True)


def common_draws(uniform: tf.Tensor, micro_batch: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The draws of every image, and those of the first image of its micro-batch."""
    rows = tf.range(tf.shape(uniform)[0])
    return uniform, tf.gather(uniform, rows - rows % micro_batch)


def partners(uniform: tf.Tensor, micro_batch: int) -> tf.Tensor:
    """A random permutation within every micro-batch, int32 [n], of float64 [n] in [0, 1)."""
    micro_batches = tf.range(tf.shape(uniform)[0]) // micro_batch
    return tf.argsort(tf.cast(micro_batches, tf.float64) + uniform)


def labels_of(label: tf.Tensor, mixed: Mixed) -> dict[str, tf.Tensor]:
    """`label` of the larger share, `second_label` of the smaller, and the larger `share`."""
    theirs = tf.gather(label, mixed.partner)
    own = mixed.share >= 0.5
    return {"label": tf.where(own, label, theirs), "second_label": tf.where(own, theirs, label),
            "mix_weight": tf.cast(tf.maximum(mixed.share, 1 - mixed.share), tf.float32)}


SINGLE: Mapping[str, Callable[..., tf.Tensor]] = {
    "perspective": perspective, "flip": flip, "rotation": rotation, "colour": colour,
    "gridmask": gridmask}
MIXING: Mapping[str, Callable[..., Mixed]] = {"cutmix": cutmix, "mixup": mixup}
