"""What can be wrong with a record, in one sentence each: its features, image and label.

A run that raises, a run that skips and `data check` all take their sentences from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from flowerexp.lazy import tf

MAX_LABELS = 2**20
"""The bound of labels where the number of classes is not given; each class below takes memory."""
BROKEN_IMAGE = "its image is not a valid JPEG"
FEATURES = {"image": "bytes", "class": "int64", "id": "bytes"}
"""The type of each feature."""


class Labels(Enum):
    """What the features `class` and `id` of a record must be."""

    REQUIRED = auto()
    """Training and validation: `class` is required, `id` optional."""
    ABSENT = auto()
    """Test: `id` is required, `class` is not looked at."""
    OPTIONAL = auto()
    """Prediction: both are optional."""

    @classmethod
    def of(cls, split: str) -> Labels:
        """What the records of train, val or test must have."""
        return cls.ABSENT if split == "test" else cls.REQUIRED

    @property
    def required_features(self) -> tuple[str, ...]:
        return {Labels.REQUIRED: ("image", "class"), Labels.ABSENT: ("image", "id"),
                Labels.OPTIONAL: ("image",)}[self]


@dataclass(frozen=True)
class DataIssue:
    """What is wrong with a record, or with a file where `record` is None.

    record: number of the record in the file, from 0.
    id: id of the record, None where it cannot be read.
    message: the sentence without its place.
    lost: number of records that cannot be read because of it.
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


def parse_features(serialized: bytes) -> Mapping[str, tf.train.Feature] | None:
    """The features of a record, or None if it is not a tf.train.Example.

    Parsed by protobuf: tf.io.parse_example ends the process at a value whose length is given as
    2^31 bytes or more (TensorFlow 2.21).
    """
    try:
        features: Mapping[str, tf.train.Feature] = tf.train.Example.FromString(
            serialized).features.feature
    except Exception:  # protobuf's DecodeError has no stable public home
        return None
    return features


def values_of(features: Mapping[str, tf.train.Feature], name: str) -> Sequence[Any] | None:
    """The values of a feature; empty if it has another type, None if it is missing."""
    if name not in features or features[name].WhichOneof("kind") is None:
        return None
    values: Sequence[Any] = getattr(features[name], f"{FEATURES[name]}_list").value
    return values


def feature_issues(features: Mapping[str, tf.train.Feature] | None, labels: Labels) -> list[str]:
    """What is wrong with the features that `parse_features` returned."""
    if features is None:
        return ["not a tf.train.Example: were these files written by another program?"]
    messages = []
    for name, kind in FEATURES.items():
        values = values_of(features, name)
        if values is None and name in labels.required_features:
            messages.append(f"the feature '{name}' is missing (it has: "
                            f"{', '.join(map(repr, sorted(features))) or 'none'})")
        elif (values is not None and len(values) != 1
              and not (name == "class" and labels is Labels.ABSENT)):
            messages.append(f"the feature '{name}' must be one value of type {kind}")
    return messages


def image_issues(image: bytes, image_size: int) -> list[str]:
    """What is wrong with a JPEG, which is decoded only if its header gives the right size."""
    try:
        height, width = tf.io.extract_jpeg_shape(image).numpy()[:2].tolist()
        if (height, width) != (image_size, image_size):
            return [f"its image is {width}x{height} pixels where dataset.image_size is "
                    f"{image_size}x{image_size}"]
        tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
    except tf.errors.InvalidArgumentError:
        return [BROKEN_IMAGE]
    return []


def label_issues(label: int, num_classes: int | None) -> list[str]:
    """Whether a label is out of range."""
    bound = num_classes or MAX_LABELS
    if 0 <= label < bound:
        return []
    return [f"its label {label} is out of range: labels are from 0 to {bound - 1}"
            + ("" if num_classes else " unless dataset.num_classes says otherwise")]


def count_skipped(issues: Sequence[DataIssue]) -> int:
    """How many records were left out, whatever the number of their issues."""
    return sum({(issue.file, issue.record): issue.lost for issue in issues}.values())


def skipped_status(issues: Sequence[DataIssue]) -> dict[str, Any]:
    """The entry `skipped` of status.json: the number of records left out, and every issue.

    A record with two issues is counted once and listed twice; a file that is wrong as a whole is
    listed with the record null. A file that ends too early counts the records that its name
    promises, or one where it promises none.
    """
    return {"count": count_skipped(issues), "records": [
        {"file": issue.file, "record": issue.record, "id": issue.id, "fault": issue.message}
        for issue in issues]}


def skipped_sentence(issues: Sequence[DataIssue]) -> str:
    """What a run logs about them at its start."""
    if not issues:
        return "skipped 0 records"
    return (f"skipped {count_skipped(issues)} bad records, all listed in status.json; the first: "
            f"{issues[0].sentence}")
