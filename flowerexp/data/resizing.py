"""Resizes photos to squares, in the same way in conversion, prediction and export."""

from __future__ import annotations

from flowerexp.lazy import tf


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes the bytes (string []) of a JPEG, PNG, BMP or GIF to uint8 [height, width, 3].

    JPEGs are decoded like those of records. EXIF orientation is ignored, and only the first frame
    of an animation is decoded.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are not such an image.
    """
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False))
    return tf.ensure_shape(image, [None, None, 3])


def square(image: tf.Tensor, size: int) -> tf.Tensor:
    """The center crop of an image, resized bilinearly with antialiasing.

    Args:
        image: uint8 [height, width, 3].
        size: height and width of the result in pixels.

    Returns:
        uint8 [size, size, 3]; a square of that size is returned unchanged.
    """
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    middle = image[top:top + side, left:left + side]
    resized = tf.image.resize(middle, [size, size], antialias=True)
    return tf.ensure_shape(tf.cast(tf.round(tf.clip_by_value(resized, 0, 255)), tf.uint8),
                           [size, size, 3])
