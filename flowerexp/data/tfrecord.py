"""TFRecord files: listing, framing, features, writing.

A record is its length (8 bytes), the length's masked CRC32C (4), the data and their CRC (4). Files
are not read by TensorFlow, which allocates whatever a damaged length says and reads nothing after a
damaged record.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
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
RECORDS = re.compile(r"(?!\.|.*\.data-\d+-of-).*(\.tfrec(ords?)?(-\d+-of-\d+)?"
                     r"(\.(gz|gzip|zlib|z))?|-\d+-of-\d+)")
"""Names of files of records; those of hidden files and of checkpoints are not."""
CHUNK = 2**18
"""Bytes of a compressed file that are read together."""


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


def is_records(name: str) -> bool:
    """Whether a file's name is that of records, perhaps compressed: a.tfrec, b.tfrecord.gz,
    c-train.tfrecord-00000-of-00001, train-00000-of-00005.
    """
    return RECORDS.fullmatch(name) is not None


def list_files(folder: str) -> tuple[str, ...]:
    """The paths of the files of records of a split, sorted; raises UserError if there are none."""
    folder = folder.rstrip("/")
    # Not glob, which treats brackets in the folder's own name as a pattern.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    paths = sorted(f"{folder}/{name}" for name in names if is_records(name))
    if not paths:
        raise UserError(f"{folder} holds no *.tfrec file: is it the right folder?")
    return tuple(paths)


def stated_count(path: str) -> int | None:
    """The number of records that a file's name states, in the competition's form
    `NN-SIZExSIZE-COUNT.tfrec`; any other number may be that of a shard.
    """
    match = re.search(r"\d+x\d+-(\d+)\.tfrec$", path)
    return int(match.group(1)) if match else None


class Inflated:
    """The content of a file compressed by GZIP or ZLIB, read from its beginning.

    Where it is damaged or cut off it ends, and `damage` says how.
    """

    def __init__(self, file: Any) -> None:
        self.file, self.damage = file, ""
        self.waiting, self.inflate = bytearray(), zlib.decompressobj(zlib.MAX_WBITS | 32)

    def read(self, number: int) -> bytes:
        """The next bytes, fewer than `number` at the end."""
        while len(self.waiting) < number and not self.damage:
            # What was not decompressed yet comes first: a bomb must not fill the memory.
            data = (self.inflate.unused_data or self.inflate.unconsumed_tail
                    or self.file.read(CHUNK))
            if not data:
                self.damage = "" if self.inflate.eof else "it is cut off"
                break
            if self.inflate.eof:  # another member follows
                self.inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                self.waiting += self.inflate.decompress(data, CHUNK)
            except zlib.error as error:
                self.damage = str(error)
        found = bytes(self.waiting[:number])
        del self.waiting[:number]
        return found


def compression(head: bytes) -> str:
    """GZIP, ZLIB or an empty text, by the first HEAD bytes of a file of records."""
    if len(head) == HEAD and masked_crc(head[:8]) == int.from_bytes(head[8:], "little"):
        return ""  # a record's length can begin with any bytes
    if head[:3] == b"\x1f\x8b\x08":
        return "GZIP"
    zlibs = len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return "ZLIB" if zlibs else ""


def compression_of(path: str) -> str:
    """How a file is compressed, see `compression`; raises tf.errors.OpError."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return compression(file.read(HEAD))


