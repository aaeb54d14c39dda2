"""A comparison as one self-contained HTML page, and its pictures as PNG files.

Everything from files is escaped. No TensorFlow here.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowerexp import composition, metrics
from flowerexp.comparison import summary
from flowerexp.comparison.comparison import Comparison
from flowerexp.comparison.pairs import Pair
from flowerexp.comparison.rows import Row
from flowerexp.plots import classes, confusion, history, page
from flowerexp.plots.page import Picture
from flowerexp.runs.reader import Run, chosen_epoch

PAGE = "report.html"
TEMPLATE = "comparison/report.html.jinja"


def count(comparison: Comparison) -> int:
    """The number of pictures that `write` draws."""
    return sum(map(len, all_pictures(comparison).values()))


def write(comparison: Comparison, folder: Path, advance: Callable[[], None] | None = None) -> Path:
    """Writes the page and its pictures into a folder, each whole or not at all.

    Pictures of the page that it replaces are removed; other files stay.

    Args:
        advance: called after every picture.

    Returns:
        The path of the page.
    """
    return write_page(comparison, folder / PAGE, advance, files=True)


def write_page(comparison: Comparison, path: Path, advance: Callable[[], None] | None = None,
               files: bool = False) -> Path:
    """Writes the page, by default without the files of its pictures, and returns its path."""
    return page.write(
        path, TEMPLATE, all_pictures(comparison), advance, (anchor, signed), files,
        comparison=comparison, columns=columns(comparison),
        best=summary.best_row(comparison), summary=summary, limit=axis_limit(comparison.pairs),
        common=most_common_values(comparison.rows))


# Pictures

def all_pictures(comparison: Comparison) -> dict[str, list[Picture]]:
    """The pictures of every section of the page by its anchor; none for a row without epochs."""
    rows = {row.name: row for row in comparison.rows}
    sections = {anchor("pair", number): pictures_of_pair(pair, rows, anchor("pair", number))
                for number, pair in enumerate(comparison.pairs)}
    return sections | {anchor("row", number): pictures_of_row(row, anchor("row", number))
                       for number, row in enumerate(comparison.rows)}


def anchor(kind: str, number: int) -> str:
    """The id of a section: a number, because a name from a file can be any text."""
    return f"{kind}-{number + 1:02d}"


def file_name(prefix: str, name: str, kind: str) -> str:
    return f"{prefix}-{composition.path_safe(name, 60)}-{kind}.png"


def pictures_of_row(row: Row, prefix: str) -> list[Picture]:
    runs = row.counted
    pictures = []
    if trained := [run.history for run in runs if run.history]:
        pictures.append(Picture(file_name(prefix, row.name, "history"), "Metrics by epoch",
                                lambda: history.draw(trained)))
    predicted = [run for run in runs if run.predictions.size]
    names, counts = names_of(predicted), counts_of(row)
    if predicted and len(names) <= confusion.MOST_CLASSES:
        pictures.append(Picture(
            file_name(prefix, row.name, "confusion"), "Confusion matrix, last epoch",
            lambda: confusion.draw(matrices(predicted, "last", len(names)).sum(axis=0), names,
                                   len(predicted))))
    if predicted and len(counts) == len(names):
        pictures.append(Picture(
            file_name(prefix, row.name, "classes"),
            "F1 of each class against its training images, last epoch"
            + (f", mean of {len(predicted)} runs" if len(predicted) > 1 else ""),
            lambda: classes.draw(counts, class_f1(predicted, "last", len(counts)), names)))
    return pictures


def pictures_of_pair(pair: Pair, rows: dict[str, Row], prefix: str) -> list[Picture]:
    runs, baseline = ([run for run in rows[name].finished if run.seed in pair.seeds]
                      for name in (pair.name, pair.baseline))
    title = f"{pair.name}-against-{pair.baseline}"
    pictures = [Picture(
        file_name(prefix, title, "history"), f"Metrics by epoch; dashed: {pair.baseline}",
        lambda: history.draw([run.history for run in runs], [run.history for run in baseline],
                              pair.name, pair.baseline))]
    names, counts = names_of(runs), counts_of(rows[pair.name])
    if len(names) == len(names_of(baseline)) == len(counts):
        pictures.append(Picture(
            file_name(prefix, title, "classes"),
            f"Change in F1 of each class against its training images, {pair.epoch} epoch",
            lambda: classes.draw(
                # Sums of the same numbers in another order are not a change.
                counts, (class_f1(runs, pair.epoch, len(counts))
                         - class_f1(baseline, pair.epoch, len(counts))).round(12),
                names, changes=True)))
    return pictures


def names_of(runs: Sequence[Run]) -> list[str]:
    """The name of every class, its number if no folder names it."""
    names = max((run.class_names for run in runs), key=len, default=())
    most = max((1 + max(run.labels.max(), run.predictions.max()) for run in runs), default=0)
    return [*names, *map(str, range(len(names), most))]


def counts_of(row: Row) -> npt.NDArray[np.int64]:
    """int64 [classes], training images; empty if no folder has them."""
    return max((run.class_counts for run in row.runs), key=len)


def matrices(runs: Sequence[Run], epoch: str, classes: int) -> npt.NDArray[np.int64]:
    """int64 [runs, classes, classes], the validation confusion matrices; rows are labels.

    Args:
        epoch: last | best
    """
    return np.stack([metrics.confusion_matrix(
        run.labels, run.predictions[chosen_epoch(run, epoch) or 0], classes) for run in runs])


def class_f1(runs: Sequence[Run], epoch: str, classes: int) -> npt.NDArray[np.float64]:
    """float64 [classes], the F1 of every class averaged over the runs, NaN for an absent class."""
    found = [metrics.class_scores(matrix)["f1"] for matrix in matrices(runs, epoch, classes)]
    means: npt.NDArray[np.float64] = np.ma.masked_invalid(found).mean(axis=0).filled(np.nan)
    return means


# The page

def columns(comparison: Comparison) -> list[summary.Column]:
    """The columns of the page's table, without the keys, which have their own."""
    rows = comparison.rows
    counts = tuple(len(row.counted) for row in rows)
    return [summary.Column("keys", "n", tuple(map(str, counts)), counts),
            summary.Column("keys", "state", tuple(map(summary.state, rows))),
            *(column for column in summary.columns(comparison) if column.group != "keys")]


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def most_common_values(rows: Sequence[Row]) -> dict[str, str]:
    """The most common value of each key that at least two rows share."""
    common = {key: Counter(summary.value_text(row.differing[key]) for row in rows).most_common(1)[0]
              for key in (rows[0].differing if rows else ())}
    return {key: value for key, (value, times) in common.items() if times > 1}


def axis_limit(pairs: Sequence[Pair]) -> float:
    """The end of the axis shared by all intervals, in hundredths."""
    bounds = [abs(bound) for pair in pairs for found in pair.differences.values()
              if not math.isnan(found.low) for bound in (found.value, found.low, found.high)]
    return max(1, math.ceil(100 * max(bounds, default=0))) / 100
