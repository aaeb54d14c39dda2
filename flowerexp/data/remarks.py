"""What is said about the labels and ids of a data set at the start of a run. No TensorFlow here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from flowerexp.data.tables import Table
from flowerexp.errors import UserError, counted, one_line

NAMED = 5
"""Maximum number of classes that a sentence names."""
NEARLY_SAME = 0.5
"""Share of a class's pictures that are also another's, from which the two are nearly the same."""
WARNING = "warning: "


def check_classes(tables: Sequence[Table], names: Sequence[str], where: str) -> None:
    """Raises UserError if all images of the labelled splits are of one class."""
    present = np.unique(np.concatenate([table.labels for table in tables]))
    if len(present) < 2:
        raise UserError(f"{where} holds images of one class, {one_line(names[present[0]])!r}, and "
                        "there is nothing to tell it from: is it the right folder and the right "
                        "label (dataset.features.label for records)?")


def of_splits(train: Table, valid: Table, test: Table | None, names: Sequence[str],
              has_names: bool) -> Iterator[str]:
    """Warnings about labels and ids.

    Args:
        train, valid: labelled splits; valid is empty if nothing is held out.
        test: the test split, if there is one.
        names: class names in label order.
        has_names: whether they are names, and not the labels themselves.
    """
    trained, validated = (np.bincount(table.labels, minlength=len(names)) > 0
                          for table in (train, valid))
    if not (trained | validated).all():
        yield WARNING + without_images(trained | validated, names, has_names)
    if len(valid.labels):
        for rows, what in ((validated & ~trained, "validation images and no training image"),
                           (trained & ~validated, "training images and no validation image")):
            if rows.any():
                yield f"{WARNING}{classes(rows, names)} have {what}"
    yield from (f"{WARNING}{sentence}" for sentence in nearly_same(train, names))
    if test is not None:
        times = Counter(test.all_ids)
        if twice := [name for name, number in times.items() if number > 1]:
            yield (f"{WARNING}the {len(test.all_ids)} test images have {len(times)} different ids: "
                   f"{counted(len(twice), 'id')} occur more than once, {twice[0]!r} the first, and "
                   "submission.csv will have a row for each image")


def without_images(present: npt.NDArray[np.bool_], names: Sequence[str], has_names: bool) -> str:
    """The sentence about classes without images, bool [classes], and what to do about them."""
    empty, first = ~present, int(present.argmax())
    verb = "has" if empty.sum() == 1 else "have"
    sentence = f"{classes(empty, names)} of {len(names)} {verb} no image"
    if has_names:
        return f"{sentence}: are these the class names of these data?"
    if present[first:].all():
        return f"{sentence}: labels begin at {first}, and dataset.label_offset={first} leaves " \
               f"{'it' if first == 1 else 'them'} out"
    return (f"{sentence}: a file dataset.class_names with a JSON map of the other labels to names "
            "leaves them out")


def nearly_same(table: Table, names: Sequence[str]) -> Iterator[str]:
    """Sentences about classes of which most pictures, byte for byte, are another's too."""
    if not len(table.digests):
        return
    both = np.unique(np.stack([table.digests, table.labels.astype(np.uint64)]), axis=1)
    pictures, labels = both[0], both[1].astype(np.int64)
    sizes, shared = np.bincount(labels, minlength=len(names)), Counter[tuple[int, int]]()
    starts = np.flatnonzero(np.r_[True, pictures[1:] != pictures[:-1]])
    for rows in np.split(labels, starts[1:]):
        if len(rows) > 1:
            shared.update((one, other) for place, one in enumerate(rows.tolist())
                          for other in rows[place + 1:].tolist())
    for (one, other), number in shared.items():
        if number >= NEARLY_SAME * min(sizes[one], sizes[other]):
            yield (f"{counted(number, 'picture')} are both of {one_line(names[one])} ({sizes[one]} "
                   f"in all) and of {one_line(names[other])} ({sizes[other]})")


def classes(rows: npt.NDArray[np.bool_], names: Sequence[str]) -> str:
    """`3 classes (a, b, c)`."""
    which = np.flatnonzero(rows).tolist()
    shown = ", ".join(one_line(names[row]) for row in which[:NAMED])
    return (f"{counted(len(which), 'class')} ({shown}{', and more' * (len(which) > NAMED)})")
