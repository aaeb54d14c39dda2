"""Grids of images, read back from the figures."""

import warnings

import numpy as np
import pytest

from flowerexp.plots import gallery, style
from tests.html import CLASSES

HOSTILE = [*CLASSES[:6], "$x^$", "very long " * 9, "two\nlines", ""]


def tiles(figure):
    """The images of a figure with the lines over each."""
    return [(axis.images[0].get_array().tolist(), axis.get_title(loc="left"))
            for axis in figure.axes if axis.images]


def images(count):
    return np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 3), (6, 1, 6), (7, 2, 6)])
def test_images_stand_in_rows_under_their_lines(count, rows, columns):
    shown = images(count)
    figure = gallery.grid(shown, [(f"true {n}", f"predicted {n}") for n in range(count)], "a title")
    assert tiles(figure) == [(image.tolist(), f"true {n}\npredicted {n}")
                             for n, image in enumerate(shown)]
    assert len(figure.axes) == rows * columns
    assert figure.get_suptitle() == "a title"


def test_grids_stand_beside_each_other_each_under_its_title():
    shown, names = images(5), [(name,) for name in "abcde"]
    figure = gallery.side_by_side([("one", shown, names), ("two", shown[::-1], names[::-1])])
    one, two = figure.subfigs
    assert tiles(one) == [(image.tolist(), name) for image, (name,) in
                          zip(shown, names, strict=True)]
    assert tiles(two) == tiles(one)[::-1]
    assert [part.get_suptitle() for part in (one, two)] == ["one", "two"]


def test_images_before_training_stand_beside_what_became_of_them():
    before = np.zeros((5, 8, 8, 3), np.uint8)
    figure = gallery.pairs(before, list("abcde"), before + 255, list("ABCDE"), "white")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title(loc="left") for axis in shown] == list("aAbBcCdDeE")
    assert [axis.images[0].get_array().max() for axis in shown] == [0, 255] * 5


def test_names_of_any_text_are_drawn(tmp_path):
    shown = images(len(HOSTILE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (gallery.grid(shown, [(name, name) for name in HOSTILE], "$x^$"),
                       gallery.pairs(shown, HOSTILE, shown, HOSTILE, "a title")):
            style.save(figure, tmp_path / "a.png")
            for _, lines in tiles(figure):
                assert max(len(line.replace("\\", "")) for line in lines.split("\n")) <= 40
