"""Lists photos and their classes, from a folder per class or a CSV. Imports no TensorFlow.

No photo is opened. A photo's identifier is its path relative to the folder or the CSV. Everything
is sorted by it, so that the order of the file system does not matter.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flowerexp.errors import UserError, counted, first_line

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
            ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".tga", ".dng", ".cr2", ".nef",
            ".arw")
"""Suffixes of photos; unsupported formats are listed as unreadable."""
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
SHOWN = 3
"""Maximum number of names in a sentence."""
GIVE = "give a folder that holds a folder per class, or a CSV of path,label"


@dataclass(frozen=True)
class Photo:
    """A photo to convert.

    identifier: unique id of the photo and of its record.
    label: name of the class.
    split: train, val or test if it is fixed; None if it will be assigned.
    """

    path: Path
    identifier: str
    label: str
    split: str | None = None


@dataclass(frozen=True)
class Listing:
    """The photos of a data set.

    photos: photos in the order of their identifiers.
    left_out: path and reason for photos that cannot be used.
    notes: sentences on what else was ignored.
    names: classes in label order; None: those with readable photos, sorted by `in_order`.
    """

    photos: tuple[Photo, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None


def listed(source: Path) -> Listing:
    """The photos of a folder or a CSV.

    Raises:
        UserError: if neither exists or it has no photos, for a folder of splits instead of classes,
            for a file that is not such a CSV, or for a photo with two labels.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist", GIVE)
    listing = from_folder(source) if source.is_dir() else from_csv(source)
    if not listing.photos:
        raise UserError(f"{source} holds no photo of a class: "
                        + " ".join([*listing.notes, GIVE]))
    return listing


def in_order(names: Iterable[str]) -> list[str]:
    """Classes in label order: sorted as numbers if all are numbers, else as text."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def readable(path: str) -> str:
    """A path as printable text, whatever bytes it holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def by_identifier(photos: Iterable[Photo]) -> tuple[Photo, ...]:
    return tuple(sorted(photos, key=lambda photo: photo.identifier))


def from_folder(folder: Path) -> Listing:
    """The photos in a folder per class; subfolders of a class belong to it."""
    photos, left_out, ignored = list[Photo](), list[tuple[str, str]](), Counter[str]()
    classes = {entry.name for entry in os.scandir(folder)
               if entry.is_dir() and not entry.name.startswith(".")}
    if classes and {name.lower() for name in classes} <= SPLIT_NAMES:
        raise UserError(f"{folder} holds {', '.join(sorted(classes))}, which are splits, not "
                        "classes", GIVE)
    for path in files_below(folder, ignored):
        relative = path.relative_to(folder)
        if relative.name.startswith(".") or relative.suffix.lower() not in SUFFIXES:
            ignored[relative.suffix.lower() or relative.name] += 1
        elif len(relative.parts) == 1:
            left_out.append((readable(relative.name), "it is outside of every class's folder"))
        else:
            photos.append(Photo(path, readable(relative.as_posix()), readable(relative.parts[0])))
    notes = []
    if ignored:
        kinds = ", ".join(f"{readable(kind)} {count}" for kind, count in ignored.most_common(6))
        notes.append(f"{ignored.total()} files and folders ignored because they are not photos "
                     f"({kinds}{', and others' if len(ignored) > 6 else ''}).")
    if empty := sorted({*map(readable, classes)} - {photo.label for photo in photos}):
        notes.append(f"{counted(len(empty), 'folder')} without a photo: {shown(empty)}.")
    return Listing(by_identifier(photos), tuple(sorted(left_out)), tuple(notes))


def files_below(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """Every file below a folder. Links are followed, each folder once; hidden ones are counted."""
    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders.sort()  # of two links to one folder the first is followed
        for name in tuple(folders):
            real = os.path.realpath(Path(parent, name))
            if name.startswith(".") or real in seen or Path(parent).resolve().is_relative_to(real):
                folders.remove(name)
                ignored[name if name.startswith(".") else "links to a folder seen before"] += 1
            seen.add(real)
        yield from (Path(parent, name) for name in files)


def from_csv(file: Path) -> Listing:
    """The photos of a CSV with the columns path and label, relative to the CSV's own folder.

    Without a header it must have exactly these two columns; other columns are ignored.
    """
    table, notes = read_csv(file)
    folder = Path(os.path.abspath(file.parent))  # noqa: PTH100 -- links are not resolved
    photos, left_out = dict[str, Photo](), list[tuple[str, str]]()
    rows = list(table.itertuples(index=False, name=None))
    for number, (text, label) in enumerate(rows, 1):
        path = Path(os.path.abspath(folder / text))  # noqa: PTH100
        inside = path.is_relative_to(folder) or not Path(text).is_absolute()
        name = readable(Path(os.path.relpath(path, folder) if inside else path).as_posix())
        if not text or not label:
            left_out.append((text or f"row {number}", f"row {number} of {file.name} has no "
                             + ("label" if text else "path")))
        elif photos.setdefault(name, Photo(path, name, label)).label != label:
            raise UserError(f"{file}: {name} has two labels, {photos[name].label!r} and {label!r}: "
                            "leave one out")
    if again := len(rows) - len(left_out) - len(photos):
        notes.append(f"{counted(again, 'row')} of {file.name} ignored as repeated.")
    return Listing(by_identifier(photos.values()), tuple(left_out), tuple(notes))


def read_csv(file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns path and label, stripped, and notes on ignored columns."""
    try:
        table = pd.read_csv(file, header=None, dtype=str, keep_default_na=False,
                            skipinitialspace=True, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{file} cannot be read as a CSV of path,label: {first_line(error)}"
                        ) from error
    table = table.map(str.strip)
    header = table.iloc[0].str.lower().tolist()
    if {"path", "label"} <= {*header}:
        others = [name for name in header if name not in ("path", "label")]
        notes = [f"{counted(len(others), 'other column')} of {file.name} ignored: {shown(others)}."
                 ] if others else []
        return table.iloc[1:, [header.index("path"), header.index("label")]], notes
    if len(header) != 2:
        raise UserError(f"{file} has {len(header)} columns and no header that names path and "
                        "label", "make path,label its first line")
    return table, []


def fingerprint(listing: Listing) -> str:
    """A hash of the photos' identifiers, labels, sizes and modification times."""
    digest = hashlib.sha256()
    for photo in listing.photos:
        try:
            status = photo.path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "not there"  # it will be listed as unreadable
        digest.update("\0".join((photo.identifier, photo.label, state, "")).encode())
    return digest.hexdigest()[:16]


def shown(names: Iterable[str]) -> str:
    """The first names, and 'and more' if there are more."""
    every = list(names)
    return ", ".join(map(repr, every[:SHOWN])) + (" and more" if len(every) > SHOWN else "")
