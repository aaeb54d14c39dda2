"""The wording of a comparison, shared by its tables, the terminal and the report."""

import math
import os
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from flowerexp.comparison.pairs import Interval, Pair
from flowerexp.comparison.rows import NOT_SET, Row
from flowerexp.errors import one_line
from flowerexp.runs.reader import FOLD, Run

TITLES = {"acc": "accuracy", "recall": "recall", "precision": "precision", "f1": "F1"}
UNDEFINED = "-"
LONGEST_VALUE = 28
GENERIC = ("kind", "name")
"""Last parts of keys that say less than their group: sampling.kind is shown as `sampling`."""
SAME_DATA = "best epoch of each run, selected on the same images"
BEST = "highest mean F1 at the last epoch"
THIRDS = "head, medium, tail: macro recall of the classes in thirds by training count"
SPREAD = "±: standard deviation over the n runs of a row"


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


def failure(run: Run) -> str:
    seed = "" if run.seed is None else f", seed {run.seed}"
    seed += f", fold {run.keys[FOLD]}" if FOLD in run.keys else ""
    return (f"{one_line(run.name)}{seed}: {run_state(run)}"
            + (f": {one_line(run.error)}" if run.error else ""))


def rerun(run: Run) -> str | None:
    """The command that resumes a run; None if its config cannot be read."""
    if run.seed is None:
        return None
    return f"python -m flowerexp resume {shell_quote(str(run.folder))}"


def shell_quote(text: str) -> str:
    """The text quoted for a shell, as in $'a\\x1b' if a terminal would obey a part of it."""
    def escape(sign: str) -> str:
        if sign.isprintable() and sign not in r"\'":
            return sign
        return "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))

    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(escape, text))}'"


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


def score(mean: float, deviation: float, digits: int) -> str:
    if math.isnan(mean):
        return UNDEFINED
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ±{deviation:.{digits}f}")


def metric_title(name: str) -> str:
    """The name of a metric in a sentence or header."""
    before, _, last = name.rpartition(" ")
    return f"{one_line(before)} {TITLES.get(last, one_line(last))}".strip()


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
    # Rounded down: only "every image" means all of them.
    share = f"{math.floor(100 * pair.agreement)}% of the images"
    remarks = ["both predict the same class for "
               + ("every image" if pair.agreement == 1 else share)]
    if pair.p_value is not None:
        p = "< 0.001" if pair.p_value < 0.001 else f"= {pair.p_value:.3f}"
        remarks.append(f"McNemar's exact test: p {p}")
    if pair.time_ratio:
        remarks.append(f"time per epoch: {pair.time_ratio:.2f} times the baseline's, first epoch "
                       "excluded")
    for word, changes in (("gained", pair.gained), ("lost", pair.lost)):
        if changes:
            classes = [f"{one_line(name)} {change:+.2f}" for name, change in changes]
            remarks.append(f"recall {word}: {', '.join(classes)}")
    return remarks + ([f"caution: {pair.caution}"] if pair.caution else [])
