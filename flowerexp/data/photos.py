"""Lists photos and their classes: class folders, split folders, a CSV or TSV, Parquet files.

No photo is opened. A photo's identifier is its path relative to the folder or the CSV. Everything
is sorted by it, so that the order of the file system does not matter. No TensorFlow here.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from flowerexp.errors import UserError, counted

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
            ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".tga", ".dng", ".cr2", ".nef",
            ".arw")
"""Suffixes of photos; unsupported formats are listed as unreadable."""
TABLES, PARQUET = (".csv", ".tsv"), ".parquet"
SPLIT_WORDS = {word: split for split, words in {
    "train": ("train", "training", "trn"), "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing", "tst")}.items() for word in words}
"""Words in the names of split folders."""
FILLERS = frozenset(("set", "data", "dataset", "split", "images", "image", "imgs", "img", "photos",
                     "photo", "pictures", "jpg", "jpegs", "of", "part", "files", "tfrecords",
                     "tfrecord", "records"))
"""Words that may stand beside them, and alone name a folder of photos that is no class."""
SHOWN = 3
"""Maximum number of names in a sentence."""
GIVE = ("give a folder that holds a folder per class, folders train, val and test of these, a CSV "
        "of path,label, or Parquet files")


@dataclass(frozen=True)
class Photo:
    """A photo.

    path: its file, or the Parquet file that holds it.
    identifier: unique id of the photo and of its record.
    label: name of the class; empty in a test split without labels.
    split: train, val or test if it is fixed; None if it will be assigned.
    group: name of what it shows; empty if there are no groups.
    column, row: its place in a Parquet file; None for a file of its own.
    """

    path: Path
    identifier: str
    label: str
    split: str | None = None
    group: str = ""
    column: str | None = None
    row: int | None = None

    def read(self) -> bytes:
        """The bytes of the photo; raises OSError."""
        if self.column is None or self.row is None:
            return self.path.read_bytes()
        from flowerexp.data import parquet

        return parquet.read(str(self.path), self.column, self.row)


@dataclass(frozen=True)
class Columns:
    """The columns of a table of photos by name; None: found by their content."""

    path: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The columns that are given."""
        return {each.name: getattr(self, each.name) for each in fields(self)
                if getattr(self, each.name) is not None}


COLUMNS = tuple(each.name for each in fields(Columns))
"""The columns of a table that can be named."""


