"""Splits without their bad records, for `dataset.on_bad_record=skip`; test rows are never lost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.data import records
from flowerexp.data.faults import DataIssue
from flowerexp.data.frames import RecordSpan
from flowerexp.data.records import Entry, RecordFile, Table
from flowerexp.errors import UserError
from flowerexp.strategy.workers import AllGather, single_process


@dataclass(frozen=True)
class SplitRead:
    """What can be read of a split.

    table: of the good records.
    faults: of the others and of files that end too early, in reading order.
    ids: of every record, good or bad; empty where it has none.
    kept: bool [records], whether a record is in the table.
    sizes: the records of each file, good or bad.
    """

    table: Table
    faults: tuple[DataIssue, ...]
    ids: tuple[str, ...]
    kept: npt.NDArray[np.bool_]
    sizes: tuple[int, ...]


def whole(table: Table) -> SplitRead:
    """A split, or a part of one, of which nothing was left out."""
    return SplitRead(table, (), tuple(table.ids), np.ones(len(table.labels), np.bool_),
                    table.counts)


def read(files: Sequence[RecordFile], image_size: int, labelled: bool, num_classes: int | None,
         keep_images: bool = True, all_gather: AllGather = single_process) -> SplitRead:
    """Reads a split, decodes every image once, and leaves out the records that have a fault.

    Args:
        files, image_size, labelled, num_classes, keep_images: as of `records.read`.
        everywhere: who reads the files; of several, each its own.

    Raises:
        UserError: where no record of a labelled split is left; in a split without labels, whose
            rows must all be predicted by their ids, for a bad record without a readable id or with
            that of another, and for a file that does not hold the records that it should.
    """
    readable = together(all_gather(lambda worker, workers: read_part(
        files[worker::workers], image_size, labelled, num_classes, keep_images)), files)
    if labelled and not readable.kept.any():
        raise UserError(f"{files[0].path} and the files beside it hold no good record, so that "
                        "dataset.on_bad_record=skip leaves the split empty"
                        + (f"; the first fault: {readable.faults[0].sentence}"
                           if readable.faults else ""))
    if not labelled:
        refuse_shared_id(readable.ids, readable.faults)
    if readable.faults:
        return readable
    return replace(readable, table=replace(readable.table, frames=None))


def read_part(files: Sequence[RecordFile], image_size: int, labelled: bool, num_classes: int | None,
              keep_images: bool) -> SplitRead:
    """Some files of a split, perhaps none; raises UserError for a row that would be lost."""
    images: list[bytes] = []
    labels: list[int] = []
    ids: list[str] = []
    kept: list[bool] = []
    faults: list[DataIssue] = []
    frames: list[tuple[RecordSpan, ...]] = []
    sizes: list[int] = []
    for file in files:
        before = len(kept)
        good: list[RecordSpan] = []
        for entry in records.entries(file, image_size, labelled, num_classes):
            if entry.faults and not labelled:
                refuse_lost_row(entry)
            faults += entry.faults
            if entry.frame is None:
                continue
            kept.append(not entry.faults)
            ids.append(entry.identifier or "")
            if entry.example is not None and not entry.faults:
                good.append(entry.frame)
                labels.append(entry.example.label)
                if keep_images:
                    images.append(entry.example.image)
        frames.append(tuple(good))
        sizes.append(len(kept) - before)
    good_ids = [identifier for identifier, whole in zip(ids, kept, strict=True) if whole]
    table = Table(tf.constant(images, tf.string) if keep_images else None,
                  np.array(labels, np.int32), good_ids, tuple(files), tuple(map(len, frames)),
                  tuple(frames))
    return SplitRead(table, tuple(faults), tuple(ids), np.array(kept, np.bool_), tuple(sizes))


def together(parts: Sequence[SplitRead], files: Sequence[RecordFile]) -> SplitRead:
    """A split of what each worker read of it: file i is in part i % len(parts).

    Of several parts none holds images.
    """
    if len(parts) == 1:
        return parts[0]
    order = [(number % len(parts), number // len(parts)) for number in range(len(files))]

    def in_order(values: Sequence[Any], sizes: Sequence[Sequence[int]]) -> list[Any]:
        ends = [np.cumsum((0, *each)) for each in sizes]
        return [value for part, file in order
                for value in values[part][ends[part][file]:ends[part][file + 1]]]

    tables = [part.table for part in parts]
    counts, sizes = [table.counts for table in tables], [part.sizes for part in parts]
    places = {file.path: number for number, file in enumerate(files)}
    faults = sorted((fault for part in parts for fault in part.faults),
                    key=lambda fault: places[fault.file])
    table = Table(None, np.array(in_order([table.labels for table in tables], counts), np.int32),
                  in_order([table.ids for table in tables], counts), tuple(files),
                  tuple(counts[part][file] for part, file in order),
                  None if tables[0].frames is None else tuple(
                      (tables[part].frames or ())[file] for part, file in order))
    return SplitRead(table, tuple(faults), tuple(in_order([part.ids for part in parts], sizes)),
                    np.array(in_order([part.kept for part in parts], sizes), np.bool_),
                    tuple(sizes[part][file] for part, file in order))


def refuse_lost_row(entry: Entry) -> None:
    """Raises UserError for a bad test record that cannot be given a row of the submission."""
    fault = entry.faults[0]
    if entry.frame is None:
        raise UserError(f"{fault.sentence}; dataset.on_bad_record=skip cannot name the test images "
                        "that are lost")
    if not entry.identifier:
        raise UserError(f"{fault.sentence}; dataset.on_bad_record=skip cannot name this test image "
                        "in a submission, for its id cannot be read")


def refuse_shared_id(ids: Sequence[str], faults: Sequence[DataIssue]) -> None:
    """Raises UserError for a bad test record whose id, damaged perhaps, is also another's."""
    times = Counter(ids)
    for fault in faults:
        if fault.id is not None and times[fault.id] > 1:
            raise UserError(f"{fault.sentence}; dataset.on_bad_record=skip cannot name this test "
                            f"image in a submission, for its id {fault.id!r} is also another's")


def fill(values: npt.NDArray[Any], kept: npt.NDArray[np.bool_], filling: npt.ArrayLike
         ) -> npt.NDArray[Any]:
    """The rows of the kept records in their places, and `filling` in those of the others.

    Args:
        values: [kept records, ...].
        kept: bool [records].
        filling: [...], one row.
    """
    filled = np.empty((len(kept), *values.shape[1:]), values.dtype)
    filled[kept], filled[~kept] = values, filling
    return filled


def status(skipped: Sequence[DataIssue]) -> dict[str, Any]:
    """What status.json says: how many records were left out, and each fault with its place.

    A record with two faults is counted once and listed twice; a file that is wrong as a whole is
    listed with the record null. Of a file that ends too early, the records count that its name
    promises, and one where it promises none.
    """
    return {"count": count(skipped), "records": [
        {"file": fault.file, "record": fault.record, "id": fault.id, "fault": fault.message}
        for fault in skipped]}


def count(skipped: Sequence[DataIssue]) -> int:
    """How many records were left out, whatever the number of their faults."""
    return sum({(fault.file, fault.record): fault.lost for fault in skipped}.values())


def sentence(skipped: Sequence[DataIssue]) -> str:
    """What a run says of them at its start."""
    if not skipped:
        return "skipped: no record, for none is bad"
    return (f"skipped: {count(skipped)} bad records, all named in status.json; the first: "
            f"{skipped[0].sentence}")
