"""The framing of TFRecord files: where each record's data stand, and whether they are whole.

A record is its length (8 bytes), the length's masked CRC32C (4), the data, and theirs (4).
TensorFlow believes a length and allocates it, so files are walked here before it reads them.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import google_crc32c
import tensorflow as tf

HEAD = 12
"""Bytes before a record's data."""
FRAME = 16
"""Bytes of a record besides its data."""
MASK = 0xA282EAD8


class RecordSpan(NamedTuple):
    """Where the data of a record stand in its file, in bytes."""

    start: int
    length: int


def masked_crc(data: bytes) -> int:
    """The CRC32C that a TFRecord keeps of its data, rotated and shifted."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def record_spans(path: str) -> tuple[list[RecordSpan], str | None]:
    """Walks over a file's records without reading their data.

    Returns:
        The records that the file holds to their end, and what is wrong after them, if anything.

    Raises:
        tf.errors.OpError: where the file cannot be read at all.
    """
    found: list[RecordSpan] = []
    size, position = int(tf.io.gfile.stat(path).length), 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(HEAD)
            if len(head) < HEAD:
                return found, (f"the file is truncated or damaged here ({len(head)} bytes are "
                               "left): copy it again")
            length, crc = struct.unpack("<QI", head)
            if masked_crc(head[:8]) != crc:
                return found, ("the file is damaged here (CRC error of the record's length): copy "
                               "it again")
            if length + FRAME > size - position:
                return found, (f"the file is truncated or damaged here (a record of {length} bytes "
                               f"where {size - position} are left): copy it again")
            found.append(RecordSpan(position + HEAD, length))
            position += length + FRAME
    return found, None


def contents(path: str, frames: Sequence[RecordSpan]) -> Iterator[tuple[bytes, bool]]:
    """The data of a file's first records, all that were found, and whether their CRC is right."""
    done = 0
    try:
        # Of the old interface, but without a graph for every file.
        for data in itertools.islice(tf.compat.v1.io.tf_record_iterator(path), len(frames)):
            yield data, True
            done += 1
    # TensorFlow goes no further; what comes after is slower.
    except tf.errors.DataLossError:
        with tf.io.gfile.GFile(path, "rb") as file:
            for frame in frames[done:]:
                yield checked(file, frame)


def checked(file: Any, frame: RecordSpan) -> tuple[bytes, bool]:
    """The data of a record and whether their CRC is right."""
    file.seek(frame.start)
    data = file.read(frame.length)
    crc = file.read(4)
    return data, len(crc) == 4 and struct.unpack("<I", crc)[0] == masked_crc(data)
