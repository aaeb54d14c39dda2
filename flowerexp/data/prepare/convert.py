"""Converts photos to TFRecords in the competition's layout; a killed conversion can be resumed.

First, every photo is read once, in parallel, and stored as a small JPEG in the SQLite file
`.conversion-SxS/photos.sqlite`. Then, when the readable photos are known, they are assigned to
train, val and test and written as records. A rename creates `tfrecords-jpeg-SxS` at the end. The
result depends on the photos and the options, not on the number of workers.
"""

import contextlib
import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
import numpy as np
import pandas as pd
import tensorflow as tf

from flowerexp.config import one_of
from flowerexp.data import class_names, photos, records, tfrecord
from flowerexp.data.division import SPLITS, order_of, stratify
from flowerexp.data.images import ENLARGED
from flowerexp.data.photos import Columns, Listing, Photo
from flowerexp.data.prepare.encoding import Encoded, digest_of, encode
from flowerexp.errors import UserError, counted
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

VERSION = 2
"""Version of the format of the records; to be increased with every change of it."""
COMMIT = 32
"""Photos per worker that are stored together."""
SHARD = 800
"""Maximum records per file, about as in the competition."""
PLAN = "plan.json"
STORED = "photos.sqlite"
SUMMARY = "conversion.json"
UNREADABLE = "unreadable.csv"
DUPLICATES = "duplicates.csv"
TEST_LABELS = "test_labels.csv"
SHOWN = 3
"""Maximum number of unreadable photos that the log names."""


@dataclass(frozen=True)
class ConversionOptions:
    """How photos are converted.

    size: height and width in pixels.
    val, test: shares of the photos, decimal fractions; unused if the photos have fixed splits.
    seed: decides the splits and the order of the records.
    exif: whether photos are turned as their EXIF orientation says.
    resize: how photos become squares, crop, pad or stretch.
    """

    size: int
    val: float = 0.15
    test: float = 0.15
    seed: int = 0
    exif: bool = True
    resize: str = "crop"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= records.MAX_IMAGE_SIZE:
            raise UserError(f"--size must be from 1 to {records.MAX_IMAGE_SIZE} pixels, not "
                            f"{self.size}")
        if not (0 < self.val < 1 and 0 <= self.test < 1 and sum(self.shares) < 1):
            raise UserError(f"--val {self.val} --test {self.test} leave nothing to train on or to "
                            "validate with: --val must be greater than 0, --test 0 or more, and "
                            "their sum less than 1")
        one_of("--resize", self.resize, ("crop", "pad", "stretch"))

    @property
    def shares(self) -> tuple[Fraction, Fraction]:
        """The shares of val and test, as exact fractions."""
        return Fraction(str(self.val)), Fraction(str(self.test))


