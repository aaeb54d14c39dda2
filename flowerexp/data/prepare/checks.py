"""Checks a data set: errors, which would end a run, warnings, and class counts.

Images are decoded one by one and not kept; only ids and hashes of pixels stay in memory.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.table import Table
from rich.text import Text

from flowerexp.data import records, resizing, sources, tables, tfrecord
from flowerexp.data.prepare import near
from flowerexp.data.records import Record
from flowerexp.data.sources import Source
from flowerexp.data.tables import DataIssue, class_order, count_skipped
from flowerexp.data.tfrecord import FRAME
from flowerexp.errors import counted, one_line
from flowerexp.runs.log import RunLogger

SHOWN = 20
"""Maximum number of classes without training images that are named."""
JPEG = b"\xff\xd8"
"""The first bytes of a JPEG."""
LONGEST = 120
"""Maximum number of characters of a value that are shown."""


@dataclass
class CheckResult:
    """The result of the check of a data set.

    errors: issues that end a run with dataset.on_bad_record=stop, in reading order.
    warnings: duplicate ids, images in two splits, classes without images.
    records: by split, the number of records, good or bad.
    counts: by labelled split, the number of good records of each class, int64 [classes].
    names: class names; numbers if there are none.
    ids: where each id was seen first.
    images: by hash of the pixels, the split and where an image was seen first.
    """

    errors: list[DataIssue] = field(default_factory=list)
    warnings: list[DataIssue] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    images: dict[bytes, tuple[str, str]] = field(default_factory=dict)


def check(source: Source, advance: Callable[[int], None] = lambda _: None) -> CheckResult:
    """Checks every record of every split.

    Args:
        source: the data set.
        advance: called with the number of bytes read since its last call.
    """
    result, labels = CheckResult(), dict[str, list[int | tuple[int, str]]]()
    for split, files in source.files.items():
        labels[split], result.records[split] = [], 0
        for file in files:
            for number, entry in enumerate(records.inspect(file, source.spec(split))):
                result.errors += entry.issues
                if entry.span is None:
                    continue
                result.warnings += [DataIssue(file, number, entry.id, warning) for warning
                                    in warnings(entry, split, f"{file}, record {number}",
                                                result)]
                if not entry.issues:
                    labels[split].append(entry.told or entry.label)
                result.records[split] += 1
                advance(entry.span.length + FRAME)
        if not result.records[split]:
            result.errors.append(DataIssue(f"{source.folder}/{split}", None, None,
                                           "holds no record: the split is empty", lost=0))
    labels.pop("test", None)
    told = {each for each in itertools.chain(*labels.values()) if isinstance(each, tuple)}
    rows = {each: row for row, each in enumerate(sorted(told, key=class_order))}
    known = {split: [each if isinstance(each, int) else rows[each] for each in found]
             for split, found in labels.items()}
    classes = source.num_classes or 1 + max(itertools.chain(*known.values()), default=-1)
    result.names = source.class_names or tuple(name for _, name in rows) or tuple(
        map(str, range(classes)))
    result.counts = {split: np.bincount(np.array(each, np.int64), minlength=classes)
                     for split, each in known.items()}
    if empty := np.flatnonzero(result.counts["train"] == 0).tolist():
        named = ", ".join(result.names[label] for label in empty[:SHOWN])
        result.warnings.append(DataIssue(
            f"{source.folder}/train", None, None, f"holds no good image of {len(empty)} of "
            f"{classes} classes: {named}" + (" and more" if len(empty) > SHOWN else "")))
    return result


def warnings(entry: Record, split: str, place: str, seen: CheckResult) -> Iterator[str]:
    """Warnings if a record's id was seen before, or its image in another split."""
    if entry.id and (before := seen.ids.setdefault(entry.id, place)) != place:
        yield f"its id is also that of {before}"
    if not entry.issues:
        assert entry.image is not None
        pixels = resizing.decode(tf.constant(entry.image))
        digest = hashlib.blake2b(pixels.numpy(), digest_size=16).digest()
        of_split, before = seen.images.setdefault(digest, (split, place))
        if of_split != split:
            yield f"its image (the same pixels) is also in {of_split}: {before}"


