"""Pictures as files, and text from files in them."""

import struct
import warnings

import numpy as np
import pytest

from flowerexp.errors import counted
from flowerexp.plots import classes, confusion, history, style
from tests.plots.test_confusion import matrix_of
from tests.plots.test_history import epochs

HOSTILE = ["$x^$", "_private", "<b>&amp;</b>", "two\nlines\ttabs", "\N{CJK UNIFIED IDEOGRAPH-82B1}",
           "a\ud800b", r"back\slash$", "$$$", "", "very long " * 30]


@pytest.mark.parametrize("draw", [
    lambda: history.draw([epochs(2)], [epochs(3)], HOSTILE[0], HOSTILE[1]),
    lambda: confusion.draw(matrix_of(len(HOSTILE))[0], HOSTILE),
    lambda: confusion.draw(matrix_of(50)[0], HOSTILE * 5),
    lambda: classes.draw(np.arange(1, 11), np.linspace(-1, 1, 10), HOSTILE, changes=True),
], ids=["history", "confusion", "mistakes", "classes"])
def test_names_of_any_text_are_drawn(tmp_path, draw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.save(draw(), tmp_path / "a.png")
    width, height = struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24])
    assert 500 < width < 2000
    assert 300 < height < 2000


def test_text_of_a_name_is_one_line_without_mathematics():
    assert style.escape_mathtext("two\nlines\ttabs") == "two lines tabs"
    assert style.escape_mathtext("$x^$") == r"\$x^\$"
    assert style.escape_mathtext("a" * 50) == "a" * 39 + "…"


def test_picture_is_the_same_bytes_again(tmp_path):
    for name in ("one.png", "two.png"):
        style.save(history.draw([epochs(3)]), tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


@pytest.mark.parametrize(("number", "noun", "text"), [
    (0, "image", "0 images"), (1, "epoch", "1 epoch"), (2, "epoch", "2 epochs"),
    (1, "class", "1 class"), (104, "class", "104 classes")])
def test_nouns_follow_their_number(number, noun, text):
    assert counted(number, noun) == text
