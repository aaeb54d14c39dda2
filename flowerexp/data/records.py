"""Reads and checks the records of a split into a table in memory.

A record is a tf.train.Example with the features `image` (JPEG bytes), `class` (int64; absent in a
test split) and `id` (bytes; optional if there are labels). Issues are named by file and record.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowerexp.data.issues import (
    DataIssue,
    Labels,
    feature_issues,
    image_issues,
    label_issues,
    parse_features,
    values_of,
)
from flowerexp.data.tfrecord import RawRecord, RecordFile, RecordSpan, raw_records
from flowerexp.errors import UserError
from flowerexp.lazy import tf
from flowerexp.strategy.workers import AllGather, single_process

BATCH = 256
"""Number of records that are checked together."""
THREADS = 4
"""Number of threads that decode images."""
FIRST_IMAGES = 32
"""Number of images from which the size of all is inferred."""
ALIGNMENT = 64
"""Alignment, in bytes, of memory that TensorFlow uses without a copy."""
MAX_IMAGE_SIZE = 8192
"""Maximum height and width of images in pixels."""


@dataclass(frozen=True)
class ReadSpec:
    """Requirements on the records of a split, and what is kept of them.

    image_size: height and width of every image in pixels; None leaves images unchecked.
    labels: whether `class` is required.
    num_classes: upper bound of the labels; None for any.
    keep_images: whether encoded images are kept, not only labels and ids.
    skip_bad: whether bad records are left out, which requires decoding every image; else the first
        one raises UserError.
    """

    image_size: int | None
    labels: Labels = Labels.REQUIRED
    num_classes: int | None = None
    keep_images: bool = True
    skip_bad: bool = False


class Example(NamedTuple):
    """The features of a record: JPEG bytes, -1 without a label, an empty string without an id."""

    image: bytes
    label: int
    id: str


class Entry(NamedTuple):
    """A record and its issues or, if `span` is None, the issue with the end of its file.

    example: None if the features cannot be read.
    id: None if it cannot be read.
    """

    span: RecordSpan | None
    example: Example | None
    id: str | None
    issues: tuple[DataIssue, ...]


@dataclass(frozen=True)
class Skipped:
    """The records that were left out of a split.

    issues: issues of bad records and of files that end too early, in reading order.
    ids: ids of all records, good or bad; empty if a record has none.
    kept: bool [records], whether a record is in the table.
    spans: by file, the positions of the records that are in the table.
    """

    issues: tuple[DataIssue, ...]
    ids: tuple[str, ...]
    kept: npt.NDArray[np.bool_]
    spans: tuple[tuple[RecordSpan, ...], ...]


@dataclass(frozen=True)
class Table:
    """A split in memory.

    images: string [n], JPEG bytes, or uint8 [n, height, width, 3], decoded; None if only labels and
        ids were kept.
    labels: int32 [n]; -1 in a split without labels.
    ids: n strings, empty if a record has none.
    files: files in reading order; empty for arrays in memory.
    counts: number of the table's records in each file.
    skipped: records that were left out; None if the table holds every record.
    """

    images: tf.Tensor | None
    labels: npt.NDArray[np.int32]
    ids: list[str]
    files: tuple[RecordFile, ...] = ()
    counts: tuple[int, ...] = ()
    skipped: Skipped | None = None

    @property
    def issues(self) -> tuple[DataIssue, ...]:
        return self.skipped.issues if self.skipped else ()

    @property
    def all_ids(self) -> Sequence[str]:
        """The ids of all records, including those that were left out."""
        return self.skipped.ids if self.skipped else self.ids

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """bool [records], whether each record is in the table."""
        return self.skipped.kept if self.skipped else np.ones(len(self.labels), np.bool_)


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


def read(files: Sequence[RecordFile], spec: ReadSpec, all_gather: AllGather = single_process
         ) -> Table:
    """Reads and checks every record of a split, file by file.

    Args:
        files: files of the split.
        spec: requirements on the records, and what happens to bad ones.
        all_gather: distributes the files among workers, which exchange labels and ids (only
            without keep_images).

    Raises:
        UserError: with file and record of the first issue: a truncated or foreign record, a
            missing feature, a JPEG with a broken header or another size, a label out of range, a
            count other than in the file's name; or for a split without records. With `skip_bad`,
            only if no good record is left, or if a bad test record has no unique id.
    """
    parts = all_gather(lambda worker, workers: [read_file(file, spec)
                                                for file in files[worker::workers]])
    table = assemble(files, [parts[number % len(parts)][number // len(parts)]
                             for number in range(len(files))], spec.keep_images)
    if not len(table.kept) or (spec.labels is Labels.REQUIRED and not table.kept.any()):
        raise UserError(f"{files[0].path} and the other files of its folder hold no "
                        f"{'good ' * spec.skip_bad}record, which leaves the split empty"
                        + (f"; the first issue: {table.issues[0].sentence}" if table.issues
                           else ""))
    if spec.labels is Labels.ABSENT:
        check_rows_named(table)
    return table


def read_file(file: RecordFile, spec: ReadSpec) -> list[Entry]:
    entries = inspect(file, spec) if spec.skip_bad else read_strictly(file, spec)
    return [entry if spec.keep_images or not entry.example else
            entry._replace(example=entry.example._replace(image=b"")) for entry in entries]


def assemble(files: Sequence[RecordFile], reads: Sequence[Sequence[Entry]], keep_images: bool
             ) -> Table:
    """The table of the entries that were read from all files."""
    records = [entry for entries in reads for entry in entries if entry.span]
    good = [[(entry.span, entry.example) for entry in entries
             if entry.span and entry.example and not entry.issues] for entries in reads]
    examples = [example for each in good for _, example in each]
    issues = tuple(issue for entries in reads for entry in entries for issue in entry.issues)
    skipped = Skipped(issues, tuple(entry.id or "" for entry in records),
                      np.array([not entry.issues for entry in records], np.bool_),
                      tuple(tuple(span for span, _ in each) for each in good)) if issues else None
    images = tf.constant([each.image for each in examples], tf.string) if keep_images else None
    return Table(images, np.array([each.label for each in examples], np.int32),
                 [each.id for each in examples], tuple(files), tuple(map(len, good)), skipped)


def check_rows_named(table: Table) -> None:
    """Raises UserError for a bad test record whose id is unknown or not unique."""
    times = Counter(table.all_ids)
    for issue in table.issues:
        if not issue.id or times[issue.id] > 1:
            why = f"its id {issue.id!r} is also another's" if issue.id else "its id is unknown"
            raise UserError(f"{issue.sentence}; dataset.on_bad_record=skip cannot name this test "
                            f"image in a submission: {why}")


def read_strictly(file: RecordFile, spec: ReadSpec) -> Iterator[Entry]:
    """The records of a file; only the headers of images are read.

    Raises:
        UserError: for the first issue of the file, which is found by decoding its images too.
    """
    entries = inspect(file, spec, decode=False)
    while chunk := list(itertools.islice(entries, BATCH)):
        images = [entry.example.image for entry in chunk if entry.example]
        if any(entry.issues for entry in chunk) or not have_size(images, spec.image_size):
            raise UserError(first_issue([file], spec)
                            or f"{file.path} changed while it was read: rerun the command")
        yield from chunk


def have_size(images: list[bytes], image_size: int | None) -> bool:
    """Whether the headers of all JPEGs give this height and width."""
    try:
        return image_size is None or bool(
            np.all(jpeg_shapes()(tf.constant(images))[:, :2] == image_size))
    except tf.errors.InvalidArgumentError:
        return False


@functools.cache
def jpeg_shapes() -> Any:
    """A tf.function: JPEGs, string [n] -> heights, widths and channels, int32 [n, 3]."""
    return tf.function(
        lambda images: tf.map_fn(tf.io.extract_jpeg_shape, images,
                                 fn_output_signature=tf.TensorSpec([3], tf.int32)),
        input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def first_issue(files: Sequence[RecordFile], spec: ReadSpec) -> str | None:
    """The sentence of the first issue in some files, or None; decodes their images."""
    return next((issue.sentence for file in files for entry in inspect(file, spec)
                 for issue in entry.issues), None)


def inspect(file: RecordFile, spec: ReadSpec, decode: bool = True) -> Iterator[Entry]:
    """Every record of a file with all its issues.

    Args:
        file: the file.
        spec: requirements on its records.
        decode: whether to check the images, if the spec gives their size.

    Yields:
        The records in order, then the issue with the end of the file, if any.
    """
    numbered, count, whole = enumerate(raw_records(file.path)), 0, True
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            apply = pool.map if decode else map
            while chunk := list(itertools.islice(numbered, BATCH)):
                for entry in apply(
                        lambda each: inspect_record(file, each[0], each[1], spec, decode), chunk):
                    yield entry
                    count, whole = count + 1, entry.span is not None
    except tf.errors.OpError as error:
        message = f"cannot be read: {str(error.message).split(' [Op')[0]}"
        yield Entry(None, None, None, (DataIssue(file.path, None, None, message),))
        return
    if whole and (message := file.count_issue(count) or ""):
        lost = max(0, (file.count or 0) - count)
        yield Entry(None, None, None, (DataIssue(file.path, None, None, message, lost),))


def inspect_record(file: RecordFile, number: int, record: RawRecord, spec: ReadSpec, decode: bool
                   ) -> Entry:
    """A record with its issues, and with its id if that can be read."""
    example, features, lost = None, parse_features(record.data), 1
    if record.damage:
        messages = [record.damage]
        if record.span is None and (file.count or 0) > number:
            lost = (file.count or 0) - number
            messages[0] += f"; {lost} of the {file.count} records that its name promises are lost"
    elif not (messages := feature_issues(features, spec.labels)):
        example = parse(features or {}, spec.labels)
        if decode and spec.image_size is not None:
            messages = image_issues(example.image, spec.image_size)
        if spec.labels is Labels.REQUIRED:
            messages += label_issues(example.label, spec.num_classes)
    identifier = example.id if example else readable_id(features or {})
    return Entry(record.span, example, identifier, tuple(
        DataIssue(file.path, number, identifier, message, lost) for message in messages))


def parse(features: Mapping[str, tf.train.Feature], labels: Labels) -> Example:
    """The example with these features, which have no issues."""
    label = None if labels is Labels.ABSENT else values_of(features, "class")
    return Example(features["image"].bytes_list.value[0], label[0] if label else -1,
                   readable_id(features) or "")


def readable_id(features: Mapping[str, tf.train.Feature]) -> str | None:
    """The id of a record, or None if it does not have exactly one."""
    values = values_of(features, "id") or []
    return values[0].decode("utf-8", "backslashreplace") if len(values) == 1 else None


def parse_image(serialized: tf.Tensor) -> tf.Tensor:
    """The JPEG bytes, string [], of a record, string [], that `read` has checked."""
    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_single_example(serialized, features)["image"]


def scatter_rows(rows: npt.NDArray[Any], kept: npt.NDArray[np.bool_], filling: npt.ArrayLike
                 ) -> npt.NDArray[Any]:
    """Scatters rows [kept records, ...] to all records; the others get `filling`.

    Args:
        kept: bool [records].
        filling: [...], one row.
    """
    filled = np.empty((len(kept), *rows.shape[1:]), rows.dtype)
    filled[kept], filled[~kept] = rows, filling
    return filled


def first_image_size(files: Sequence[RecordFile], all_gather: AllGather = single_process) -> int:
    """The most common height, in pixels, of the first images in the first file with a readable one.

    Each of several workers reads its own files; all use the size from the first such file.

    Raises:
        UserError: if no file has a readable image.
    """
    def look(worker: int, workers: int) -> tuple[int, int]:
        heights = ((number, most_common_height(files[number]))
                   for number in range(worker, len(files), workers))
        return next((found for found in heights if found[1]), (len(files), 0))

    _, size = min(all_gather(look))
    if not 0 < size <= MAX_IMAGE_SIZE:
        raise UserError(f"{files[0].path}: the size of its first images cannot be read"
                        + (f" ({size} pixels are more than {MAX_IMAGE_SIZE})" if size else
                           ", nor in another file of its folder")
                        + "; give dataset.image_size=PIXELS (--size for data check)")
    return size


def most_common_height(file: RecordFile) -> int:
    """The most common height of a file's first images (one may be bad) in pixels; 0 if none."""
    heights: Counter[int] = Counter()
    spec = ReadSpec(None, Labels.OPTIONAL)
    for entry in itertools.islice(inspect(file, spec, decode=False), FIRST_IMAGES):
        if entry.example:
            with contextlib.suppress(tf.errors.InvalidArgumentError):
                heights[int(tf.io.extract_jpeg_shape(entry.example.image)[0])] += 1
    return heights.most_common(1)[0][0] if heights else 0
