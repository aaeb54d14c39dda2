"""TFRecord files of JPEGs: list, count, read, write; a fault is named by file and record.

A record has the features `image` (JPEG bytes), `class` (int64; absent in test) and `id` (bytes;
optional in train and val).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.errors import UserError

BATCH = 256
"""Records parsed together."""
LABELS = 2**31
"""Labels are under it, whatever the data set."""
FRAME = 16
"""Bytes of a record besides its data: length, its CRC, the data's CRC."""


@dataclass(frozen=True)
class RecordFile:
    """One TFRecord file and the number of records that its name promises, if it does."""

    path: str
    count: int | None


@dataclass(frozen=True)
class Table:
    """A split in memory.

    images: string [n], JPEG bytes, or None where only labels and ids were kept.
    labels: int32 [n]; -1 in a split without labels.
    ids: n texts, empty where a record has none.
    files, counts: the files in reading order and the records of each.
    """

    images: tf.Tensor | None
    labels: npt.NDArray[np.int32]
    ids: list[str]
    files: tuple[RecordFile, ...]
    counts: tuple[int, ...]

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


def features(labelled: bool) -> dict[str, tf.io.FixedLenFeature]:
    text = tf.io.FixedLenFeature([], tf.string)
    if labelled:
        return {"image": text, "class": tf.io.FixedLenFeature([], tf.int64),
                "id": tf.io.FixedLenFeature([], tf.string, default_value="")}
    return {"image": text, "id": text}


