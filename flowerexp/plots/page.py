"""A self-contained HTML page with embedded pictures, also written next to it as PNG files.

Everything from files is escaped, and the page's Content-Security-Policy allows only its own
scripts, styles and images. No TensorFlow here.
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

from flowerexp.errors import counted, encodable
from flowerexp.plots import style
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

PICTURES = "pictures"
"""The folder of the pictures next to a page."""
OWN_PICTURE = re.compile(r'<img data-file="([\w.=+-]+\.png)"')
"""Matches a picture in the text of a page and captures the name of its file."""


@dataclass(frozen=True)
class Picture:
    """One picture of a page."""

    file: str
    """The name of its PNG, unique in the page and valid on every file system."""
    caption: str
    draw: Callable[[], Figure]


def write(path: Path, template: str, pictures: Mapping[str, Sequence[Picture]],
          logger: RunLogger | None = None, files: bool = True, **values: Any) -> Path:
    """Writes a page and its pictures, each whole or not at all, and returns the page's path.

    Pictures of the page that it replaces are removed; other files stay.

    Args:
        path: the page.
        template: a file of this package that extends page.html.jinja.
        pictures: the pictures by the anchor of their section.
        logger: shows a progress bar.
        files: whether the pictures are also written as files.
        values: variables of the template.
    """
    drawn = {}
    every = [picture for section in pictures.values() for picture in section]
    with (logger or RunLogger(chief=False)).steps("pictures", len(every)) as advance:
        for picture in every:
            drawn[picture.file] = style.png(picture.draw())
            advance()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"digest": digest, "counted": counted, "wrap": wrap}
    text = environment.get_template(template).render(
        values, pictures=pictures, sources={
            file: f"data:image/png;base64,{base64.b64encode(content).decode()}"
            for file, content in drawn.items()})
    folder = path.parent / PICTURES
    if files:
        for file, content in drawn.items():
            store.write_bytes(folder / file, content)
        if path.is_file():
            earlier = OWN_PICTURE.findall(path.read_text(encoding="utf-8", errors="replace"))
            for file in set(earlier) - drawn.keys():
                (folder / file).unlink(missing_ok=True)
    store.write_text(path, encodable(text))
    return path


def digest(text: str) -> str:
    """The source by which a Content-Security-Policy allows an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def wrap(text: str) -> Markup:
    """The escaped text, with line breaks allowed after separators and every 20 characters."""
    pieces = re.findall(r".{1,20}?(?:[_+=,./ -]|$)|.{20}", text, re.DOTALL)
    return Markup("<wbr>").join(pieces)
