"""The perspective transform: corners drawn around an image's own, and the image warped to them.

Points are (y, x) in pixels without a half-pixel shift; every pixel is reproducible bit for bit.
"""

from typing import Any

import tensorflow as tf

from flowerexp.augment import draws
from flowerexp.errors import UserError

LEAST_SIZE = 4
"""Pixels of the shorter edge: corners move by quarters of it."""
REFLECTIONS = ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2))
"""None, up/down and left/right, as orders of the four corners."""
TRIPLES = ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))


def source_corners(height: Any, width: Any) -> tf.Tensor:
    """The corners of an image, int32 [4, 2] in (y, x): clockwise from (0, 0)."""
    return tf.convert_to_tensor([[0, 0], [0, width], [height, width], [height, 0]], tf.int32)


def random_corners(height: Any, width: Any, seed: int, epoch: Any, positions: Any,
                   probability: float, *, rotate: bool = True, reflect: bool = True) -> tf.Tensor:
    """Four target corners for every image, keyed by (seed, epoch, position).

    With chance `probability` each corner lies up to a quarter of the edge around the image's own:
    integers in [-s, s) or [3 s, 5 s), where s is the edge // 4; otherwise the corners are unmoved.
    Then, moved or not, they are rotated by 0 to 3 places and reordered by one of three
    reflections, all equally likely.

    Args:
        height, width: of the images in pixels, int or int32 scalar.
        seed: of the run.
        epoch: int or int64 scalar.
        positions: int64 [n], positions of the images in the epoch.
        probability: from 0 to 1.
        rotate, reflect: False switches one off, and changes no other draw.

    Returns:
        int32 [n, 4, 2] in (y, x).

    Raises:
        UserError: for an edge of less than 4 pixels.
    """
    with tf.device("CPU:0"):
        key = draws.keys(seed, draws.stream("perspective"), epoch, positions)
        return corners_of(key, height, width, probability, rotate, reflect)