def run(given: str | Path, out: Path, options: ConversionOptions, workers: int, logger: RunLogger,
        columns: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Converts photos of any layout; returns whether every photo could be read.

    Args:
        columns: as dataset.columns.

    Raises:
        UserError: as `photos.listed` and `convert`.
    """
    images = photos.local(given)
    for kind in columns:
        one_of("--column", kind, photos.COLUMNS)
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{out} is inside {images}, where photos are searched: give a folder "
                        "outside of it")
    with logger.console.status(f"searching {images.name}"):
        listing = photos.listed(images, Columns(**columns))
        inputs = photos.fingerprint(listing)
    photos.check_classes(images, listing)
    logger.info(f"{images}: {listing.layout}, {counted(len(listing.classes), 'class')}")
    for note in listing.notes:
        logger.info(note)
    return convert(lambda _: listing, inputs, out, options, workers, logger)


def convert(list_photos: Callable[[Path], Listing], inputs: str, out: Path,
            options: ConversionOptions, workers: int, logger: RunLogger, for_run: bool = False
            ) -> bool:
    """Converts photos to `out`/tfrecords-jpeg-SxS, unless that was done before; logs the result.

    Args:
        list_photos: lists them, if there is anything to convert; called with the path of a folder
            for temporary files.
        inputs: fingerprint of the photos; a conversion of other photos is not resumed.
        out: folder of the data set.
        options: how the photos are converted.
        workers: photos converted at the same time.
        for_run: whether a run asked for it, which waits for others and is not told how to train.

    Returns:
        Whether every photo could be read.

    Raises:
        UserError: if `out` is in use or holds another conversion; too few photos; a full disk.
    """
    plan = {"version": VERSION, "inputs": inputs, "size": options.size, "val": str(options.val),
            "test": str(options.test), "seed": options.seed, "exif": options.exif,
            "resize": options.resize}
    target, work = target_of(out, options.size), out / f".conversion-{options.size}x{options.size}"
    with locked(out, -1 if for_run else 0):
        if finished(out, target, work, plan):
            logger.info(f"{target} was made before, from the same photos")
        else:
            try:
                listing = list_photos(work)
                store.write_json(work / PLAN, plan)
                summary = plan | convert_listing(listing, work, options, workers, logger)
                store.write_json(work / "result" / SUMMARY, summary, indent=1)
                (work / "result").rename(target)
            except KeyboardInterrupt:
                logger.info("interrupted: rerun the command to resume")
                raise
            except (OSError, sqlite3.OperationalError, tf.errors.OpError) as error:
                why = getattr(error, "strerror", None) or getattr(error, "message", error)
                raise UserError(f"{out} cannot be written ({why}): make room or give another "
                                "folder, then rerun the command to resume") from error
            except sqlite3.DatabaseError as error:
                raise UserError(f"{work / STORED} is damaged ({error}): remove {work} and rerun "
                                "the command") from error
        shutil.rmtree(work, ignore_errors=True)
    return show(target, logger, not for_run)


def target_of(out: Path, size: int) -> Path:
    """The folder of the records of a size."""
    return out / f"tfrecords-jpeg-{size}x{size}"


@contextlib.contextmanager
def locked(out: Path, patience: float = 0) -> Iterator[None]:
    """Locks `out` against other conversions; raises UserError if it is locked for `patience`
    seconds (-1: waits).
    """
    if out.parts[:1] == ("gs:",):
        raise UserError(f"{out} is not a local folder: convert to one, and copy the records")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(out / store.LOCK).acquire(timeout=patience):
            yield
    except filelock.Timeout:
        raise UserError(f"{out} is in use by another process: wait for it, or give another folder"
                        ) from None


def finished(out: Path, target: Path, work: Path, plan: dict[str, Any]) -> bool:
    """Whether the same conversion was finished before.

    Raises:
        UserError: if `out` holds another conversion, finished or not, or other records.
    """
    if any((out / split).exists() for split in SPLITS):
        raise UserError(f"{out} holds a folder train, val or test, in which a run would look for "
                        "its records: give another folder")
    for folder, file in ((target, target / SUMMARY), (work, work / PLAN)):
        there = store.read_json(file) if file.exists() else {}
        if not there and (folder == work or not folder.exists()):
            continue  # nothing was stored before the plan
        differing = [key for key in plan if there.get(key) != plan[key]]
        if differing:
            option = next((key for key in ("val", "test", "seed", "exif", "resize")
                           if key in differing and key in there), None)
            why = (f"made with --{option} {there[option]} where this command says "
                   f"{plan[option]}" if option else "made by another version of flowerexp"
                   if "version" in differing and there.get("version") else
                   "made from other photos, or they have changed")
            raise UserError(f"{folder} is {why}: give another folder, or remove this one to start "
                            "again")
        if folder == target:
            return True
    return False


def convert_listing(listing: Listing, work: Path, options: ConversionOptions, workers: int,
                    logger: RunLogger) -> dict[str, Any]:
    """Stores the photos, writes records and lists to `result`; returns what the summary tells."""
    table = pd.DataFrame(map(vars, listing.photos))
    if table.split.isna().all():  # fails before hours of decoding
        assign_splits(table, listing.classes, options)
    # `out` is locked, and some network file systems have no locks of SQLite's kind.
    path = f"{(work / STORED).absolute().as_uri()}?nolock=1"
    with contextlib.closing(sqlite3.connect(path, uri=True)) as database:
        store_photos(listing.photos, database, options, workers, logger)
        columns = ["digest", "side", "turned", "reason"]
        table[columns] = database.execute(
            f"SELECT {', '.join(columns)} FROM photos ORDER BY number").fetchall()
        return write_result(listing, table, database, work / "result", options, logger)


def store_photos(every: Sequence[Photo], database: sqlite3.Connection,
                 options: ConversionOptions, workers: int, logger: RunLogger) -> None:
    """Stores the photos that are missing; Ctrl-C waits for at most one photo per worker."""
    columns = ", ".join(Encoded._fields)
    database.execute(f"CREATE TABLE IF NOT EXISTS photos (number INTEGER PRIMARY KEY, {columns})")
    there = {number for number, in database.execute("SELECT number FROM photos")}
    if there:
        logger.info(f"{len(there)} of {len(every)} photos were converted before")
    missing = [number for number in range(len(every)) if number not in there]
    step = COMMIT * workers
    with logger.progress(len(every), len(there)) as advance, ThreadPoolExecutor(workers) as pool:
        for some in (missing[start:start + step] for start in range(0, len(missing), step)):
            encoded = pool.map(
                lambda number: encode(every[number], options.size, options.exif, options.resize),
                some)
            with database:  # a transaction
                for number, photo in zip(some, encoded, strict=True):
                    database.execute("INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?)",
                                     (number, *photo))
                    advance("photos", 1)


def write_result(listing: Listing, table: pd.DataFrame, database: sqlite3.Connection, result: Path,
                 options: ConversionOptions, logger: RunLogger) -> dict[str, Any]:
    """Writes records and lists to `result`, and returns what the summary tells of them.

    table: the fields of Photo and Encoded, except for the JPEG, by number.
    """
    bad, good = table[table.reason.notna()], table[table.reason.isna()]
    left_out = sorted([*listing.left_out, *zip(bad.identifier, bad.reason, strict=True)])
    if good.empty:
        raise UserError(f"none of the {counted(len(left_out), 'photo')} can be read "
                        f"({': '.join(left_out[0])})")
    copies = find_copies(good)
    kept = good[~good.identifier.isin(copies)]
    names = list(listing.names or photos.in_order({*kept.label} - {""}))
    if table.split.isna().any():
        kept = kept.assign(split=assign_splits(kept, names, options))
    kept = kept.assign(label=pd.Categorical(kept.label, names).codes)
    write_splits(kept, database, result, options, logger)
    write_rows(result / UNREADABLE, ("path", "reason"), left_out)
    write_rows(result / DUPLICATES, ("path", "reason"), sorted(copies.items()))
    test = kept[(kept.split == "test") & (kept.label >= 0)]
    write_rows(result / TEST_LABELS, ("id", "label"),
               list(zip(test.identifier, test.label, strict=True)))
    store.write_text(result / class_names.CONVERTED, as_lines(names))
    return {"photos": len(table),
            "records": {split: int((kept.split == split).sum()) for split in SPLITS},
            "classes": len(names),
            "classes lost": sorted({*table.label} - {*table.label[kept.index]} - {""}),
            "unreadable": len(left_out), "duplicates": len(copies),
            "enlarged": int((good.side < options.size).sum()),
            "enlarged more": good.identifier[good.side * ENLARGED < options.size].tolist(),
            "turned": int(good.turned.sum())}


def find_copies(good: pd.DataFrame) -> dict[str, str]:
    """The photos to leave out, so that every picture occurs once, and the reasons.

    A picture in two classes is left out of both, because its true class is unknown. Photos with
    fixed splits are all kept.
    """
    copies = dict[str, str]()
    alike = good[good.split.isna() & good.duplicated("digest", keep=False)]
    for _, group in alike.groupby("digest"):
        first, *others = group.identifier
        labels = photos.in_order(group.label)
        if len(labels) == 1:
            copies |= dict.fromkeys(others, f"the same picture as {first}")
        else:
            copies |= dict.fromkeys(group.identifier, "the same picture is in "
                                    f"{len(labels)} classes: {', '.join(labels)}")
    return copies


def assign_splits(table: pd.DataFrame, names: list[str], options: ConversionOptions) -> list[str]:
    """The split of every photo; raises UserError if train or val would be empty."""
    splits = stratify(pd.Categorical(table.label, names).codes, [*table.identifier],
                      *options.shares, options.seed)
    if not {"train", "val"} <= {*splits}:
        raise UserError(f"{counted(len(table), 'photo')} of {len(names)} classes leave none to "
                        f"validate with at --val {options.val}: add photos or raise --val")
    return splits


def write_splits(kept: pd.DataFrame, database: sqlite3.Connection, result: Path,
                 options: ConversionOptions, logger: RunLogger) -> None:
    """Writes train, val and, if it has photos, test; existing files are complete."""
    with logger.progress(len(kept), 0) as advance:
        for split in sorted({*kept.split}):
            ordered = sorted(kept[kept.split == split].itertuples(), key=lambda photo: order_of(
                options.seed, "order", photo.identifier))
            shards = np.array_split(np.arange(len(ordered)), -(-len(ordered) // SHARD))
            for shard, places in enumerate(shards):
                some = [ordered[place] for place in places]
                path = result / split / (f"{shard:02d}-{options.size}x{options.size}-{len(some)}"
                                         ".tfrec")
                if not path.exists():
                    with store.atomic_write(path) as partial:
                        tfrecord.write(partial, (stored_jpeg(photo, database) for photo in some),
                                       None if split == "test" else
                                       [photo.label for photo in some],
                                       [photo.identifier for photo in some],
                                       [photo.group for photo in some] if any(kept.group) else None)
                advance(split, len(some))


def stored_jpeg(photo: Any, database: sqlite3.Connection) -> bytes:
    jpeg: bytes
    jpeg, = database.execute("SELECT jpeg FROM photos WHERE number = ?", (photo.Index,)).fetchone()
    if digest_of(jpeg) != photo.digest:
        raise sqlite3.DatabaseError("a stored photo has changed")
    return jpeg


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV, unless there are no rows."""
    if rows:
        with store.atomic_write(path) as partial:
            pd.DataFrame(list(rows), columns=list(header)).to_csv(partial, index=False)


def as_lines(names: Sequence[str]) -> str:
    """The text of a file for dataset.class_names: one name per line, or else a JSON list."""
    if all(name.splitlines() == [name.strip()] for name in names) and not names[0].startswith("["):
        return "".join(f"{name}\n" for name in names)
    return json.dumps(list(names), ensure_ascii=False, indent=1) + "\n"


def show(target: Path, logger: RunLogger, advise: bool = True) -> bool:
    """Logs what was converted, what was left out and, with `advise`, how to train; returns whether
    all was read.
    """
    out, summary = target.parent, store.read_json(target / SUMMARY)
    first = ""
    if summary["unreadable"]:
        rows = pd.read_csv(target / UNREADABLE, dtype=str, keep_default_na=False, nrows=SHOWN)
        first = "".join(f"\n  {path}: {reason}" for path, reason in rows.itertuples(index=False))
    for key, sentence in (
            ("unreadable", f"could not be used, all in {target / UNREADABLE}:{first}"),
            ("duplicates", f"left out as copies of others: {target / DUPLICATES}"),
            ("enlarged", f"with a side of less than {summary['size']} pixels enlarged"),
            ("turned", ("" if summary["exif"] else "not ") + "turned as their EXIF orientation "
                       f"says (exif={str(summary['exif']).lower()})")):
        if summary[key]:
            logger.info(f"{counted(summary[key], 'photo')} {sentence}")
    if small := summary.get("enlarged more"):
        logger.info(f"enlarged by more than {ENLARGED} times: {photos.shown(small)}"
                    f"{f', all in {target / SUMMARY}' * (len(small) > photos.SHOWN)}")
    if lost := summary["classes lost"]:
        logger.info(f"classes left out because none of their photos can be used: "
                    f"{photos.shown(lost)}")
    counts = ", ".join(f"{count} in {split}" for split, count in summary["records"].items()
                       if count)
    logger.info(f"{target}: {counted(summary['classes'], 'class')}, {counts}")
    if summary["records"]["test"]:
        logger.info(f"the labels of test, which its records lack: {target / TEST_LABELS}")
    if not advise:
        return not summary["unreadable"]
    several = len(list(out.glob("tfrecords-jpeg-*"))) > 1
    root = str(out) if re.fullmatch(r"[\w./@%+~-]+", str(out)) else json.dumps(
        str(out), ensure_ascii=False)
    words = ["dataset=tfrecords", f"dataset.root={root}",
             *([f"dataset.image_size={summary['size']}"] if several else [])]
    logger.info(f"to train: flowerexp run {shlex.join(words)}")
    return not summary["unreadable"]
