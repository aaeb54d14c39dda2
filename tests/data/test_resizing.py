"""The rule of resizing: by hand, and against Pillow's own antialiased bilinear filter."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from flowerexp.data import resizing


def photo(height, width, seed=0):
    """Smooth colours with some noise, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [1, 7, 96])
def test_a_square_of_the_right_size_stays_as_it_is(size):
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    np.testing.assert_array_equal(resizing.square(tf.constant(image), size), image)


@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (300, 97), (13, 200)])
@pytest.mark.parametrize("size", [24, 96])
def test_it_is_the_middle_square_resized_as_pillow_does(height, width, size):
    image = photo(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    wanted = Image.fromarray(image[top:top + side, left:left + side]).resize(
        (size, size), Image.Resampling.BILINEAR)
    found = resizing.square(tf.constant(image), size).numpy().astype(int)
    assert np.abs(found - np.asarray(wanted)).max() <= 1  # Pillow rounds between its two passes


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_decoded_to_three_channels(kind, mode):
    original = Image.fromarray(photo(20, 31)).convert(mode)
    file = io.BytesIO()
    original.save(file, kind)
    found = resizing.decode(tf.constant(file.getvalue())).numpy()
    np.testing.assert_array_equal(found, np.asarray(Image.open(file).convert("RGB")))


def test_bytes_that_are_no_picture_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        resizing.decode(tf.constant(b"no picture"))
