"""Headers of encoded images: which need nothing but decoding, and how large the others are."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from flowerexp.data import formats, resizing
from flowerexp.lazy import tf

JPEG = b"\xff\xd8\xff"
MOST_PIXELS = 10**8
"""Maximum number of pixels of an image, which takes three bytes for each when it is decoded."""
BROKEN_IMAGE = "its image is not a valid JPEG, PNG, GIF, BMP or WebP"
MISREAD = ("its image is a BMP with a palette, or a PNG or WebP that its EXIF data turn, which "
           "TensorFlow reads otherwise: store it as a JPEG or a plain PNG")
OTHERS = ("PNG", "GIF", "BMP", "WEBP")
"""Kinds of images that TensorFlow decodes, besides JPEG."""


def is_upright_jpeg(image: bytes) -> bool:
    """Whether an image begins as a JPEG without EXIF data, which may say that it is turned."""
    return image.startswith(JPEG) and resizing.EXIF not in image


def are_plain(images: Sequence[bytes], size: int) -> bool:
    """Whether all images are upright JPEGs of this height and width, to be decoded as they are."""
    try:
        return all(map(is_upright_jpeg, images)) and bool(
            np.all(jpeg_shapes()(tf.constant(images, tf.string))[:, :2] == size))
    except tf.errors.InvalidArgumentError:
        return False


@functools.cache
def jpeg_shapes() -> Any:
    """A tf.function: JPEGs, string [n] -> heights, widths and channels, int32 [n, 3]."""
    return tf.function(
        lambda images: tf.map_fn(tf.io.extract_jpeg_shape, images,
                                 fn_output_signature=tf.TensorSpec([3], tf.int32),
                                 parallel_iterations=1),  # more at once cost more in all
        input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def shape(image: bytes) -> tuple[int, int]:
    """Height and width of an encoded image in pixels; ValueError, with the issue, if it is of no
    kind that TensorFlow decodes, or too large.
    """
    try:
        if image.startswith(JPEG):
            height, width = tf.io.extract_jpeg_shape(image).numpy()[:2].tolist()
        else:
            with Image.open(io.BytesIO(image), formats=OTHERS) as opened:
                width, height = opened.size
                turned = (any(name in image for name in formats.WITH_EXIF.values())
                          and opened.getexif().get(ExifTags.Base.Orientation, 1) != 1)
                if turned or (opened.format, opened.mode) == ("BMP", "P"):
                    raise ValueError(MISREAD)
    except (tf.errors.InvalidArgumentError, OSError) as error:
        raise ValueError(BROKEN_IMAGE) from error
    except Image.DecompressionBombError:
        height, width = MOST_PIXELS, MOST_PIXELS
    if height * width > MOST_PIXELS:
        raise ValueError(f"its image has more than the {MOST_PIXELS:,} pixels that are decoded")
    return height, width
