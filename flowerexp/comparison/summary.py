"""The numbers and wording of a comparison, shared by its tables and its report."""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerexp.comparison.comparison import Comparison
from flowerexp.comparison.pairs import Interval, Pair
from flowerexp.comparison.rows import NOT_SET, Row
from flowerexp.runs.reader import EPOCHS, SECONDS, Run, number_names, run_numbers

TITLES = {"acc": "accuracy", "recall": "recall", "precision": "precision", "f1": "F1"}
UNDEFINED = "-"
LONGEST_VALUE = 28
GENERIC = ("kind", "name")
"""Last parts of keys that say less than their group: sampling.kind is shown as `sampling`."""
SAME_DATA = "best epoch of each run, selected on the same images"
BEST = "highest mean F1 at the last epoch"
THIRDS = "head, medium, tail: macro recall of the classes in thirds by training count"
SPREAD = "±: standard deviation over the n runs of a row"


@dataclass(frozen=True)
class Column:
    """One column of the table of rows."""

    group: str
    """keys | best | last | seconds: columns that stay together if there is room."""
    header: str
    cells: tuple[str, ...]
    values: tuple[float, ...] | None = None
    """The numbers behind the cells, NaN if undefined; None in a column of text."""


def all_numbers(comparison: Comparison) -> list[str]:
    """The names of the numbers of a comparison's runs, in the order of the columns."""
    return number_names(run for row in comparison.rows for run in row.counted)


