"""A split in memory: labels, ids and images as a table, and the issues of what was left out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from flowerexp.data.features import ReadSpec
from flowerexp.errors import UserError
from flowerexp.lazy import tf

ALIGNMENT = 64
"""Alignment, in bytes, of memory that TensorFlow uses without a copy."""


@dataclass(frozen=True)
class DataIssue:
    """An issue with a record, or with a file if `record` is None.

    record: number of the record in the file, from 0.
    id: id of the record; None if it cannot be read.
    message: the sentence without file and record.
    lost: number of records that cannot be read because of it.
    """

    file: str
    record: int | None
    id: str | None
    message: str
    lost: int = 1

    @property
    def sentence(self) -> str:
        if self.record is None:
            return f"{self.file} {self.message}"
        return f"{self.file}, record {self.record}: {self.message}"


@dataclass(frozen=True)
class Table:
    """A split in memory.

    images: string [n], encoded, or uint8 [n, height, width, 3], decoded; None if only labels and
        ids were kept.
    labels: int32 [n]; -1 in a split without labels.
    ids: n strings, empty if a record has none.
    digests: uint64 [n], the `image_digest` of each image.
    groups: n names of what an image shows (a patient, a plant), empty if there are no groups.
    files: paths in reading order; empty for arrays in memory.
    counts: number of the table's records in each file.
    spans: int64 [n, 2], start and length in bytes of each record's data in its file.
    partial: whether the files hold other records too.
    issues: issues of records that were left out, and of files that end too early, in reading order.
    bad: id, perhaps empty, of each record that was left out, by its row among all records.
    plain: whether every encoded image is a JPEG of the split's size, to be decoded as it is.
    compression: GZIP, ZLIB or an empty text for each file.
    classes: (label in the records or -1, class name in the records) of each class, in their order;
        empty if the records tell no class names.
    spec: what its records had to be; None for arrays.
    """

    images: tf.Tensor | None
    labels: npt.NDArray[np.int32]
    ids: list[str]
    digests: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    groups: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    spans: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    partial: bool = False
    issues: tuple[DataIssue, ...] = ()
    bad: Mapping[int, str] = field(default_factory=dict)
    plain: bool = True
    compression: tuple[str, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()
    spec: ReadSpec | None = None

    def take(self, rows: npt.NDArray[np.bool_]) -> Table:
        """The table of some rows, bool [n], in the same order."""
        number = np.repeat(np.arange(len(self.files)), self.counts)
        return replace(
            self, images=None if self.images is None else tf.boolean_mask(self.images, rows),
            labels=self.labels[rows], ids=list(itertools.compress(self.ids, rows)),
            digests=self.digests[rows], groups=tuple(itertools.compress(self.groups, rows)),
            counts=tuple(np.bincount(number[rows], minlength=len(self.files)).tolist())
            if self.files else (),
            spans=self.spans[rows] if self.files else self.spans,
            partial=self.partial or not rows.all(), bad={})

    def join(self, other: Table) -> Table:
        """The rows of this table and then those of another of the same source."""
        assert (self.images is None) == (other.images is None)
        return Table(
            None if self.images is None else tf.concat([self.images, other.images], 0),
            np.concatenate([self.labels, other.labels]), self.ids + other.ids,
            np.concatenate([self.digests, other.digests]), self.groups + other.groups,
            self.files + other.files, self.counts + other.counts,
            np.concatenate([self.spans, other.spans]), self.partial or other.partial,
            self.issues + other.issues, plain=self.plain and other.plain,
            compression=self.compression + other.compression, classes=self.classes,
            spec=self.spec)

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """bool [records], whether each record is in the table."""
        kept = np.ones(len(self.ids) + len(self.bad), np.bool_)
        kept[list(self.bad)] = False
        return kept

    @property
    def all_ids(self) -> list[str]:
        """The ids of all records, including those that were left out."""
        good = iter(self.ids)
        return [next(good) if kept else self.bad[row] for row, kept in enumerate(self.kept)]


def with_same_classes(tables: Mapping[str, Table]) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Tables whose labels count the classes of all of them, and the names of these.

    Of tables whose records tell no class names, the labels stay, and there are no names.

    Raises:
        UserError: if a label has two class names, or a class name two labels.
    """
    found = sorted({each for table in tables.values() for each in table.classes}, key=class_order)
    for place in (0, 1) if any(label >= 0 for label, _ in found) else (1,):
        seen = dict[Any, tuple[int, str]]()
        for each in found:
            if (before := seen.setdefault(each[place], each)) != each:
                raise UserError(f"the records call label {before[0]} {before[1]!r} and label "
                                f"{each[0]} {each[1]!r}: give dataset.class_names=FILE")
    rows = {each: row for row, each in enumerate(found)}
    renamed = {split: replace(table, classes=tuple(found), labels=np.array(
        [rows[each] for each in table.classes], np.int32)[table.labels])
        if table.classes else table for split, table in tables.items()}
    return renamed, tuple(name for _, name in found)


def class_order(told: tuple[int, str]) -> tuple[int, int, str]:
    """The sort key of a class by its label, then its name: names that are numbers by value."""
    label, name = told
    return label, int(name) if name.isdecimal() else -1, name


def image_digest(image: bytes) -> int:
    """The length and CRC32C, 64 bits, of an encoded image, or of the pixels of one in memory."""
    checksum: int = google_crc32c.value(image)
    return (len(image) & 0xFFFFFFFF) << 32 | checksum


def aligned_empty(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An uninitialized array, aligned so that TensorFlow uses it without a copy."""
    count = int(np.prod(shape))
    raw = np.empty(count + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:start + count].reshape(shape)


def as_tensor(pixels: npt.NDArray[np.uint8]) -> tf.Tensor:
    """The array as a tensor, without a copy if it is aligned; tf.constant holds three copies."""
    if pixels.ctypes.data % ALIGNMENT or not (pixels.flags.c_contiguous and pixels.flags.writeable):
        copy = aligned_empty(pixels.shape)
        copy[:] = pixels
        pixels = copy
    return tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())


def count_skipped(issues: Sequence[DataIssue]) -> int:
    """The number of records that were left out, however many issues they have."""
    return sum({(issue.file, issue.record): issue.lost for issue in issues}.values())


def skipped_status(issues: Sequence[DataIssue]) -> dict[str, Any]:
    """The entry `skipped` of status.json: the number of records left out, and every issue.

    A record with two issues is counted once and listed twice; an issue with a whole file has the
    record null. A file that ends too early counts as the missing records that its name states, or
    as one if it states none.
    """
    return {"count": count_skipped(issues), "records": [
        {"file": issue.file, "record": issue.record, "id": issue.id, "fault": issue.message}
        for issue in issues]}


def skipped_sentence(issues: Sequence[DataIssue]) -> str:
    """The sentence about skipped records that a run logs at its start."""
    if not issues:
        return "skipped 0 records"
    return (f"skipped {count_skipped(issues)} bad records, all listed in status.json; the first: "
            f"{issues[0].sentence}")