@dataclass(frozen=True)
class Listing:
    """The photos of a data set.

    photos: photos in the order of their identifiers, or of their Parquet files.
    left_out: path and reason for photos that cannot be used.
    notes: sentences on what else was ignored.
    names: classes in label order; None: those with readable photos, sorted by `in_order`.
    layout: what was recognized, as `a folder per class`.
    """

    photos: tuple[Photo, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    layout: str = ""

    @property
    def classes(self) -> list[str]:
        """All classes in label order."""
        return list(self.names or in_order({photo.label for photo in self.photos} - {""}))


def local(path: str | Path) -> Path:
    """The path of photos; raises UserError for one of another file system, as s3://bucket."""
    if "://" in str(path):
        raise UserError(f"photos are read from a local folder, not from {path}: copy them")
    return Path(path)


def listed(source: Path, columns: Columns | None = None) -> Listing:
    """The photos of a folder, a CSV or TSV, or a Parquet file.

    Raises:
        UserError: if it does not exist or has no photos; for splits without classes or train; for a
            table without columns of photos and labels; for a photo with two labels.
    """
    from flowerexp.data import manifests, parquet

    columns = columns or Columns()
    if not source.exists():
        raise UserError(f"{source} does not exist", GIVE)
    if source.is_dir():
        listing = in_folder(source, columns)
    elif source.suffix.lower() == PARQUET:
        listing = parquet.listed(source.parent, [source], columns)
    else:
        listing = manifests.listed([source], columns)
    if not any(photo.label for photo in listing.photos):
        raise UserError(f"{source} holds no photo of a class: " + " ".join([*listing.notes, GIVE]))
    return listing


def in_folder(folder: Path, columns: Columns) -> Listing:
    """The photos of a folder in the layout that is recognized."""
    from flowerexp.data import manifests, parquet

    files, ignored = list[Path](), Counter[str]()
    others = {suffix: list[Path]() for suffix in (*TABLES, PARQUET)}
    for path in files_below(folder, ignored):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES and not path.name.startswith("."):
            files.append(path)
            continue
        ignored[suffix or path.name] += 1
        if suffix == PARQUET or (suffix in TABLES and path.parent == folder):
            others[suffix].append(path)
    if others[PARQUET] and not files:
        return parquet.listed(folder, others[PARQUET], columns)
    tables = [path for suffix in TABLES for path in sorted(others[suffix])
              if "submission" not in path.name.lower()]
    by_top: dict[str, list[Path]] = {}
    for path in files:
        first, *rest = path.relative_to(folder).parts
        by_top.setdefault(first if rest else "", []).append(path)
    listing = by_folder(folder, by_top, ignored)
    if tables:
        chosen = manifests.beside(folder, tables, files, columns, listing)
        if chosen is not None:
            return chosen
    elif columns.named:
        raise UserError(f"{folder} holds no CSV or TSV, and dataset.columns names a column of one",
                        "give the table's path as dataset.root")
    if not listing.photos and (wrong := wrong_splits(folder, by_top)):
        raise UserError(wrong, GIVE)
    return listing


def by_folder(folder: Path, by_top: dict[str, list[Path]], ignored: Counter[str]) -> Listing:
    """The photos of split folders of class folders, or else of class folders."""
    notes = []
    if ignored:
        kinds = ", ".join(f"{readable(kind)} {count}" for kind, count in ignored.most_common(6))
        notes.append(f"{ignored.total()} files and folders ignored because they are not photos "
                     f"({kinds}{', and others' if len(ignored) > 6 else ''}).")
    splits = split_folders(folder, by_top)
    loose = sorted((readable(path.name), "it is outside of every class's folder")
                   for path in by_top.get("", ()))
    if not splits:
        if wrong_splits(folder, by_top):
            return Listing((), tuple(loose), tuple(notes))
        listing = class_folders(folder, folder, {top: by_top[top] for top in by_top if top})
        return replace(listing, left_out=tuple(sorted([*listing.left_out, *loose])),
                       notes=(*notes, *listing.notes))
    if beside := [top for top in by_top if top and split_of(top) is None]:
        count = sum(len(by_top[top]) for top in beside)
        notes.append(f"{counted(count, 'photo')} in folders beside the splits ignored: "
                     f"{shown(sorted(beside))}.")
    every = {split: class_folders(folder, place, by_class(place, files), split)
             for split, (place, files) in splits.items()}
    train = {photo.label for photo in every["train"].photos}
    if "test" in every:
        every["test"] = test_folder(every["test"], folder, train)
    kinds = ", ".join(f"{place.relative_to(folder)} ({split})"
                      for split, (place, _) in splits.items())
    return Listing(by_identifier(photo for each in every.values() for photo in each.photos),
                   tuple(sorted([*loose, *(row for each in every.values()
                                           for row in each.left_out)])),
                   (*notes, *(note for each in every.values() for note in each.notes)),
                   layout=f"folders of splits: {kinds}")


def split_of(name: str) -> str | None:
    """The split that the name of a folder or file says, in any of the usual spellings."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    bare = [word if word in FILLERS else word.removesuffix("set") for word in words]
    found = [SPLIT_WORDS[word] for word in bare if word in SPLIT_WORDS]
    others = {word for word in bare if word not in SPLIT_WORDS} - FILLERS
    return found[0] if len({*found}) == 1 and not others else None


def split_folders(folder: Path, by_top: dict[str, list[Path]]
                  ) -> dict[str, tuple[Path, list[Path]]]:
    """The folder and the files of each split; empty if the folders are no splits.

    They are if one is named for training and holds folders of photos, and another is named for
    validation or test or no other folder holds photos.
    """
    named: dict[str, list[str]] = {}
    for top in sorted(filter(None, by_top)):
        if (split := split_of(top)) is not None:
            named.setdefault(split, []).append(top)
    others = [top for top in by_top if top and split_of(top) is None]
    if "train" not in named or (len(named) == 1 and others):
        return {}
    found = {}
    for split in ("train", "val", "test"):
        if len(tops := named.get(split, [])) > 1:
            raise UserError(f"{folder} holds {' and '.join(tops)}, which both name the split "
                            f"{split}", "leave one, or give a CSV with a column split")
        if tops:
            place, files = folder / tops[0], by_top[tops[0]]
            while (inner := only_folder(place, files)) and split_of(inner) == split:
                place /= inner  # an archive unpacked into a folder of its own name
            found[split] = (place, files)
    holds_classes = any(path.parent != found["train"][0] for path in found["train"][1])
    return found if holds_classes else {}


def only_folder(place: Path, files: Sequence[Path]) -> str | None:
    """The name of the folder in `place` that holds all the files, if there is one."""
    parts = {path.relative_to(place).parts[:-1][:1] for path in files}
    return next(iter(parts))[0] if len(parts) == 1 and () not in parts else None


def wrong_splits(folder: Path, by_top: dict[str, list[Path]]) -> str | None:
    """The sentence about folders that are named as splits and are not split folders, if so."""
    tops = sorted(filter(None, by_top))
    if not tops or not all(map(split_of, tops)):
        return None
    return (f"{folder} holds {', '.join(tops)}, which are splits, not classes: "
            + ("none is named train" if "train" not in map(split_of, tops) else
               "their photos are in no folder of a class, and no CSV beside them names their "
               "classes"))


def by_class(place: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each folder in `place`; those outside of one are under the empty name."""
    found: dict[str, list[Path]] = {}
    for path in files:
        parts = path.relative_to(place).parts
        found.setdefault(parts[0] if len(parts) > 1 else "", []).append(path)
    return found


def class_folders(root: Path, place: Path, files: dict[str, list[Path]],
                  split: str | None = None) -> Listing:
    """The photos of the class folders in a place; folders inside a class belong to it.

    root: identifiers are relative to it.
    """
    every, left_out, notes = list[Photo](), list[tuple[str, str]](), list[str]()
    for name, some in files.items():
        label = nfc(readable(name))
        for path in some:
            identifier = readable(path.relative_to(root).as_posix())
            if name or split == "test":
                every.append(Photo(path, identifier, label, split))
            else:
                left_out.append((identifier, "it is outside of every class's folder"))
        places = {path.parent.name for path in some}
        if name and len(places) > 1 and not any(path.parent.name == name for path in some):
            notes.append(f"all photos of the class {label!r} are in folders inside it: "
                         f"{shown(sorted(map(readable, places)))}.")
    folders = {nfc(readable(entry.name)) for entry in os.scandir(place)
               if entry.is_dir() and not entry.name.startswith(".")}
    if empty := folders - {nfc(readable(name)) for name in files}:
        notes.append(f"{counted(len(empty), 'folder')} without a photo: {shown(sorted(empty))}.")
    return Listing(by_identifier(every), tuple(sorted(left_out)), tuple(notes),
                   layout="a folder per class")


def test_folder(listing: Listing, folder: Path, train: set[str]) -> Listing:
    """A test split as it is if its folders are classes of train; without labels if it has none.

    Raises:
        UserError: for several folders of which some are no classes of train.
    """
    labels = {photo.label for photo in listing.photos}
    strange = labels - train - {""}
    if not strange:
        return listing
    if len(labels) == 1:  # test/unknown/1.jpg
        return replace(listing, photos=tuple(replace(photo, label="") for photo in listing.photos))
    raise UserError(f"{folder}: {counted(len(strange), 'folder')} of the test split "
                    f"({shown(sorted(strange))}) is named after no class of train",
                    "name the folders of all splits alike, or put test photos without labels into "
                    "one folder")


def check_classes(source: Path, listing: Listing) -> None:
    """Raises UserError for photos of one class, with the folder that was probably meant."""
    if len(listing.classes) != 1:
        return
    meant = source
    while meant.is_dir():
        inner = [Path(entry.path) for entry in os.scandir(meant)
                 if entry.is_dir() and not entry.name.startswith(".")
                 and any(path.suffix.lower() in SUFFIXES
                         for path in files_below(Path(entry.path), Counter()))]
        if len(inner) != 1:
            break
        meant = inner[0]
    raise UserError(f"{source} holds one class, {listing.classes[0]!r}, and a classifier needs two",
                    f"did you mean {meant}?" if meant != source and len(inner) > 1 else GIVE)


def in_order(names: Iterable[str]) -> list[str]:
    """Classes in label order: sorted as numbers if all are numbers, else as text."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def readable(path: str) -> str:
    """A path as printable text, whatever bytes it holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def nfc(name: str) -> str:
    """The Unicode normal form C, in which names that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def by_identifier(photos: Iterable[Photo]) -> tuple[Photo, ...]:
    return tuple(sorted(photos, key=lambda photo: photo.identifier))


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


def fingerprint(listing: Listing) -> str:
    """A hash of the photos' identifiers, labels, splits, groups, sizes and modification times."""
    digest = hashlib.sha256()
    for photo in listing.photos:
        try:
            status = photo.path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "not there"  # it will be listed as unreadable
        digest.update("\0".join((photo.identifier, photo.label, photo.split or "", photo.group,
                                 state, "")).encode())
    return digest.hexdigest()[:16]


def shown(names: Iterable[str]) -> str:
    """The first names, and 'and more' if there are more."""
    every = list(names)
    return ", ".join(map(repr, every[:SHOWN])) + (" and more" if len(every) > SHOWN else "")
