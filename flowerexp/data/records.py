"""TFRecord files of JPEGs: list, count, read, write; a fault is named by file and record.

A record has the features `image` (JPEG bytes), `class` (int64; absent in test) and `id` (bytes;
optional in train and val). The sentences on what is wrong are those of flowerexp/data/faults.py.
"""

import contextlib
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.data.faults import (
    LABELS,
    DataIssue,
    as_text,
    feature_faults,
    features_of,
    image_faults,
    label_faults,
    raw_id,
)
from flowerexp.data.frames import RecordSpan, contents, record_spans
from flowerexp.errors import UserError
from flowerexp.strategy.workers import AllGather, single_process

BATCH = 256
"""Records parsed together."""
FIRST = 32
"""Images that tell the size of all."""
LARGEST = 8192
"""Pixels of an image's side, unless its size is given."""
THREADS = 4
"""Records looked at together."""


@dataclass(frozen=True)
class RecordFile:
    """One TFRecord file and the number of records that its name promises, if it does."""

    path: str
    count: int | None


@dataclass(frozen=True)
class Example:
    """A record's features: JPEG bytes, -1 without a label, an empty text without an id."""

    image: bytes
    label: int
    identifier: str


@dataclass(frozen=True)
class Entry:
    """A record that was looked at, or what is wrong with the end of its file (no `frame`).

    example: None where its features cannot be read.
    identifier: as far as it can be read, else None.
    """

    frame: RecordSpan | None
    example: Example | None
    identifier: str | None
    faults: tuple[DataIssue, ...]


@dataclass(frozen=True)
class Table:
    """A split in memory.

    images: string [n], JPEG bytes, or None where only labels and ids were kept.
    labels: int32 [n]; -1 in a split without labels.
    ids: n texts, empty where a record has none.
    files, counts: the files in reading order and the records of each.
    frames: by file, the places of these records, where others were left out; else None.
    """

    images: tf.Tensor | None
    labels: npt.NDArray[np.int32]
    ids: list[str]
    files: tuple[RecordFile, ...]
    counts: tuple[int, ...]
    frames: tuple[tuple[RecordSpan, ...], ...] | None = None

    def place(self, index: int) -> str:
        """Where the image at `index` stands, for a message."""
        for file, count in zip(self.files, self.counts, strict=True):
            if index < count:
                return f"{file.path}, record {index}"
            index -= count
        raise AssertionError(f"index {index} past the table's end")


def list_files(folder: str) -> tuple[RecordFile, ...]:
    """The *.tfrec files of a split, sorted by name; raises UserError where there are none."""
    folder = folder.rstrip("/")
    # Not glob, to which brackets in the folder's own name would be a pattern.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    paths = sorted(f"{folder}/{name}" for name in names if name.endswith(".tfrec"))
    if not paths:
        raise UserError(f"{folder} holds no *.tfrec file: is it the right folder?")
    return tuple(RecordFile(path, promised_count(path)) for path in paths)


def promised_count(path: str) -> int | None:
    """The number in `...-COUNT.tfrec`, or None; `...-of-N.tfrec` counts files, not records."""
    match = re.search(r"(?<!-of)-(\d+)\.tfrec$", path)
    return int(match.group(1)) if match else None


def features(labelled: bool | None) -> dict[str, tf.io.FixedLenFeature]:
    """`class` is required or not looked at; with None neither it nor `id` is required."""
    text = tf.io.FixedLenFeature([], tf.string)
    if labelled is None:
        return {"image": text, "class": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
                "id": tf.io.FixedLenFeature([], tf.string, default_value="")}
    if labelled:
        return {"image": text, "class": tf.io.FixedLenFeature([], tf.int64),
                "id": tf.io.FixedLenFeature([], tf.string, default_value="")}
    return {"image": text, "id": text}


def parse(serialized: tf.Tensor, labelled: bool | None) -> dict[str, tf.Tensor]:
    """Features of string [n] records: image string [n], id string [n], class int64 [n] or -1."""
    parsed = tf.io.parse_example(serialized, features(labelled))
    return {"class": tf.fill(tf.shape(serialized), tf.constant(-1, tf.int64)), **parsed}


def read(files: Sequence[RecordFile], image_size: int, labelled: bool, num_classes: int | None,
         keep_images: bool = True) -> Table:
    """Reads and checks every record of a split.

    Args:
        files: of the split, read in this order.
        image_size: height and width in pixels that every JPEG's header must give.
        labelled: whether `class` is required.
        num_classes: labels must be under it; None for any.
        keep_images: False keeps labels and ids only.

    Raises:
        UserError: naming file and record, for a truncated or foreign record, a missing feature, a
            broken JPEG, an image of another size, a label out of range, or a count that is not the
            one in the file's name; for a split without records.
    """
    return check_not_empty(read_part(files, image_size, labelled, num_classes, keep_images))


