"""Encodes photos as the small square JPEGs of their records."""

import functools
import hashlib
from typing import Any, NamedTuple

import tensorflow as tf

from flowerexp.data import formats, resizing
from flowerexp.data.photos import Photo

QUALITY = 95
"""Quality of the JPEGs; colors keep the full resolution."""


class Encoded(NamedTuple):
    """A photo as a JPEG, or the reason why it cannot be read.

    jpeg: bytes of the square, or None.
    digest: hash of the JPEG.
    side: length of the photo's shorter side in pixels.
    turned: whether its EXIF orientation asks to rotate or mirror it.
    reason: why the photo cannot be read, without a subject, or None.
    """

    jpeg: bytes | None
    digest: str
    side: int
    turned: bool
    reason: str | None


def encode(photo: Photo, size: int, exif: bool = True, resize: str = "crop") -> Encoded:
    """A photo as a square of `size` pixels; unreadable photos do not raise.

    A JPEG that is such a square is kept byte for byte, unless it is CMYK or has to be turned.

    Args:
        exif: whether the orientation in the EXIF data is followed.
        resize: crop, pad or stretch.
    """
    try:
        data = photo.read()
        turned = formats.has_exif_rotation(data)
        jpeg, side = to_jpeg(data, size, exif, resize, turned)
    except OSError as error:
        return Encoded(None, "", 0, False, error.strerror or str(error))
    except (formats.UnreadablePhotoError, tf.errors.OpError) as error:
        why = str(error) if isinstance(error, formats.UnreadablePhotoError) else None
        return Encoded(None, "", 0, False, f"it {why or formats.reason(data)}")
    return Encoded(jpeg, digest_of(jpeg), side, turned, None)


def digest_of(jpeg: bytes) -> str:
    return hashlib.blake2b(jpeg, digest_size=16).hexdigest()


def to_jpeg(data: bytes, size: int, exif: bool, resize: str, turned: bool) -> tuple[bytes, int]:
    """The square JPEG of a photo, and the length of the photo's shorter side in pixels."""
    with tf.device("CPU:0"):  # the same bits with and without a GPU
        jpeg, shape = squaring(size, exif, resize)(tf.constant(formats.decodable(data, exif)))
        height, width, _ = shape.numpy().tolist()
        if (height == width == size and data.startswith(formats.JPEG) and not turned
                and tf.io.extract_jpeg_shape(data)[2] != 4):
            return data, size
        return jpeg.numpy(), min(height, width)


@functools.lru_cache(4)
def squaring(size: int, exif: bool, resize: str) -> Any:
    """A tf.function, five times as fast as its ops: a photo -> its square JPEG, its shape."""
    def squared(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = resizing.decode(data, exif)
        return tf.io.encode_jpeg(resizing.square(image, size, resize), quality=QUALITY,
                                 chroma_downsampling=False), tf.shape(image)

    return tf.function(squared, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
