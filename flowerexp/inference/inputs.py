"""Finds the images at a path: TFRecords, a folder of photos, or files. No TensorFlow here."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerexp.data import formats, layouts, photos, tfrecord
from flowerexp.data.division import SPLITS
from flowerexp.data.photos import Photo
from flowerexp.errors import UserError
from flowerexp.hints import nearest
from flowerexp.runs import store

__all__ = ["SPLITS", "Input", "find"]

SIZED = "tfrecords-jpeg-{0}x{0}"
"""The name of a folder of records of one size below a data set's root."""
TEST_LABELS = "test_labels.csv"
"""Written by an import beside the records of test, which have no labels."""
GIVE = "give TFRecords, a folder of pictures, or pictures"


@dataclass(frozen=True)
class Input:
    """The files to predict, in order.

    path: the given path (the first of several), or the split below it.
    records: TFRecord files; empty if the input is photos.
    pictures: photos.
    labels: class ids of the photos; -1 if labels are not needed.
    others: the number of files in the folder without an image extension.
    skipped: a sentence for each photo that cannot be used.
    notes: sentences on what else was ignored.
    test_labels: a CSV of id,label, the labels of records that have none.
    """

    path: Path
    records: tuple[Path, ...] = ()
    pictures: tuple[Photo, ...] = ()
    labels: tuple[int, ...] = ()
    others: int = 0
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    test_labels: Path | None = None


def find(paths: Sequence[Path], sizes: Collection[int], names: Sequence[str] | None = None,
         split: str | None = None, common: bool = False) -> Input:
    """Finds the records or photos at a path.

    Args:
        paths: a folder of records, the root of a data set (its test split, with `names` its
            val split), or a folder of photos, searched recursively; or one or several files, all
            records or all photos, whose ids are then their paths as given.
        sizes: the image sizes of the runs, for a root with folders of several sizes.
        names: the names of the classes in label order, if labels are needed.
        split: the split of a data set; None for the default.
        common: whether photos of other classes than `names` are left out.

    Raises:
        UserError: for a path that does not exist, or holds neither kind or both, or, with `names`,
            for photos of other classes.
    """
    if not paths:
        raise UserError(f"no input is given: {GIVE}")
    for path in paths:
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is neither a file nor a folder: {GIVE}" if path.exists()
                            else f"{path} does not exist: {GIVE}")
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        table = len(paths) == 1 and paths[0].suffix.lower() in (*photos.TABLES, photos.PARQUET)
        return (labelled(paths[0], names, split, common) if table and names is not None
                else of_files(paths, names))
    if len(paths) > 1:
        raise UserError(f"{folders[0]} is a folder, one of {len(paths)} inputs: give run folders "
                        f"first (those with {store.CONFIG}), then one folder, or files")
    root, wanted = paths[0], split or ("test" if names is None else "val")
    for folder in itertools.chain([root], (root / SIZED.format(size) for size in sizes),
                                  only_size(root)):
        if by_split := splits_in(folder):
            if wanted not in by_split:
                raise UserError(f"{folder} is a data set without {wanted}, only "
                                f"{' and '.join(by_split)}: give the files that you mean")
            return of_records(by_split[wanted][0].parent, by_split[wanted])
    found = in_folder(root)
    if found.records or names is None:
        return found
    return labelled(root, names, split, common)


def of_records(folder: Path, records: tuple[Path, ...]) -> Input:
    """The records of a folder; an import writes the labels of test beside it."""
    labels = folder.parent / TEST_LABELS
    return Input(folder, records, test_labels=labels if folder.name == "test" and labels.is_file()
                 else None)


def of_files(paths: Sequence[Path], names: Sequence[str] | None) -> Input:
    """The input of files that were given one by one, in that order."""
    others = tuple(path for path in paths if not tfrecord.is_records(path.name))
    if not others:
        return Input(paths[0], tuple(paths))
    if len(others) < len(paths):
        raise UserError(f"{others[0]} is not a TFRecord file, but others are: give one kind")
    if names is not None:
        raise UserError(f"{others[0]} is one file without a class: give a data set, TFRecords, or "
                        "a folder with a folder of pictures per class")
    return Input(paths[0], (), tuple(Photo(path, path.as_posix(), "") for path in others),
                 (-1,) * len(others))


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
    return tuple(sorted(each for each in folder.iterdir() if tfrecord.is_records(each.name))
                 ) if folder.is_dir() else ()


def splits_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The TFRecord files of each split of a data set: in folders that are named as splits, or side
    by side under names that tell several; empty for anything else.
    """
    found = dict[str, tuple[Path, ...]]()
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (split := photos.split_of(each.name)) and (records := records_in(each)):
            found[split] = found.get(split, ()) + records
    by_name = dict[str | None, tuple[Path, ...]]()
    for each in records_in(folder):
        split = layouts.split_of_file(each.name)
        by_name[split] = (*by_name.get(split, ()), each)
    named = {split: files for split, files in by_name.items() if split is not None}
    return found or (named if len(named) == len(by_name) > 1 else {})


def in_folder(folder: Path) -> Input:
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
        return of_records(folder, records)
    if not pictures and not any(file.suffix.lower() == photos.PARQUET for file in files):
        raise UserError(f"{folder} holds neither TFRecords nor pictures "
                        f"({formats.READABLE})")
    given = tuple(Photo(path, path.relative_to(folder).as_posix(), "") for path in pictures)
    return Input(folder, (), given, (-1,) * len(given), len(files) + hidden.total() - len(pictures))


def labelled(root: Path, names: Sequence[str], split: str | None, common: bool) -> Input:
    """The photos of a folder or table in any layout, with the class ids of their classes' names.

    Args:
        split: the split to take; None for val or, if there are no splits, all photos.
        common: whether photos of other classes are left out.
    """
    listing = photos.listed(root)
    there = sorted({photo.split or "" for photo in listing.photos})
    wanted = split or ("" if there == [""] else "val")
    chosen = [photo for photo in listing.photos if (photo.split or "") == wanted]
    if not chosen:
        raise UserError(f"{root} holds no split {wanted}", "leave --split out" if there == [""] else
                        f"give --split {' or '.join(filter(None, there))}")
    ids = {photos.nfc(name): number for number, name in enumerate(names)}
    skipped = [f"{root / path}: {reason}" for path, reason in listing.left_out]
    skipped += [f"{photo.path} has no label" for photo in chosen if not photo.label]
    strange = [photo for photo in chosen if photo.label and photo.label not in ids]
    if strange and not common:
        label = strange[0].label
        raise UserError(f"{strange[0].path} is of class {label!r}, which is not one of the run's "
                        f"{len(names)} classes{nearest(label, ids)}",
                        "name the folders as the run's classes.json does, or give --common to "
                        "leave such photos out")
    skipped += [f"{photo.path} is of class {photo.label!r}, which the run does not know"
                for photo in strange]
    good = tuple(photo for photo in chosen if photo.label in ids)
    if not good:
        raise UserError(f"{root} holds no photo of the run's classes; the first: {skipped[0]}")
    return Input(root, (), good, tuple(ids[photo.label] for photo in good), 0, tuple(skipped),
                 listing.notes)
