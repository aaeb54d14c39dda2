"""Data set sources: the class `Source`, and the parts of the config that find one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt
import platformdirs

from flowerexp import parts
from flowerexp.config import check_range
from flowerexp.data import records, sample, tfrecord
from flowerexp.data.records import MAX_LABELS, Labels, ReadSpec
from flowerexp.data.tables import Table, as_tensor
from flowerexp.errors import UserError
from flowerexp.lazy import tf
from flowerexp.strategy.workers import AllGather, single_process

COMPETITION = "tpu-getting-started"
COMPETITION_COUNTS = {"train": 12_753, "val": 3_712, "test": 7_382}
COMPETITION_CLASSES = 104
KAGGLE_FOLDER = f"/kaggle/input/{COMPETITION}"
NAMES_FILE = "classes.txt"
"""Written by a conversion next to the splits; it may be in the root instead."""
CLASSES_FILE = Path(__file__).with_name("flower_classes.json")


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
        digests = [google_crc32c.value(image.tobytes()) for image in self.images]
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
    folder: folder that holds train, val and perhaps test; "memory" for arrays.
    image_size: height and width in pixels; 0: that of the first images, which `find` reads.
    class_names: class names in label order; None if classes have numbers only.
    num_classes: number of classes; None if only the labels tell.
    files: files of `train`, `val` and, if there is one, `test`; empty for arrays.
    arrays: arrays of the same splits; empty for files.
    """

    kind: str
    reason: str
    folder: str
    image_size: int
    class_names: tuple[str, ...] | None
    num_classes: int | None
    files: dict[str, tuple[str, ...]]
    arrays: dict[str, Arrays] = field(default_factory=dict)

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
        return tuple(self.arrays or self.files)

    def spec(self, split: str, keep_images: bool = True, skip_bad: bool = False) -> ReadSpec:
        """The requirements on the records of a split."""
        return ReadSpec(self.image_size, Labels.of(split), self.num_classes, keep_images, skip_bad)


class SourceFactory(Protocol):
    """A custom data set: constructed with its config keys, then called for its source.

    It is called both to plan and to execute a run, and must return the same source each time.
    """

    def __call__(self) -> Source: ...


@dataclass(frozen=True)
class TFRecords:
    """TFRecord files in the folders train, val and perhaps test."""

    root: str | None = None
    """Folder (local or gs://) with train, val and test, or with tfrecords-jpeg-SxS folders."""
    image_size: int | None = None
    """Height and width in pixels; null: the only size that the root holds."""
    num_classes: int | None = None
    """Number of classes; null: that of class_names, else the greatest label plus one."""
    class_names: Any = None
    """List of names in label order, or the path of a text file, one per line; null: numbers."""

    needs_root: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.needs_root and self.root is None:
            raise UserError("root must say where the TFRecords are: dataset=tfrecords "
                            "dataset.root=FOLDER")
        for key in ("image_size", "num_classes"):
            check_range(key, getattr(self, key), 1)
        names = self.class_names
        if isinstance(names, list):
            if not all(isinstance(name, str) for name in names) or not names:
                raise UserError("class_names must be a list of texts in label order")
            if self.num_classes not in (None, len(names)):
                raise UserError(f"class_names holds {len(names)} names where dataset.num_classes "
                                f"says {self.num_classes}")
        elif not isinstance(names, str | None):
            raise UserError("class_names must be a list of texts or the path of a text file")

    def __call__(self) -> Source:
        """The source; its image size is 0 if neither the config nor a folder's name says it.

        Raises:
            UserError: if the root, a split or the size does not exist.
        """
        assert self.root is not None
        return self.at(self.root, "dataset: TFRecords")

    def at(self, root: str, reason: str) -> Source:
        """The source in a folder of TFRecords."""
        folder, named_size = split_folder(root, self.image_size)
        if not tf.io.gfile.isdir(f"{folder}/train"):
            raise UserError(f"{folder}/train does not exist: a data set needs the folder train "
                            "(and perhaps val, and test for predictions)")
        files = {split: tfrecord.list_files(f"{folder}/{split}")
                 for split in ("train", "val", "test") if tf.io.gfile.isdir(f"{folder}/{split}")}
        paths = (f"{place.rstrip('/')}/{NAMES_FILE}" for place in (folder, root))
        names_file = next((path for path in paths if self.class_names is None
                           and tf.io.gfile.exists(path)), None)
        if names_file:
            reason += f"; class names of {names_file}"
        names = read_class_names(names_file or self.class_names)
        if names and self.num_classes not in (None, len(names)):
            raise UserError(f"{names_file or 'dataset.class_names'} holds {len(names)} names where "
                            f"dataset.num_classes says {self.num_classes}")
        return Source("tfrecords", reason, folder, self.image_size or named_size or 0, names,
                      len(names) if names else self.num_classes, files)


@dataclass(frozen=True)
class Flowers(TFRecords):
    """The Kaggle competition's files, at dataset.root, $FLOWERS_ROOT or Kaggle's folder."""

    needs_root: ClassVar[bool] = False

    def __call__(self) -> Source:
        root, where = competition_root(self)
        return self.competition(root, f"dataset: the competition's files in {where}")

    def competition(self, root: str, reason: str) -> Source:
        """The source of the competition's files; its reason names splits with unexpected counts."""
        if self.num_classes not in (None, COMPETITION_CLASSES) and not self.class_names:
            raise UserError(f"dataset.num_classes must be {COMPETITION_CLASSES} for the "
                            f"competition's files, not {self.num_classes}: leave it out")
        names = self.class_names or json.loads(CLASSES_FILE.read_text(encoding="utf-8"))
        source = replace(self, class_names=names).at(root, reason)
        for split, files in source.files.items():
            stated = [tfrecord.stated_count(file) for file in files]
            count = sum(filter(None, stated))
            if None not in stated and count != COMPETITION_COUNTS[split]:
                reason += (f"; {split} holds {count} images where the competition has "
                           f"{COMPETITION_COUNTS[split]}")
        return replace(source, kind="flowers", reason=reason)


