"""The formats of photos: which are read, and their bytes as TensorFlow decodes them.

TensorFlow decodes JPEG, PNG, GIF, BMP and WebP. What it cannot, Pillow turns into a PNG first:
TIFF, AVIF, HEIC with the package pillow-heif, a BMP with a palette, and a PNG or WebP that its EXIF
data turn. No TensorFlow here.
"""

import contextlib
import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

READABLE = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF and, with the extra heif, HEIC"
"""The formats that `decodable` takes, for sentences."""
JPEG = b"\xff\xd8\xff"
STARTS = {JPEG: "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF",
          b"MM\0*": "TIFF"}
"""Formats by the first bytes of a file."""
WITH_EXIF = {"PNG": b"eXIf", "WebP": b"EXIF"}
"""The name of the part of a file that holds EXIF data, of formats that TensorFlow does not turn."""
PALETTE_BITS = 8
"""The most bits of a BMP's pixel that is a number of a color; TensorFlow takes it for a grey."""


class UnreadablePhotoError(Exception):
    """A photo that cannot be read; the text says why, without a subject: `is a damaged PNG`."""


def kind_of(data: bytes) -> str | None:
    """The format of a photo by its first bytes, or None."""
    if data[4:8] == b"ftyp":
        return "AVIF" if b"avif" in data[8:40] else "HEIC"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for start, kind in STARTS.items() if data.startswith(start)), None)


def decodable(data: bytes, exif: bool = True) -> bytes:
    """The bytes of a photo as `resizing.decode` takes them: most unchanged, others as a PNG.

    Args:
        data: the bytes of a file.
        exif: whether the orientation in the EXIF data of a PNG, WebP or TIFF is followed; a JPEG's
            is followed when it is decoded.

    Raises:
        UnreadablePhotoError: for a photo that only Pillow could read, and cannot.
    """
    kind = kind_of(data)
    palette = kind == "BMP" and int.from_bytes(data[28:30], "little") <= PALETTE_BITS
    turned = exif and kind in WITH_EXIF and WITH_EXIF[kind] in data
    if kind not in ("TIFF", "AVIF", "HEIC") and not palette and not turned:
        return data
    if kind == "HEIC":
        try:
            import pillow_heif
        except ModuleNotFoundError as error:
            raise UnreadablePhotoError("is a HEIC file, for which the extra heif is needed: "
                                       "pip install 'flowerexp[heif]'") from error
        pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return as_png(ImageOps.exif_transpose(image) if exif else image)
    except Exception as error:  # each reader of Pillow raises its own
        raise UnreadablePhotoError(reason(data)) from error


def as_png(image: Image.Image) -> bytes:
    """An image of Pillow as an uncompressed PNG of 8 bits; raises ValueError for 32 bits."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(image.mode)
    file = io.BytesIO()
    image.convert("RGBA" if image.has_transparency_data else "RGB").save(file, "PNG",
                                                                       compress_level=0)
    return file.getvalue()


def reason(data: bytes) -> str:
    """Why bytes could not be decoded, without a subject."""
    if not data:
        return "is an empty file"
    if kind := kind_of(data):
        return f"is a damaged, truncated or unusual {kind}"
    return f"is not a photo that can be read; {READABLE} are"


def has_exif_rotation(data: bytes) -> bool:
    """Whether the EXIF data of a photo ask to rotate or mirror it."""
    if kind_of(data) not in ("JPEG", "TIFF") and not any(
            name in data for name in WITH_EXIF.values()):
        return False
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    return False  # broken EXIF data do not matter: the photo was read