def corners_of(key: tf.Tensor, height: Any, width: Any, probability: float, rotate: bool,
               reflect: bool) -> tf.Tensor:
    """`random_corners` of a key for every image, uint64 [n]."""
    check_size(height, width)
    uniform = draws.uniform(key, 11)
    corners = source_corners(height, width)
    quarter = tf.stack([height // 4, width // 4])
    low = tf.where(corners > 0, 3 * quarter, -quarter)
    high = tf.where(corners > 0, 5 * quarter, quarter)
    moved = draws.integers(tf.reshape(uniform[:, :8], [-1, 4, 2]), low, high)
    points = tf.where(uniform[:, 8, None, None] < probability, moved, corners)

    places = tf.cast(uniform[:, 9] * (4 if rotate else 1), tf.int32)
    reflection = tf.cast(uniform[:, 10] * (3 if reflect else 1), tf.int32)
    order = (tf.gather(tf.constant(REFLECTIONS), reflection) + places[:, None]) % 4
    return tf.gather(points, order, batch_dims=1)


def perspective_matrix(source: Any, target: Any) -> tf.Tensor:
    """The projective map of four points to four others.

    With points as homogeneous columns (y, x, 1), [p1 p2 p3] s = p4 is solved and the columns are
    scaled by s; the map is M(target) M(source)^-1. The operations and their order are those of the
    reference: another order moves coordinates that should be whole numbers across a pixel's edge.

    Args:
        source, target: [n, 4, 2] in (y, x), any number type.

    Returns:
        float64 [n, 3, 3]; the identity where three of the source or of the target points lie on a
        line, for then the map has no inverse.
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

    The mapped point is divided by its third coordinate and truncated toward zero; what falls
    outside, or is not finite, is 0. A matrix without an inverse leaves its image as it was.

    Args:
        images: [n, height, width, channels] of any number type; n may be unknown or 0.
        matrices: [n, 3, 3], (y, x, 1) of the source to that of the target, up to a common scale.

    Returns:
        As `images`.

    Raises:
        UserError: for an edge of less than 4 pixels.
    """
    images = tf.convert_to_tensor(images)
    check_size(*images_size(images))
    return resample(images, inverse(tf.cast(matrices, tf.float64)), "black")


def resample(images: tf.Tensor, inverses: tf.Tensor, fill: str) -> tf.Tensor:
    """The pixels of `images` at the maps `inverses` of every target pixel (y, x).

    XLA may fuse a product and a sum, which rounds once where the method rounds twice. So the
    products are made here, one for each row and each column, and only sums are left to XLA.

    Args:
        images: [n, height, width, channels].
        inverses: float64 [n, 3, 3], target to source.
        fill: see `pixels_at`.
    """
    with tf.device("CPU:0"):
        height, width = images_size(images)
        by_row = inverses[:, :, 0:1] * tf.range(height, dtype=tf.float64)
        by_column = inverses[:, :, 1:2] * tf.range(width, dtype=tf.float64)
        resampled = compiled_pixels_at(images, by_row, by_column, inverses[:, :, 2], fill)
        return tf.ensure_shape(resampled, images.shape)


def pixels_at(images: tf.Tensor, by_row: tf.Tensor, by_column: tf.Tensor, constant: tf.Tensor,
              fill: str) -> tf.Tensor:
    """The pixels at (by_row + by_column) + constant, projected, as one flat gather.

    Args:
        images: [n, height, width, channels].
        by_row: float64 [n, 3, height].
        by_column: float64 [n, 3, width].
        constant: float64 [n, 3].
        fill: `black` truncates toward zero, so that (-1, 0) is row or column 0, and leaves 0
            outside; `constant` leaves 0 outside and counts (-1, 0) so; `nearest` goes on with the
            nearest pixel, `reflect` with the mirrored image.
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


compiled_pixels_at = tf.function(pixels_at, jit_compile=True, reduce_retracing=True)


def bounded(coordinate: tf.Tensor, edge: tf.Tensor, fill: str) -> tf.Tensor:
    """A float64 coordinate brought into [0, edge - 1/2] by `nearest` or `reflect`."""
    if fill == "reflect":
        coordinate -= 2 * edge * tf.floor(coordinate / (2 * edge))  # floormod takes twice as long
        coordinate = tf.minimum(coordinate, 2 * edge - coordinate)
    return tf.clip_by_value(coordinate, tf.zeros([], tf.float64), edge - 0.5)


def has_inverse(matrices: tf.Tensor) -> tf.Tensor:
    """Whether a determinant is more than rounding leaves of 0: float64 [..., 3, 3] -> bool [...].

    The measure is the permanent of the absolute values: the determinant's six products, none of
    which cancels. Rows and columns may so differ in scale, as those of a perspective do.
    """
    first, second, third = tf.unstack(tf.abs(matrices), axis=-2)
    permanent = sum(
        (first[..., a] * (second[..., b] * third[..., c] + second[..., c] * third[..., b])
         for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1))), tf.zeros([], tf.float64))
    finite = tf.reduce_all(tf.math.is_finite(matrices), (-2, -1))
    determinant = tf.linalg.det(tf.where(finite[..., None, None], matrices, identity()))
    return finite & (tf.abs(determinant) > 1e-15 * permanent)


def inverse(matrices: tf.Tensor) -> tf.Tensor:
    """The inverses of float64 [n, 3, 3], the identity where there is none."""
    with tf.device("CPU:0"):
        regular = has_inverse(matrices)[..., None, None]
        return tf.linalg.inv(tf.where(regular, matrices, identity()))


def identity() -> tf.Tensor:
    return tf.eye(3, dtype=tf.float64)


def images_size(images: tf.Tensor) -> tuple[Any, Any]:
    """Height and width of [n, height, width, channels]: ints where known, else int32 scalars."""
    shape = tf.shape(images)
    return tuple(shape[axis] if images.shape[axis] is None else images.shape[axis]
                 for axis in (1, 2))


def check_size(height: Any, width: Any) -> None:
    """Raises UserError, or InvalidArgumentError where sizes are known late, for a small image."""
    sentence = (f"the perspective transform needs images of {LEAST_SIZE} x {LEAST_SIZE} pixels or "
                "more: choose a larger dataset.image_size or leave out augmentation=perspective")
    for edge in (height, width):
        known = tf.get_static_value(edge)
        if known is None:
            tf.debugging.assert_greater_equal(edge, LEAST_SIZE, sentence)
        elif known < LEAST_SIZE:
            raise UserError(f"{sentence} (an edge has {known})")
