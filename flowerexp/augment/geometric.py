"""Transforms that move pixels. Points are (y, x) in pixels without a half-pixel shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flowerexp import rng
from flowerexp.augment.base import compiled, image_size
from flowerexp.config import Checked, key
from flowerexp.errors import UserError
from flowerexp.lazy import tf

MIN_SIZE = 4
"""Pixels of the shorter edge: corners move by quarters of it."""
REFLECTIONS = ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2))
"""None, up/down and left/right, as orders of the four corners."""
TRIPLES = ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))


@dataclass(frozen=True)
class Perspective(Checked):
    """Warps an image to corners drawn around its own, then rotated and reflected."""

    probability: float = key(0.35, least=0, most=1)
    """Probability that corners are drawn; the other images keep their own."""
    rotate: bool = True
    """Whether the corners, moved or not, are rotated by 0 to 3 places."""
    reflect: bool = True
    """Whether the corners, moved or not, are kept, flipped up/down or flipped left/right."""

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        size = image_size(images)
        target = random_corners(keys, *size, self.probability, rotate=self.rotate,
                                reflect=self.reflect)
        return warp(images, perspective_matrix(source_corners(*size)[None], target))


@dataclass(frozen=True)
class Flip(Checked):
    """Mirrors images, left/right and up/down, each with its probability.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 4.1, which has left/right only.
    """

    horizontal: float = key(0.5, least=0, most=1)
    vertical: float = key(0.0, least=0, most=1)

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        chosen = rng.uniform(keys, 2) < [self.horizontal, self.vertical]
        return compiled(flip)(images, chosen)


@dataclass(frozen=True)
class Rotation(Checked):
    """A rotation, a zoom and a shift about the center of every image, by the nearest pixel.

    Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks applied to
    visual document analysis", section 2; parameters as in Keras' RandomRotation.
    """

    angle: float = key(15.0, least=0, most=180)
    """Largest angle in degrees; uniform in [-angle, angle]."""
    zoom: float = key(0.1, least=0, below=1)
    """Magnification by a factor uniform in [1 - zoom, 1 + zoom]."""
    shift: float = key(0.1, least=0, most=1)
    """Shift as a share of the edge, up/down and left/right: uniform in [-shift, shift]."""
    fill: str = key("reflect", "constant", "nearest", "reflect")
    """Pixels beyond the image's edge; constant is black."""

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        signed = 2 * rng.uniform(keys, 4) - 1
        inverses = affine_inverse(*image_size(images), signed[:, 0] * math.radians(self.angle),
                                  1 + signed[:, 1] * self.zoom, signed[:, 2:] * self.shift)
        return resample(images, inverses, self.fill)


