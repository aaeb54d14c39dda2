"""The features of one record as they stand in its file, whatever the pipeline makes of them."""

import contextlib
from dataclasses import dataclass

import tensorflow as tf

from flowerexp.data import frames
from flowerexp.data.records import Table

JPEG = b"\xff\xd8"
"""The first bytes of one."""
LONGEST = 120
"""Letters of a value that are shown."""


@dataclass(frozen=True)
class Feature:
    """One feature of a record, in words."""

    name: str
    kind: str
    """bytes | int64 | float"""
    count: int
    value: str


def first(table: Table) -> tuple[str, list[Feature]]:
    """Where the first record of a split stands, and its features by name.

    Args:
        table: of one record at least.
    """
    number = next(number for number, count in enumerate(table.counts) if count)
    path = table.files[number].path
    all_frames = frames.record_spans(path)[0]
    frame = table.frames[number][0] if table.frames is not None else all_frames[0]
    with tf.io.gfile.GFile(path, "rb") as file:
        serialized, _ = frames.checked(file, frame)
    features = tf.train.Example.FromString(serialized).features.feature
    return (f"{path}, record {all_frames.index(frame)} ({len(serialized)} bytes)",
            [describe(name, features[name]) for name in sorted(features)])


def describe(name: str, feature: tf.train.Feature) -> Feature:
    """A feature in words; of bytes that are no short text, how many and what they begin with."""
    field = feature.WhichOneof("kind") or "no_list"
    values = list(getattr(feature, field).value) if field != "no_list" else []
    kind = field.removesuffix("_list")
    if kind == "bytes":
        text = ", ".join(map(bytes_in_words, values))
    else:
        text = ", ".join(f"{value:g}" if kind == "float" else str(value) for value in values)
    return Feature(name, kind, len(values),
                   text if len(text) <= LONGEST else f"{text[:LONGEST - 1]}…")


def bytes_in_words(value: bytes) -> str:
    """A JPEG's size, a text as it is, of other bytes what they begin with."""
    if value.startswith(JPEG):
        height, width, channels = tf.io.extract_jpeg_shape(value).numpy().tolist()
        return f"JPEG of {len(value)} bytes, {height} x {width} pixels, {channels} channels"
    with contextlib.suppress(UnicodeDecodeError):
        if (text := value.decode()).isprintable():
            return text or "(empty)"
    return f"{len(value)} bytes, beginning with {value[:16].hex(' ')}"
