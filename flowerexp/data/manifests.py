"""Lists the photos that a CSV or TSV names, whose columns are found by their content.

A column of photos holds paths, or names of files at or below the table's folder, with or without
suffix. A column of labels has a usual name, or is the only one with few values; or each class has a
column of 0 and 1.
"""

import functools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from flowerexp.data import photos
from flowerexp.data.photos import Columns, Listing, Photo, by_identifier, nfc, readable, shown
from flowerexp.errors import UserError, counted, first_line

LABELS = ("label", "class", "class_name", "classname", "category", "target", "species", "breed",
          "variety", "diagnosis", "y")
"""Usual names of a column of labels; the first that is there is taken."""
SAMPLED = 200
"""Rows by which a column of photos is recognized."""
SEPARATORS = (",", ";", "\t")


class Files:
    """Finds files by what a table says of them.

    folder: that of the table, without links resolved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 -- links are not resolved

    @functools.cached_property
    def by_name(self) -> dict[str, Path | None]:
        """Files below the folder by path and name, with and without suffix; None for several."""
        found: dict[str, Path | None] = {}
        for path in sorted(photos.files_below(self.folder, Counter())):
            if path.suffix.lower() in photos.SUFFIXES and not path.name.startswith("."):
                relative = path.relative_to(self.folder)
                keys = {relative.as_posix(), relative.with_suffix("").as_posix(), path.name,
                        path.stem}
                for key in map(nfc, map(readable, keys)):
                    found[key] = None if key in found else path
        return found

    def find(self, text: str) -> Path | None:
        """The file that a cell names, or None."""
        for each in dict.fromkeys((text, text.replace("\\", "/"))):
            path = Path(os.path.abspath(self.folder / each))  # noqa: PTH100
            if each and path.is_file():
                return path
            if each and (known := self.by_name.get(nfc(each).removeprefix("./"))):
                return known
        return None

    def place(self, text: str) -> Path:
        """The file that a cell names; where it should be if it is not there."""
        return self.find(text) or Path(
            os.path.abspath(self.folder / text.replace("\\", "/")))  # noqa: PTH100


def listed(tables: Sequence[Path], columns: Columns) -> Listing:
    """The photos that tables of one folder name.

    Tables without labels are those of a test split. The rows of several tables are in the splits
    after which the tables are named.

    Raises:
        UserError: for a table that cannot be read, without a column of photos, or with no or
            several columns that may be labels; or a photo with two labels.
    """
    files = Files(tables[0].parent)
    read = [read_table(table, files, columns, len(tables) > 1) for table in tables]
    every, left_out, notes = dict[str, Photo](), list[tuple[str, str]](), list[str]()
    for table, (rows, said) in zip(tables, read, strict=True):
        notes += said
        again = 0
        for number, (text, label, group, split) in enumerate(rows, 1):
            path = files.place(text)
            inside = path.is_relative_to(files.folder) or not Path(text).is_absolute()
            name = readable(
                Path(os.path.relpath(path, files.folder) if inside else path).as_posix())
            photo = Photo(path, name, nfc(label), split, group)
            if not text or not (label or split == "test"):
                left_out.append((text or f"row {number}", f"row {number} of {table.name} has no "
                                 + ("label" if text else "path")))
            elif (before := every.setdefault(name, photo)).label != photo.label:
                raise UserError(f"{table}: {name} has two labels, {before.label!r} and {label!r}: "
                                "leave one out")
            elif before is not photo:
                if before.split != split:
                    raise UserError(f"{table}: {name} is in two splits, {before.split} and {split}",
                                    "leave one out")
                again += 1
        if again:
            notes.append(f"{counted(again, 'row')} of {table.name} ignored as repeated.")
    return Listing(by_identifier(every.values()), tuple(left_out), tuple(notes),
                   layout=f"photos named by {', '.join(table.name for table in tables)}")


def beside(folder: Path, tables: Sequence[Path], files: Sequence[Path], columns: Columns,
           folders: Listing) -> Listing | None:
    """The photos of the tables in a folder of photos; None if its folders are its classes.

    folders: what the folders alone say.

    Raises:
        UserError: if tables and folders name different classes, or several tables name classes.
    """
    usable, why = list[Path](), list[str]()
    for table in tables:
        try:
            rows, _ = read_table(table, Files(folder), columns, True)
        except UserError as error:
            why.append(str(error))
            continue
        if any(label for _, label, _, _ in rows) or photos.split_of(table.stem) == "test":
            usable.append(table)
    has_classes = len(folders.classes) > 1 and not all(
        photos.split_of(name) or {*name.lower().split("_")} <= photos.FILLERS
        for name in folders.classes)
    if columns.named and not usable:
        raise UserError(why[0])
    if not usable:
        return None
    splits = [photos.split_of(table.stem) for table in usable]
    if len(usable) > 1 and (None in splits or len({*splits}) < len(splits)):
        raise UserError(f"{folder} holds several tables that name classes, "
                        f"{', '.join(table.name for table in usable)}",
                        "give the path of the one that you mean as dataset.root")
    listing = listed(usable, columns)
    if has_classes and not columns.named:
        said = {photo.identifier: photo.label for photo in listing.photos}
        differ = [photo for photo in folders.photos
                  if said.get(photo.identifier, photo.label) != photo.label]
        if differ:
            one = differ[0]
            raise UserError(
                f"{folder} has folders of classes and {usable[0].name}, which differ: "
                f"{one.identifier} is of class {one.label!r} by its folder and of "
                f"{said[one.identifier]!r} by the table",
                f"give dataset.root={usable[0]} for the table's classes, or move it away")
        return None
    named = {photo.path for photo in listing.photos}
    rest = [path for path in files if Path(os.path.abspath(path)) not in named]  # noqa: PTH100
    test = [path for path in rest if any(photos.split_of(part) == "test" for part
                                         in path.relative_to(folder).parts[:-1])]
    if test and "test" not in splits and not any(p.split == "test" for p in listing.photos):
        more = (Photo(path, readable(path.relative_to(folder).as_posix()), "", "test")
                for path in test)
        listing = replace(listing, photos=by_identifier((*listing.photos, *more)))
        rest = [path for path in rest if path not in {*test}]
    notes = [f"{counted(len(rest), 'photo')} that {listing.layout.removeprefix('photos named by ')}"
             " does not name ignored."] if rest else []
    return replace(listing, notes=(*listing.notes, *notes))


def read_table(file: Path, files: Files, columns: Columns, may_lack_labels: bool
               ) -> tuple[list[tuple[str, str, str, str | None]], list[str]]:
    """(path, label, group, split) of every row, stripped, and notes on ignored columns."""
    cells = read_cells(file)
    header = [name.lower() for name in cells.iloc[0]]
    body = cells.iloc[1:]
    given = {what: column_named(file, cells, name) for what, name in columns.named.items()}
    path = given.get("path", header.index("path") if {"path", "label"} <= {*header} else None)
    if path is None:
        hits = [float(np.mean([files.find(text) is not None for text in sampled(body[column])]
                              or [False])) for column in range(len(header))]
        path = int(np.argmax(hits)) if max(hits) >= 0.5 else None
        has_header = path is None or files.find(str(cells.iloc[0, path])) is None
        if path is None and len(header) == 2:  # two columns without header
            path, has_header = 0, False
        if path is None:
            raise UserError(f"{file} has {len(header)} columns and no header that names path and "
                            f"label, and none of its columns holds photos at or below "
                            f"{files.folder}", "make path,label its first line, or give "
                                               "dataset.columns.path=NAME")
    else:
        has_header = True
    names = header if has_header else [""] * len(header)
    body = body if has_header else cells
    for what in ("group", "split"):
        if what not in given and what in names:
            given[what] = names.index(what)
    taken = {path, *(given[what] for what in ("group", "split") if what in given)}
    labels, used = label_column(file, body, list(cells.iloc[0]) if has_header else names, taken,
                                given.get("label"), may_lack_labels)
    split = photos.split_of(file.stem)
    splits = ([split if may_lack_labels else None] * len(body) if "split" not in given else
              [split_in(file, number, text) for number, text in
               enumerate(body[given["split"]], 1)])
    if labels is None:
        labels = [""] * len(body)
    groups = body[given["group"]] if "group" in given else [""] * len(body)
    others = [repr(name) for column, name in enumerate(names)
              if has_header and column not in taken | used]
    notes = [f"{counted(len(others), 'other column')} of {file.name} ignored: "
             f"{', '.join(others[:photos.SHOWN])}{' and more' * (len(others) > photos.SHOWN)}."
             ] if others else []
    return list(zip(body[path], labels, groups, splits, strict=True)), notes


def sampled(column: pd.Series) -> list[str]:
    """Cells at even distances."""
    return list(column.iloc[::max(1, len(column) // SAMPLED)])


def column_named(file: Path, cells: pd.DataFrame, name: str) -> int:
    """The number of a column that the config names."""
    header = list(cells.iloc[0])
    if name not in header:
        raise UserError(f"{file} has no column {name!r}: it has {', '.join(header)}")
    return header.index(name)


def split_in(file: Path, number: int, text: str) -> str:
    """The split that a cell names."""
    if (split := photos.split_of(text)) is None:
        raise UserError(f"row {number} of {file} names the split {text!r}: it must be train, val "
                        "or test")
    return split


def label_column(file: Path, body: pd.DataFrame, names: Sequence[str], taken: set[int],
                 given: int | None, may_lack: bool) -> tuple[list[str] | None, set[int]]:
    """The labels of every row, None if there are none, and the columns that they are from.

    Raises:
        UserError: for no or several columns that may be labels, or rows of several classes.
    """
    lower = [name.lower() for name in names]
    free = [column for column in range(body.shape[1]) if column not in taken]
    column = given if given is not None else next(
        (lower.index(name) for name in LABELS if name in lower and lower.index(name) in free), None)
    if column is not None:
        return list(body[column]), {column}
    hot = [each for each in free if body[each].isin(["0", "1", "0.0", "1.0"]).all()]
    if len(hot) > 1 and names[hot[0]]:
        marks = body[hot].astype(float).to_numpy()
        if (wrong := np.flatnonzero(marks.sum(1) != 1)).size:
            of = [names[hot[place]] for place in np.flatnonzero(marks[wrong[0]])]
            raise UserError(f"row {wrong[0] + 1} of {file} has {counted(len(of), 'class')} "
                            f"({shown(of) or 'none is 1'}) where one is needed",
                            "leave the row out, or give dataset.columns.label=NAME")
        return [names[hot[place]] for place in marks.argmax(1)], {*hot}
    few = [each for each in free if 1 < body[each].nunique() <= max(2, len(body) // 2)]
    if len(few) == 1 or (len(free) == 1 and not may_lack):
        return list(body[(few or free)[0]]), {(few or free)[0]}
    if may_lack and not few:
        return None, set()
    known = ", ".join(repr(names[each] or f"number {each + 1}") for each in free) or "none"
    raise UserError(f"{file} has {len(few) or 'no'} columns that may be labels (besides the photos "
                    f"it has {known})", "give dataset.columns.label=NAME")


def read_cells(file: Path) -> pd.DataFrame:
    """All cells of a CSV or TSV as stripped text, with the separator that gives most columns."""
    tables, errors = list[pd.DataFrame](), list[Exception]()
    for separator in SEPARATORS:
        try:
            tables.append(pd.read_csv(file, header=None, dtype=str, keep_default_na=False,
                                      sep=separator, skipinitialspace=separator != "\t",
                                      encoding="utf-8-sig"))
        except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
            errors.append(error)
    if not tables or (max(len(table.columns) for table in tables) == 1 and errors):
        raise UserError(f"{file} cannot be read as a CSV of path,label: {first_line(errors[0])}"
                        ) from errors[0]
    return max(tables, key=lambda table: len(table.columns)).map(str.strip)
