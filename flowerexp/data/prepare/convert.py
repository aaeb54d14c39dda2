"""Converts photos to TFRecords in the competition's layout; a killed conversion can be resumed.

First, every photo is read once, in parallel, and stored as a small JPEG in one of many parts in the
folder `.conversion-SxS`. Then, when the readable photos are known, they are assigned to train, val
and test and written as records. A rename creates `tfrecords-jpeg-SxS` at the end. The result
depends on the photos and the options, not on the number of workers.
"""

import contextlib
import csv
import itertools
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from flowerexp.data import records, sources
from flowerexp.data.prepare import parts, photos
from flowerexp.data.prepare.parts import Converted
from flowerexp.data.prepare.photos import Listing, Photo
from flowerexp.data.prepare.splits import SPLITS, order_of, stratify
from flowerexp.errors import UserError, counted
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

VERSION = 1
"""Version of the format of parts and records; to be increased with every change of it."""
SHARD = 800
"""Maximum records per file, about as in the competition."""
PLAN = "plan.json"
SUMMARY = "conversion.json"
UNREADABLE = "unreadable.csv"
DUPLICATES = "duplicates.csv"
TEST_LABELS = "test_labels.csv"
SHOWN = 3
"""Maximum number of unreadable photos that the log names."""
OPTIONS = {"val": "--val", "test": "--test", "seed": "--seed"}


@dataclass(frozen=True)
class ConversionOptions:
    """How photos are converted.

    size: height and width in pixels.
    val, test: shares of the photos, decimal fractions; unused if the photos have fixed splits.
    seed: decides the splits and the order of the records.
    """

    size: int
    val: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= records.MAX_IMAGE_SIZE:
            raise UserError(f"--size must be from 1 to {records.MAX_IMAGE_SIZE} pixels, not "
                            f"{self.size}")
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.shares[0] + self.shares[1] < 1):
            raise UserError(f"--val {self.val} --test {self.test} leave nothing to train on or to "
                            "validate with: --val must be greater than 0, --test 0 or more, and "
                            "their sum less than 1")

    @property
    def shares(self) -> tuple[Fraction, Fraction]:
        """The shares of val and test, as exact fractions."""
        return Fraction(str(self.val)), Fraction(str(self.test))


def target_of(out: Path, size: int) -> Path:
    return out / f"tfrecords-jpeg-{size}x{size}"


def work_of(out: Path, size: int) -> Path:
    return out / f".conversion-{size}x{size}"


