"""What is said about labels and ids at the start of a run."""

import re

import numpy as np
import pytest

from flowerexp.data import remarks
from flowerexp.data.tables import Table
from flowerexp.errors import UserError

NAMES = ("0", "1", "2", "3")


def table(labels, ids=None, pictures=()):
    labels = np.array(labels, np.int32)
    return Table(None, labels, ids or [f"i{row}" for row in range(len(labels))],
                 np.array(pictures, np.uint64))


def said(train, valid=(), test=None, has_names=False, pictures=()):
    found = remarks.of_splits(table(train, pictures=pictures), table(valid),
                              test and table([-1] * len(test), test), NAMES, has_names)
    return list(found)


@pytest.mark.parametrize(("labels", "has_names", "words"), [
    ([1, 2, 3], False, r"1 class \(0\) of 4 has no image: labels begin at 1, and "
                       r"dataset\.label_offset=1 leaves it out"),
    ([2, 3], False, r"2 classes \(0, 1\) of 4 .* dataset\.label_offset=2 leaves them out"),
    ([0, 1, 3], False, r"1 class \(2\) of 4 has no image: a file dataset\.class_names"),
    ([0, 1, 3], True, r"1 class \(2\) of 4 has no image: are these the class names")])
def test_classes_without_images(labels, has_names, words):
    (sentence,) = said(labels, labels, has_names=has_names)
    assert re.match(f"warning: {words}", sentence)


def test_good_data_give_no_word():
    assert said([0, 1, 2, 3], [3, 2, 1, 0], ["a", "b"]) == []
    assert said([0, 1, 2, 3]) == []  # nothing is held out


def test_classes_of_one_split_only():
    assert said([0, 1, 2], [1, 2, 3]) == [
        "warning: 1 class (3) have validation images and no training image",
        "warning: 1 class (0) have training images and no validation image"]


def test_ids_of_test_images_that_occur_twice():
    (sentence,) = said([0, 1, 2, 3], test=["a", "b", "b", "c", "c", "c"])
    assert sentence.startswith("warning: the 6 test images have 3 different ids: 2 ids occur more "
                               "than once, 'b' the first")


def test_classes_of_the_same_pictures():
    """Class 1 has two of its three pictures from 0; 2 and 3 share one of four."""
    labels = [0] * 4 + [1] * 3 + [2] * 4 + [3] * 4
    pictures = [1, 2, 3, 4, 1, 2, 9, 11, 12, 13, 14, 11, 22, 23, 24]
    assert said(labels, pictures=pictures) == [
        "warning: 2 pictures are both of 0 (4 in all) and of 1 (3)"]


@pytest.mark.parametrize("labels", [[0, 0], [2, 2, 2]])
def test_one_class_is_refused(labels):
    with pytest.raises(UserError, match=f"one class, '{labels[0]}'"):
        remarks.check_classes([table(labels), table(labels)], NAMES, "there")
    remarks.check_classes([table(labels), table([1])], NAMES, "there")