def check_not_empty(table: Table) -> Table:
    """The table; raises UserError where the split holds no record."""
    if not sum(table.counts):
        raise UserError(f"{table.files[0].path} holds no record, nor does any file beside it: the "
                        "split is empty")
    return table


def read_part(files: Sequence[RecordFile], image_size: int, labelled: bool, num_classes: int | None,
              keep_images: bool) -> Table:
    """Some files of a split, perhaps none, as `read`, which may hold no record."""
    refuse_broken_frames(files, image_size, labelled, num_classes)
    check = parse_checked(image_size, labelled, num_classes or LABELS, keep_images)
    parts: list[dict[str, tf.Tensor]] = []
    counts: list[int] = []
    try:
        for file in files:
            # Of the old interface; tf.data would trace and optimise a graph for every call.
            serialized = tf.compat.v1.io.tf_record_iterator(file.path)
            counts.append(0)
            while batch := list(itertools.islice(serialized, BATCH)):
                whole = all(features_of(each) is not None for each in batch)
                if not whole or not (parsed := check(tf.constant(batch))).pop("good"):
                    raise UserError(str(first_fault(files, image_size, labelled, num_classes)))
                counts[-1] += len(batch)
                parts.append(parsed)
    # TensorFlow quotes the record in its message, and cannot where it is no UTF-8.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        fault = first_fault(files, image_size, labelled, num_classes)
        raise UserError(fault or f"{files[0].path} and the files beside it cannot be read: "
                        f"{str(error).splitlines()[0]}") from error
    return assemble(files, counts, parts, keep_images)


