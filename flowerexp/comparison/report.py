"""A comparison as one HTML file that opens without a network, and its pictures as PNG files.

Everything that comes from files is escaped. No TensorFlow here.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowerexp import composition, metrics
from flowerexp.comparison import summary, tables
from flowerexp.comparison.comparison import Comparison, Pair, Row
from flowerexp.plots import curves, page
from flowerexp.plots.page import Picture
from flowerexp.runs.reader import SECONDS, Run, chosen_epoch

PAGE = "report.html"
TEMPLATE = "comparison/report.html.jinja"
SOFTWARE = "flowerexp report"
FEW = 15
"""Up to so many classes a confusion matrix can be read at half the page's width."""


@dataclass(frozen=True)
class Column:
    """One column of the page's table of rows."""

    header: str
    cells: tuple[str, ...]
    values: tuple[float | None, ...] | None
    """What numbers are sorted by, None where undefined; no numbers in a column without it."""


def count(comparison: Comparison) -> int:
    """How many pictures `write` draws."""
    return sum(map(len, all_pictures(comparison).values()))


def write(comparison: Comparison, folder: Path, advance: Callable[[], None] | None = None) -> Path:
    """Writes the page and its pictures into a folder, each whole or not at all.

    Pictures there of an earlier comparison are removed; other files stay.

    Args:
        advance: is called after every picture.

    Returns:
        The path of the page.
    """
    return page.write(
        folder / PAGE, TEMPLATE, all_pictures(comparison), SOFTWARE, advance, (anchor, signed),
        comparison=comparison, columns=columns(comparison) if comparison.rows else [],
        best=summary.best_row(comparison), summary=summary, limit=limit(comparison.pairs),
        usual=usual(comparison.rows))


# Pictures

def all_pictures(comparison: Comparison) -> dict[str, list[Picture]]:
    """The pictures of every section of the page, by its anchor; none where nothing was trained."""
    rows = {row.name: row for row in comparison.rows}
    sections = {anchor("pair", number): pictures_of_pair(pair, rows, anchor("pair", number))
                for number, pair in enumerate(comparison.pairs)}
    return sections | {anchor("row", number): pictures_of_row(row, anchor("row", number))
                       for number, row in enumerate(comparison.rows)}


def anchor(kind: str, number: int) -> str:
    """The id of a section: a number, for a name from a file could be any text."""
    return f"{kind}-{number + 1:02d}"


def file_name(prefix: str, name: str, kind: str) -> str:
    return f"{prefix}-{composition.path_safe(name, 60)}-{kind}.png"


def pictures_of_row(row: Row, prefix: str) -> list[Picture]:
    runs = row.counted
    pictures = []
    if trained := [run.history for run in runs if run.history]:
        pictures.append(Picture(file_name(prefix, row.name, "history"), "Metrics by epoch",
                                lambda: curves.history(trained)))
    predicted = [run for run in runs if run.predictions.size]
    names, counts = names_of(predicted), counts_of(row)
    if predicted and len(names) <= curves.MOST_CLASSES:
        pictures.append(Picture(
            file_name(prefix, row.name, "confusion"), "Confusion matrix, last epoch",
            lambda: curves.confusion(confusion(predicted, len(names)), names, len(predicted)),
            wide=len(names) > FEW))
    if predicted and len(counts) == len(names):
        pictures.append(Picture(
            file_name(prefix, row.name, "classes"),
            "Every class's F1 against its training images, last epoch"
            + (f", mean of {len(predicted)} runs" if len(predicted) > 1 else ""),
            lambda: curves.class_scores(counts, class_f1(predicted, "last", len(counts)), names),
            wide=False))
    return pictures


def pictures_of_pair(pair: Pair, rows: dict[str, Row], prefix: str) -> list[Picture]:
    runs, baseline = ([run for run in rows[name].finished if run.seed in pair.seeds]
                      for name in (pair.name, pair.baseline))
    title = f"{pair.name}-against-{pair.baseline}"
    pictures = [Picture(
        file_name(prefix, title, "history"), f"Metrics by epoch; dashed: {pair.baseline}",
        lambda: curves.history([run.history for run in runs], [run.history for run in baseline],
                              pair.name, pair.baseline))]
    names, counts = names_of(runs), counts_of(rows[pair.name])
    if len(names) == len(names_of(baseline)) == len(counts):
        pictures.append(Picture(
            file_name(prefix, title, "classes"),
            f"Change of every class's F1 against its training images, {pair.epoch} epoch",
            lambda: curves.class_scores(
                # Sums of the same numbers in another order are no change.
                counts, (class_f1(runs, pair.epoch, len(counts))
                         - class_f1(baseline, pair.epoch, len(counts))).round(12),
                names, changes=True),
            wide=False))
    return pictures


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for every class, its number where no folder tells."""
    names = max((run.class_names for run in runs), key=len, default=())
    most = max((1 + max(run.labels.max(), run.predictions.max()) for run in runs), default=0)
    return [*names, *map(str, range(len(names), most))]


def counts_of(row: Row) -> npt.NDArray[np.int64]:
    """int64 [classes], training images; empty where no folder tells."""
    return max((run.class_counts for run in row.runs), key=len)


def confusion(runs: Sequence[Run], num_classes: int) -> npt.NDArray[np.int64]:
    """int64 [classes, classes] of the last epoch, the sum over the runs; rows are labels."""
    matrices = [metrics.confusion_matrix(run.labels, run.predictions[-1], num_classes)
                for run in runs]
    total: npt.NDArray[np.int64] = np.sum(matrices, axis=0)
    return total


def class_f1(runs: Sequence[Run], epoch: str, num_classes: int) -> npt.NDArray[np.float64]:
    """The mean over the runs of every class's F1.

    Args:
        epoch: last | best

    Returns:
        float64 [classes], NaN for a class that no label or prediction has.
    """
    found = [metrics.f1_where_present(metrics.confusion_matrix(
        run.labels, run.predictions[chosen_epoch(run, epoch) or 0], num_classes)) for run in runs]
    masked = np.ma.masked_invalid(found).mean(axis=0)
    means: npt.NDArray[np.float64] = masked.filled(np.nan)
    return means


# The page

def columns(comparison: Comparison) -> list[Column]:
    """The columns of the tables but for the keys, which have a table of their own."""
    frame = tables.frame(comparison)

    def column(header: str, cells: Sequence[str], name: str) -> Column:
        return Column(header, tuple(cells), tuple(None if pd.isna(value) else float(value)
                                                  for value in frame[name]))

    seconds = iter(SECONDS)
    return [column("n", [str(runs) for runs in frame["n"]], "n"),
            Column("state", tuple(frame["state"]), None),
            *(column(of.header, of.cells, next(seconds) if of.group == "seconds" else of.header)
              for of in summary.columns(comparison) if of.group != "keys")]


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def usual(rows: Sequence[Row]) -> dict[str, str]:
    """The value that most rows have, by key, where two rows at least share one."""
    common = {key: Counter(summary.value_text(row.differing[key]) for row in rows).most_common(1)[0]
              for key in (rows[0].differing if rows else ())}
    return {key: value for key, (value, times) in common.items() if times > 1}


def limit(pairs: Sequence[Pair]) -> float:
    """The end of the scale that all intervals are drawn on, in hundredths."""
    bounds = [abs(bound) for pair in pairs for interval in pair.differences.values()
              for bound in (interval.value, interval.low, interval.high)]
    return max(1, math.ceil(100 * max(bounds, default=0))) / 100
