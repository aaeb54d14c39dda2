"""Encodes photos as the small square JPEGs of their records."""

import functools
import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from PIL import ExifTags, Image

from flowerexp.data import resizing

QUALITY = 95
"""Quality of the JPEGs; colors keep the full resolution."""
JPEG = b"\xff\xd8\xff"
READ = {JPEG: "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
"""Supported formats by their first bytes."""


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


def encode(path: Path, size: int) -> Encoded:
    """The center crop of a photo, resized to `size` pixels; unreadable photos do not raise.

    A JPEG that is such a square is kept byte for byte, unless it is CMYK.
    """
    try:
        data = path.read_bytes()
        jpeg, side = to_jpeg(data, size)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else unreadable(data)
        return Encoded(None, "", 0, False, reason or str(error))
    return Encoded(jpeg, digest_of(jpeg), side, has_exif_rotation(data), None)


def digest_of(jpeg: bytes) -> str:
    return hashlib.blake2b(jpeg, digest_size=16).hexdigest()


def to_jpeg(data: bytes, size: int) -> tuple[bytes, int]:
    """The square JPEG of a photo, and the length of the photo's shorter side in pixels."""
    with tf.device("CPU:0"):  # the same bits with and without a GPU
        jpeg, shape = squaring(size)(tf.constant(data))
        height, width, _ = shape.numpy().tolist()
        if height == width == size and data.startswith(JPEG) and \
                tf.io.extract_jpeg_shape(data)[2] != 4:
            return data, size
        return jpeg.numpy(), min(height, width)


@functools.lru_cache(4)
def squaring(size: int) -> Any:
    """A tf.function, five times as fast as its ops: a photo -> its square JPEG, its shape."""
    def squared(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = resizing.decode(data)
        return tf.io.encode_jpeg(resizing.square(image, size), quality=QUALITY,
                                 chroma_downsampling=False), tf.shape(image)

    return tf.function(squared, input_signature=[tf.TensorSpec([], tf.string)])


def has_exif_rotation(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    except Exception:  # broken EXIF data do not matter: the photo was read
        return False


def unreadable(data: bytes) -> str:
    """The reason why bytes could not be decoded."""
    if not data:
        return "the file is empty"
    for start, kind in READ.items():
        if data.startswith(start):
            return f"it is a damaged, truncated or unusual {kind}"
    other = ("a WebP file" if data[8:12] == b"WEBP"
             else "a TIFF file" if data[:4] in (b"II*\0", b"MM\0*")
             else "a HEIC or AVIF file" if data[4:8] == b"ftyp" else "not a photo")
    return f"it is {other}; JPEG, PNG, GIF and BMP are read"
