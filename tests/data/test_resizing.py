"""The rule of resizing: by hand, and against Pillow's own antialiased bilinear filter."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

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


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data, exif=True):
    return resizing.decode(tf.constant(data), exif).numpy()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_decoded_to_three_channels(kind, mode):
    data = encoded(Image.fromarray(photo(20, 31)).convert(mode), kind)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decoded(data), wanted)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode):
    colors = np.random.default_rng(0).integers(0, 256, (20, 31, 4), np.uint8)
    image = Image.fromarray(colors).convert("RGB").quantize(8) if mode == "P" else (
        Image.fromarray(colors).convert(mode))
    data = encoded(image, "PNG", **({"transparency": 3} if mode == "P" else {}))
    under = Image.open(io.BytesIO(data)).convert("RGBA")
    wanted = Image.new("RGBA", under.size, "white")
    wanted.alpha_composite(under)
    np.testing.assert_array_equal(decoded(data), np.asarray(wanted.convert("RGB")))


TURNED = {1: [[1, 2, 3], [4, 5, 6]], 2: [[3, 2, 1], [6, 5, 4]], 3: [[6, 5, 4], [3, 2, 1]],
          4: [[4, 5, 6], [1, 2, 3]], 5: [[1, 4], [2, 5], [3, 6]], 6: [[4, 1], [5, 2], [6, 3]],
          7: [[6, 3], [5, 2], [4, 1]], 8: [[3, 6], [2, 5], [1, 4]]}
"""An image of six pixels by EXIF orientation, as drawn in the standard."""


@pytest.mark.parametrize("orientation", TURNED)
def test_pixels_are_turned_as_the_standard_draws_it(orientation):
    stored = tf.constant([[[1], [2], [3]], [[4], [5], [6]]])
    found = resizing.upright(stored, tf.constant(orientation)).numpy()[..., 0]
    assert found.tolist() == TURNED[orientation]


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 5, 6, 8, 9])
def test_a_photo_is_turned_as_its_exif_says(orientation, endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112], exif[0x0131] = "the maker", orientation, "a program"
    image = Image.fromarray(photo(20, 31))
    data = encoded(image, "JPEG", exif=exif.tobytes(), icc_profile=bytes(70_000))
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decoded(data), np.asarray(wanted))
    behind = data[:2] + b"\xff\xe0\0\x10JFIF\0" + bytes(9) + data[2:]  # after another segment
    np.testing.assert_array_equal(decoded(behind), np.asarray(wanted))
    np.testing.assert_array_equal(decoded(data, exif=False), np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB")))


def test_broken_exif_data_turn_nothing_and_fail_nothing():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(photo(20, 31)), "JPEG", exif=exif.tobytes())
    start, random = data.index(b"Exif"), np.random.default_rng(0)
    for place in range(start, start + 24, 3):
        broken = bytearray(data)
        broken[place:place + 8] = random.integers(0, 256, 8, np.uint8).tobytes()
        assert decoded(bytes(broken)).shape in ((20, 31, 3), (31, 20, 3))
    for end in range(2, start + 40, 5):  # the search for EXIF data never reads past the end
        assert resizing.walk(tf.constant(data[:end])) in (1, 6)


def test_bytes_that_are_no_picture_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        resizing.decode(tf.constant(b"no picture"))
