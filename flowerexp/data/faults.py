"""What can be wrong with one record, in a sentence each: features, image, label.

The one source of these sentences: a run that stops, one that skips, and `data check` say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

LABELS = 2**20
"""Labels are under it unless the number of classes is given; each class below takes memory."""
BROKEN_IMAGE = "its image is a broken JPEG or none at all"


@dataclass(frozen=True)
class DataIssue:
    """What is wrong with a record, or with a file where `record` is None.

    record: its number in the file, from 0.
    id: of the record, None where it cannot be read.
    message: the sentence without its place.
    lost: the records that cannot be read because of it.
    """

    file: str
    record: int | None
    id: str | None
    message: str
    lost: int = 1

    @property
    def sentence(self) -> str:
        if self.record is None:
            return f"{self.file} {self.message}"
        return f"{self.file}, record {self.record}: {self.message}"


def as_text(identifier: bytes) -> str:
    return identifier.decode("utf-8", "backslashreplace")


def features_of(serialized: bytes) -> Mapping[str, tf.train.Feature] | None:
    """The features of a record by protobuf, None where it is no tf.train.Example.

    To be asked before tf.io.parse_example, in which a value whose length is given as 2^31 bytes or
    more ends the process (TensorFlow 2.21).
    """
    try:
        features: Mapping[str, tf.train.Feature] = tf.train.Example.FromString(
            serialized).features.feature
    except Exception:  # protobuf's DecodeError has no stable public home
        return None
    return features


def raw_id(serialized: bytes) -> str | None:
    """The id of a record that is otherwise wrong, or None where it has no readable one."""
    features = features_of(serialized) or {}
    values = features["id"].bytes_list.value if "id" in features else []
    return as_text(values[0]) if len(values) == 1 else None


def feature_faults(serialized: bytes, labelled: bool | None) -> list[str]:
    """What is wrong with the features of a record that cannot be parsed; `labelled` as of
    `records.features`.
    """
    example = features_of(serialized)
    if example is None:
        return ["it is no tf.train.Example: were these files written by another program?"]
    messages = []
    for name, kind in (("image", "bytes_list"), ("class", "int64_list"), ("id", "bytes_list")):
        required = name == "image" or (labelled is not None
                                       and name == ("class" if labelled else "id"))
        if name not in example:
            if required:
                messages.append(f"the feature '{name}' is missing (it has: "
                                f"{', '.join(map(repr, sorted(example))) or 'none'})")
        elif (required or labelled is None or (name == "id" and labelled)) and \
                len(getattr(example[name], kind).value) != 1:
            messages.append(f"the feature '{name}' must be one value of type "
                            f"{kind.partition('_')[0]}")
    return messages or ["its features cannot be parsed: were these files written by another "
                        "program?"]


def image_faults(image: bytes, image_size: int) -> list[str]:
    """What is wrong with the JPEG of a record; decoded only if its header gives the right size."""
    try:
        height, width = tf.io.extract_jpeg_shape(image).numpy()[:2].tolist()
        if (height, width) != (image_size, image_size):
            return [f"its image is {width}x{height} pixels where dataset.image_size says "
                    f"{image_size}x{image_size}"]
        tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
    except tf.errors.InvalidArgumentError:
        return [BROKEN_IMAGE]
    return []


def label_faults(label: int, num_classes: int | None) -> list[str]:
    if 0 <= label < (num_classes or LABELS):
        return []
    return [f"its label {label} is out of range: labels are from 0 to "
            f"{(num_classes or LABELS) - 1}"
            + ("" if num_classes else " unless dataset.num_classes says otherwise")]