@dataclass(frozen=True)
class Sample(TFRecords):
    """The synthetic data set, which is written on first use."""

    needs_root: ClassVar[bool] = False

    def __call__(self, reason: str = "dataset: the synthetic sample") -> Source:
        size = sample.IMAGE_SIZE
        if self.image_size not in (None, size):
            raise UserError(f"dataset.image_size must be {size} for the synthetic sample, not "
                            f"{self.image_size}: leave it out")
        folder = sample.write(Path(self.root or platformdirs.user_cache_dir("flowerexp")))
        named = replace(self, image_size=size,
                        class_names=self.class_names or list(sample.CLASS_NAMES))
        return replace(named.at(str(folder), reason), kind="sample")


@dataclass(frozen=True)
class Auto(Flowers):
    """The competition's files if they are found, else the synthetic sample."""

    def __call__(self) -> Source:
        size = self.image_size or 192
        try:
            root, where = competition_root(self)
            split_folder(root, size)
        except UserError as error:
            if self.root is not None or os.environ.get("FLOWERS_ROOT"):
                raise UserError(f"{error} (dataset=auto looks for the competition's files there: "
                                "choose dataset=tfrecords for others, or leave the root out)"
                                ) from error
            synthetic = Sample(None, self.image_size, self.num_classes, self.class_names)
            return synthetic(f"dataset: the synthetic sample, because {error}")
        return replace(self, image_size=size).competition(
            root, f"dataset: flowers_{size}, the competition's files at {where}")


def competition_root(dataset: TFRecords) -> tuple[str, str]:
    """The first of dataset.root, $FLOWERS_ROOT and Kaggle's folder that is set, and its label."""
    if dataset.root is not None:
        return dataset.root, f"dataset.root={dataset.root}"
    from_environment = os.environ.get("FLOWERS_ROOT")
    if from_environment:
        return from_environment, f"$FLOWERS_ROOT={from_environment}"
    if tf.io.gfile.isdir(KAGGLE_FOLDER):
        return KAGGLE_FOLDER, KAGGLE_FOLDER
    raise UserError(f"the competition's files ({COMPETITION}) are neither at dataset.root nor at "
                    f"$FLOWERS_ROOT nor at {KAGGLE_FOLDER}")


def find(part: Any, all_gather: AllGather = single_process) -> Source:
    """The source that a data set part of the config returns, with its image size.

    Raises:
        UserError: for data that does not exist, or a part that returns something else.
    """
    with parts.failures_named(part):
        source = parts.built(part)()
    if not isinstance(source, Source):
        raise UserError(f"{part} must return a flowerexp.data.sources.Source, not "
                        f"{type(source).__name__}")
    if "train" not in source.splits:
        raise UserError(f"{part} must return a source with the split train, not "
                        f"{', '.join(source.splits) or 'none'}")
    return source if source.image_size else replace(
        source, image_size=records.first_image_size(source.files["train"], all_gather))


def split_folder(root: str, image_size: int | None) -> tuple[str, int | None]:
    """The folder with train, val and test at or below `root`, and the size in its name, if any."""
    root = root.rstrip("/") or "/"
    if not tf.io.gfile.isdir(root):
        found = "is not a folder" if tf.io.gfile.exists(root) else "does not exist"
        raise UserError(f"the data set's root {root} {found}: give dataset.root=FOLDER")
    if tf.io.gfile.isdir(f"{root}/train"):
        return root, size_in_name(root)
    sizes = {size_in_name(name): name.rstrip("/") for name in tf.io.gfile.listdir(root)}
    sizes.pop(None, None)
    if not sizes:
        raise UserError(f"{root} holds neither the folders train, val and test nor a folder "
                        "tfrecords-jpeg-SxS: give the folder of the records as dataset.root")
    if image_size is None and len(sizes) == 1:
        image_size = next(iter(sizes))
    if image_size not in sizes:
        there = ", ".join(str(size) for size in sorted(filter(None, sizes)))
        raise UserError(f"{root} holds images of {there} pixels: give dataset.image_size as one of "
                        "them" + (f", not {image_size}" if image_size else ""))
    return f"{root}/{sizes[image_size]}", image_size


def size_in_name(path: str) -> int | None:
    match = re.fullmatch(r"tfrecords-jpeg-(\d+)x\1/?", path.rstrip("/").rpartition("/")[2])
    return int(match.group(1)) if match else None


def read_class_names(names: Any) -> tuple[str, ...] | None:
    """Class names from a list, a text file with one name per line, or a JSON file of a list."""
    if names is None or isinstance(names, list):
        return tuple(names) if names else None
    try:
        with tf.io.gfile.GFile(names) as file:
            text = file.read()
        read = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"dataset.class_names={names} cannot be read: give a list, or a file with "
                        "one name per line or a JSON list") from error
    read = [str(name).strip() for name in read if str(name).strip()]
    if not read:
        raise UserError(f"dataset.class_names={names} holds no name")
    return tuple(read)
