"""Reads and checks the records of a split into a table in memory.

A record is a tf.train.Example with the features `image` (JPEG bytes), `class` (int64; absent in a
test split) and `id` (bytes; optional if there are labels). Runs that stop at bad records, runs that
skip them and `data check` share the sentences about issues.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from flowerexp.data import tfrecord
from flowerexp.data.tables import DataIssue, Table
from flowerexp.data.tfrecord import FEATURES, RawRecord, RecordSpan
from flowerexp.errors import UserError
from flowerexp.lazy import tf
from flowerexp.strategy.workers import AllGather, single_process

BATCH = 256
"""Number of records that are checked together."""
THREADS = 4
"""Number of threads that decode images."""
FIRST_IMAGES = 32
"""Number of images from which the size of all is inferred."""
MAX_IMAGE_SIZE = 8192
"""Maximum height and width of images in pixels."""
MAX_LABELS = 2**20
"""Upper bound of labels if the number of classes is not given; every class takes memory."""
BROKEN_IMAGE = "its image is not a valid JPEG"


class Labels(Enum):
    """Requirements on the features `class` and `id`; the value names the required features."""

    REQUIRED = ("image", "class")
    """Training and validation."""
    ABSENT = ("image", "id")
    """Test; `class` is ignored."""
    OPTIONAL = ("image",)
    """Prediction."""

    @classmethod
    def of(cls, split: str) -> Labels:
        """The requirements on records of train, val or test."""
        return cls.ABSENT if split == "test" else cls.REQUIRED


@dataclass(frozen=True)
class ReadSpec:
    """Requirements on the records of a split, and what is kept of them.

    image_size: height and width of every image in pixels; None leaves images unchecked.
    labels: requirements on `class` and `id`.
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


class Record(NamedTuple):
    """A record and its issues or, if `span` is None, the issue with the end of its file.

    image: JPEG bytes; None if the features have issues.
    label: -1 without a label.
    id: empty without an id; None if it cannot be read.
    digest: length and CRC of the record's data, 64 bits.
    """

    span: RecordSpan | None
    image: bytes | None
    label: int
    id: str | None
    issues: tuple[DataIssue, ...]
    digest: int = 0


