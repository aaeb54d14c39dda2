"""Lists and reads the photos in Parquet files, as image hubs publish them.

A file has a column of images, bytes or a struct of `bytes` and `path`, and one of labels: texts, or
numbers whose names the metadata of Hugging Face's datasets give. Files are in the split that their
name or folder says. Only labels and paths are read to list them, and images by row group.
"""

import functools
import itertools
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowerexp.data import manifests, photos
from flowerexp.data.photos import Columns, Listing, Photo, nfc
from flowerexp.errors import UserError, first_line

LOCK = threading.Lock()
"""Held while a row group is read, so that threads do not read the same one."""


def listed(folder: Path, files: Sequence[Path], columns: Columns) -> Listing:
    """The photos of Parquet files, in the order of files and rows.

    Raises:
        UserError: for a file that cannot be read, or without a column of images or labels.
    """
    every, names = list[Photo](), None
    for file in sorted(files):
        relative = file.relative_to(folder)
        split = next(filter(None, (photos.split_of(part) for part in
                                   (relative.with_suffix("").name, *relative.parts[-2::-1]))), None)
        schema = opened(str(file)).schema_arrow
        image = image_column(file, schema, columns)
        named = [column_of(file, schema, kind, columns) for kind in ("label", "group", "split")]
        wanted = [column for column in named if column]
        if pa.types.is_struct(schema.field(image).type):
            wanted.append(f"{image}.path")
        table = opened(str(file)).read(columns=wanted)
        labels, groups, splits = (table[column].to_pylist() if column else None
                                  for column in named)
        if labels is None and split != "test":
            raise UserError(f"{file} has no column of labels: it has {', '.join(schema.names)}",
                            "give dataset.columns.label=NAME")
        names = names or class_names(schema, named[0])
        paths = [each and each.get("path") for each in table[image].to_pylist()
                 ] if f"{image}.path" in wanted else [None] * opened(str(file)).metadata.num_rows
        for row, path in enumerate(paths):
            own = manifests.split_in(file, row, str(splits[row])) if splits else split
            label = text_of(file, row, labels[row] if labels else None, names, own)
            every.append(Photo(file, path or "", label, own,
                               "" if groups is None else str(groups[row]), image, row))
    ids = [photo.identifier for photo in every]
    if not all(ids) or len({*ids}) < len(ids):  # else the paths of the files that were published
        ids = [f"{photo.path.relative_to(folder).with_suffix('').as_posix()}:{photo.row}"
               for photo in every]
    return Listing(tuple(replace(photo, identifier=identifier)
                         for identifier, photo in zip(ids, every, strict=True)),
                   names=tuple(names) if names else None, layout="Parquet files")


@functools.lru_cache(64)
def opened(file: str) -> pq.ParquetFile:
    """An open Parquet file; raises UserError if it is none."""
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as a Parquet file ({first_line(error)})",
                        "copy it again") from error


def image_column(file: Path, schema: pa.Schema, columns: Columns) -> str:
    """The name of the column of images: the one given, else the only one of bytes."""
    kinds = [field.name for field in schema if pa.types.is_binary(field.type)
             or pa.types.is_large_binary(field.type)
             or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)]
    if columns.path in kinds or (columns.path is None and len(kinds) == 1):
        return columns.path or kinds[0]
    if columns.path is None and "image" in kinds:
        return "image"
    raise UserError(f"{file} has {len(kinds) or 'no'} columns of images "
                    f"({', '.join(schema.names)})", "give dataset.columns.path=NAME")


def column_of(file: Path, schema: pa.Schema, kind: str, columns: Columns) -> str | None:
    """The name of the column of labels, groups or splits, or None."""
    if (given := getattr(columns, kind)) is not None:
        if given not in schema.names:
            raise UserError(f"{file} has no column {given!r}: it has {', '.join(schema.names)}")
        return str(given)
    usual = manifests.LABELS if kind == "label" else (kind,)
    return next((name for name in usual if name in schema.names), None)


def class_names(schema: pa.Schema, label: str | None) -> list[str] | None:
    """The names of a column of class numbers, in the metadata of Hugging Face's datasets."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]
        return [nfc(name) for name in info["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def text_of(file: Path, row: int, label: Any, names: Sequence[str] | None, split: str | None
            ) -> str:
    """The name of a label; empty for none, which is null or, in a test split, -1."""
    if label is None or (label == -1 and split == "test"):
        if split != "test":
            raise UserError(f"{file}, row {row}: the label is missing")
        return ""
    if names is None or isinstance(label, str):
        return nfc(str(label))
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise UserError(f"{file}, row {row}: the label {label} is none of the {len(names)} classes")
    return names[label]


def read(file: str, column: str, row: int) -> bytes:
    """The bytes of the image in a row of a Parquet file; raises OSError if there are none."""
    ends = group_ends(file)
    number = next(each for each, end in enumerate(ends) if row < end)
    with LOCK:
        images = row_group(file, column, number)
    value = images[row - (ends[number - 1] if number else 0)].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        raise OSError(None, f"row {row} has no bytes of an image")
    return bytes(data)


@functools.lru_cache(64)
def group_ends(file: str) -> list[int]:
    """The rows after each row group."""
    metadata = opened(file).metadata
    return list(itertools.accumulate(metadata.row_group(number).num_rows
                                     for number in range(metadata.num_row_groups)))


@functools.lru_cache(2)
def row_group(file: str, column: str, number: int) -> Any:
    """The images of a row group; two groups are kept."""
    return opened(file).read_row_group(number, columns=[column])[column]
