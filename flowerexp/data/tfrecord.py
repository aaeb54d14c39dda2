"""TFRecord files: listing, framing, writing.

A record is its length (8 bytes), the length's masked CRC32C (4), the data and their CRC (4). Files
are not read by TensorFlow, which allocates whatever a damaged length says and reads nothing after a
damaged record.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from flowerexp.errors import UserError
from flowerexp.lazy import tf

HEAD = 12
"""Bytes before a record's data."""
FRAME = 16
"""Bytes of a record in addition to its data."""
CRC_MASK = 0xA282EAD8


class FramingError(Exception):
    """A file is damaged after its last whole record; the message says how."""


@dataclass(frozen=True)
class RecordFile:
    """A TFRecord file and the number of records that its name states, if any."""

    path: str
    count: int | None

    @classmethod
    def of(cls, path: str) -> RecordFile:
        """`...-COUNT.tfrec` states the number of records; `...-of-N.tfrec` that of files."""
        match = re.search(r"(?<!-of)-(\d+)\.tfrec$", path)
        return cls(path, int(match.group(1)) if match else None)

    def count_issue(self, found: int) -> str | None:
        """The issue with a file that holds `found` whole records, or None."""
        if self.count in (None, found):
            return None
        return (f"holds {found} records where its name says {self.count}: copy the file again, or "
                "rename it if it is complete")


class RecordSpan(NamedTuple):
    """The position of a record's data in its file, in bytes."""

    start: int
    length: int


class RawRecord(NamedTuple):
    """An unparsed record or, if `span` is None, the broken rest of a file.

    damage: the CRC error of the data, or the issue with the rest of the file; None if intact.
    """

    span: RecordSpan | None
    data: bytes
    damage: str | None


def list_files(folder: str) -> tuple[RecordFile, ...]:
    """The *.tfrec files of a split, sorted by name; raises UserError if there are none."""
    folder = folder.rstrip("/")
    # Not glob, which treats brackets in the folder's own name as a pattern.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    paths = sorted(f"{folder}/{name}" for name in names if name.endswith(".tfrec"))
    if not paths:
        raise UserError(f"{folder} holds no *.tfrec file: is it the right folder?")
    return tuple(map(RecordFile.of, paths))


def masked_crc(data: bytes) -> int:
    """The masked CRC32C of a TFRecord: rotated, plus a constant."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF


def read_at(file: Any, position: int, length: int) -> bytes:
    """Bytes of an open file; seeks only if needed, because a seek takes TensorFlow 50 us."""
    if file.tell() != position:
        file.seek(position)
    data: bytes = file.read(length)
    return data


def record_spans(file: Any) -> Iterator[RecordSpan]:
    """The positions of the records of an open file, found without reading their data.

    Raises:
        FramingError: after the last whole record, if the file does not end there.
    """
    size, position = file.size(), 0
    while position < size:
        head = read_at(file, position, HEAD)
        if len(head) < HEAD:
            raise FramingError(f"the file is truncated or damaged here ({len(head)} bytes are "
                               "left): copy it again")
        length, crc = struct.unpack("<QI", head)
        if masked_crc(head[:8]) != crc:
            raise FramingError("the file is damaged here (CRC error of the record's length): copy "
                               "it again")
        if length + FRAME > size - position:
            raise FramingError(f"the file is truncated or damaged here (a record of {length} bytes "
                               f"where {size - position} are left): copy it again")
        yield RecordSpan(position + HEAD, length)
        position += length + FRAME


def read_record(file: Any, span: RecordSpan) -> RawRecord:
    """Reads a record of an open file and checks the CRC of its data."""
    data, crc = read_at(file, span.start, span.length), file.read(4)
    intact = crc == struct.pack("<I", masked_crc(data))
    return RawRecord(span, data, None if intact else
                     "its data are damaged (CRC error): copy the file again")


def raw_records(path: str) -> Iterator[RawRecord]:
    """The records of a file, then the issue with its end, if any.

    Raises:
        tf.errors.OpError: if the file cannot be read at all.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        try:
            for span in record_spans(file):
                yield read_record(file, span)
        except FramingError as error:
            yield RawRecord(None, b"", str(error))


def whole_spans(path: str) -> list[RecordSpan]:
    """The positions of the whole records of a file, as far as it can be read."""
    spans: list[RecordSpan] = []
    with contextlib.suppress(FramingError, tf.errors.OpError), tf.io.gfile.GFile(path, "rb") as f:
        spans.extend(record_spans(f))  # keeps those before an error
    return spans


def write(path: Path, images: Iterable[bytes], labels: Iterable[int] | None,
          ids: Iterable[str]) -> None:
    """Writes one TFRecord file of JPEG bytes, under a temporary name until it is complete."""
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
            # By default, protobuf orders the keys of a map arbitrarily.
            writer.write(example.SerializeToString(deterministic=True))
    partial.rename(path)