def parse(serialized: tf.Tensor, labelled: bool) -> dict[str, tf.Tensor]:
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
            one in the file's name.
    """
    paths = tf.constant([file.path for file in files])

    def parse_checked(file: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = parse(serialized, labelled)
        shapes = tf.map_fn(tf.io.extract_jpeg_shape, parsed["image"],
                           fn_output_signature=tf.TensorSpec([3], tf.int32))
        good = tf.reduce_all(shapes[:, :2] == image_size)
        if labelled:
            good &= tf.reduce_all((parsed["class"] >= 0)
                                  & (parsed["class"] < (num_classes or LABELS)))
        if not keep_images:
            parsed["image"] = tf.zeros([0], tf.string)
        return {**parsed, "file": tf.fill(tf.shape(serialized), file), "good": good,
                "bytes": tf.cast(tf.strings.length(serialized), tf.int64) + FRAME}

    batches = tf.data.Dataset.range(len(files)).flat_map(
        lambda file: tf.data.TFRecordDataset(paths[file]).batch(BATCH).map(
            lambda serialized: parse_checked(file, serialized))).prefetch(2)
    parts: list[dict[str, tf.Tensor]] = []
    try:
        for batch in batches:
            if not batch["good"]:
                raise UserError(first_fault(files, image_size, labelled, num_classes))
            parts.append(batch)
    # TensorFlow quotes the record in its message, and cannot where it is no UTF-8.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        fault = first_fault(files, image_size, labelled, num_classes)
        raise UserError(fault or f"{files[0].path} and the files beside it cannot be read: "
                        f"{str(error).splitlines()[0]}") from error
    return assemble(files, parts, keep_images)


def assemble(files: Sequence[RecordFile], parts: list[dict[str, tf.Tensor]],
             keep_images: bool) -> Table:
    """The table of parsed batches, its counts held against the files' names."""
    def joined(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([part[name].numpy() for part in parts] or [np.zeros(0, np.int64)])

    counts = np.bincount(joined("file").astype(np.int64), minlength=len(files))
    lengths = np.bincount(joined("file").astype(np.int64), joined("bytes"), len(files))
    for file, count, length in zip(files, counts.tolist(), lengths.tolist(), strict=True):
        if file.count not in (None, count):
            raise UserError(f"{file.path} holds {count} records where its name says {file.count}: "
                            "copy the file again, or rename it if it is whole")
        # TensorFlow takes a record's length that is cut off for the end of the file.
        if tf.io.gfile.stat(file.path).length != length:
            raise UserError(f"{file.path}, record {count}: the file is truncated here: copy it "
                            "again")
    if not counts.sum():
        raise UserError(f"{files[0].path} holds no record, nor does any file beside it: the split "
                        "is empty")
    images = tf.concat([part["image"] for part in parts], 0) if keep_images and parts else None
    ids = [identifier.decode("utf-8", "backslashreplace") for identifier in joined("id").tolist()]
    return Table(images, joined("class").astype(np.int32), ids, tuple(files),
                 tuple(counts.tolist()))


def first_fault(files: Sequence[RecordFile], image_size: int, labelled: bool,
                num_classes: int | None) -> str | None:
    """A sentence for the first record that is wrong, found by decoding one after another."""
    for file in files:
        for number, message in faults(file, image_size, labelled, num_classes):
            return f"{file.path}, record {number}: {message}"
    return None


def faults(file: RecordFile, image_size: int, labelled: bool, num_classes: int | None,
           ) -> Iterator[tuple[int, str]]:
    """Every fault of one file as (record number from 0, sentence); stops where reading does."""
    records = iter(tf.data.TFRecordDataset(file.path))
    number = 0
    while True:
        try:
            serialized = next(records).numpy()
        except StopIteration:
            return
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            yield number, ("the file is truncated or damaged here "
                           f"({str(error.message).split(' [Op')[0]}): copy it again")
            return
        except tf.errors.OpError as error:
            yield number, f"the file cannot be read: {str(error.message).split(' [Op')[0]}"
            return
        message = record_fault(serialized, image_size, labelled, num_classes)
        if message:
            yield number, message
        number += 1


def record_fault(serialized: bytes, image_size: int, labelled: bool,
                 num_classes: int | None) -> str | None:
    """What is wrong with one record, or None."""
    try:
        example = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's DecodeError has no stable public home
        return "it is no tf.train.Example: were these files written by another program?"
    for name, kind in (("image", "bytes_list"), ("class", "int64_list"), ("id", "bytes_list")):
        required = name == "image" or name == ("class" if labelled else "id")
        if name not in example:
            if required:
                return (f"the feature '{name}' is missing (it has: "
                        f"{', '.join(sorted(example)) or 'none'})")
        elif (required or (name == "id" and labelled)) and \
                len(getattr(example[name], kind).value) != 1:
            return f"the feature '{name}' must be one value of type {kind.partition('_')[0]}"
    image = example["image"].bytes_list.value[0]
    try:
        shape = tf.io.extract_jpeg_shape(image).numpy()
        tf.io.decode_jpeg(image, channels=3)
    except tf.errors.InvalidArgumentError:
        return "its image is a broken JPEG or none at all"
    if tuple(shape[:2]) != (image_size, image_size):
        return (f"its image is {shape[1]}x{shape[0]} pixels where dataset.image_size says "
                f"{image_size}x{image_size}")
    if labelled:
        label = example["class"].int64_list.value[0]
        if not 0 <= label < (num_classes or LABELS):
            return (f"its label {label} is out of range: labels are from 0 to "
                    f"{(num_classes or LABELS) - 1}")
    return None


def first_image_size(file: RecordFile) -> int:
    """Height in pixels of the first image of a file; raises UserError where it cannot be read."""
    try:
        serialized = next(iter(tf.data.TFRecordDataset(file.path))).numpy()
        image = tf.train.Example.FromString(serialized).features.feature["image"]
        return int(tf.io.extract_jpeg_shape(image.bytes_list.value[0]).numpy()[0])
    except Exception as error:  # whatever is wrong with it, the size is what is missing
        raise UserError(f"{file.path}: the size of its first image cannot be read; give "
                        "dataset.image_size=PIXELS") from error


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
            writer.write(example.SerializeToString())
    partial.rename(path)
