"""The images on which runs are compared: matched by their ids, with classes matched by name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowerexp.errors import UserError, counted
from flowerexp.metrics import Ids
from flowerexp.runs import store

COMMON = "give --common (in Python common=True) to compare them on what they have in common"
SHOWN = 3
"""The number of class names in a sentence."""


@dataclass(frozen=True)
class Predicted:
    """What a run predicted for labelled images.

    where: the run's folder, for messages.
    ids: of the images; empty in folders of the first versions.
    labels, predictions: class ids, int [images].
    names: class names in label order; empty if they are not known.
    """

    where: str
    ids: tuple[str, ...]
    labels: Ids
    predictions: Ids
    names: tuple[str, ...]


@dataclass(frozen=True)
class Aligned:
    """Predictions for the same images in the same order.

    labels: int [images].
    predictions: int [runs, images].
    names: class names in label order.
    notes: sentences about what was matched or left out.
    """

    labels: Ids
    predictions: Ids
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def align(runs: Sequence[Predicted], common: bool = False) -> Aligned:
    """Brings the predictions of runs into the order of images and classes of the first.

    Args:
        common: whether runs of different images or classes are restricted to those that all have;
            images with different labels are then left out.

    Raises:
        UserError: for runs of different images, labels or classes; with `common`, if they have no
            image in common.
    """
    first, *others = runs
    if all(same(each, first) for each in others):
        return Aligned(first.labels, np.stack([each.predictions for each in runs]), first.names)
    for each in runs:
        if not each.ids or not each.names:
            raise UserError(f"{first.where} and {each.where} have different {store.VALID_LABELS}, "
                            "and the ids that would match their images are missing in one"
                            if each is not first else f"{first.where} has no ids or class names, "
                            "which would match its images with those of the others")
    names = [name for name in first.names if all(name in each.names for each in others)]
    keys = [numbered(each.ids) for each in runs]
    shared = set.intersection(*map(set, keys))
    rows = [{key: row for row, key in enumerate(each)} for each in keys]
    chosen = [key for key in keys[0] if key in shared]
    index = np.array([[of[key] for key in chosen] for of in rows], np.int64).reshape(len(runs), -1)
    labels, predictions = (np.stack([renamed(getattr(each, field), each.names, names)[at]
                                     for each, at in zip(runs, index, strict=True)])
                           for field in ("labels", "predictions"))
    keep = (labels == labels[0]).all(0) & (labels[0] < len(names))
    differing = different_sets(runs, names, len(shared), len(chosen) - int(keep.sum()))
    if differing and not common:
        raise UserError(f"{first.where} and {others[-1].where} were not judged on the same data "
                        f"({'; '.join(differing)})", COMMON)
    if not keep.any():
        raise UserError(f"{first.where} and {others[-1].where} have no image in common that has "
                        "the same label in both")
    note = (f"compared on {counted(int(keep.sum()), 'common image')} of {len(names)} classes: "
            f"{'; '.join(differing)}" if differing else
            "images and classes are in another order, and were matched by id and name")
    return Aligned(labels[0][keep], predictions[:, keep], tuple(names), (note,))


def same(one: Predicted, other: Predicted) -> bool:
    """Whether both are of the same images and classes, as far as is known, in the same order."""
    return (np.array_equal(one.labels, other.labels)
            and (not one.ids or not other.ids or one.ids == other.ids)
            and (not one.names or not other.names or one.names == other.names))


def numbered(ids: Sequence[str]) -> list[tuple[str, int]]:
    """Each id with the number of its occurrence, so that repeated ids stay apart."""
    seen = Counter[str]()
    found = []
    for each in ids:
        found.append((each, seen[each]))
        seen[each] += 1
    return found


def renamed(ids: Ids, names: Sequence[str], wanted: Sequence[str]) -> Ids:
    """Class ids of `names` as those of `wanted`; those that it lacks become its length."""
    places = {name: place for place, name in enumerate(wanted)}
    table = np.array([places.get(name, len(wanted)) for name in names], np.int64)
    return table[ids]


def different_sets(runs: Sequence[Predicted], names: Sequence[str], shared: int, relabelled: int
                   ) -> list[str]:
    """How images, classes and labels of the runs differ, in a few words each."""
    found = []
    sizes = [len(each.ids) for each in runs]
    if any(size != shared for size in sizes):
        found.append(f"{shared} images in common of {' and '.join(map(str, dict.fromkeys(sizes)))}")
    lost = sorted({name for each in runs for name in each.names} - {*names})
    if lost:
        found.append(f"{counted(len(lost), 'class')} not in all: {', '.join(lost[:SHOWN])}"
                     + " and more" * (len(lost) > SHOWN))
    elif relabelled:
        found.append(f"{counted(relabelled, 'image')} with different labels")
    return found
