"""Where the records of a data set are: folders of splits, flat files, sizes, glob patterns."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from flowerexp.data import photos, tfrecord
from flowerexp.errors import UserError
from flowerexp.lazy import tf

SPLITS = ("train", "val", "test")
SHARD = re.compile(r"(.*?)-(\d+)-of-(\d+)(.*)")
LOOKED_AT = 2000
"""Maximum number of entries of a folder tree that are looked at for photos."""
DEEPEST = 3
"""Maximum number of folders between the root and the records."""
MOST_FOLDERS = 20
"""Maximum number of folders beside each other that are looked into."""


class Found(NamedTuple):
    """folder: the folder of the data set's records. size: the size in its name, if any. files: of
    each split. sentence: what is unusual about them; may be empty.
    """

    folder: str
    size: int | None
    files: dict[str, tuple[str, ...]]
    sentence: str


def split_of_file(name: str) -> str | None:
    """The split that a file's name tells: NAME-SPLIT.tfrecord-00000-of-00001, train00-130.tfrec."""
    words = re.split(r"[\W\d_]+", name.partition(".tfrec")[0].lower())
    return next((photos.SPLIT_WORDS[word] for word in reversed(words)
                 if word in photos.SPLIT_WORDS), None)


def find(root: str, image_size: int | None, patterns: Mapping[str, str | None]) -> Found:
    """The records of a data set.

    Args:
        root: a folder, local or of a file system that TensorFlow reads.
        image_size: chooses between folders tfrecords-jpeg-SxS.
        patterns: glob patterns, relative to the root, of the files of each split.

    Raises:
        UserError: for a root that does not exist or holds no records, or missing shards.
    """
    root = root.rstrip("/") or "/"
    entries = listed(root)
    if any(patterns.values()):
        files = {split: matching(root, split, pattern)
                 for split, pattern in patterns.items() if pattern}
        found = Found(root, size_in_name(root), files, "")
    else:
        anywhere = below(root, entries, image_size)
        if anywhere is None:
            check_no_photos(root)
            raise UserError(f"{root} holds neither TFRecords, nor the folders train, val and test, "
                            "nor a folder tfrecords-jpeg-SxS: give the folder of the records as "
                            "dataset.root, or dataset.files.train=PATTERN")
        found = anywhere
    return check(found)


def listed(folder: str) -> list[str]:
    """The names in a folder, sorted, without hidden ones; raises UserError if there is no folder.
    """
    try:
        if not tf.io.gfile.isdir(folder):
            there = "is not a folder" if tf.io.gfile.exists(folder) else "does not exist"
            raise UserError(f"the data set's root {folder} {there}: give dataset.root=FOLDER")
        names = tf.io.gfile.listdir(folder)
    except tf.errors.OpError as error:
        raise UserError(f"the data set's root {folder} cannot be read "
                        f"({str(error.message).splitlines()[0]}): give dataset.root=FOLDER, a "
                        "local folder or one of a file system that this TensorFlow reads"
                        ) from error
    return sorted(name.rstrip("/") for name in names if not name.startswith("."))


def below(root: str, entries: list[str], image_size: int | None, depth: int = 0) -> Found | None:
    """The records in and below a folder with these entries, None if there are none; raises
    UserError for several data sets.
    """
    if named := split_folders(root, entries):
        files = {split: tfrecord.list_files(f"{root}/{name}") for split, name in named.items()}
        renamed = [f"{split} is {name}" for split, name in named.items() if split != name]
        return Found(root, size_in_name(root), files, ", ".join(renamed))
    if sizes := {size: name for name in entries if (size := size_in_name(name))}:
        if image_size is None and len(sizes) == 1:
            image_size = next(iter(sizes))
        if image_size not in sizes:
            there = ", ".join(map(str, sorted(sizes)))
            raise UserError(f"{root} holds images of {there} pixels: give dataset.image_size as "
                            "one of them" + (f", not {image_size}" if image_size else ""))
        folder = f"{root}/{sizes[image_size]}"
        inner = below(folder, listed(folder), image_size, DEEPEST)
        return inner and inner._replace(size=image_size)
    if names := [name for name in entries if tfrecord.is_records(name)]:
        return flat(root, names)
    folders = [f"{root}/{name}" for name in entries if depth < DEEPEST
               and tf.io.gfile.isdir(f"{root}/{name}")]
    if len(folders) > MOST_FOLDERS:  # of classes
        return None
    found = [each for folder in folders
             if (each := below(folder, listed(folder), image_size, depth + 1))]
    if len(found) > 1:
        raise UserError(f"{root} holds several data sets: give one of them as dataset.root, as "
                        f"{found[0].folder}")
    return found[0] if found else None


