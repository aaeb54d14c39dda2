"""The features of records: which are the image, the label and the id, and how they are stored."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from flowerexp.data import tfrecord
from flowerexp.errors import UserError
from flowerexp.lazy import tf

IMAGES = ("image", "image/encoded", "image_raw")
LABELS = ("class", "label", "target", "image/class/label", "image/object/class/label")
IDS = ("id", "image_id", "image_name", "file_name", "filename", "image/filename",
       "image/source_id")
"""Names of the features in the layouts that are recognised."""
LAYOUTS = {("image", "class"): "the competition's layout", ("image", "label"): "TFDS' layout",
           ("image", "target"): "the layout of later competitions",
           ("image/encoded", "image/class/label"): "TF-Slim's layout",
           ("image/encoded", "image/object/class/label"): "the Object Detection layout"}
MAX_LABELS = 2**20
"""Upper bound of labels if the number of classes is not given; every class takes memory."""
ROLES = ("image", "label", "id", "group")
FIRST_RECORDS = 32
"""Number of records of a file among which one with known features is looked for."""
KINDS = {"integer": "one value of type int64", "float": "one whole number", "text": "one text",
         "one-hot": "numbers, one of them 1 and the others 0",
         "object": "the labels of one or several objects of one class"}
"""What a label is in its record -> its description."""


@dataclass(frozen=True)
class Features:
    """The names of the features of a data set's records; the default is the competition's layout.

    image: the encoded image.
    label: the class, stored as `label_kind` of KINDS; its text is the class name.
    text: the class name beside a label that is a number; None if there is none.
    id: name of the image, stored as `id_kind` text or integer; None if records have no id: they
        are then named by file and number.
    group: what the image shows (a patient, a plant); None if there are no groups.
    """

    image: str = "image"
    label: str = "class"
    text: str | None = None
    id: str | None = "id"
    group: str | None = None
    label_kind: str = "integer"
    id_kind: str = "text"

    @property
    def sentence(self) -> str:
        """`TFDS' layout: image, label, no id`."""
        names = [self.image, self.label, self.text, self.id or "no id", self.group]
        layout = LAYOUTS.get((self.image, self.label), "features")
        kind = "" if self.label_kind == "integer" else f" ({self.label_kind})"
        names[1] = f"{self.label}{kind}"
        return f"{layout}: {', '.join(filter(None, names))}"


COMPETITION = Features()
"""The features of the competition's records, which a conversion writes too."""


class Labels(Enum):
    """Requirements on the features of a record; the value names those that are required."""

    REQUIRED = ("image", "label", "text", "group")
    """Training and validation."""
    ABSENT = ("image", "id")
    """Test; the label is ignored."""
    OPTIONAL = ("image",)
    """Prediction."""

    @classmethod
    def of(cls, split: str) -> Labels:
        """The requirements on records of train, val or test."""
        return cls.ABSENT if split == "test" else cls.REQUIRED


@dataclass(frozen=True)
class ReadSpec:
    """Requirements on the records of a split, and what is kept of them.

    image_size: height and width in pixels; None leaves images unchecked.
    labels: requirements on label and id.
    num_classes: upper bound of the labels; None for any.
    keep_images: whether encoded images are kept, not only labels and ids.
    skip_bad: whether bad records are left out, which requires decoding every image; else the first
        one raises UserError.
    features: names of the features.
    label_offset: the label of the first class in the records.
    names: class by its name; empty if the records tell the names.
    numbers: class by its label in the records; empty if these are counted from `label_offset`.
    folder: images without an id are named by file and number, relative to this folder.
    """

    image_size: int | None
    labels: Labels = Labels.REQUIRED
    num_classes: int | None = None
    keep_images: bool = True
    skip_bad: bool = False
    features: Features = COMPETITION
    label_offset: int = 0
    names: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[int, int] = field(default_factory=dict)
    folder: str = ""


