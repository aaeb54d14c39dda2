"""Reads and checks the records of a split into a table in memory.

A record is a tf.train.Example with an image, a label (absent in a test split) and an id (optional
if there are labels), in the features that `Features` names. Runs that stop at bad records, runs
that skip them and `data check` share the sentences about issues.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from flowerexp.data import features, headers, resizing, tfrecord
from flowerexp.data.features import COMPETITION, MAX_LABELS, Features, Labels, ReadSpec
from flowerexp.data.tables import DataIssue, Table, class_order, image_digest
from flowerexp.data.tfrecord import RawRecord, RecordSpan
from flowerexp.errors import UserError
from flowerexp.hints import nearest
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


class Record(NamedTuple):
    """A record and its issues or, if `span` is None, the issue with the end of its file.

    image: encoded bytes; None if the features have issues.
    label: the class; -1 without one, or if only its name is known.
    id: empty without an id; None if it cannot be read.
    digest: see `tables.image_digest`.
    told: (label or -1, class name) in the record, if the names of classes are not known.
    group: what the image shows; empty without a group.
    plain: whether the image is a JPEG of the right size, or was not checked.
    """

    span: RecordSpan | None
    image: bytes | None
    label: int
    id: str | None
    issues: tuple[DataIssue, ...]
    digest: int = 0
    told: tuple[int, str] | None = None
    group: str = ""
    plain: bool = True


def read(files: Sequence[str], spec: ReadSpec, all_gather: AllGather = single_process) -> Table:
    """Reads and checks every record of a split, file by file.

    Args:
        files: paths of the split's files.
        spec: requirements on the records, and what happens to bad ones.
        all_gather: distributes the files among workers, which exchange labels and ids (only
            without keep_images).

    Raises:
        UserError: with file and record of the first issue: a truncated or foreign record, a
            missing feature, an image with a broken header, a label out of range, a count other than
            in the file's name; or for a split without records. With `skip_bad`,
            only if no good record is left, or if a bad test record has no unique id.
    """
    parts = all_gather(lambda worker, workers: [
        (read_file(file, spec), tfrecord.compression_of(file)) for file in files[worker::workers]])
    reads, compression = zip(*(parts[number % len(parts)][number // len(parts)]
                               for number in range(len(files))), strict=True)
    found = [record for each in reads for record in each]
    good = [record for record in found if not record.issues]
    issues = tuple(issue for record in found for issue in record.issues)
    bad = {row: record.id or "" for row, record in enumerate(found)
           if record.issues and record.span}
    if not good and (spec.labels is Labels.REQUIRED or not bad):
        raise UserError(f"{files[0]} and the other files of its folder hold no "
                        f"{'good ' * spec.skip_bad}record, which leaves the split empty"
                        + (f"; the first issue: {issues[0].sentence}" if issues else ""))
    told = {record.told for record in good} - {None}
    classes = {each: row for row, each in enumerate(sorted(told, key=class_order))}
    table = Table(tf.constant([record.image for record in good], tf.string)
                  if spec.keep_images else None,
                  np.array([classes.get(record.told, record.label) for record in good], np.int32),
                  [record.id or "" for record in good],
                  np.array([record.digest for record in good], np.uint64),
                  tuple(record.group for record in good) if spec.features.group else (),
                  tuple(files),
                  tuple(sum(not record.issues for record in each) for each in reads),
                  np.array([record.span for record in good], np.int64).reshape(-1, 2),
                  bool(issues), issues, bad, all(record.plain for record in good),
                  compression, tuple(classes), spec)
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
            are read.
    """
    numbered, count, whole = enumerate(tfrecord.raw_records(file)), 0, True
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            while batch := list(itertools.islice(numbered, BATCH)):
                found = [check(file, spec, *each) for each in batch]
                if decode or not all_plain(found, spec.image_size):
                    found = list(pool.map(
                        lambda each, record: check_image(file, each[0], record, spec, decode),
                        batch, found))
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


def check(file: str, spec: ReadSpec, number: int, raw: RawRecord) -> Record:
    """A record with its issues but those of its image, and with its id if that can be read."""
    values, names = tfrecord.parse(raw.data), spec.features
    image, label, lost, told, group = None, -1, 1, None, ""
    identifier, recorded = id_of(values or {}, names), None
    if values and names.label in values and spec.labels is not Labels.ABSENT:
        recorded = features.label_of(values[names.label], names.label_kind)
    if raw.damage:
        messages = [raw.damage]
        if raw.span is None and (stated := tfrecord.stated_count(file) or 0) > number:
            lost = stated - number
            messages[0] += f"; {lost} of the {stated} records that its name promises are lost"
    elif not (messages := feature_issues(values, spec, identifier, recorded)):
        assert values is not None
        image, identifier = values[names.image][0], identifier or ""
        if names.id is None or names.id not in values:
            identifier = f"{file.removeprefix(f'{spec.folder}/')}:{number}"
        if names.group:
            group = features.text_of(values[names.group][0])
        if recorded is not None:
            label, told, messages = class_of(values, recorded, spec)
    return Record(raw.span, image, label, identifier, tuple(
        DataIssue(file, number, identifier, message, lost) for message in messages),
        image_digest(image) if image else 0, told, group)


def id_of(values: Mapping[str, Sequence[Any]], names: Features) -> str | None:
    """The id of a record; None if it has none that can be read."""
    found = values.get(names.id or "") or ()
    if len(found) != 1:
        return None
    if names.id_kind == "integer":
        return str(found[0]) if isinstance(found[0], int) else None
    return found[0].decode("utf-8", "backslashreplace") if isinstance(found[0], bytes) else None


