"""The formats of photos: what TensorFlow does not read is read by Pillow, to the same pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from flowerexp.data import formats, resizing

RANDOM = np.random.default_rng(0)
COLORS = RANDOM.integers(0, 256, (20, 31, 3), np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data, exif=True):
    return resizing.decode(tf.constant(formats.decodable(data, exif)), exif).numpy()


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("data", [
    encoded(Image.fromarray(COLORS), "TIFF"),
    encoded(Image.fromarray(COLORS), "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(COLORS).convert("L"), "TIFF"),
    encoded(Image.fromarray(COLORS).convert("CMYK"), "TIFF"),
    encoded(Image.fromarray(COLORS), "AVIF"),
    encoded(Image.fromarray(COLORS).quantize(16), "BMP")],
    ids=["tiff", "lzw", "grey", "cmyk", "avif", "palette bmp"])
def test_what_tensorflow_does_not_decode_is_read_by_pillow(data):
    np.testing.assert_array_equal(pixels(data), by_pillow(data))


def test_heic_is_read_with_the_extra_and_named_without_it(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    smooth = np.asarray(Image.fromarray(COLORS[:2, :3]).resize((48, 32)))
    data = encoded(Image.fromarray(smooth), "HEIF", quality=95)
    assert formats.kind_of(data) == "HEIC"
    assert np.abs(pixels(data) - smooth.astype(int)).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(formats.UnreadablePhotoError, match=r"pip install 'flowerexp\[heif\]'"):
        formats.decodable(data)


def test_sixteen_bits_keep_their_high_byte_and_transparency_becomes_white():
    grey = RANDOM.integers(0, 2**16, (20, 31), np.uint16)
    for kind in ("TIFF", "PNG"):
        found = pixels(encoded(Image.fromarray(grey), kind))
        np.testing.assert_array_equal(found, np.repeat((grey >> 8)[..., None], 3, -1))
    clear = Image.fromarray(np.dstack([COLORS, np.zeros_like(COLORS[..., :1])]))
    assert (pixels(encoded(clear, "TIFF")) == 255).all()
    assert (pixels(encoded(clear, "WEBP", lossless=True)) == 255).all()


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP", "JPEG"])
def test_the_orientation_of_every_format_is_followed_unless_it_is_off(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(COLORS), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert formats.has_exif_rotation(data)
    np.testing.assert_array_equal(pixels(data), np.asarray(upright))
    np.testing.assert_array_equal(pixels(data, exif=False), by_pillow(data))


@pytest.mark.parametrize(("data", "words"), [
    (b"", "is an empty file"), (b"text", "is not a photo that can be read; JPEG, PNG"),
    (encoded(Image.fromarray(COLORS), "TIFF")[:200], "is a damaged, truncated or unusual TIFF"),
    (encoded(Image.fromarray(COLORS[..., 0].astype(np.float32)), "TIFF"), "or unusual TIFF")])
def test_what_cannot_be_read_is_said(data, words):
    assert words in formats.reason(data)
    with pytest.raises((formats.UnreadablePhotoError, tf.errors.InvalidArgumentError)):
        pixels(data)
