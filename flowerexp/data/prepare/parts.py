"""The first half of a conversion: photos to small square JPEGs, in parts of many photos.

A part is a file of records and a JSON list of the result for each photo. The list is written last
and completes the part; a resumed conversion keeps complete parts.
"""

import contextlib
import functools
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from PIL import ExifTags, Image

from flowerexp.data import resizing, tfrecord
from flowerexp.data.prepare.photos import Listing, Photo
from flowerexp.errors import UserError, counted
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

PART = 32
"""Number of photos in a part."""
QUALITY = 95
"""Quality of the JPEGs; colors keep the full resolution."""
JPEG = b"\xff\xd8\xff"
READ = {JPEG: "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
"""Supported formats by their first bytes."""


@dataclass(frozen=True)
class Converted:
    """A converted photo: the part and row of its record, and the hash of its JPEG."""

    photo: Photo
    part: int
    row: int
    digest: str


def convert(every: Sequence[Photo], work: Path, size: int, workers: int, logger: RunLogger
                  ) -> None:
    """Converts the missing parts; Ctrl-C waits for at most one photo per worker."""
    starts = [start for start in range(0, len(every), PART)
              if not part_file(work, start // PART, ".json").exists()]
    done = len(every) - sum(len(every[start:start + PART]) for start in starts)
    if done:
        logger.info(f"{done} of {len(every)} photos were converted before")
    stopped = threading.Event()
    with logger.progress(len(every), done) as advance, ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(convert_part, every, start, work, size, stopped,
                             lambda: advance("photos", 1)) for start in starts]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def part_file(work: Path, part: int, suffix: str) -> Path:
    return work / f"part-{part:06d}{suffix}"


def convert_part(every: Sequence[Photo], start: int, work: Path, size: int,
                 stopped: threading.Event, advance: Callable[[], None]) -> None:
    """Writes the JPEGs of one part, then the result for each photo."""
    images: list[bytes] = []
    rows: list[dict[str, Any]] = []
    some = every[start:start + PART]
    for photo in some:
        if stopped.is_set():
            return
        rows.append({})
        try:
            data = photo.path.read_bytes()
            image, side = to_jpeg(data, size)
        except (OSError, UserError) as error:
            rows[-1]["reason"] = getattr(error, "strerror", None) or str(error)
        else:
            images.append(image)
            rows[-1] |= {"digest": hashlib.blake2b(image, digest_size=16).hexdigest(),
                         "side": side, "turned": has_exif_rotation(data)}
        advance()
    part = start // PART
    ids = [photo.identifier for photo, row in zip(some, rows, strict=True) if "digest" in row]
    write_records(part_file(work, part, ".tfrec"), images, None, ids)
    store.write_json(part_file(work, part, ".json"), rows)


def to_jpeg(data: bytes, size: int) -> tuple[bytes, int]:
    """A photo as a square JPEG, and the length of its shorter side in pixels.

    A JPEG that is such a square is kept byte for byte, unless it is CMYK.

    Raises:
        UserError: if the bytes cannot be read as a photo; its message has no subject.
    """
    try:
        with tf.device("CPU:0"):  # the same bits with and without a GPU
            image, shape = squaring(size)(tf.constant(data))
            height, width = shape.numpy()[:2].tolist()
            if height == width == size and data.startswith(JPEG) and \
                    tf.io.extract_jpeg_shape(data).numpy()[2] != 4:
                return data, size
            return image.numpy(), min(height, width)
    except tf.errors.OpError:
        raise UserError(unreadable(data)) from None


def has_exif_rotation(data: bytes) -> bool:
    """Whether a photo's EXIF orientation asks to rotate or mirror it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    except Exception:  # broken EXIF data do not matter: the photo was read
        return False


@functools.lru_cache(4)
def squaring(size: int) -> Any:
    """A tf.function: a photo's bytes -> the JPEG of its center crop, and the photo's shape."""
    def of(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = resizing.decode(data)
        jpeg = tf.io.encode_jpeg(resizing.square(image, size), quality=QUALITY,
                                 chroma_downsampling=False)
        return jpeg, tf.shape(image)

    return tf.function(of, input_signature=[tf.TensorSpec([], tf.string)])


def unreadable(data: bytes) -> str:
    """The reason why bytes could not be decoded."""
    if not data:
        return "the file is empty"
    for start, kind in READ.items():
        if data.startswith(start):
            return f"it is a damaged, truncated or unusual {kind}"
    other = ("WebP" if data[8:12] == b"WEBP" else "TIFF" if data[:4] in (b"II*\0", b"MM\0*")
             else "HEIC or AVIF" if data[4:8] == b"ftyp" else None)
    kind = f"a {other} file" if other else "not a photo"
    return f"it is {kind}; JPEG, PNG, GIF and BMP are read"


def write_records(path: Path, images: Iterable[bytes], labels: Iterable[int] | None,
                  ids: Iterable[str]) -> None:
    """`tfrecord.write`, synced to the disk; raises OSError if it cannot be written."""
    try:
        with store.atomic_write(path) as partial:
            tfrecord.write(partial, images, labels, ids)
    except tf.errors.OpError as error:
        raise OSError(str(error.message).split(" [Op")[0]) from error


def read(listing: Listing, work: Path, size: int
         ) -> tuple[list[Converted], list[tuple[str, str]], int, int]:
    """The converted photos, path and reason of the others, how many were smaller than `size`, and
    how many have an EXIF rotation.
    """
    good, left_out, small, turned = [], list(listing.left_out), 0, 0
    for part, start in enumerate(range(0, len(listing.photos), PART)):
        row = 0
        for photo, made in zip(listing.photos[start:start + PART],
                               store.read_json(part_file(work, part, ".json")), strict=True):
            if "reason" in made:
                left_out.append((photo.identifier, made["reason"]))
            else:
                good.append(Converted(photo, part, row, made["digest"]))
                small += made["side"] < size
                turned += made["turned"]
                row += 1
    if not good:
        first = ": ".join(left_out[0])
        raise UserError(f"none of the {counted(len(left_out), 'photo')} can be read ({first})")
    return good, sorted(left_out), small, turned


class Parts:
    """Reads JPEGs from the parts, one at a time."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.spans = functools.cache(self.read_spans)

    def read_spans(self, part: int) -> list[tfrecord.RecordSpan]:
        return tfrecord.whole_spans(str(part_file(self.work, part, ".tfrec")))

    def image(self, each: Converted) -> bytes:
        """The JPEG of a photo; raises UserError if the part has been damaged."""
        path = part_file(self.work, each.part, ".tfrec")
        with contextlib.suppress(IndexError, tf.errors.OpError), \
                tf.io.gfile.GFile(str(path), "rb") as file:
            record = tfrecord.read_record(file, self.spans(each.part)[each.row])
            if not record.damage:
                image: bytes = tf.train.Example.FromString(record.data).features.feature[
                    "image"].bytes_list.value[0]
                return image
        raise UserError(f"{path} is damaged: remove {self.work} and rerun the command")
