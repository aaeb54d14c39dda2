"""Photos read straight into memory: their checksums, what cannot be read, and their pixels.

The table of a split of photos holds no images until `decode` reads them, so that only the rows that
a run uses are decoded and no file's bytes are kept. Its one file is the folder of the photos, and
each span is the number of a photo in the listing.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import platformdirs

from flowerexp.data import formats, resizing
from flowerexp.data.photos import Listing, Photo
from flowerexp.data.records import THREADS
from flowerexp.data.tables import DataIssue, Table, aligned_empty, as_tensor, image_digest
from flowerexp.errors import UserError
from flowerexp.lazy import tf

LEAVE_OUT = "mend or remove it, or leave it out with dataset.on_bad_record=skip"
ENLARGED = 4
"""Photos that are enlarged by more than this are named."""


class Checked(NamedTuple):
    """What is known of a photo's bytes.

    size, changed: size in bytes and modification time in nanoseconds of its file.
    digest: length and CRC of the bytes, 64 bits.
    fault: why it cannot be decoded, without a subject; empty if it can; None if not tried.
    """

    size: int
    changed: int
    digest: int
    fault: str | None


@dataclass(frozen=True)
class Squares:
    """How photos become squares: size in pixels, dataset.resize and dataset.exif."""

    size: int
    resize: str = "crop"
    exif: bool = True

    def __call__(self, data: bytes) -> tuple[npt.NDArray[np.uint8], int]:
        """The square of a photo, uint8 [size, size, 3], and its shorter side in pixels.

        Raises:
            formats.UnreadablePhotoError: for bytes that cannot be decoded.
        """
        try:
            image, side = squaring(self.size, self.resize, self.exif)(
                tf.constant(formats.decodable(data, self.exif)))
        except tf.errors.InvalidArgumentError as error:
            raise formats.UnreadablePhotoError(formats.reason(data)) from error
        return image.numpy(), int(side)


@functools.lru_cache(8)
def squaring(size: int, resize: str, exif: bool) -> Any:
    """A tf.function, several times as fast as its ops: a photo -> its square, its shorter side."""
    def squared(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("CPU:0"):  # the same bits with and without a GPU
            image = resizing.decode(data, exif)
            return resizing.square(image, size, resize), tf.reduce_min(tf.shape(image)[:2])

    return tf.function(squared, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def in_threads(function: Callable[[Photo], Any], photos: Sequence[Photo]) -> Iterator[Any]:
    """The function of every photo, in order, with few results in memory."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(photos), 16 * THREADS):
            yield from pool.map(function, photos[start:start + 16 * THREADS])


def check(photos: Sequence[Photo], folder: str, skips: bool = False,
          squares: Squares | None = None,
          advance: Callable[[str, int], object] = lambda *_: None) -> list[Checked]:
    """The checksum of every photo; those of unchanged files are remembered in the user's cache.

    Args:
        folder: where the photos are; names what is remembered.
        skips: whether a file that cannot be read is a fault, and not an error.
        squares: decodes the photos, to find those that cannot be read; None: that is not tried.
        advance: called with "photos" and 1 for each.

    Raises:
        UserError: without `skips`, for a file that cannot be read.
    """
    path = Path(platformdirs.user_cache_dir("flowerexp")) / "checksums" / (
        hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16] + ".json")
    try:
        known = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        known = {}

    def look(photo: Photo) -> Checked:
        key = f"{photo.path}:{photo.row}"
        try:
            status = photo.path.stat()
            before = Checked(*known.get(key, (0, 0, 0, None)))
            if before[:2] == (status.st_size, status.st_mtime_ns) and not (
                    squares and before.fault is None):
                return before
            data = photo.read()
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
            if not skips:
                raise UserError(f"{photo.path} {why}", LEAVE_OUT) from error
            return Checked(0, 0, 0, why)
        fault = None
        if squares:
            try:
                squares(data)
                fault = ""
            except formats.UnreadablePhotoError as error:
                fault = str(error)
        return Checked(status.st_size, status.st_mtime_ns, image_digest(data), fault)

    found = []
    for one in in_threads(look, photos):
        found.append(one)
        advance("photos", 1)
    now = {f"{photo.path}:{photo.row}": list(each)
           for photo, each in zip(photos, found, strict=True)}
    if now != known:
        remember(path, now)
    return found


def remember(path: Path, known: dict[str, Any]) -> None:
    """Writes what is known, unless the cache cannot be written: then it is found again."""
    partial = path.with_name(f"{path.name}.{hashlib.sha256(orjson.dumps(known)).hexdigest()[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(orjson.dumps(known))
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)


