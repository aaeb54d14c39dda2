"""What shall be predicted: records, a folder of pictures or one, found by name. No TensorFlow here.
"""

import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerexp.config import nearest
from flowerexp.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
"""Of pictures in a folder, in any case."""
RECORDS = ".tfrec"
SIZED = "tfrecords-jpeg-{0}x{0}"
"""A folder of records of one size below a data set's root."""


@dataclass(frozen=True)
class Input:
    """Files in the order in which they are predicted.

    path: of the files themselves: what was given, or the split below it.
    records: TFRecord files; none where these are pictures.
    pictures: files with one picture each.
    labels: of the pictures; -1 where they are not asked for.
    others: files in the folder that are no pictures by their names.
    """

    path: Path
    records: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()
    others: int = 0

    def identifier(self, picture: Path) -> str:
        """The path of a picture below the folder; its own name where it was given itself."""
        return picture.name if picture == self.path else picture.relative_to(self.path).as_posix()


def find(path: Path, sizes: Collection[int], names: Sequence[str] | None = None) -> Input:
    """The records or pictures at a path.

    Args:
        path: a *.tfrec file, a folder of them, a data set's root (its test split is taken, with
            `names` its val split), a folder of pictures, looked through to its depth, or a picture.
        sizes: of the images that runs want, for a root with folders of several sizes.
        names: of the classes in label order, where pictures stand in a folder per class.

    Raises:
        UserError: for a path that does not exist, holds nothing of the kind or both kinds, or
            with `names` for a picture without a class.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: give TFRecords, a folder of pictures or a picture")
    if path.is_file():
        if path.suffix == RECORDS:
            return Input(path, records=(path,))
        if names is not None:
            raise UserError(f"{path} is one file without a class: give a data set, TFRecords, or a "
                            "folder with a folder of pictures per class")
        return Input(path, pictures=(path,), labels=(-1,))
    split = "test" if names is None else "val"
    roots = itertools.chain([path], (path / SIZED.format(size) for size in sizes), sized(path))
    for folder in roots:
        if any(has_records(folder / name) for name in ("train", "val", "test")):
            if not has_records(folder / split):
                raise UserError(f"{folder} is a data set without a folder {split} of TFRecords: "
                                "give the folder of the split that you mean")
            return Input(folder / split, records=records_in(folder / split))
    return in_folder(path, names)


def sized(root: Path) -> Iterator[Path]:
    """The only folder of records of one size below a root; raises UserError for several."""
    found = sorted(each for each in root.iterdir() if each.match("tfrecords-jpeg-*x*"))
    if len(found) > 1:
        raise UserError(f"{root} holds {', '.join(each.name for each in found)}, none of the size "
                        "of the run: give one of them")
    yield from found


def has_records(folder: Path) -> bool:
    return bool(records_in(folder))


def records_in(folder: Path) -> tuple[Path, ...]:
    """The TFRecord files of a split, sorted by name."""
    # Not glob, to which brackets in the folder's own name would be a pattern.
    return tuple(sorted(each for each in folder.iterdir() if each.suffix == RECORDS)
                 ) if folder.is_dir() else ()


def in_folder(folder: Path, names: Sequence[str] | None) -> Input:
    """The records of a folder, or its pictures, those of all folders below in the order of paths.
    """
    files = sorted(walk(folder, set()))
    pictures = tuple(file for file in files if file.suffix.lower() in SUFFIXES)
    records = records_in(folder)
    if records and pictures:
        raise UserError(f"{folder} holds both TFRecords and pictures: give one kind, in a folder "
                        "of its own")
    if records:
        return Input(folder, records=records)
    if not pictures:
        raise UserError(f"{folder} holds neither TFRecords (*{RECORDS}) nor pictures "
                        f"({', '.join(SUFFIXES)})")
    labels = tuple(label_of(folder, each, names) if names else -1 for each in pictures)
    return Input(folder, pictures=pictures, labels=labels, others=len(files) - len(pictures))


def walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """All files at or below a folder; links are followed, and nothing is entered twice."""
    if (resolved := folder.resolve()) in seen:
        return
    seen.add(resolved)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from walk(folder / entry.name, seen)
            else:
                yield folder / entry.name


def label_of(folder: Path, picture: Path, names: Sequence[str]) -> int:
    """The class in whose folder a picture stands."""
    first, *rest = picture.relative_to(folder).parts
    if not rest:
        raise UserError(f"{picture} stands in no folder of a class: put pictures into a folder "
                        "with their class's name")
    if first not in names:
        raise UserError(f"{folder / first} is named as none of the run's {len(names)} classes"
                        f"{nearest(first, names)}: name the folders as the run's classes.json does")
    return names.index(first)