def plan_of(options: ConversionOptions, inputs: str) -> dict[str, Any]:
    """The plan of a conversion, which must be equal for it to be resumed."""
    return {"version": VERSION, "inputs": inputs, "size": options.size, "val": str(options.val),
            "test": str(options.test), "seed": options.seed}


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Locks `out` against other conversions; raises UserError if it is locked."""
    if out.parts[:1] == ("gs:",):
        raise UserError(f"{out} is not a local folder: convert to one, and copy the records")
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / store.LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{out} is in use by another process: wait for it, or give another folder"
                        ) from None
    try:
        yield
    finally:
        lock.release()


def finished(out: Path, plan: dict[str, Any], logger: RunLogger) -> dict[str, Any] | None:
    """The summary of the same conversion, if it was finished before; else None.

    Raises:
        UserError: if `out` holds another conversion, finished or not, or other records.
    """
    target, work = target_of(out, plan["size"]), work_of(out, plan["size"])
    if any((out / split).exists() for split in SPLITS):
        raise UserError(f"{out} holds a folder train, val or test, in which a run would look for "
                        "its records: give another folder")
    for folder, name in ((target, SUMMARY), (work, PLAN)):
        if not folder.exists():
            continue
        there = store.read_json(folder / name) if (folder / name).exists() else {}
        if not there and folder == work:
            continue  # killed before its plan was written, and so before anything else
        differing = [key for key in plan if there.get(key) != plan[key]]
        if differing:
            option = next((key for key in OPTIONS if key in differing and key in there), None)
            why = (f"made with {OPTIONS[option]} {there[option]} where this command says "
                   f"{plan[option]}" if option else "made from other photos, or they have changed")
            raise UserError(f"{folder} is {why}: give another folder, or remove this one to start "
                            "again")
        if folder == target:
            shutil.rmtree(work, ignore_errors=True)
            logger.info(f"{target} was made before, from the same photos")
            return dict(there)
    return None


def convert(listing: Listing, out: Path, options: ConversionOptions, inputs: str, workers: int,
            logger: RunLogger) -> dict[str, Any]:
    """Converts photos to `out`/tfrecords-jpeg-SxS, unless that was finished before.

    Args:
        listing: the photos.
        out: folder to write to; the caller holds its lock (`locked`).
        options: how the photos are converted.
        inputs: fingerprint of the photos; a conversion of other photos is not resumed.
        workers: photos converted at the same time.
        logger: shows the progress.

    Returns:
        The summary, as in `conversion.json`.

    Raises:
        UserError: for another conversion in `out`, too few photos, a full disk.
    """
    plan = plan_of(options, inputs)
    if (summary := finished(out, plan, logger)) is not None:
        return summary
    if all(photo.split is None for photo in listing.photos):  # fails before hours of decoding
        assign_splits(listing.photos, photos.in_order(photo.label for photo in listing.photos),
                      options)
    work = work_of(out, options.size)
    try:
        store.write_json(work / PLAN, plan)
        parts.convert(listing.photos, work, options.size, workers, logger)
        summary = plan | write_result(listing, work, options, logger)
        store.write_json(work / "result" / SUMMARY, summary, indent=1)
        (work / "result").rename(target_of(out, options.size))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}): make room or give "
                        "another folder, then rerun the command to resume") from error
    shutil.rmtree(work, ignore_errors=True)
    return summary


def write_result(listing: Listing, work: Path, options: ConversionOptions, logger: RunLogger
                 ) -> dict[str, Any]:
    """Assigns splits, writes records and lists to `result`, and returns the summary."""
    good, left_out, small, turned = parts.read(listing, work, options.size)
    good, duplicates = without_duplicates(good)
    every = [each.photo for each in good]
    names = listing.names or photos.in_order({photo.label for photo in every})
    splits = [photo.split or "" for photo in every]
    if "" in splits:
        splits = assign_splits(every, names, options)
    result = work / "result"
    label_of = {name: label for label, name in enumerate(names)}
    write_splits(good, splits, label_of, result, work, options, logger)
    write_rows(result / UNREADABLE, ("path", "reason"), left_out)
    write_rows(result / DUPLICATES, ("path", "reason"), duplicates)
    write_rows(result / TEST_LABELS, ("id", "label"),
               [(photo.identifier, label_of[photo.label])
                for photo, split in zip(every, splits, strict=True) if split == "test"])
    store.write_text(result / sources.NAMES_FILE, as_lines(names))
    lost = sorted({photo.label for photo in listing.photos} - {photo.label for photo in every})
    return {"photos": len(listing.photos), "records": {split: splits.count(split)
                                                       for split in SPLITS},
            "classes": len(names), "classes lost": lost, "unreadable": len(left_out),
            "duplicates": len(duplicates), "enlarged": small, "turned": turned}


def without_duplicates(every: list[Converted]) -> tuple[list[Converted], list[tuple[str, str]]]:
    """Every picture once, and path and reason for each photo that is left out as a copy.

    A picture in two classes is left out of both, because its true class is unknown. Photos with
    fixed splits are all kept.
    """
    alike: dict[str, list[Converted]] = {}
    for each in every:
        alike.setdefault(each.digest if each.photo.split is None else each.photo.identifier,
                         []).append(each)
    kept, copies = [], []
    for group in alike.values():
        first, *others = group
        labels = photos.in_order({each.photo.label for each in group})
        if len(labels) == 1:
            kept.append(first)
            copies += [(each.photo.identifier, f"the same picture as {first.photo.identifier}")
                       for each in others]
        else:
            copies += [(each.photo.identifier,
                        f"the same picture is in {len(labels)} classes: "
                        + ", ".join(labels)) for each in group]
    return kept, sorted(copies)


def assign_splits(every: Sequence[Photo], names: Sequence[str], options: ConversionOptions
                  ) -> list[str]:
    """The split of every photo; raises UserError if train or val would be empty."""
    label_of = {name: label for label, name in enumerate(names)}
    splits = stratify([label_of[photo.label] for photo in every],
                      [photo.identifier for photo in every], *options.shares, options.seed)
    counts = Counter(splits)
    if not (counts["train"] and counts["val"]):
        raise UserError(f"{counted(len(every), 'photo')} of {len(names)} classes leave none to "
                        f"validate with at --val {options.val}: add photos or raise --val")
    return splits


def write_splits(good: Sequence[Converted], splits: Sequence[str], label_of: dict[str, int],
                 result: Path, work: Path, options: ConversionOptions, logger: RunLogger) -> None:
    """Writes train, val and, if it has photos, test; existing files are complete."""
    reader = parts.Parts(work)
    with logger.progress(len(good), 0) as advance:
        for split in SPLITS:
            of_split = sorted(
                (each for each, its in zip(good, splits, strict=True) if its == split),
                key=lambda each: order_of(options.seed, "order", each.photo.identifier))
            shards = -(-len(of_split) // SHARD)
            for number, indices in enumerate(np.array_split(np.arange(len(of_split)), shards)
                                             if shards else ()):
                some = [of_split[index] for index in indices]
                path = result / split / (f"{number:02d}-{options.size}x{options.size}-{len(some)}"
                                         ".tfrec")
                if not path.exists():
                    parts.write_records(path, [reader.image(each) for each in some],
                                  None if split == "test" else
                                  [label_of[each.photo.label] for each in some],
                                  [each.photo.identifier for each in some])
                advance(split, len(some))


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV, unless there are no rows."""
    if rows:
        with store.atomic_write(path) as partial, \
                partial.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