def run(part: sources.TFRecords, logger: RunLogger, near_output: Path | None = None,
        bits: int = near.BITS) -> bool:
    """Checks a data set of records with a progress bar, and logs what was found.

    Args:
        part: the data set part of a config.
        logger: logs the layout that was recognised, and the result.
        near_output, bits: see `near.run`; None: near-duplicates are not looked for.

    Returns:
        Whether a run would read all of it.

    Raises:
        UserError: for a root without a data set.
    """
    source = sources.find(part)
    logger.info(source.reason)
    size = 0
    for file in (file for files in source.files.values() for file in files):
        with contextlib.suppress(tf.errors.OpError):  # the check reports it
            size += tf.io.gfile.stat(file).length
    with logger.steps("records", size) as advance:
        result = check(source, advance)
    show(source, result, logger)
    if near_output is not None:
        near.run(source, near_output, logger, bits)
    return not result.errors


def show(source: Source, result: CheckResult, logger: RunLogger) -> None:
    """Logs issues by file, counts by class, and how many issues would end a run."""
    for kind, issues in (("error", result.errors), ("warning", result.warnings)):
        for issue in issues:
            logger.info(f"{kind}: {describe(issue)}")
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    for split in result.counts:
        table.add_column(split, justify="right", no_wrap=True)
    rows = np.column_stack(list(result.counts.values())).tolist()
    for label, (name, counts) in enumerate(zip(result.names, rows, strict=True)):
        # Without num_classes, one label that is far too large makes a million classes.
        if source.num_classes is not None or any(counts):
            table.add_row(Text(name if name == str(label) else one_line(f"{label} {name}")),
                          *map(str, counts))
    logger.console.print(table)
    of_splits = ", ".join(f"{number} in {split}" for split, number in result.records.items())
    logger.info(f"{source.folder}: records of {source.image_size}x{source.image_size} pixels, "
                f"{of_splits}; {counted(len(result.errors), 'error')}, "
                f"{counted(count_skipped(result.errors), 'bad record')} "
                "(dataset.on_bad_record=stop ends a run), "
                f"{counted(len(result.warnings), 'warning')}")


def describe(issue: DataIssue) -> str:
    """The sentence of an issue, with the record's id."""
    if issue.record is None:
        return issue.sentence
    known = f"id {issue.id!r}" if issue.id else "no readable id" if issue.id is None else "no id"
    return f"{issue.file}, record {issue.record} ({known}): {issue.message}"


@dataclass(frozen=True)
class Feature:
    """Description of one feature of a record; its kind is bytes, int64, float or no."""

    name: str
    kind: str
    count: int
    value: str


def first_record(table: tables.Table) -> tuple[str, list[Feature]]:
    """The place of the first record of a split, and its features by name.

    Args:
        table: table of at least one record.
    """
    if table.spec is None:  # arrays or photos
        shape = "not kept" if table.images is None else " x ".join(map(str, table.images.shape[1:]))
        return f"image {table.ids[0]} in memory", [
            Feature("class", "int64", 1, str(table.labels[0])),
            Feature("id", "text", 1, table.ids[0]), Feature("image", "uint8", 1, shape)]
    first = next(number for number, count in enumerate(table.counts) if count)
    path = table.files[first]
    number, data = next(
        (number, record.data) for number, record in enumerate(tfrecord.raw_records(path))
        if record.span == tuple(table.spans[0]))
    features = tf.train.Example.FromString(data).features.feature
    return (f"{path}, record {number} ({len(data)} bytes)",
            [describe_feature(name, features[name]) for name in sorted(features)])


def describe_feature(name: str, feature: tf.train.Feature) -> Feature:
    """Describes a feature; bytes that are not short text by their number and first bytes."""
    stored = feature.WhichOneof("kind")
    kind = (stored or "no").removesuffix("_list")
    values = getattr(feature, stored).value if stored else []
    describe_value = {"bytes": describe_bytes, "float": "{:g}".format}.get(kind, str)
    text = ", ".join(map(describe_value, values))
    return Feature(name, kind, len(values),
                   text if len(text) <= LONGEST else f"{text[:LONGEST - 1]}…")


def describe_bytes(value: bytes) -> str:
    """Describes bytes: the size of a JPEG, text as it is, the first bytes of anything else."""
    if value.startswith(JPEG):
        height, width, channels = tf.io.extract_jpeg_shape(value).numpy().tolist()
        return f"JPEG of {len(value)} bytes, {height} x {width} pixels, {channels} channels"
    with contextlib.suppress(UnicodeDecodeError):
        if (text := value.decode()).isprintable():
            return text or "(empty)"
    return f"{len(value)} bytes, beginning with {value[:16].hex(' ')}"
