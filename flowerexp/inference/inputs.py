"""Finds the images at a path: TFRecords, a folder of photos, or files. No TensorFlow here."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerexp.data import formats, photos
from flowerexp.errors import UserError
from flowerexp.hints import nearest
from flowerexp.runs import store

RECORDS = ".tfrec"
SIZED = "tfrecords-jpeg-{0}x{0}"
"""The name of a folder of records of one size below a data set's root."""
GIVE = "give TFRecords, a folder of pictures, or pictures"


@dataclass(frozen=True)
class Input:
    """The files to predict, in order.

    path: the given path (the first of several), or the split below it.
    records: TFRecord files; empty if the input is photos.
    pictures: files of one photo each.
    ids: the paths of the photos below the folder.
    labels: class ids of the photos; -1 if labels are not needed.
    others: the number of files in the folder without an image extension.
    """

    path: Path
    records: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    ids: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    others: int = 0


def find(paths: Sequence[Path], sizes: Collection[int], names: Sequence[str] | None = None
         ) -> Input:
    """Finds the records or photos at a path.

    Args:
        paths: a folder of *.tfrec files, the root of a data set (its test split, with `names` its
            val split), or a folder of photos, searched recursively; or one or several files, all
            *.tfrec or all photos, whose ids are then their paths as given.
        sizes: the image sizes of the runs, for a root with folders of several sizes.
        names: the names of the classes in label order, if photos are in a folder per class.

    Raises:
        UserError: for a path that does not exist, or holds neither kind or both, or, with `names`,
            for a photo without a class.
    """
    if not paths:
        raise UserError(f"no input is given: {GIVE}")
    for path in paths:
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is neither a file nor a folder: {GIVE}" if path.exists()
                            else f"{path} does not exist: {GIVE}")
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        return of_files(paths, names)
    if len(paths) > 1:
        raise UserError(f"{folders[0]} is a folder, one of {len(paths)} inputs: give run folders "
                        f"first (those with {store.CONFIG}), then one folder, or files")
    root, split = paths[0], "test" if names is None else "val"
    for folder in itertools.chain([root], (root / SIZED.format(size) for size in sizes),
                                  only_size(root)):
        if any(records_in(folder / name) for name in ("train", "val", "test")):
            if not (records := records_in(folder / split)):
                raise UserError(f"{folder} is a data set without a folder {split} of TFRecords: "
                                "give the folder of the split that you mean")
            return Input(folder / split, records)
    return in_folder(root, names)


def of_files(paths: Sequence[Path], names: Sequence[str] | None) -> Input:
    """The input of files that were given one by one, in that order."""
    others = tuple(path for path in paths if path.suffix != RECORDS)
    if not others:
        return Input(paths[0], tuple(paths))
    if len(others) < len(paths):
        raise UserError(f"{others[0]} is not a TFRecord file, but others are: give one kind")
    if names is not None:
        raise UserError(f"{others[0]} is one file without a class: give a data set, TFRecords, or "
                        "a folder with a folder of pictures per class")
    return Input(paths[0], pictures=others, ids=tuple(path.as_posix() for path in others),
                 labels=(-1,) * len(others))


def only_size(root: Path) -> Iterator[Path]:
    """The only folder of records of one size below a root; raises UserError for several."""
    found = sorted(each for each in root.iterdir() if each.match(SIZED.format("*")))
    if len(found) > 1:
        raise UserError(f"{root} holds {', '.join(each.name for each in found)}, none of the size "
                        "of the run: give one of them")
    yield from found


def records_in(folder: Path) -> tuple[Path, ...]:
    """The TFRecord files of a split, sorted by name."""
    # Not glob, which would read brackets in the folder's own name as a pattern.
    return tuple(sorted(each for each in folder.iterdir() if each.suffix == RECORDS)
                 ) if folder.is_dir() else ()


def in_folder(folder: Path, names: Sequence[str] | None) -> Input:
    """The records of a folder, or the photos in and below it, sorted by path."""
    hidden: Counter[str] = Counter()
    files = sorted(photos.files_below(folder, hidden))
    pictures = tuple(file for file in files if file.suffix.lower() in photos.SUFFIXES
                     and not file.name.startswith("."))
    records = records_in(folder)
    if records and pictures:
        raise UserError(f"{folder} holds both TFRecords and pictures: give one kind, in a folder "
                        "of its own")
    if records:
        return Input(folder, records)
    if not pictures:
        raise UserError(f"{folder} holds neither TFRecords (*{RECORDS}) nor pictures "
                        f"({formats.READABLE})")
    labels = tuple(label_of(folder, each, names) if names else -1 for each in pictures)
    ids = tuple(picture.relative_to(folder).as_posix() for picture in pictures)
    return Input(folder, (), pictures, ids, labels,
                 len(files) + hidden.total() - len(pictures))


def label_of(folder: Path, picture: Path, names: Sequence[str]) -> int:
    """The class id of a photo, by the name of its folder."""
    first, *rest = picture.relative_to(folder).parts
    if not rest:
        raise UserError(f"{picture} is not in a folder of a class: put photos into a folder "
                        "named after their class")
    if first not in names:
        raise UserError(f"{folder / first} is not named after one of the run's {len(names)} classes"
                        f"{nearest(first, names)}: name the folders as the run's classes.json does")
    return names.index(first)