def split_folders(root: str, entries: list[str]) -> dict[str, str]:
    """Split -> the name of its folder; empty if none is called train.

    Raises UserError for two folders of one split.
    """
    spelled = defaultdict[str, list[str]](list)
    for name in entries:
        if (split := photos.split_of(name)) and tf.io.gfile.isdir(f"{root}/{name}"):
            spelled[split].append(name)
    chosen = {}
    for split, names in spelled.items():
        having = [name for name in names if any(map(tfrecord.is_records,
                                                    tf.io.gfile.listdir(f"{root}/{name}")))]
        if len(having) > 1:
            raise UserError(f"{root} holds {' and '.join(having)}, both {split} by their names: "
                            f"give dataset.files.{split}=PATTERN")
        chosen[split] = (having or names)[0]
    if chosen and "train" not in chosen:
        raise UserError(f"{root}/train does not exist: a data set needs training records, and this "
                        f"one has {' and '.join(chosen.values())}")
    if chosen and not any(tfrecord.is_records(name) for folder in chosen.values()
                          for name in tf.io.gfile.listdir(f"{root}/{folder}")):
        check_no_photos(root)
    return {split: chosen[split] for split in SPLITS if split in chosen}


def flat(root: str, names: Iterable[str]) -> Found:
    """The records of files side by side, whose names tell their splits."""
    files = defaultdict[str | None, list[str]](list)
    for name in names:
        files[split_of_file(name)].append(f"{root}/{name}")
    others = files.pop(None, [])
    if not files:
        return Found(root, None, {"train": tuple(others)},
                     "no file's name tells its split, all are train")
    if "train" not in files:
        raise UserError(f"{root} holds no file of train by its name: give "
                        "dataset.files.train=PATTERN")
    sentence = "splits by the names of the files"
    if others:
        sentence += (f"; {len(others)} of other names are left out, {Path(others[0]).name} the "
                     "first of them")
    return Found(root, None, {split: tuple(files[split]) for split in SPLITS if split in files},
                 sentence)


def matching(root: str, split: str, pattern: str) -> tuple[str, ...]:
    """The files that a pattern matches, sorted; raises UserError if there are none."""
    if "://" in root:
        paths = tf.io.gfile.glob(f"{root}/{pattern}")
    else:
        paths = list(map(str, Path(root).glob(pattern)))
    files = tuple(sorted(path for path in paths if not tf.io.gfile.isdir(path)))
    if not files:
        raise UserError(f"dataset.files.{split}={pattern} matches no file in {root}")
    return files


def check(found: Found) -> Found:
    """Raises UserError if train is missing, a file is in two splits, or a shard is missing."""
    if "train" not in found.files:
        raise UserError("dataset.files.train is not given, and other splits are: give its pattern")
    seen = dict[str, str]()
    for split, files in found.files.items():
        for file in files:
            if (other := seen.setdefault(file, split)) != split:
                raise UserError(f"{file} is matched by dataset.files.{other} and "
                                f"dataset.files.{split}: let each file be in one split")
        shards = defaultdict[tuple[str, int, str], set[int]](set)
        for match in filter(None, map(SHARD.fullmatch, files)):
            shards[match[1], int(match[3]), match[4]].add(int(match[2]))
        for (name, number, _), here in shards.items():
            if missing := sorted({*range(number)} - here):
                raise UserError(f"{name} has {len(here)} of {number} shards, and number "
                                f"{missing[0]} is missing: copy it too")
    return found


def check_no_photos(root: str) -> None:
    """Raises UserError, with the command that takes them, if a local folder holds photos only."""
    names = (name for _, _, files in os.walk(root) for name in files)
    first = list(itertools.islice(names, LOOKED_AT))
    photo = next((name for name in first if name.lower().endswith(photos.SUFFIXES)), None)
    if photo and not any(map(tfrecord.is_records, first)):
        raise UserError(f"{root} holds photos ({photo}) and no TFRecords: give dataset=images "
                        f"dataset.root={root}")


def size_in_name(path: str) -> int | None:
    match = re.fullmatch(r"tfrecords-jpeg-(\d+)x\1/?", path.rstrip("/").rpartition("/")[2])
    return int(match[1]) if match else None
