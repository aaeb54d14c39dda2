"""An HTML page that opens without a network, with its pictures inside and beside it as PNG files.

Everything that comes from files is escaped, and the page's policy lets nothing run or load but what
stands in it. No TensorFlow here.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from flowerexp.plots import curves
from flowerexp.runs import store

PICTURES = "pictures"
"""The folder of the pictures beside a page."""
HEAD = 512
"""Bytes of a PNG that hold its texts."""


@dataclass(frozen=True)
class Picture:
    """One PNG of a page."""

    file: str
    """Its name below pictures/, safe in every path and unique in a page."""
    caption: str
    draw: Callable[[], Figure]
    wide: bool = True
    """Takes the whole width of the page."""


def write(path: Path, template: str, pictures: Mapping[str, Sequence[Picture]], software: str,
          advance: Callable[[], None] | None = None, filters: Sequence[Callable[..., Any]] = (),
          **values: Any) -> Path:
    """Writes a page and its pictures, each whole or not at all.

    Pictures beside it of an earlier page of the same software are removed; other files stay.

    Args:
        path: of the page.
        template: a file of this package that extends page.html.jinja.
        pictures: by the anchor of their section.
        software: what made them, as the pictures say of themselves.
        advance: is called after every picture.
        filters: of the template, by their own names, beside those of every page.
        values: of the template.

    Returns:
        The path of the page.
    """
    sources = {}
    for picture in (picture for several in pictures.values() for picture in several):
        file = path.parent / PICTURES / picture.file
        curves.save(picture.draw(), file, {"Title": picture.file, "Software": software})
        encoded = base64.b64encode(file.read_bytes()).decode("ascii")
        sources[picture.file] = f"data:image/png;base64,{encoded}"
        if advance:
            advance()
    store.write_text(path, render(template, filters, pictures=pictures, sources=sources,
                                    **values))
    for file in (path.parent / PICTURES).glob("*.png"):
        if file.name not in sources and is_ours(file, software):
            file.unlink()
    return path


def is_ours(path: Path, software: str) -> bool:
    """Whether `write` made this PNG, under this name."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return all(f"tEXt{key}\0{value}".encode() in head
               for key, value in (("Title", path.name), ("Software", software)))


def render(template: str, filters: Sequence[Callable[..., Any]], **values: Any) -> str:
    """The text of a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {function.__name__: function
                            for function in (digest, plural, wrap, *filters)}
    text = environment.get_template(template).render(values)
    # A name of a file may hold bytes that are no text.
    return text.encode("utf-8", "replace").decode("utf-8")


def plural(word: str, several: Sequence[Any]) -> str:
    return word if len(several) == 1 else f"{word}s"


def digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def wrap(text: str) -> Markup:
    """A name, escaped, that a narrow cell may break where one reads a pause."""
    pieces = re.findall(r".{1,20}?(?:[_+=,./ -]|$)|.{20}", text, re.DOTALL)
    return Markup("<wbr>").join(pieces)
