"""The Oxford 102 Flowers photos (Nilsback and Zisserman, 2008): download and conversion.

The archives are kept in `OUT/downloads`, where the photos are unpacked during the conversion.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from flowerexp.data.prepare import convert, download
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.data.prepare.photos import Listing, Photo
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger

HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
PHOTOS, LABELS, SPLITS = "102flowers.tgz", "imagelabels.mat", "setid.mat"
CHECKSUMS = {
    PHOTOS: "52808999861908f626f3c1f4e79d11fa",
    LABELS: "e0620be6f572b9609742df49c70aed4d",
    SPLITS: "a5357ecc9cb78c4bef273ce3793fc85c",
}
"""The md5 of each archive."""
NAMES_FILE = Path(__file__).with_name("oxford102_classes.json")
"""English class names in label order, as in the common cat_to_name.json."""
SPLIT_KEYS = {"train": "trnid", "val": "valid", "test": "tstid"}


def run(out: Path, options: ConversionOptions, workers: int, logger: RunLogger, home: str = HOME,
        checksums: Mapping[str, str] = CHECKSUMS) -> bool:
    """Downloads and converts what is missing, and logs the result.

    Args:
        out: folder of the data set.
        options: size and seed; the splits are the official ones.
        workers: photos converted at the same time.
        logger: shows the progress.
        home: address of the folder with the three archives.
        checksums: md5 of each archive.

    Returns:
        Whether every photo could be read.

    Raises:
        UserError: as `fetch`, `listed` and `convert.convert`.
    """
    inputs = inputs_of(checksums)
    notes: tuple[str, ...] = ()
    with convert.locked(out):
        summary = convert.finished(out, convert.plan_of(options, inputs), logger)
        if summary is None:
            fetch(out, home, checksums, logger.console)
            listing = listed(out)
            notes = listing.notes
            summary = convert.convert(listing, out, options, inputs, workers, logger)
        shutil.rmtree(unpacked(out), ignore_errors=True)  # the archive stays
    return convert.show(summary, notes, out, logger)


def inputs_of(checksums: Mapping[str, str]) -> str:
    """The fingerprint of the archives, which determine the records."""
    text = json.dumps(["oxford102", dict(checksums)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_of(out: Path) -> Path:
    return out / "downloads"


def fetch(out: Path, home: str, checksums: Mapping[str, str], console: Console) -> None:
    """Downloads the archives below `out`, the small ones first, and unpacks the photos.

    Raises:
        UserError: as `download.fetch` and `download.unpack`, and for a full disk.
    """
    folder = folder_of(out)
    try:
        for name in (LABELS, SPLITS, PHOTOS):
            download.fetch(f"{home.rstrip('/')}/{name}", folder / name, checksums[name], console)
        if not unpacked(out).exists():
            download.unpack(folder / PHOTOS, unpacked(out), console)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): make room or "
                        "give another folder, then rerun the command to resume") from error


def unpacked(out: Path) -> Path:
    return folder_of(out) / "photos"


def listed(out: Path) -> Listing:
    """The downloaded photos with their labels and official splits.

    Raises:
        UserError: for lists in another format.
    """
    folder = folder_of(out)
    labels = numbers(folder / LABELS, "labels")
    names = json.loads(NAMES_FILE.read_text(encoding="utf-8"))[:max(labels, default=0)]
    every = {}
    for split, key in SPLIT_KEYS.items():
        for number in numbers(folder / SPLITS, key):
            identifier = f"image_{number:05d}.jpg"
            if not 1 <= number <= len(labels) or not 1 <= labels[number - 1] <= len(names):
                raise UserError(f"{folder / SPLITS} names image {number} in {key}, for which "
                                f"{folder / LABELS} has no label from 1 to {len(names)}")
            if identifier in every:
                raise UserError(f"{folder / SPLITS} names image {number} twice")
            every[identifier] = Photo(unpacked(out) / "jpg" / identifier, identifier,
                                      names[labels[number - 1] - 1], split)
    ordered = tuple(every[identifier] for identifier in sorted(every))
    notes = [] if len(every) == len(labels) else [
        f"{len(labels) - len(every)} photos are in no split and are ignored."]
    return Listing(ordered, (), tuple(notes), tuple(names))


def numbers(path: Path, key: str) -> list[int]:
    """The integers of a 1 x N matrix in a MATLAB file."""
    try:
        values: Any = loadmat(path)[key]
        return [int(value) for value in values.reshape(-1)]
    # SciPy raises NotImplementedError for a file of MATLAB 7.3, which is HDF5.
    except (MatReadError, ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"{path} does not hold the numbers {key!r} ({error})") from error