def flip(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """The images flipped where `chosen`, bool [n, 2] of left/right and up/down, is true."""
    for column, axis in ((0, 2), (1, 1)):
        here = chosen[:, column, None, None, None]
        images = tf.where(here, tf.reverse(images, [axis]), images)
    return images


def affine_inverse(height: Any, width: Any, angle: tf.Tensor, zoom: tf.Tensor, shift: tf.Tensor
                   ) -> tf.Tensor:
    """The map, float64 [n, 3, 3], from a target pixel's (y, x, 1) to the point of the source under
    its center. The angle, float64 [n], is in radians, counter-clockwise; the zoom, float64 [n],
    magnifies; the shift, float64 [n, 2], is down and right, in shares of the edges.
    """
    edges = tf.cast(tf.stack([height, width]), tf.float64)
    cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    linear = tf.stack([tf.stack([cosine, sine], -1), tf.stack([-sine, cosine], -1)], 1)
    moved = 0.5 - edges / 2 - shift * edges
    offset = tf.linalg.matvec(linear, moved) + edges / 2
    rows = tf.concat([linear, offset[..., None]], -1)
    last = tf.zeros_like(rows[:, :1]) + tf.constant([0, 0, 1], tf.float64)
    return tf.concat([rows, last], 1)


def source_corners(height: Any, width: Any) -> tf.Tensor:
    """The corners of an image, int32 [4, 2] in (y, x): clockwise from (0, 0)."""
    return tf.convert_to_tensor([[0, 0], [0, width], [height, width], [height, 0]], tf.int32)


def random_corners(keys: tf.Tensor, height: Any, width: Any, probability: float, *,
                   rotate: bool = True, reflect: bool = True) -> tf.Tensor:
    """Four target corners, int32 [n, 4, 2], for every image with keys uint64 [n]; raises UserError
    for an edge of less than 4 pixels.

    With `probability` each corner is drawn up to a quarter of the edge around the image's own:
    integers in [-s, s) or [3 s, 5 s), where s is the edge // 4; otherwise the corners are unmoved.
    Then, moved or not, they are rotated by 0 to 3 places and reordered by one of three
    reflections, all equally likely; switching one off changes no other draw.
    """
    check_size(height, width)
    uniform = rng.uniform(keys, 11)
    corners = source_corners(height, width)
    quarter = tf.stack([height // 4, width // 4])
    low = tf.where(corners > 0, 3 * quarter, -quarter)
    high = tf.where(corners > 0, 5 * quarter, quarter)
    moved = rng.integers(tf.reshape(uniform[:, :8], [-1, 4, 2]), low, high)
    points = tf.where(uniform[:, 8, None, None] < probability, moved, corners)

    places = tf.cast(uniform[:, 9] * (4 if rotate else 1), tf.int32)
    reflection = tf.cast(uniform[:, 10] * (3 if reflect else 1), tf.int32)
    order = (tf.gather(tf.constant(REFLECTIONS), reflection) + places[:, None]) % 4
    return tf.gather(points, order, batch_dims=1)


def perspective_matrix(source: Any, target: Any) -> tf.Tensor:
    """The projective maps, float64 [n, 3, 3], of four points to four others, each [n or 1, 4, 2].

    With points as homogeneous columns (y, x, 1), [p1 p2 p3] s = p4 is solved and the columns are
    scaled by s; the map is M(target) M(source)^-1. The operations and their order are those of the
    reference: another order moves coordinates that should be whole numbers across a pixel's edge.
    The identity if three of the source or of the target points are on a line, because the map then
    has no inverse.
    """
    with tf.device("CPU:0"):
        sides = (tf.cast(source, tf.float64), tf.cast(target, tf.float64))
        columns = [tf.linalg.matrix_transpose(tf.concat([side, tf.ones_like(side[..., :1])], -1))
                   for side in sides]
        regular = [tf.reduce_all(has_inverse(tf.stack(
            [tf.gather(side, triple, axis=-1) for triple in TRIPLES], 1)), -1) for side in columns]
        basis = [scaled_columns(side) for side in columns]
        matrices = basis[1] @ inverse(basis[0])
        return tf.where((regular[0] & regular[1])[:, None, None], matrices, identity())


def scaled_columns(columns: tf.Tensor) -> tf.Tensor:
    """[p1 p2 p3] scaled so that they sum to p4: float64 [n, 3, 4] -> [n, 3, 3]."""
    three = columns[..., :3]
    return three * tf.linalg.matrix_transpose(inverse(three) @ columns[..., 3:])


def warp(images: Any, matrices: Any) -> tf.Tensor:
    """Each target pixel (y, x) takes the source pixel at the inverse map of (y, x).

    The mapped point is divided by its third coordinate and truncated toward zero; what is outside,
    or not finite, is 0. A matrix without an inverse leaves its image unchanged. Raises UserError
    for an edge of less than 4 pixels.

    Args:
        images: [n, height, width, channels] of any number type; n may be unknown or 0.
        matrices: [n, 3, 3], (y, x, 1) of the source to that of the target, up to a common scale.
    """
    images = tf.convert_to_tensor(images)
    check_size(*image_size(images))
    return resample(images, inverse(tf.cast(matrices, tf.float64)), "black")


def resample(images: tf.Tensor, inverses: tf.Tensor, fill: str) -> tf.Tensor:
    """The pixels of `images` at the maps `inverses`, float64 [n, 3, 3], of every target pixel.

    XLA may fuse a product and a sum, which rounds once while the method rounds twice. So the
    products are made here, one for each row and each column, and only sums are left to XLA.
    """
    with tf.device("CPU:0"):
        height, width = image_size(images)
        by_row = inverses[:, :, 0:1] * tf.range(height, dtype=tf.float64)
        by_column = inverses[:, :, 1:2] * tf.range(width, dtype=tf.float64)
        resampled = compiled(pixels_at)(images, by_row, by_column, inverses[:, :, 2], fill)
        return tf.ensure_shape(resampled, images.shape)


def pixels_at(images: tf.Tensor, by_row: tf.Tensor, by_column: tf.Tensor, constant: tf.Tensor,
              fill: str) -> tf.Tensor:
    """The pixels at (by_row + by_column) + constant, projected, as one flat gather.

    Args:
        images: [n, height, width, channels].
        by_row, by_column, constant: float64 [n, 3, height], [n, 3, width] and [n, 3].
        fill: `black` truncates toward zero, so that (-1, 0) is row or column 0, and leaves 0
            outside; `constant` leaves 0 outside and counts (-1, 0) as outside; `nearest` repeats
            the pixels of the edge, `reflect` mirrors the image.
    """
    shape = tf.shape(images)
    height, width = tf.cast(shape[1], tf.float64), tf.cast(shape[2], tf.float64)
    point = by_row[:, :, :, None] + by_column[:, :, None, :] + constant[:, :, None, None]
    y, x = point[:, 0] / point[:, 2], point[:, 1] / point[:, 2]
    if fill in ("nearest", "reflect"):
        y, x = (bounded(coordinate, edge, fill) for coordinate, edge in ((y, height), (x, width)))
    # Comparing before the cast leaves NaN, infinity and what exceeds int32 outside.
    inside = (y < height) & (x < width) & ((y > -1) & (x > -1) if fill == "black"
                                           else (y >= 0) & (x >= 0))
    index = tf.cast(y, tf.int32) * shape[2] + tf.cast(x, tf.int32)
    index += (tf.range(shape[0]) * (shape[1] * shape[2]))[:, None, None]
    pixels = tf.gather(tf.reshape(images, [-1, shape[3]]), tf.where(inside, index, 0))
    return tf.where(inside[..., None], pixels, tf.zeros([], images.dtype))


def bounded(coordinate: tf.Tensor, edge: tf.Tensor, fill: str) -> tf.Tensor:
    """A float64 coordinate brought into [0, edge - 1/2] by `nearest` or `reflect`."""
    if fill == "reflect":
        coordinate -= 2 * edge * tf.floor(coordinate / (2 * edge))  # floormod takes twice as long
        coordinate = tf.minimum(coordinate, 2 * edge - coordinate)
    return tf.clip_by_value(coordinate, tf.zeros([], tf.float64), edge - 0.5)


def has_inverse(matrices: tf.Tensor) -> tf.Tensor:
    """Whether a determinant exceeds the rounding error: float64 [..., 3, 3] -> bool [...].

    Its measure is the permanent of the absolute values, so that rows and columns may differ in
    scale, as those of a perspective do.
    """
    first, second, third = tf.unstack(tf.abs(matrices), axis=-2)
    permanent = sum(
        (first[..., a] * (second[..., b] * third[..., c] + second[..., c] * third[..., b])
         for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1))), tf.zeros([], tf.float64))
    finite = tf.reduce_all(tf.math.is_finite(matrices), (-2, -1))
    determinant = tf.linalg.det(tf.where(finite[..., None, None], matrices, identity()))
    return finite & (tf.abs(determinant) > 1e-15 * permanent)


def inverse(matrices: tf.Tensor) -> tf.Tensor:
    """The inverses of float64 [n, 3, 3]; the identity if there is none."""
    with tf.device("CPU:0"):
        regular = has_inverse(matrices)[..., None, None]
        return tf.linalg.inv(tf.where(regular, matrices, identity()))


def identity() -> tf.Tensor:
    return tf.eye(3, dtype=tf.float64)


def check_size(height: Any, width: Any) -> None:
    """Raises UserError for a small image, or InvalidArgumentError if its size is known late."""
    sentence = (f"the perspective transform needs images of {MIN_SIZE} x {MIN_SIZE} pixels or "
                "more: choose a larger dataset.image_size or leave out augmentation=perspective")
    for edge in (height, width):
        known = tf.get_static_value(edge)
        if known is None:
            tf.debugging.assert_greater_equal(edge, MIN_SIZE, sentence)
        elif known < MIN_SIZE:
            raise UserError(f"{sentence} (an edge has {known})")