def class_of(values: Mapping[str, Sequence[Any]], recorded: int | str, spec: ReadSpec
             ) -> tuple[int, tuple[int, str] | None, list[str]]:
    """The class of a record as far as it is known, what the record tells of it, and issues.

    Args:
        recorded: the label in the record.
    """
    names = spec.features
    if not spec.names and (names.text or names.label_kind == "text"):
        return -1, ((-1, str(recorded)) if names.text is None else
                    (int(recorded), features.text_of(values[names.text][0]))), []
    if names.label_kind == "one-hot":
        label = int(recorded)
    elif isinstance(recorded, str) or spec.numbers:
        known: Mapping[Any, int] = spec.names if isinstance(recorded, str) else spec.numbers
        label = known.get(recorded, -1)
        if label < 0 and spec.labels is Labels.REQUIRED:
            return -1, None, [f"its label {recorded!r} is none of the data set's {len(known)} "
                              f"classes{nearest(str(recorded), map(str, known))}"]
    else:
        label = recorded - spec.label_offset
    bound, offset = spec.num_classes or MAX_LABELS, spec.label_offset
    if spec.labels is not Labels.REQUIRED or 0 <= label < bound:
        return label, None, []
    why = "" if spec.num_classes else " unless dataset.num_classes says otherwise"
    why = f", by the {len(spec.names)} class names" if spec.names else why
    if label == bound and offset == 0:
        why += " (dataset.label_offset=1 if they begin at 1)"
    return label, None, [f"its label {recorded} is out of range: labels are from {offset} to "
                         f"{offset + bound - 1}{why}"]


def feature_issues(values: Mapping[str, Sequence[Any]] | None, spec: ReadSpec,
                   identifier: str | None, recorded: int | str | None) -> list[str]:
    """Issues with the features that `tfrecord.parse` returned, of which id and label were read."""
    if values is None:
        return ["not a tf.train.Example: were these files written by another program?"]
    messages, names = list[str](), spec.features
    for role in ("image", "label", "text", "id", "group"):
        name = getattr(names, role)
        if name is None:
            continue
        if name not in values:
            if role in spec.labels.value:
                messages.append(f"the feature '{name}' is missing (it has: "
                                f"{', '.join(map(repr, sorted(values))) or 'none'})")
        elif role == "label":
            if spec.labels is not Labels.ABSENT and recorded is None:
                messages.append(f"the feature '{name}' must be "
                                f"{features.KINDS[names.label_kind]}")
        elif role == "id":
            if identifier is None:
                messages.append(f"the feature '{name}' must be one value of type "
                                f"{'int64' if names.id_kind == 'integer' else 'bytes'}")
        elif len(values[name]) != 1 or (role == "image" and not isinstance(values[name][0], bytes)):
            messages.append(f"the feature '{name}' must be one value"
                            + " of type bytes" * (role == "image"))
    return messages


def all_plain(found: Sequence[Record], image_size: int | None) -> bool:
    """Whether the images of all records, as far as they have one, are plain by their headers."""
    images = [record.image for record in found if record.image is not None]
    return image_size is None or headers.are_plain(images, image_size)


def check_image(file: str, number: int, record: Record, spec: ReadSpec, decode: bool) -> Record:
    """The record with the issue of its image, if any, and whether that is plain."""
    image, size = record.image, spec.image_size
    if image is None or size is None:
        return record
    plain, message = False, ""
    try:
        height, width = headers.shape(image)
        plain = (height, width) == (size, size) and headers.is_upright_jpeg(image)
        if decode and plain:
            tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
        elif decode:
            resizing.decode(tf.constant(image))
    except tf.errors.InvalidArgumentError:
        message = headers.BROKEN_IMAGE
    except ValueError as error:
        message = str(error)
    issue = (DataIssue(file, number, record.id, message),) if message else ()
    return record._replace(plain=plain, issues=(*issue, *record.issues))


def first_image_size(files: Sequence[str], names: Features = COMPETITION,
                     all_gather: AllGather = single_process) -> int:
    """The side, in pixels, of the first images in the first file with a readable one, if most of
    them are squares of one size; else 0.

    Each of several workers reads its own files; all use the size from the first such file.

    Raises:
        UserError: if no file has a readable image.
    """
    def look(worker: int, workers: int) -> tuple[int, tuple[int, int]]:
        shapes = ((number, most_common_shape(files[number], names))
                  for number in range(worker, len(files), workers))
        return next((found for found in shapes if found[1][0]), (len(files), (0, 0)))

    _, (height, width) = min(all_gather(look))
    if not height or max(height, width) > MAX_IMAGE_SIZE:
        raise UserError(f"{files[0]}: the size of its first images cannot be read"
                        + (f" ({max(height, width)} pixels are more than {MAX_IMAGE_SIZE})"
                           if height else ", nor in another file of its folder")
                        + "; give dataset.image_size=PIXELS (--size for data check)")
    return height if height == width else 0


def most_common_shape(file: str, names: Features) -> tuple[int, int]:
    """Height and width, in pixels, of most of a file's first images (one may be bad); (1, 0) if no
    shape is that of most, (0, 0) if none can be read.
    """
    shapes: Counter[tuple[int, int]] = Counter()
    spec = ReadSpec(None, Labels.OPTIONAL, features=names)
    for record in itertools.islice(inspect(file, spec, decode=False), FIRST_IMAGES):
        if record.image is not None:
            with contextlib.suppress(ValueError):
                shapes[headers.shape(record.image)] += 1
    (shape, times), = shapes.most_common(1) or [((0, 0), 1)]
    return shape if 2 * times > shapes.total() else (1, 0)
