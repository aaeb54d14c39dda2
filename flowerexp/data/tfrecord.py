"""TFRecord files: listing, framing, writing.

A record is its length (8 bytes), the length's masked CRC32C (4), the data and theirs (4). Files are
read here and not by TensorFlow, which allocates whatever a damaged length says and reads nothing
after a damaged record.
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
"""Bytes of a record besides its data."""
CRC_MASK = 0xA282EAD8


class FramingError(Exception):
    """What is wrong with a file after its last whole record."""


@dataclass(frozen=True)
class RecordFile:
    """A TFRecord file and the number of records that its name promises, if any."""

    path: str
    count: int | None

    @classmethod
    def of(cls, path: str) -> RecordFile:
        """`...-COUNT.tfrec` promises records; `...-of-N.tfrec` numbers files."""
        match = re.search(r"(?<!-of)-(\d+)\.tfrec$", path)
        return cls(path, int(match.group(1)) if match else None)

    def count_issue(self, found: int) -> str | None:
        """What is wrong with a file of `found` whole records, or None."""
        if self.count in (None, found):
            return None
        return (f"holds {found} records where its name says {self.count}: copy the file again, or "
                "rename it if it is complete")


class RecordSpan(NamedTuple):
    """The place of a record's data in its file, in bytes."""

    start: int
    length: int


class RawRecord(NamedTuple):
    """A record before it is parsed, or (`span` is None) the broken rest of a file.

    damage: what is wrong with the CRC of its data, or with the rest of the file, if anything.
    """

    span: RecordSpan | None
    data: bytes
    damage: str | None


def list_files(folder: str) -> tuple[RecordFile, ...]:
    """The *.tfrec files of a split, sorted by name; raises UserError where there are none."""
    folder = folder.rstrip("/")
    # Not glob, to which brackets in the folder's own name would be a pattern.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    paths = sorted(f"{folder}/{name}" for name in names if name.endswith(".tfrec"))
    if not paths:
        raise UserError(f"{folder} holds no *.tfrec file: is it the right folder?")
    return tuple(map(RecordFile.of, paths))


def masked_crc(data: bytes) -> int:
    """The CRC32C that a TFRecord keeps of its data, rotated and shifted."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF


def read_at(file: Any, position: int, length: int) -> bytes:
    """Bytes of an open file, which does not seek where it is: that takes TensorFlow 50 us."""
    if file.tell() != position:
        file.seek(position)
    data: bytes = file.read(length)
    return data


def record_spans(file: Any) -> Iterator[RecordSpan]:
    """The places of the records of an open file, found without reading their data.

    Raises:
        FramingError: after the last whole record, where it does not end the file.
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
    """A record of an open file."""
    data, crc = read_at(file, span.start, span.length), file.read(4)
    intact = crc == struct.pack("<I", masked_crc(data))
    return RawRecord(span, data, None if intact else
                     "its data are damaged (CRC error): copy the file again")


def raw_records(path: str) -> Iterator[RawRecord]:
    """The records of a file and, after the last, what is wrong with its end, if anything.

    Raises:
        tf.errors.OpError: where the file cannot be read at all.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        try:
            for span in record_spans(file):
                yield read_record(file, span)
        except FramingError as error:
            yield RawRecord(None, b"", str(error))


def whole_spans(path: str) -> list[RecordSpan]:
    """The places of the whole records of a file, as far as it can be read."""
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
            # Protobuf orders a map's keys as it likes unless told.
            writer.write(example.SerializeToString(deterministic=True))
    partial.rename(path)
