"""The parts of the config that find a data set: their classes return a `Source`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import platformdirs

from flowerexp import parts
from flowerexp.config import check_range
from flowerexp.data import class_names, features, layouts, photos, records, sample, tfrecord
from flowerexp.data.photos import COLUMNS, Columns
from flowerexp.data.source import Arrays, Source
from flowerexp.errors import UserError
from flowerexp.hints import nearest
from flowerexp.lazy import tf
from flowerexp.strategy.workers import AllGather, single_process

__all__ = ["Arrays", "Auto", "Flowers", "Images", "Sample", "Source", "SourceFactory",
           "TFRecords", "find"]

COMPETITION = "tpu-getting-started"
COMPETITION_COUNTS = {"train": 12_753, "val": 3_712, "test": 7_382}
COMPETITION_CLASSES = 104
KAGGLE_FOLDER = f"/kaggle/input/{COMPETITION}"
DEFAULT_SIZE = 192
"""Height and width, in pixels, of images of several shapes."""
CLASSES_FILE = Path(__file__).with_name("flower_classes.json")


class SourceFactory(Protocol):
    """A custom data set: constructed with its config keys, then called for its source.

    It is called both to plan and to execute a run, and must return the same source each time.
    """

    def __call__(self) -> Source: ...


@dataclass(frozen=True)
class TFRecords:
    """TFRecord files of any of the usual layouts."""

    root: str | None = None
    """Folder (local or gs://) with a folder for each split, with tfrecords-jpeg-SxS folders, or
    with files whose names tell their splits."""
    image_size: int | None = None
    """Height and width in pixels; null: those in the folder's name or of the first images."""
    num_classes: int | None = None
    """Number of classes; null: that of class_names, else the greatest label plus one."""
    class_names: Any = None
    """List of names in label order, or a file of names; null: a file beside the records, else the
    names in the records, else numbers."""
    features: dict[str, Any] = field(default_factory=dict)
    """Names of the records' image, label, id and group; null: recognised, and no group."""
    files: dict[str, Any] = field(default_factory=dict)
    """Glob patterns of the files of train, val and test, relative to the root; null: found."""
    label_offset: int | None = None
    """The label of the first class in the records; null: that of class_names, else 0."""

    needs_root: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.needs_root and self.root is None:
            raise UserError("root must say where the TFRecords are: dataset=tfrecords "
                            "dataset.root=FOLDER")
        for key in ("image_size", "num_classes"):
            check_range(key, getattr(self, key), 1)
        for key, names in (("features", features.ROLES), ("files", layouts.SPLITS)):
            object.__setattr__(self, key, text_keys(key, getattr(self, key), names))
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
        folder, size, files, sentence = layouts.find(root, self.image_size, self.files)
        reason += f"; {sentence}" if sentence else ""
        names_file = None if self.class_names is not None else class_names.find(
            (folder, root.rstrip("/")), self.features["label"])
        if names_file:
            reason += f"; class names of {names_file}"
        names = class_names.read(names_file or self.class_names)
        if names and self.num_classes not in (None, len(names.names)):
            raise UserError(f"{names_file or 'dataset.class_names'} holds {len(names.names)} names "
                            f"where dataset.num_classes says {self.num_classes}")
        offset = self.label_offset or 0
        labels = names.labels if names and self.label_offset is None else None
        return Source("tfrecords", reason, folder, self.image_size or size or 0,
                      names.names if names else None,
                      len(names.names) if names else self.num_classes, files,
                      given_features=self.features, label_offset=offset, labels=labels)


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
        notes = ""
        for split, files in source.files.items():
            stated = [tfrecord.stated_count(file) for file in files]
            count = sum(filter(None, stated))
            if None not in stated and count != COMPETITION_COUNTS[split]:
                notes += (f"; {split} holds {count} images where the competition has "
                          f"{COMPETITION_COUNTS[split]}")
        return replace(source, kind="flowers", reason=source.reason + notes)


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
            layouts.find(root, size, {})
        except UserError as error:
            if self.root is not None or os.environ.get("FLOWERS_ROOT"):
                raise UserError(f"{error} (dataset=auto looks for the competition's files there: "
                                "choose dataset=tfrecords for others, or leave the root out)"
                                ) from error
            synthetic = Sample(None, self.image_size, self.num_classes, self.class_names)
            return synthetic(f"dataset: the synthetic sample, because {error}")
        return replace(self, image_size=size).competition(
            root, f"dataset: flowers_{size}, the competition's files at {where}")


@dataclass(frozen=True)
class Images:
    """Photos: class folders, split folders, a CSV or TSV, or Parquet files (data/photos.py)."""

    root: str | None = None
    """Folder of the photos, or the table that names them."""
    image_size: int = 192
    """Height and width of the squares that photos become, in pixels."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Names of a table's columns path, label, group and split; null: found by their content."""
    import_dir: str | None = None
    """Where photos that do not fit in memory are imported; null: the user's cache folder."""

    def __post_init__(self) -> None:
        if self.root is None:
            raise UserError("root must say where the photos are: dataset=images dataset.root=PATH")
        check_range("image_size", self.image_size, 1, records.MAX_IMAGE_SIZE)
        object.__setattr__(self, "columns", text_keys("columns", self.columns, COLUMNS))

    def __call__(self) -> Source:
        """The source; raises UserError as `photos.listed` and for photos of one class."""
        assert self.root is not None
        root = photos.local(self.root)
        listing = photos.listed(root, Columns(**self.columns))
        photos.check_classes(root, listing)
        return Source("images", f"dataset: photos, {listing.layout}", self.root, self.image_size,
                      tuple(listing.classes), len(listing.classes), {}, listing=listing,
                      import_dir=self.import_dir)


def text_keys(key: str, given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The texts under some keys, null for those that are not given; raises UserError for others."""
    for name, value in given.items():
        if name not in names:
            raise UserError(f"{key}.{name} does not exist: {key} are {', '.join(names)}"
                            f"{nearest(name, names)}")
        if not isinstance(value, str | None):
            raise UserError(f"{key}.{name} must be a text, not {value!r}")
    return dict.fromkeys(names) | given  # equal if they mean it


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


def check_root(part: Any) -> None:
    """Raises UserError if TFRecords are to be in a local folder that holds photos only.

    Before TensorFlow is imported, and before a run folder holds anything.
    """
    if isinstance(part, TFRecords) and part.root is not None:
        layouts.check_no_photos(part.root)


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
    if not source.files:
        return source
    names = source.features
    if names is None:
        recognised = all_gather(lambda worker, workers: features.recognise(
            source.files["train"][worker::workers], source.given_features,
            source.files.get("test", ())[worker::workers]))
        names = next(filter(None, recognised), features.COMPETITION)
        of_user = source.kind not in ("flowers", "sample")
        source = replace(source, features=names, reason=source.reason + (
            f"; {names.sentence}" if of_user else ""))
    if source.image_size:
        return source
    size = records.first_image_size(source.files["train"], names, all_gather)
    return replace(source, image_size=size or DEFAULT_SIZE, reason=source.reason + (
        "" if size else f"; images of several shapes, {DEFAULT_SIZE}x{DEFAULT_SIZE} pixels of each "
                        "(dataset.image_size)"))