def recognise(files: Sequence[str], given: Mapping[str, str | None],
              test: Sequence[str] = (), labelled: bool = True) -> Features | None:
    """The features of the first record with known ones.

    Args:
        files: files of records.
        given: names of features by role, which need not be recognised; None otherwise.
        test: files of a test split, whose records may have an id where others have none.
        labelled: whether a label is needed.

    Returns:
        The features; None if none of the first records could be read.

    Raises:
        UserError: if no record has an image and a label of a known name, or has several labels.
    """
    unknown = None
    for path, values in first_records(files):
        try:
            found = of_record(path, values, given, labelled)
        except UserError as error:
            unknown = unknown or error
            continue
        if found.id is None:  # another record may have one
            for _, others in (*first_records(files), *first_records(test)):
                if name := first_of(IDS, others):
                    return replace(found, id=name, id_kind=id_kind(others[name]))
        return found
    if unknown:
        raise unknown
    return None


def first_records(files: Iterable[str]) -> list[tuple[str, Mapping[str, Sequence[Any]]]]:
    """The path and the features of the first records that can be read, of the first such file."""
    for path in files:
        found = list[tuple[str, Mapping[str, Sequence[Any]]]]()
        try:
            for raw in itertools.islice(tfrecord.raw_records(path), FIRST_RECORDS):
                values = tfrecord.parse(raw.data)
                if values and not raw.damage:
                    found.append((path, values))
        except tf.errors.OpError:  # reported when the file is read
            continue
        if found:
            return found
    return []


def of_record(path: str, values: Mapping[str, Sequence[Any]], given: Mapping[str, str | None],
              labelled: bool = True) -> Features:
    """The features of a record; raises UserError if they are not known."""
    image = given.get("image") or first_of(IMAGES, values)
    labels = [name for name in LABELS if values.get(name)]
    label = given.get("label") or next(iter(labels), None if labelled else Features.label)
    if image is None or label is None:
        missing = "image" if image is None else "label"
        raise UserError(f"{path} holds records of an unknown layout (features: "
                        f"{', '.join(sorted(values)) or 'none'}): give "
                        f"dataset.features.{missing}=NAME")
    if len(labels) > 1 and label == labels[0] != "class" and not given.get("label"):
        raise UserError(f"{path} holds records with the labels {' and '.join(labels)}: choose one "
                        "by dataset.features.label=NAME")
    text = label.removesuffix("label") + "text"
    identifier = given.get("id") or first_of(IDS, values)
    ids = values.get(identifier or "")
    return Features(
        image, label, text if label.endswith("/label") and values.get(text) else None, identifier,
        given.get("group"), label_kind(label, values.get(label, ())), id_kind(ids or ()))


def first_of(names: Iterable[str], values: Mapping[str, Sequence[Any]]) -> str | None:
    return next((name for name in names if values.get(name)), None)


def id_kind(values: Sequence[Any]) -> str:
    return "integer" if values and isinstance(values[0], int) else "text"


def label_kind(name: str, values: Sequence[Any]) -> str:
    """Which of KINDS a label is."""
    if name.endswith("/object/class/label"):
        return "object"
    if len(values) > 1:
        return "one-hot"
    return {bytes: "text", float: "float"}.get(type(values[0]) if values else int, "integer")


def label_of(values: Sequence[Any], kind: str) -> int | str | None:
    """The label that a feature's values of some kind tell; None if they tell none."""
    if kind == "one-hot":
        nonzero = [place for place, value in enumerate(values) if value]
        return nonzero[0] if len(nonzero) == 1 and values[nonzero[0]] == 1 else None
    if not values or any(value != values[0] for value in values[1:]) or (
            len(values) > 1 and kind != "object"):
        return None
    value = values[0]
    if kind == "text":
        return text_of(value) if isinstance(value, bytes) else None
    if kind == "float":
        return int(value) if isinstance(value, float) and value.is_integer() else None
    return value if isinstance(value, int) else None


def text_of(value: Any) -> str:
    """A value as text: bytes decoded, in Unicode's normal form NFC."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return unicodedata.normalize("NFC", text)
