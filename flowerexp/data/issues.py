"""Issues with records, one sentence each: with their features, image or label.

Runs that stop at bad records, runs that skip them and `data check` share these sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from flowerexp.lazy import tf

MAX_LABELS = 2**20
"""Upper bound of labels if the number of classes is not given; every class takes memory."""
BROKEN_IMAGE = "its image is not a valid JPEG"
FEATURES = {"image": "bytes", "class": "int64", "id": "bytes"}
"""The type of each feature."""


class Labels(Enum):
    """Requirements on the features `class` and `id` of a record."""

    REQUIRED = auto()
    """Training and validation: `class` is required, `id` optional."""
    ABSENT = auto()
    """Test: `id` is required, `class` is ignored."""
    OPTIONAL = auto()
    """Prediction: both are optional."""

    @classmethod
    def of(cls, split: str) -> Labels:
        """The requirements on records of train, val or test."""
        return cls.ABSENT if split == "test" else cls.REQUIRED

    @property
    def required_features(self) -> tuple[str, ...]:
        return {Labels.REQUIRED: ("image", "class"), Labels.ABSENT: ("image", "id"),
                Labels.OPTIONAL: ("image",)}[self]


@dataclass(frozen=True)
class DataIssue:
    """An issue with a record, or with a file if `record` is None.

    record: number of the record in the file, from 0.
    id: id of the record; None if it cannot be read.
    message: the sentence without file and record.
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

    Parsed by protobuf, because tf.io.parse_example crashes the process on a value whose stated
    length is 2^31 bytes or more (TensorFlow 2.21).
    """
    try:
        features: Mapping[str, tf.train.Feature] = tf.train.Example.FromString(
            serialized).features.feature
    except Exception:  # protobuf's DecodeError has no stable public path
        return None
    return features


def values_of(features: Mapping[str, tf.train.Feature], name: str) -> Sequence[Any] | None:
    """The values of a feature; empty if it has another type, None if it is missing."""
    if name not in features or features[name].WhichOneof("kind") is None:
        return None
    values: Sequence[Any] = getattr(features[name], f"{FEATURES[name]}_list").value
    return values


def feature_issues(features: Mapping[str, tf.train.Feature] | None, labels: Labels) -> list[str]:
    """Issues with the features that `parse_features` returned."""
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


def label_issues(label: int, num_classes: int | None) -> list[str]:
    """The issue with a label if it is out of range."""
    bound = num_classes or MAX_LABELS
    if 0 <= label < bound:
        return []
    return [f"its label {label} is out of range: labels are from 0 to {bound - 1}"
            + ("" if num_classes else " unless dataset.num_classes says otherwise")]


def count_skipped(issues: Sequence[DataIssue]) -> int:
    """The number of records that were left out, however many issues they have."""
    return sum({(issue.file, issue.record): issue.lost for issue in issues}.values())


def skipped_status(issues: Sequence[DataIssue]) -> dict[str, Any]:
    """The entry `skipped` of status.json: the number of records left out, and every issue.

    A record with two issues is counted once and listed twice; an issue with a whole file has the
    record null. A file that ends too early counts as the missing records that its name states, or
    as one if it states none.
    """
    return {"count": count_skipped(issues), "records": [
        {"file": issue.file, "record": issue.record, "id": issue.id, "fault": issue.message}
        for issue in issues]}


def skipped_sentence(issues: Sequence[DataIssue]) -> str:
    """The sentence about skipped records that a run logs at its start."""
    if not issues:
        return "skipped 0 records"
    return (f"skipped {count_skipped(issues)} bad records, all listed in status.json; the first: "
            f"{issues[0].sentence}")
