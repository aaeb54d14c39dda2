"""A split in memory: labels, ids and images as a table, and the issues of what was left out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

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

    images: string [n], JPEG bytes, or uint8 [n, height, width, 3], decoded; None if only labels and
        ids were kept.
    labels: int32 [n]; -1 in a split without labels.
    ids: n strings, empty if a record has none.
    digests: uint64 [n], checksums of each example's stored bytes.
    groups: n names of what an image shows (a patient, a plant), empty if there are no groups.
    files: paths in reading order; empty for arrays in memory.
    counts: number of the table's records in each file.
    spans: int64 [n, 2], start and length in bytes of each record's data in its file.
    partial: whether the files hold other records too.
    issues: issues of records that were left out, and of files that end too early, in reading order.
    bad: id, perhaps empty, of each record that was left out, by its row among all records.
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
            self.issues + other.issues)

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
