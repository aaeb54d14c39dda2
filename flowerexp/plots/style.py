"""Shared by all plots: colors, axes, text from files, and PNG files. No TensorFlow here."""

import io
import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowerexp.errors import one_line
from flowerexp.runs import store

DPI = 130
GREY, BLUE, ORANGE = "#7f7f7f", "#0072b2", "#d55e00"
"""Colors that remain distinct with every kind of color blindness (Okabe and Ito)."""


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    store.write_bytes(path, png(figure))


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; users need no warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def escape_mathtext(text: str, longest: int = 40) -> str:
    """A name from a file as one line, without Matplotlib reading $...$ as mathematics."""
    line = one_line(text)
    cut = line if len(line) <= longest else f"{line[:longest - 1]}…"
    return cut.replace("$", r"\$")


def simplify(axis: Axes) -> None:
    """A light grid, small ticks, and no frame at the top and right."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