def masked_crc(data: bytes) -> int:
    """The masked CRC32C of a TFRecord: rotated, plus a constant."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF


def head_damage(head: bytes, left: int) -> str | None:
    """The issue with the head of a record in the last `left` bytes of a file, if any."""
    if len(head) < HEAD:
        return f"the file is truncated or damaged here ({len(head)} bytes are left): copy it again"
    length, crc = struct.unpack("<QI", head)
    if masked_crc(head[:8]) != crc:
        return "the file is damaged here (CRC error of the record's length): copy it again"
    if length + FRAME > left:
        return (f"the file is truncated or damaged here (a record of {length} bytes where {left} "
                "are left): copy it again")
    return None


def raw_records(path: str, read: bool = True) -> Iterator[RawRecord]:
    """The records of a file, then the issue with its end, if any.

    Args:
        read: whether the data are read and their CRC is checked, or only their positions found.

    Raises:
        tf.errors.OpError: if the file cannot be read at all.
    """
    with tf.io.gfile.GFile(path, "rb") as raw:
        file, position, size, head = raw, 0, raw.size(), raw.read(HEAD)
        if compressed := compression(head):
            raw.seek(0)
            file, size = Inflated(raw), math.inf
            head = file.read(HEAD)
        while head or (file.damage if compressed else position < size):
            if damage := (f"the {compressed} file is truncated or damaged here ({file.damage}): "
                          "copy it again" if compressed and file.damage
                          and len(head) < HEAD else head_damage(head, size - position)):
                yield RawRecord(None, b"", damage)
                return
            span = RecordSpan(position + HEAD, int.from_bytes(head[:8], "little"))
            position += span.length + FRAME
            if read or compressed:
                # The next head too: each read takes TensorFlow microseconds, a seek 50.
                content = file.read(span.length + FRAME)
                if len(content) < span.length + 4:
                    yield RawRecord(None, b"", "the file is truncated or damaged here (a record of "
                                               f"{span.length} bytes is cut off): copy it again")
                    return
                yield checked(span, content)
                head = content[span.length + 4:]
            else:
                yield RawRecord(span, b"", None)
                file.seek(position)
                head = file.read(HEAD)


def checked(span: RecordSpan, content: bytes) -> RawRecord:
    """The record whose data, and their CRC, `content` begins with."""
    data, crc = content[:span.length], content[span.length:span.length + 4]
    intact = crc == struct.pack("<I", masked_crc(data))
    return RawRecord(span, data, None if intact else
                     "its data are damaged (CRC error): copy the file again")


def read_record(file: Any, span: RecordSpan) -> RawRecord:
    """Reads a record of an open file and checks the CRC of its data."""
    file.seek(span.start)
    return checked(span, file.read(span.length + 4))


def whole_spans(path: str) -> list[RecordSpan]:
    """The positions of the whole records of a file, as far as it can be read."""
    spans: list[RecordSpan] = []
    with contextlib.suppress(tf.errors.OpError):
        spans.extend(record.span for record in raw_records(path, read=False) if record.span)
    return spans  # keeps those before an error


def parse(serialized: bytes) -> dict[str, Sequence[Any]] | None:
    """The values of the features of a record by name, or None if it is not a tf.train.Example.

    Parsed by protobuf, because tf.io.parse_example crashes the process on a value whose stated
    length is 2^31 bytes or more (TensorFlow 2.21).
    """
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's DecodeError has no stable public path
        return None
    return {name: getattr(feature, kind).value for name, feature in features.items()
            if (kind := feature.WhichOneof("kind"))}


def parse_image(serialized: tf.Tensor, name: str) -> tf.Tensor:
    """The encoded image, string [], in the feature of this name of a record, string [], that was
    checked before.
    """
    return tf.io.parse_single_example(serialized, {name: tf.io.FixedLenFeature([], tf.string)}
                                      )[name]


def write(path: Path, images: Iterable[bytes], labels: Iterable[int] | None,
          ids: Iterable[str], groups: Iterable[str] | None = None) -> None:
    """Writes one TFRecord file of JPEG bytes, under a temporary name until it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    known = iter(labels) if labels is not None else None
    grouped = iter(groups) if groups is not None else None
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for image, identifier in zip(images, ids, strict=True):
            example = tf.train.Example()
            features = example.features.feature
            features["image"].bytes_list.value.append(image)
            features["id"].bytes_list.value.append(identifier.encode())
            if known is not None:
                features["class"].int64_list.value.append(int(next(known)))
            if grouped is not None:
                features["group"].bytes_list.value.append(next(grouped).encode())
            # By default, protobuf orders the keys of a map arbitrarily.
            writer.write(example.SerializeToString(deterministic=True))
    partial.rename(path)