def means(row: Row, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (n - 1) of these numbers over a row's counted runs.

    Both are NaN if a run does not define the number, the deviation also for a single run.
    """
    runs = [run_numbers(run) for run in row.counted]
    found = {}
    for name in names:
        values = np.array([run.get(name, math.nan) for run in runs])
        found[name] = (float(values.mean()) if len(values) else math.nan,
                       float(values.std(ddof=1)) if len(values) > 1 else math.nan)
    return found


def best_row(comparison: Comparison) -> int | None:
    """The index of the finished row with the highest mean F1 at the last epoch.

    None if fewer than two rows are finished, because there is nothing to choose from.
    """
    scores = {index: means(row, ["last f1"])["last f1"][0]
              for index, row in enumerate(comparison.rows) if row.finished}
    scores = {index: score for index, score in scores.items() if not math.isnan(score)}
    return max(scores, key=lambda index: scores[index]) if len(scores) > 1 else None


# Wording

def run_state(run: Run) -> str:
    """How far a run got, for example `interrupted at epoch 3 of 10`."""
    if run.state in ("done", "new", "unreadable"):
        return run.state
    if not run.history:
        return f"{run.state} before the first epoch"
    return f"{run.state} at epoch {len(run.history)}" + (f" of {run.epochs}" if run.epochs else "")


def state(row: Row) -> str:
    """How far the runs of a row got, for example `2 of 3 done`."""
    states = {run_state(run) for run in row.runs}
    return (states.pop() if len(states) == 1
            else f"{len(row.finished)} of {len(row.runs)} done")


def rerun(run: Run) -> str | None:
    """The command that resumes a run; None if its config cannot be read."""
    if run.seed is None:
        return None
    return f"python -m flowerexp resume {shlex.quote(str(run.folder))}"


def one_line(text: object) -> str:
    """Text from a file without line breaks and terminal control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def value_text(value: Any) -> str:
    """The value of a key as it is written on the command line."""
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else one_line(value)


def shortened(values: Sequence[str]) -> list[str]:
    """Long values cut in the middle, paths to their last part, unless that makes two of them equal.
    """
    def shorten(value: str) -> str:
        if len(value) <= LONGEST_VALUE:
            return value
        end = value.rpartition("/")[2]
        if "/" in value and 0 < len(end) <= LONGEST_VALUE - 2:
            return f"…/{end}"
        return f"{value[:LONGEST_VALUE // 2]}…{value[1 - LONGEST_VALUE // 2:]}"

    short = [shorten(value) for value in values]
    return short if len(set(short)) == len(set(values)) else list(values)


def key_titles(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each key, or the whole key if several share it."""
    def last_part(key: str) -> str:
        parts = key.split(".")
        return parts[-2] if parts[-1] in GENERIC and len(parts) > 1 else parts[-1]

    titles = {key: last_part(key) for key in keys}
    shown = list(titles.values())
    return {key: one_line(title if shown.count(title) == 1 else key)
            for key, title in titles.items()}


def shown_keys(rows: Sequence[Row]) -> list[str]:
    """The differing keys, without parameters of transforms that only tell which rows use them."""
    def implied(key: str) -> bool:
        values = {value_text(row.differing[key]) for row in rows}
        return key.startswith("augmentation.") and len(values - {NOT_SET}) == 1

    return [key for key in (rows[0].differing if rows else ()) if not implied(key)]


def score(mean: float, deviation: float, digits: int = 3) -> str:
    if math.isnan(mean):
        return UNDEFINED
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ±{deviation:.{digits}f}")


def columns(comparison: Comparison) -> list[Column]:
    """The table of rows without their names."""
    rows = comparison.rows
    found = []
    if any(len(row.counted) > 1 for row in rows):
        found.append(Column("keys", "n", tuple(str(len(row.counted)) for row in rows)))
    if any(state(row) != "done" for row in rows):
        found.append(Column("keys", "state", tuple(map(state, rows))))
    for key, title in key_titles(shown_keys(rows)).items():
        values = shortened([value_text(row.differing[key]) for row in rows])
        found.append(Column("keys", title, tuple(values)))
    names = all_numbers(comparison)
    numbers = [means(row, names) for row in rows]
    for when in reversed(EPOCHS):
        for name in names:
            # Losses of different kinds do not compare.
            if name.startswith(f"{when} ") and name not in ("last epoch", "last loss", "best loss"):
                digits = 3 * (name != "best epoch")
                found.append(number_column(when, name, [of[name] for of in numbers], digits))
    return found + [number_column("seconds", header, [of[name] for of in numbers], 1)
                    for name, header in zip(SECONDS, ("first epoch, s", "later epochs, s"),
                                            strict=True)]


def number_column(group: str, header: str, numbers: Sequence[tuple[float, float]], digits: int
                  ) -> Column:
    """A column of means and standard deviations."""
    return Column(group, header, tuple(score(*pair, digits=digits) for pair in numbers),
                  tuple(mean for mean, _ in numbers))


def legend(comparison: Comparison) -> list[str]:
    """Explanations of the columns whose headers are not enough."""
    several = any(len(row.counted) > 1 for row in comparison.rows)
    return ([THIRDS] if comparison.rows else []) + ([SPREAD] if several else [])


def metric_title(name: str) -> str:
    """The name of a metric in a sentence or header."""
    return TITLES.get(name, one_line(name))


def interval(found: Interval) -> str:
    """The bounds, or nothing if there is no interval."""
    return "" if math.isnan(found.low) else f"[{found.low:+.3f}, {found.high:+.3f}]"


def verdict(found: Interval) -> str:
    if math.isnan(found.low):
        return "no interval"
    return ("higher" if found.value > 0 else "lower") if found.clear else "no clear difference"


def pair_title(pair: Pair) -> str:
    return (f"{one_line(pair.name)} against {one_line(pair.baseline)}, "
            f"{'last epoch' if pair.epoch == 'last' else SAME_DATA}, "
            f"seed{'s' * (len(pair.seeds) > 1)} {', '.join(map(str, pair.seeds))}")


def pair_remarks(pair: Pair) -> list[str]:
    """The sentences that accompany a pair's intervals."""
    def of_classes(changes: Sequence[tuple[str, float]]) -> str:
        return ", ".join(f"{one_line(name)} {change:+.2f}" for name, change in changes)

    # Rounded down: only "every image" means all of them.
    share = f"{math.floor(100 * pair.agreement)}% of the images"
    remarks = ["both predict the same class for "
               + ("every image" if pair.agreement == 1 else share),
               "" if pair.p_value is None else f"McNemar's exact test: p {p_text(pair.p_value)}",
               f"time per epoch: {pair.time_ratio:.2f} times the baseline's, first epoch excluded"
               if pair.time_ratio else "",
               f"recall gained: {of_classes(pair.gained)}" if pair.gained else "",
               f"recall lost: {of_classes(pair.lost)}" if pair.lost else "",
               f"caution: {pair.caution}" if pair.caution else ""]
    return [remark for remark in remarks if remark]


def p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def failure(run: Run) -> str:
    seed = "" if run.seed is None else f", seed {run.seed}"
    return (f"{one_line(run.name)}{seed}: {run_state(run)}"
            + (f": {one_line(run.error)}" if run.error else ""))