def without_copies(listing: Listing, checked: Sequence[Checked]) -> tuple[Listing, list[Checked]]:
    """The listing without copies of a file, which would be trained on and validated with.

    One copy is kept if all are of one class, else none. Photos with fixed splits are all kept.
    """
    classes: dict[int, set[str]] = {}
    for photo, each in zip(listing.photos, checked, strict=True):
        if photo.split is None:
            classes.setdefault(each.digest, set()).add(photo.label)
    seen, kept, copies = set[int](), list[int](), list[str]()
    for number, (photo, each) in enumerate(zip(listing.photos, checked, strict=True)):
        if photo.split is None and (each.digest in seen or len(classes[each.digest]) > 1):
            copies.append(photo.identifier)
        else:
            kept.append(number)
        if photo.split is None:
            seen.add(each.digest)
    if not copies:
        return listing, list(checked)
    of_two = sum(len(labels) > 1 for labels in classes.values())
    note = (f"{len(copies)} copies of other photos left out, first {copies[0]!r}"
            + (f" ({of_two} pictures are in several classes: all copies of these)" if of_two
               else "") + ".")
    return (replace(listing, photos=tuple(listing.photos[number] for number in kept),
                    notes=(*listing.notes, note)), [checked[number] for number in kept])


def split_of(photo: Photo) -> str:
    """The split of a photo before any division."""
    return photo.split or "train"


def table(listing: Listing, checked: Sequence[Checked], folder: str, split: str) -> Table:
    """The table of a split without its images; photos that cannot be read are its issues.

    Raises:
        UserError: if no photo of the split can be read.
    """
    names = {name: label for label, name in enumerate(listing.classes)}
    rows = [number for number, photo in enumerate(listing.photos) if split_of(photo) == split]
    good = [number for number in rows if not checked[number].fault]
    chosen = [listing.photos[number] for number in good]
    issues, bad = list[DataIssue](), dict[int, str]()
    for row, number in enumerate(rows):
        if why := checked[number].fault:
            photo = listing.photos[number]
            place = f"{photo.path}" if photo.row is None else f"{photo.path}, row {photo.row},"
            issues.append(DataIssue(place, None, photo.identifier, why))
            bad[row] = photo.identifier
    if not good:
        raise UserError(f"{folder}: the split {split} holds no photo that can be read"
                        + (f"; the first issue: {issues[0].sentence}" if issues else ""))
    groups = tuple(photo.group for photo in chosen)
    return Table(
        None, np.array([names[photo.label] if split != "test" else -1 for photo in chosen],
                       np.int32),
        [photo.identifier for photo in chosen],
        np.array([checked[number].digest for number in good], np.uint64),
        groups if any(groups) else (), (folder,), (len(good),),
        np.array([[number, 0] for number in good], np.int64).reshape(-1, 2), bool(bad),
        tuple(issues), bad)


def decode(rows: Table, listing: Listing, squares: Squares,
           advance: Callable[[str, int], object] = lambda *_: None) -> tuple[Table, list[str]]:
    """The table with its images decoded, and the ids of photos that were enlarged very much.

    Raises:
        UserError: for a photo that cannot be read, or has changed since its checksum was found.
    """
    photos = [listing.photos[number] for number in rows.spans[:, 0]]
    pixels, small = aligned_empty((len(photos), squares.size, squares.size, 3)), list[str]()

    def read(photo: Photo) -> tuple[npt.NDArray[np.uint8], int, int]:
        try:
            data = photo.read()
            return *squares(data), image_digest(data)
        except OSError as error:
            raise UserError(f"{photo.path} cannot be read: {error.strerror or error}", LEAVE_OUT
                            ) from error
        except formats.UnreadablePhotoError as error:
            of = "" if photo.row is None else f", row {photo.row},"
            raise UserError(f"{photo.path}{of} {error}", LEAVE_OUT) from error

    for row, (image, side, digest) in enumerate(in_threads(read, photos)):
        if digest != rows.digests[row]:
            raise UserError(f"{photos[row].path} has changed since the run started",
                            "rerun the command")
        pixels[row] = image
        if ENLARGED * side < squares.size:
            small.append(photos[row].identifier)
        advance("photos", 1)
    return replace(rows, images=as_tensor(pixels)), small


def fingerprint(listing: Listing, checked: Sequence[Checked], squares: Squares) -> str:
    """A hash of the photos' content, classes, splits and groups, and of how they become squares."""
    found = hashlib.sha256(orjson.dumps([listing.classes, repr(squares)]))
    for photo, each in zip(listing.photos, checked, strict=True):
        found.update(orjson.dumps([photo.identifier, photo.label, photo.split, photo.group,
                                   str(each.digest)]))
    return found.hexdigest()[:16]
