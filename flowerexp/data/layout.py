"""Folders and class names of a data set of TFRecords."""

from __future__ import annotations

import json
import re
from typing import Any

from flowerexp.errors import UserError
from flowerexp.lazy import tf

NAMES_FILE = "classes.txt"


def find_names_file(folder: str, root: str) -> str | None:
    """The path of classes.txt, which a conversion writes, next to the splits or in the root."""
    paths = (f"{place.rstrip('/')}/{NAMES_FILE}" for place in (folder, root))
    return next((path for path in paths if tf.io.gfile.exists(path)), None)


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
