"""Class names of files: one per line, a JSON list or map, TF-Slim's `0:name`, a label map."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from flowerexp.errors import UserError
from flowerexp.lazy import tf

CONVERTED = "classes.txt"
"""Written by a conversion next to the splits."""
FILES = (CONVERTED, "labels.txt", "label_map.pbtxt")
"""Files of class names that are found beside the records, in this order; then *.labels.txt."""
ITEM = re.compile(r"\bitem\s*:?\s*\{(.*?)\}", re.DOTALL)
FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(?:(\d+)|\"((?:[^\"\\]|\\.)*)\""
                   r"|'((?:[^'\\]|\\.)*)')")
NUMBERED = re.compile(r"(\d+):(.+)")


class ClassNames(NamedTuple):
    """names: class names in the order of their labels. labels: the label of each in the records,
    in ascending order; None: 0 and so on.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...] | None = None


def find(folders: Iterable[str], label: str | None) -> str | None:
    """The file of class names in the first of some folders that has one.

    Args:
        label: name of the records' feature of the label, if it is given; TFDS names a file after
            each feature of labels.

    Raises:
        UserError: if there are several such files, and `label` chooses none.
    """
    for folder in dict.fromkeys(folders):
        there = {*tf.io.gfile.listdir(folder)}
        if name := next((name for name in FILES if name in there), None):
            return f"{folder}/{name}"
        of_features = sorted(name for name in there if name.endswith(".labels.txt"))
        wanted = f"{label or 'label'}.labels.txt"
        if wanted in of_features or len(of_features) == 1:
            return f"{folder}/{wanted if wanted in of_features else of_features[0]}"
        if of_features:
            raise UserError(f"{folder} holds {' and '.join(of_features)}: choose one by "
                            "dataset.class_names=FILE, and dataset.features.label=NAME")
    return None


def read(names: Any) -> ClassNames | None:
    """Class names of a list, or of a file; None without any.

    Raises:
        UserError: for a file that cannot be read or holds no names.
    """
    if names is None or isinstance(names, list):
        return ClassNames(tuple(map(clean, names))) if names else None
    try:
        with tf.io.gfile.GFile(names, "rb") as file:
            text = file.read().decode("utf-8-sig")
        found = of_text(text)
    except (tf.errors.OpError, ValueError) as error:
        why = f" ({error})" if type(error) is ValueError else ""
        raise UserError(f"dataset.class_names={names} cannot be read{why}: give a list, or a file "
                        "with one name per line, a JSON list or map of labels to names, or a label "
                        "map (.pbtxt)") from error
    if not found.names:
        raise UserError(f"dataset.class_names={names} holds no name")
    return found


def of_text(text: str) -> ClassNames:
    """The class names in a file's text; raises ValueError if its format is none of these."""
    if text.lstrip().startswith(("[", "{")):
        return of_json(json.loads(text))
    if ITEM.search(text):
        return of_label_map(text)
    lines = [clean(line) for line in text.splitlines()]
    lines = [line for line in lines if line]
    if control := next((line for line in lines if not line.isprintable()), None):
        raise ValueError(f"{control!r} is no name")
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return in_order((int(each[1]), each[2]) for each in numbered if each)
    return ClassNames(tuple(lines))


def of_json(found: Any) -> ClassNames:
    """A list of names, or a map of labels to names or of names to labels."""
    if isinstance(found, list) and all(isinstance(name, str | int) for name in found):
        return ClassNames(tuple(name for name in map(clean, found) if name))
    if isinstance(found, dict):
        if all(str(label).isdecimal() and isinstance(name, str) for label, name in found.items()):
            return in_order((int(label), name) for label, name in found.items())
        if all(type(label) is int and label >= 0 for label in found.values()):
            return in_order((label, name) for name, label in found.items())
    raise ValueError("its JSON is neither a list of names nor a map of labels and names")


def of_label_map(text: str) -> ClassNames:
    """The items of the Object Detection API's label map, by display name where there is one."""
    items = []
    for item in ITEM.findall(text):
        fields = {key: number or re.sub(r"\\(.)", r"\1", double or single)
                  for key, number, double, single in FIELD.findall(item)}
        name = fields.get("display_name") or fields.get("name")
        if not name or "id" not in fields:
            raise ValueError("an item has no name or no id")
        items.append((int(fields["id"]), name))
    return in_order(items)


def in_order(items: Iterable[tuple[int, Any]]) -> ClassNames:
    """The names by their labels; raises ValueError for a label with two names."""
    pairs = sorted((label, clean(name)) for label, name in items)
    labels = tuple(label for label, _ in pairs)
    if len({*labels}) < len(labels):
        raise ValueError("a label has two names")
    return ClassNames(tuple(name for _, name in pairs),
                      None if labels == tuple(range(len(labels))) else labels)


def clean(name: Any) -> str:
    """A name without space around it, in Unicode's normal form NFC."""
    return unicodedata.normalize("NFC", str(name).strip())
