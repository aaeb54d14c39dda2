"""The numbers and words of a comparison, the same in tables and reports."""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerexp.comparison.comparison import NOT_SET, Comparison, Interval, Pair, Row
from flowerexp.runs.reader import EPOCHS, METRICS, SECONDS, Run, run_numbers

NUMBERS = tuple(f"{when} {name}" for when in EPOCHS for name in ("epoch", *METRICS)) + SECONDS
"""Those of a run."""
NAMES = {"acc": "accuracy", "recall": "recall", "precision": "precision", "f1": "F1"}
UNDEFINED = "-"
LONGEST_VALUE = 28
GENERIC = ("kind", "name")
"""Last parts of keys that say less than their group does: sampling.kind is `sampling`."""
SAME_DATA = "best epoch of each, chosen on the same data"
BEST = "highest mean F1 of the last epoch"
THIRDS = "head, medium, tail: macro recall of the classes in thirds by training count"
SPREAD = "±: standard deviation over the n runs of a row"
TIME = "times the baseline's, the first epoch apart"


@dataclass(frozen=True)
class Column:
    """One column of the table of rows, as text."""

    group: str
    """keys | best | last | seconds: what stays together where there is room."""
    header: str
    cells: tuple[str, ...]


def means(row: Row) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (n - 1) of NUMBERS over a row's counted runs.

    NaN where a run's is undefined, and the deviation of a single run.
    """
    runs = [run_numbers(run) for run in row.counted]
    found = {}
    for name in NUMBERS:
        values = np.array([run[name] for run in runs])
        found[name] = (float(values.mean()) if len(values) else math.nan,
                       float(values.std(ddof=1)) if len(values) > 1 else math.nan)
    return found


def best_row(comparison: Comparison) -> int | None:
    """The index of the finished row with the highest mean F1 of the last epoch.

    None where fewer than two are finished: it would be the best of nothing.
    """
    scores = {index: means(row)["last f1"][0] for index, row in enumerate(comparison.rows)
              if row.finished}
    scores = {index: score for index, score in scores.items() if not math.isnan(score)}
    return max(scores, key=lambda index: scores[index]) if len(scores) > 1 else None


# Words

def run_state(run: Run) -> str:
    """How far a run came, for example `interrupted at epoch 3 of 10`."""
    if run.state in ("done", "new", "unreadable"):
        return run.state
    if not run.history:
        return f"{run.state} before the first epoch"
    return f"{run.state} at epoch {len(run.history)}" + (f" of {run.epochs}" if run.epochs else "")


def state(row: Row) -> str:
    """How far the runs of a row came, for example `2 of 3 done`."""
    states = {run_state(run) for run in row.runs}
    return (states.pop() if len(states) == 1
            else f"{len(row.finished)} of {len(row.runs)} done")


def rerun(run: Run) -> str | None:
    """The command that goes on with a run; None where its config, and so the run, is lost."""
    if run.seed is None:
        return None
    return f"python -m flowerexp resume {shlex.quote(str(run.folder))}"


def one_line(text: object) -> str:
    """Text from a file without line breaks and characters that command a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def value_text(value: Any) -> str:
    """The value of a key as the command line writes it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else one_line(value)


def shortened(values: Sequence[str]) -> list[str]:
    """Long values cut in the middle, paths to their end, unless that made different ones equal."""
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
    """The last part of each key, or the whole where that is another's too."""
    def last_part(key: str) -> str:
        parts = key.split(".")
        return parts[-2] if parts[-1] in GENERIC and len(parts) > 1 else parts[-1]

    titles = {key: last_part(key) for key in keys}
    shown = list(titles.values())
    return {key: one_line(title if shown.count(title) == 1 else key)
            for key, title in titles.items()}


def shown_keys(rows: Sequence[Row]) -> list[str]:
    """The differing keys but the parameters of transforms that only say which rows have them."""
    def implied(key: str) -> bool:
        values = {value_text(row.differing[key]) for row in rows}
        return key.startswith("augmentation.") and len(values - {NOT_SET}) == 1

    return [key for key in (rows[0].differing if rows else ()) if not implied(key)]


def score(mean: float, deviation: float, digits: int = 3) -> str:
    if math.isnan(mean):
        return UNDEFINED
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ±{deviation:.{digits}f}")


def columns(comparison: Comparison) -> list[Column]:
    """The table of rows but for their names."""
    rows = comparison.rows
    found = []
    if any(len(row.counted) > 1 for row in rows):
        found.append(Column("keys", "n", tuple(str(len(row.counted)) for row in rows)))
    if any(state(row) != "done" for row in rows):
        found.append(Column("keys", "state", tuple(map(state, rows))))
    for key, title in key_titles(shown_keys(rows)).items():
        values = shortened([value_text(row.differing[key]) for row in rows])
        found.append(Column("keys", title, tuple(values)))
    numbers = [means(row) for row in rows]
    for when in reversed(EPOCHS):
        for name in ("epoch", *METRICS[1:]):  # losses of different kinds do not compare
            if (when, name) != ("last", "epoch"):
                digits = 3 * (name != "epoch")
                found.append(Column(when, f"{when} {name}", tuple(
                    score(*of[f"{when} {name}"], digits=digits) for of in numbers)))
    for name, header in zip(SECONDS, ("first epoch, s", "later epochs, s"), strict=True):
        found.append(Column("seconds", header, tuple(score(*of[name], digits=1)
                                                     for of in numbers)))
    return found


def legend(comparison: Comparison) -> list[str]:
    """What the columns of a table mean that do not say it."""
    several = any(len(row.counted) > 1 for row in comparison.rows)
    return ([THIRDS] if comparison.rows else []) + ([SPREAD] if several else [])


def interval(found: Interval) -> str:
    return f"[{found.low:+.3f}, {found.high:+.3f}]"


def verdict(found: Interval) -> str:
    return ("higher" if found.value > 0 else "lower") if found.clear else "no clear difference"


def pair_title(pair: Pair) -> str:
    return (f"{one_line(pair.name)} against {one_line(pair.baseline)}, "
            f"{'last epoch' if pair.epoch == 'last' else SAME_DATA}, "
            f"seed{'s' * (len(pair.seeds) > 1)} {', '.join(map(str, pair.seeds))}")


def pair_remarks(pair: Pair) -> list[str]:
    """What there is to say of a pair beside its intervals."""
    def of_classes(changes: Sequence[tuple[str, float]]) -> str:
        return ", ".join(f"{one_line(name)} {change:+.2f}" for name, change in changes)

    # Rounded down: 100 % is said of all images only.
    said = ["both predict the same class for every image" if pair.agreement == 1 else
            f"both predict the same class for {math.floor(100 * pair.agreement)} % of the images",
            f"McNemar's exact p: {p_text(pair.p_value)}" if pair.p_value is not None else "",
            f"time of an epoch: {pair.time_ratio:.2f} {TIME}" if pair.time_ratio else "",
            f"recall gained: {of_classes(pair.gained)}" if pair.gained else "",
            f"recall lost: {of_classes(pair.lost)}" if pair.lost else "",
            f"caution: {pair.caution}" if pair.caution else ""]
    return [sentence for sentence in said if sentence]


def p_text(value: float) -> str:
    return "under 0.001" if value < 0.001 else f"{value:.3f}"


def failure(run: Run) -> str:
    seed = "" if run.seed is None else f", seed {run.seed}"
    return (f"{one_line(run.name)}{seed}: {run_state(run)}"
            + (f": {one_line(run.error)}" if run.error else ""))