def read(files: Sequence[str], spec: ReadSpec, all_gather: AllGather = single_process) -> Table:
    """Reads and checks every record of a split, file by file.

    Args:
        files: paths of the split's files.
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
    reads = [parts[number % len(parts)][number // len(parts)] for number in range(len(files))]
    found = [record for each in reads for record in each]
    good = [record for record in found if not record.issues]
    issues = tuple(issue for record in found for issue in record.issues)
    bad = {row: record.id or "" for row, record in enumerate(found)
           if record.issues and record.span}
    if not good and (spec.labels is Labels.REQUIRED or not bad):
        raise UserError(f"{files[0]} and the other files of its folder hold no "
                        f"{'good ' * spec.skip_bad}record, which leaves the split empty"
                        + (f"; the first issue: {issues[0].sentence}" if issues else ""))
    table = Table(tf.constant([record.image for record in good], tf.string)
                  if spec.keep_images else None,
                  np.array([record.label for record in good], np.int32),
                  [record.id or "" for record in good],
                  np.array([record.digest for record in good], np.uint64), (), tuple(files),
                  tuple(sum(not record.issues for record in each) for each in reads),
                  np.array([record.span for record in good], np.int64).reshape(-1, 2),
                  bool(issues), issues, bad)
    if spec.labels is Labels.ABSENT:
        check_rows_named(table)
    return table


def read_file(file: str, spec: ReadSpec) -> list[Record]:
    """The records of a file; without `skip_bad`, only the headers of images are read.

    There, the first issue raises UserError; it is found by decoding the images too.
    """
    found = []
    for record in inspect(file, spec, decode=spec.skip_bad):
        if record.issues and not spec.skip_bad:
            raise UserError(first_issue([file], spec) or record.issues[0].sentence)
        found.append(record if spec.keep_images else record._replace(image=b""))
    return found


def check_rows_named(table: Table) -> None:
    """Raises UserError for a bad test record whose id is unknown or not unique."""
    times = Counter(table.all_ids)
    for issue in table.issues:
        if not issue.id or times[issue.id] > 1:
            why = f"its id {issue.id!r} is also another's" if issue.id else "its id is unknown"
            raise UserError(f"{issue.sentence}; dataset.on_bad_record=skip cannot name this test "
                            f"image in a submission: {why}")


def first_issue(files: Sequence[str], spec: ReadSpec) -> str | None:
    """The sentence of the first issue in some files, or None; decodes their images."""
    return next((issue.sentence for file in files for record in inspect(file, spec)
                 for issue in record.issues), None)


def inspect(file: str, spec: ReadSpec, decode: bool = True) -> Iterator[Record]:
    """Every record of a file with all its issues.

    After them comes the issue with the end of the file, if any.

    Args:
        decode: whether to decode the images, if the spec gives their size; else only their headers
            are read, unless one of a batch has an issue.
    """
    numbered, count, whole = enumerate(tfrecord.raw_records(file)), 0, True
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            while batch := list(itertools.islice(numbered, BATCH)):
                found = [] if decode else [check(file, spec, False, *each) for each in batch]
                if decode or not have_size(found, spec.image_size):
                    found = list(pool.map(lambda each: check(file, spec, True, *each), batch))
                yield from found
                count, whole = count + len(found), found[-1].span is not None
    except tf.errors.OpError as error:
        yield end_of_file(file, f"cannot be read: {str(error.message).split(' [Op')[0]}")
        return
    stated = tfrecord.stated_count(file)
    if whole and stated is not None and stated != count:
        yield end_of_file(file, f"holds {count} records where its name says {stated}: copy the "
                          "file again, or rename it if it is complete", max(0, stated - count))


def end_of_file(file: str, message: str, lost: int = 1) -> Record:
    return Record(None, None, -1, None, (DataIssue(file, None, None, message, lost),))


def check(file: str, spec: ReadSpec, decode: bool, number: int, raw: RawRecord) -> Record:
    """A record with its issues, and with its id if that can be read."""
    values = tfrecord.parse(raw.data)
    image, label, lost, messages = None, -1, 1, list[str]()
    ids = (values or {}).get("id") or ()
    identifier = ids[0].decode("utf-8", "backslashreplace") if len(ids) == 1 else None
    if raw.damage:
        messages = [raw.damage]
        if raw.span is None and (stated := tfrecord.stated_count(file) or 0) > number:
            lost = stated - number
            messages[0] += f"; {lost} of the {stated} records that its name promises are lost"
    elif not (messages := feature_issues(values, spec.labels)):
        assert values is not None
        image, identifier = values["image"][0], identifier or ""
        if "class" in values and spec.labels is not Labels.ABSENT:
            label = values["class"][0]
        if decode and spec.image_size is not None:
            messages = image_issues(image, spec.image_size)
        bound = spec.num_classes or MAX_LABELS
        if spec.labels is Labels.REQUIRED and not 0 <= label < bound:
            messages.append(f"its label {label} is out of range: labels are from 0 to {bound - 1}"
                            + ("" if spec.num_classes
                               else " unless dataset.num_classes says otherwise"))
    return Record(raw.span, image, label, identifier, tuple(
        DataIssue(file, number, identifier, message, lost) for message in messages), raw.digest)


def feature_issues(values: Mapping[str, Sequence[Any]] | None, labels: Labels) -> list[str]:
    """Issues with the features that `tfrecord.parse` returned."""
    if values is None:
        return ["not a tf.train.Example: were these files written by another program?"]
    messages = []
    for name, kind in FEATURES.items():
        if name not in values:
            if name in labels.value:
                messages.append(f"the feature '{name}' is missing (it has: "
                                f"{', '.join(map(repr, sorted(values))) or 'none'})")
        elif len(values[name]) != 1 and not (name == "class" and labels is Labels.ABSENT):
            messages.append(f"the feature '{name}' must be one value of type {kind}")
    return messages


def have_size(found: Sequence[Record], image_size: int | None) -> bool:
    """Whether the headers of all JPEGs give this height and width."""
    images = [record.image for record in found if record.image is not None]
    try:
        return image_size is None or bool(
            np.all(jpeg_shapes()(tf.constant(images, tf.string))[:, :2] == image_size))
    except tf.errors.InvalidArgumentError:
        return False


@functools.cache
def jpeg_shapes() -> Any:
    """A tf.function: JPEGs, string [n] -> heights, widths and channels, int32 [n, 3]."""
    return tf.function(
        lambda images: tf.map_fn(tf.io.extract_jpeg_shape, images,
                                 fn_output_signature=tf.TensorSpec([3], tf.int32),
                                 parallel_iterations=1),  # more at once cost more in all
        input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def image_issues(image: bytes, image_size: int) -> list[str]:
    """Issues with a JPEG, which is decoded only if its header states the right size."""
    try:
        height, width = tf.io.extract_jpeg_shape(image).numpy()[:2].tolist()
        if (height, width) != (image_size, image_size):
            return [f"its image is {width}x{height} pixels where dataset.image_size is "
                    f"{image_size}x{image_size}"]
        tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
    except tf.errors.InvalidArgumentError:
        return [BROKEN_IMAGE]
    return []


def first_image_size(files: Sequence[str], all_gather: AllGather = single_process) -> int:
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
        raise UserError(f"{files[0]}: the size of its first images cannot be read"
                        + (f" ({size} pixels are more than {MAX_IMAGE_SIZE})" if size else
                           ", nor in another file of its folder")
                        + "; give dataset.image_size=PIXELS (--size for data check)")
    return size


def most_common_height(file: str) -> int:
    """The most common height of a file's first images (one may be bad) in pixels; 0 if none."""
    heights: Counter[int] = Counter()
    spec = ReadSpec(None, Labels.OPTIONAL)
    for record in itertools.islice(inspect(file, spec, decode=False), FIRST_IMAGES):
        if record.image is not None:
            with contextlib.suppress(tf.errors.InvalidArgumentError):
                heights[int(tf.io.extract_jpeg_shape(record.image)[0])] += 1
    return heights.most_common(1)[0][0] if heights else 0