@functools.lru_cache(16)
def parse_checked(image_size: int, labelled: bool, labels: int, keep_images: bool) -> Any:
    """A function of records string [n]: their features as of `parse`, and whether all are good."""
    def of(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = parse(serialized, labelled)
        shapes = tf.map_fn(tf.io.extract_jpeg_shape, parsed["image"],
                           fn_output_signature=tf.TensorSpec([3], tf.int32))
        good = tf.reduce_all(shapes[:, :2] == image_size)
        if labelled:
            good &= tf.reduce_all((parsed["class"] >= 0) & (parsed["class"] < labels))
        if not keep_images:
            parsed["image"] = tf.zeros([0], tf.string)
        return {**parsed, "good": good}

    return tf.function(of, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def refuse_broken_frames(files: Sequence[RecordFile], image_size: int, labelled: bool,
                         num_classes: int | None) -> None:
    """Raises UserError for a file that cannot be read or whose records do not fill it exactly."""
    for file in files:
        try:
            broken = record_spans(file.path)[1] is not None
        except tf.errors.OpError:
            broken = True
        if broken:
            fault = first_fault(files, image_size, labelled, num_classes)
            raise UserError(fault or f"{file.path} changes while it is read: start again")


def assemble(files: Sequence[RecordFile], counts: Sequence[int],
             parts: list[dict[str, tf.Tensor]], keep_images: bool) -> Table:
    """The table of parsed batches, its counts held against the files' names."""
    def joined(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([part[name].numpy() for part in parts] or [np.zeros(0, np.int64)])

    for file, count in zip(files, counts, strict=True):
        if wrong := count_fault(file, count):
            raise UserError(f"{file.path} {wrong}")
    images = tf.concat([part["image"] for part in parts], 0) if keep_images and parts else None
    ids = [as_text(identifier) for identifier in joined("id").tolist()]
    return Table(images, joined("class").astype(np.int32), ids, tuple(files), tuple(counts))


def count_fault(file: RecordFile, count: int) -> str | None:
    """What is wrong with a file that holds `count` whole records, or None."""
    if file.count in (None, count):
        return None
    return (f"holds {count} records where its name says {file.count}: copy the file again, or "
            "rename it if it is whole")


def first_fault(files: Sequence[RecordFile], image_size: int, labelled: bool,
                num_classes: int | None) -> str | None:
    """A sentence for the first record that is wrong, found by decoding one after another."""
    for file in files:
        for entry in entries(file, image_size, labelled, num_classes):
            for fault in entry.faults:
                return fault.sentence
    return None


def entries(file: RecordFile, image_size: int | None, labelled: bool | None,
            num_classes: int | None) -> Iterator[Entry]:
    """Every record of a file with all that is wrong with it, its image decoded.

    Args:
        file, image_size, labelled, num_classes: as of `read`, which refuses what has a fault here;
            an image_size of None leaves images of any size to the caller, `labelled` of None takes
            labels and ids where there are any.

    Yields:
        The records in their order; after the last, what is wrong with the file's end, if anything.
    """
    try:
        frames, end = record_spans(file.path)
        data = enumerate(zip(frames, contents(file.path, frames), strict=False))
        with ThreadPoolExecutor(THREADS) as pool:
            while chunk := list(itertools.islice(data, BATCH)):
                yield from pool.map(lambda one: look(file, one[0], one[1][0], one[1][1], image_size,
                                                     labelled, num_classes), chunk)
    except tf.errors.OpError as error:
        yield Entry(None, None, None, (DataIssue(file.path, None, None, "cannot be read: "
                                             f"{str(error.message).split(' [Op')[0]}"),))
        return
    lost = max(0, (file.count or 0) - len(frames))
    if end:
        if lost:
            end += f"; {lost} of the {file.count} records that its name promises are lost"
        yield Entry(None, None, None, (DataIssue(file.path, len(frames), None, end, max(1, lost)),))
    elif wrong := count_fault(file, len(frames)):
        yield Entry(None, None, None, (DataIssue(file.path, None, None, wrong, lost),))


def look(file: RecordFile, number: int, frame: RecordSpan, content: tuple[bytes, bool],
         image_size: int | None, labelled: bool | None, num_classes: int | None) -> Entry:
    """One record with what is wrong with it; of damaged data, the id as it stands there."""
    serialized, whole = content
    if whole:
        example, messages = parse_one(serialized, labelled)
        if example:
            messages = [] if image_size is None else image_faults(example.image, image_size)
            if labelled:
                messages += label_faults(example.label, num_classes)
    else:
        example = None
        messages = ["its data are damaged (CRC error): copy the file again"]
    identifier = example.identifier if example else raw_id(serialized)
    return Entry(frame, example, identifier, tuple(DataIssue(file.path, number, identifier, message)
                                       for message in messages))


def parse_one(serialized: bytes, labelled: bool | None) -> tuple[Example | None, list[str]]:
    """A record as a run's own parser reads it, or what is wrong with its features."""
    if features_of(serialized) is None:
        return None, feature_faults(serialized, labelled)
    try:
        parsed = parse(tf.constant([serialized]), labelled)
    # TensorFlow quotes the record in its message, and cannot where it is no UTF-8.
    except (tf.errors.OpError, UnicodeDecodeError):
        return None, feature_faults(serialized, labelled)
    return Example(parsed["image"].numpy()[0], int(parsed["class"].numpy()[0]),
                   as_text(parsed["id"].numpy()[0])), []


def first_image_size(files: Sequence[RecordFile], all_gather: AllGather = single_process) -> int:
    """The commonest height in pixels of the first images of the first file with a readable one.

    Of several workers each looks into its own files, and all take what the first file says.

    Raises:
        UserError: where there is none.
    """
    def look_into(worker: int, workers: int) -> tuple[int, int]:
        heights = ((number, commonest_height(files[number]))
                   for number in range(worker, len(files), workers))
        return next((found for found in heights if found[1]), (len(files), 0))

    _, size = min(all_gather(look_into))
    if not 0 < size <= LARGEST:
        raise UserError(f"{files[0].path}: the size of its first images cannot be read"
                        + (f" ({size} pixels are more than {LARGEST})" if size else
                           ", nor in a file beside it")
                        + "; give dataset.image_size=PIXELS (--size for data check)")
    return size


def commonest_height(file: RecordFile) -> int:
    """In pixels, of a file's first images, so that a bad one does not decide; 0 without any."""
    heights: Counter[int] = Counter()
    with contextlib.suppress(tf.errors.OpError):
        frames = record_spans(file.path)[0][:FIRST]
        for serialized, whole in contents(file.path, frames):
            with contextlib.suppress(Exception):  # whatever is wrong with it, it has no size
                assert whole
                image = tf.train.Example.FromString(serialized).features.feature["image"]
                shape = tf.io.extract_jpeg_shape(image.bytes_list.value[0])
                heights[int(shape.numpy()[0])] += 1
    return heights.most_common(1)[0][0] if heights else 0


def write(path: Path, images: Iterable[bytes], labels: Iterable[int] | None,
          ids: Iterable[str]) -> None:
    """Writes one TFRecord file of JPEG bytes, under a temporary name until it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    known = iter(labels) if labels is not None else None
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for image, identifier in zip(images, ids, strict=True):
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[identifier.encode()])),
            }
            if known is not None:
                feature["class"] = tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[int(next(known))]))
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            # Protobuf orders a map's keys as it likes unless told.
            writer.write(example.SerializeToString(deterministic=True))
    partial.rename(path)
