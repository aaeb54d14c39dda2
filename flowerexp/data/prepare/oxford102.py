"""The Oxford 102 Flowers photos (Nilsback and Zisserman, 2008): download and conversion.

The archives are kept in `OUT/downloads`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from flowerexp.data.photos import Listing, Photo, by_identifier
from flowerexp.data.prepare import convert, download
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger

HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
PHOTOS, LABELS, SPLITS = "102flowers.tgz", "imagelabels.mat", "setid.mat"
CHECKSUMS = {
    LABELS: "e0620be6f572b9609742df49c70aed4d",
    SPLITS: "a5357ecc9cb78c4bef273ce3793fc85c",
    PHOTOS: "52808999861908f626f3c1f4e79d11fa",
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
        UserError: as `download.fetch`, `download.unpack`, `listed` and `convert.convert`.
    """
    def list_photos(work: Path) -> Listing:
        folder, unpacked = out / "downloads", work / "photos"
        for name in (LABELS, SPLITS, PHOTOS):
            download.fetch(f"{home.rstrip('/')}/{name}", folder / name, checksums[name],
                           logger.console)
        if not unpacked.exists():
            work.mkdir(exist_ok=True)
            download.unpack(folder / PHOTOS, unpacked, logger.console)
        return listed(folder, unpacked)

    known = json.dumps(["oxford102", dict(checksums)], sort_keys=True)  # the photos follow from it
    inputs = hashlib.sha256(known.encode()).hexdigest()[:16]
    return convert.convert(list_photos, inputs, out, options, workers, logger)


def listed(folder: Path, unpacked: Path) -> Listing:
    """The photos with their labels and official splits; raises UserError for other lists.

    Args:
        folder: holds the lists.
        unpacked: holds the photos.
    """
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
            every[identifier] = Photo(unpacked / "jpg" / identifier, identifier,
                                      names[labels[number - 1] - 1], split)
    return Listing(by_identifier(every.values()), names=tuple(names))


def numbers(path: Path, key: str) -> list[int]:
    """The integers of a 1 x N matrix in a MATLAB file."""
    try:
        values: Any = loadmat(path)[key]
        return [int(value) for value in values.reshape(-1)]
    # SciPy raises NotImplementedError for a file of MATLAB 7.3, which is HDF5.
    except (MatReadError, ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"{path} does not hold the numbers {key!r} ({error})") from error