def as_lines(names: Sequence[str]) -> str:
    """The text of a file for dataset.class_names: one name per line, or else a JSON list."""
    if all(name.splitlines() == [name.strip()] for name in names) and not names[0].startswith("["):
        return "".join(f"{name}\n" for name in names)
    return json.dumps(list(names), ensure_ascii=False, indent=1) + "\n"


def run(images: Path, out: Path, options: ConversionOptions, workers: int,
        logger: RunLogger) -> bool:
    """Converts a folder per class or a CSV; returns whether every photo could be read.

    Raises:
        UserError: as `photos.listed` and `convert`.
    """
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{out} is inside {images}, where photos are searched: give a folder "
                        "outside of it")
    with logger.console.status(f"searching {images.name}"):
        listing = photos.listed(images)
        inputs = photos.fingerprint(listing)
    with locked(out):
        summary = convert(listing, out, options, inputs, workers, logger)
    return show(summary, listing.notes, out, logger)


def show(summary: dict[str, Any], notes: Sequence[str], out: Path, logger: RunLogger) -> bool:
    """Logs what was converted, what was left out and how to train; returns whether all was read."""
    target = target_of(out, summary["size"])
    for note in notes:
        logger.info(note)
    if number := summary["unreadable"]:
        with (target / UNREADABLE).open(encoding="utf-8", newline="") as file:
            first = [": ".join(row) for row in itertools.islice(csv.reader(file), 1, 1 + SHOWN)]
        logger.info(f"{counted(number, 'photo')} could not be used, all in {target / UNREADABLE}:")
        for line in first:
            logger.info(f"  {line}")
    if number := summary["duplicates"]:
        logger.info(f"{counted(number, 'photo')} left out as copies of others: "
                    f"{target / DUPLICATES}")
    if lost := summary["classes lost"]:
        logger.info(f"classes left out because none of their photos can be used: "
                    f"{photos.shown(lost)}")
    if number := summary["enlarged"]:
        logger.info(f"{counted(number, 'photo')} with a side of less than {summary['size']} pixels "
                    "enlarged")
    if number := summary["turned"]:
        logger.info(f"{counted(number, 'photo')} not rotated as their EXIF orientation says: it is "
                    "ignored; rotate the photos before, if you need it (mogrify -auto-orient)")
    counts = ", ".join(f"{count} in {split}" for split, count in summary["records"].items()
                       if count)
    logger.info(f"{target}: {counted(summary['classes'], 'class')}, {counts}")
    if summary["records"]["test"]:
        logger.info(f"the labels of test, which its records lack: {target / TEST_LABELS}")
    several = len(list(out.glob("tfrecords-jpeg-*"))) > 1
    root = str(out) if re.fullmatch(r"[\w./@%+~-]+", str(out)) else json.dumps(
        str(out), ensure_ascii=False)
    words = ["dataset=tfrecords", f"dataset.root={root}",
             *([f"dataset.image_size={summary['size']}"] if several else [])]
    logger.info(f"to train: flowerexp run {shlex.join(words)}")
    return not summary["unreadable"]
