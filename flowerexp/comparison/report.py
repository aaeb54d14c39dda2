"""A comparison as one self-contained HTML page, and its pictures as PNG files."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flowerexp import composition, metrics
from flowerexp.comparison import tables, wording
from flowerexp.comparison.comparison import Comparison
from flowerexp.comparison.pairs import Pair
from flowerexp.comparison.rows import Row
from flowerexp.metrics import Counts, Floats
from flowerexp.plots import classes, confusion, history, page
from flowerexp.plots.page import Picture
from flowerexp.runs.log import RunLogger
from flowerexp.runs.reader import Run, chosen_epoch

PAGE = "report.html"
TEMPLATE = "comparison/report.html.jinja"


def write(comparison: Comparison, path: Path, logger: RunLogger | None = None,
          files: bool = False) -> Path:
    """Writes the page, and with `files` its pictures next to it; the arguments are those of
    `page.write`."""
    table = comparison.table
    return page.write(
        path, TEMPLATE, all_pictures(comparison), logger, files, comparison=comparison,
        numbers=[column for column in tables.columns(comparison, table) if column.values],
        table=table.to_dict("records"), wording=wording, limit=axis_limit(comparison),
        common=most_common_values(comparison.rows), anchor=anchor, signed=signed)


def all_pictures(comparison: Comparison) -> dict[str, list[Picture]]:
    """The pictures of every section of the page by its anchor; none for a row without epochs."""
    rows = {row.name: row for row in comparison.rows}
    sections = {}
    for number, pair in enumerate(comparison.pairs):
        section = anchor("pair", number)
        sections[section] = pictures_of_pair(pair, rows, section)
    for number, row in enumerate(comparison.rows):
        section = anchor("row", number)
        sections[section] = pictures_of_row(row, section)
    return sections


def anchor(kind: str, number: int) -> str:
    """The id of a section: a number, because a name from a file can be any text."""
    return f"{kind}-{number + 1:02d}"


def picture(section: str, name: str, kind: str, caption: str, draw: Callable[[], Figure]
            ) -> Picture:
    return Picture(f"{section}-{composition.path_safe(name, 60)}-{kind}.png", caption, draw)


def pictures_of_row(row: Row, section: str) -> list[Picture]:
    pictures = []
    if trained := [run.history for run in row.counted if run.history]:
        pictures.append(picture(section, row.name, "history", "Metrics by epoch",
                                lambda: history.draw(trained)))
    predicted = [run for run in row.counted if run.predictions.size]
    names, counts = names_of(predicted), counts_of(row)
    if predicted and len(names) <= confusion.MOST_CLASSES:
        pictures.append(picture(
            section, row.name, "confusion", "Confusion matrix, last epoch",
            lambda: confusion.draw(matrices(predicted, "last", len(names)).sum(axis=0), names,
                                   len(predicted))))
    if predicted and len(counts) == len(names):
        several = f", mean of {len(predicted)} runs" if len(predicted) > 1 else ""
        pictures.append(picture(
            section, row.name, "classes",
            f"F1 of each class against its training images, last epoch{several}",
            lambda: classes.draw(counts, class_f1(predicted, "last", len(counts)), names)))
    return pictures


def pictures_of_pair(pair: Pair, rows: dict[str, Row], section: str) -> list[Picture]:
    runs, baseline = ([run for run in rows[name].finished if run.seed in pair.seeds]
                      for name in (pair.name, pair.baseline))
    title = f"{pair.name}-against-{pair.baseline}"
    pictures = [picture(
        section, title, "history", f"Metrics by epoch; dashed: {pair.baseline}",
        lambda: history.draw([run.history for run in runs], [run.history for run in baseline],
                             pair.name, pair.baseline))]
    names, counts = names_of(runs), counts_of(rows[pair.name])
    if len(names) == len(names_of(baseline)) == len(counts):
        pictures.append(picture(
            section, title, "classes",
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


def counts_of(row: Row) -> Counts:
    """int64 [classes], training images; empty if no folder has them."""
    return max((run.class_counts for run in row.runs), key=len)


def matrices(runs: Sequence[Run], epoch: str, classes: int) -> Counts:
    """int64 [runs, classes, classes], confusion at the best or last epoch; rows are labels."""
    return np.stack([metrics.confusion_matrix(
        run.labels, run.predictions[chosen_epoch(run, epoch) or 0], classes) for run in runs])


def class_f1(runs: Sequence[Run], epoch: str, classes: int) -> Floats:
    """float64 [classes], the F1 of every class averaged over the runs, NaN for an absent class."""
    return pd.DataFrame([metrics.class_scores(matrix)["f1"]
                         for matrix in matrices(runs, epoch, classes)]).mean().to_numpy()


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def most_common_values(rows: Sequence[Row]) -> dict[str, str]:
    """The most common value of each key that at least two rows share."""
    common = {key: Counter(wording.value_text(row.differing[key]) for row in rows).most_common(1)[0]
              for key in (rows[0].differing if rows else ())}
    return {key: value for key, (value, times) in common.items() if times > 1}


def axis_limit(comparison: Comparison) -> float:
    """The end of the axis shared by all intervals, in hundredths."""
    bounds = comparison.differences[["difference", "low", "high"]].dropna().abs()
    return max(1, math.ceil(100 * float(bounds.to_numpy(float).max(initial=0)))) / 100
