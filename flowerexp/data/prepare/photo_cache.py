"""The data of a run: as its part finds it, and photos that do not fit in memory as records.

Such photos are imported once, to dataset.import_dir or the user's cache folder, below a folder that
is named by their content; later starts take the records from there.
"""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import platformdirs

from flowerexp.config import Dataset
from flowerexp.data import images, photos, sources
from flowerexp.data.prepare import convert
from flowerexp.data.source import Source
from flowerexp.data.tables import Table
from flowerexp.errors import UserError, counted
from flowerexp.runs.log import RunLogger
from flowerexp.strategy.workers import AllGather, single_process

GIB = 2**30


def find(dataset: Dataset, logger: RunLogger, all_gather: AllGather = single_process,
         dry_run: bool = False) -> Source:
    """The source of a data set, with the checksums of its photos or, if they do not fit in
    dataset.memory_gb, as their records.

    Args:
        logger: shows the progress of checksums and of an import.
        dry_run: whether nothing is imported.

    Raises:
        UserError: as `sources.find`, `images.check` and `convert.convert`.
    """
    source = sources.find(dataset.source, all_gather)
    if source.listing is None:
        return source
    count, size = len(source.listing.photos), source.image_size
    in_memory = dataset.cache == "decoded" or (
        dataset.cache == "auto" and count * size**2 * 3 <= dataset.memory_gb * GIB)
    squares, skips = images.Squares(size, dataset.resize, dataset.exif), (
        dataset.on_bad_record == "skip")
    with logger.progress(count, 0) as advance:
        checked = images.check(source.listing.photos, source.folder, skips,
                               squares if skips and in_memory else None, advance)
    listing, checked = images.without_copies(source.listing, checked)
    source = replace(source, listing=listing, checked=tuple(checked),
                     reason=" ".join([f"{source.reason};", *listing.notes]).rstrip("; "))
    return source if in_memory or dry_run else imported(source, dataset, squares, logger,
                                                        all_gather)


def decoded(rows: Table, source: Source, dataset: Dataset, logger: RunLogger | None = None
            ) -> Table:
    """A table of photos with its images; any other as it is.

    Raises:
        UserError: as `images.decode`.
    """
    if source.listing is None:
        return rows
    squares = images.Squares(source.image_size, dataset.resize, dataset.exif)
    if logger is None:
        return images.decode(rows, source.listing, squares)[0]
    with logger.progress(len(rows.ids), 0) as advance:
        table, small = images.decode(rows, source.listing, squares, advance)
    if small:
        said = f"{counted(len(small), 'photo')} enlarged by more than {images.ENLARGED} times"
        logger.info(f"{said}: {photos.shown(small)}")
        if len(small) > photos.SHOWN:
            logger.debug(f"{said}, all: {', '.join(small)}")
    return table


def imported(source: Source, dataset: Dataset, squares: images.Squares, logger: RunLogger,
             all_gather: AllGather) -> Source:
    """The records of photos, which are made unless they are there."""
    listing = source.listing
    assert listing is not None
    content = images.fingerprint(listing, source.checked, squares)
    place = Path(source.import_dir or Path(platformdirs.user_cache_dir("flowerexp")) / "photos"
                 ) / content
    why = (f"do not fit dataset.memory_gb={dataset.memory_gb:g}" if dataset.cache == "auto"
           else f"are needed as records by dataset.cache={dataset.cache}")
    logger.info(f"{counted(len(listing.photos), 'photo')} of {squares.size}x{squares.size} pixels "
                f"{why}: they are imported once, to {place}")
    fixed = replace(listing, photos=tuple(replace(photo, split=images.split_of(photo))
                                          for photo in listing.photos))
    options = convert.ConversionOptions(squares.size, exif=squares.exif, resize=squares.resize)
    complete = convert.convert(lambda _: fixed, content, place, options, os.cpu_count() or 1,
                               logger, for_run=True)
    if not complete and dataset.on_bad_record == "stop":
        (path, reason), *_ = pd.read_csv(convert.target_of(place, squares.size)
                                         / convert.UNREADABLE, dtype=str).values.tolist()
        raise UserError(f"{source.folder}: {path}: {reason}", images.LEAVE_OUT)
    groups = {"group": "group"} if any(photo.group for photo in listing.photos) else {}
    found = sources.find(sources.TFRecords(str(place), squares.size, features=groups), all_gather)
    return replace(found, reason=f"{source.reason}; its records in {place}")
