"""A data set that was found: its splits as TFRecord files or as arrays in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flowerexp.data import images
from flowerexp.data.division import SPLITS
from flowerexp.data.features import COMPETITION, MAX_LABELS, Features, Labels, ReadSpec
from flowerexp.data.images import Checked
from flowerexp.data.photos import Listing
from flowerexp.data.tables import Table, as_tensor, image_digest
from flowerexp.errors import UserError


@dataclass(frozen=True)
class Arrays:
    """A split in memory.

    images: uint8 [n, size, size, 3], RGB.
    labels: int [n], from 0; None in a test split.
    ids: n strings, which name test images in the submission; None: numbers from 0.

    Raises:
        UserError: for wrong dtypes, shapes or lengths.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer] | None = None
    ids: Sequence[str] | None = None

    def __post_init__(self) -> None:
        shape, count = np.shape(self.images), len(self.images)
        if (self.images.dtype != np.uint8 or len(shape) != 4 or not count or shape[3] != 3
                or shape[1] != shape[2]):
            raise UserError("images must be uint8 [n, size, size, 3] with at least one image, not "
                            f"{self.images.dtype} {list(shape)}")
        if self.labels is not None and (
                np.shape(self.labels) != (count,) or self.labels.dtype.kind not in "iu"
                or not 0 <= self.labels.min() <= self.labels.max() < MAX_LABELS):
            raise UserError(f"labels must be {count} integers from 0, one for each image, not "
                            f"{self.labels.dtype} {list(np.shape(self.labels))}")
        if self.ids is not None and len(self.ids) != count:
            raise UserError(f"ids must be {count} texts, one for each image, not {len(self.ids)}")

    def table(self, keep_images: bool = True) -> Table:
        """The split as a table for the pipeline; labels are -1 if there are none."""
        count = len(self.images)
        labels = np.full(count, -1) if self.labels is None else self.labels
        ids = range(count) if self.ids is None else self.ids
        digests = [image_digest(image.tobytes()) for image in self.images]
        return Table(as_tensor(self.images) if keep_images else None, labels.astype(np.int32),
                     [str(each) for each in ids], np.array(digests, np.uint64))

    @property
    def digest(self) -> str:
        """A hash of images, labels and ids."""
        table = self.table(keep_images=False)
        found = hashlib.sha256(np.ascontiguousarray(self.images).data)
        found.update(json.dumps([self.images.shape, table.labels.tolist(), table.ids]).encode())
        return found.hexdigest()


@dataclass(frozen=True)
class Source:
    """A data set: its splits as TFRecord files or as arrays in memory.

    kind: sample | flowers | tfrecords | arrays.
    reason: sentence that says which data set is used and why.
    folder: folder that holds the splits; "memory" for arrays.
    image_size: height and width in pixels; 0: that of the first images, which `find` reads.
    class_names: class names in label order; None if classes have numbers only.
    num_classes: number of classes; None if only the labels tell.
    files: files of `train` and, if there are any, `val` and `test`; empty for arrays.
    arrays: arrays of the same splits; empty for files.
    features: names of the records' features; None: those that `sources.find` recognises.
    given_features: names by role that need not be recognised.
    label_offset: label of the first class in the records.
    labels: label of each class in the records; None: counted from label_offset.
    listing: photos of any layout, with fixed splits or all in train; None for records and arrays.
    checked: checksums of these photos.
    import_dir: where they are imported if they do not fit in memory; None: the user's cache.
    """

    kind: str
    reason: str
    folder: str
    image_size: int
    class_names: tuple[str, ...] | None
    num_classes: int | None
    files: dict[str, tuple[str, ...]]
    arrays: dict[str, Arrays] = field(default_factory=dict)
    features: Features | None = None
    given_features: Mapping[str, str | None] = field(default_factory=dict)
    label_offset: int = 0
    labels: tuple[int, ...] | None = None
    listing: Listing | None = None
    checked: tuple[Checked, ...] = ()
    import_dir: str | None = None

    @classmethod
    def of_arrays(cls, train: Arrays, val: Arrays | None = None, test: Arrays | None = None,
                  class_names: Sequence[str] | None = None,
                  reason: str = "dataset: arrays in memory") -> Source:
        """A source of arrays in memory, which stay decoded whatever dataset.cache says.

        Raises:
            UserError: if train or val has no labels, splits differ in size, or a label has no
                name.
        """
        arrays = {name: each for name, each in (("train", train), ("val", val), ("test", test))
                  if each is not None}
        sizes = {split: each.images.shape[1] for split, each in arrays.items()}
        if len({*sizes.values()}) > 1:
            raise UserError(f"images of all splits must have one size, not {sizes}")
        for split in (name for name in arrays if name != "test"):
            labels = arrays[split].labels
            if labels is None:
                raise UserError(f"labels of {split} are missing")
            if class_names is not None and labels.max() >= len(class_names):
                raise UserError(f"labels of {split} must be under {len(class_names)}, the number "
                                f"of class names, not {labels.max()}")
        return cls("arrays", reason, "memory", sizes["train"],
                   tuple(class_names) if class_names is not None else None,
                   len(class_names) if class_names is not None else None, {}, arrays)

    @property
    def splits(self) -> tuple[str, ...]:
        """train and, if there are any, val and test."""
        if self.listing is None:
            return tuple(self.arrays or self.files)
        there = {*map(images.split_of, self.listing.photos)}
        return tuple(split for split in SPLITS if split in there)

    def spec(self, split: str, keep_images: bool = True, skip_bad: bool = False) -> ReadSpec:
        """The requirements on the records of a split."""
        return ReadSpec(self.image_size, Labels.of(split), self.num_classes, keep_images, skip_bad,
                        self.features or COMPETITION, self.label_offset,
                        {name: row for row, name in enumerate(self.class_names or ())},
                        {label: row for row, label in enumerate(self.labels or ())}, self.folder)
