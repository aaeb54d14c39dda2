"""Compares a row with its baseline: which rows are paired, and how they differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowerexp.comparison import significance
from flowerexp.comparison.rows import Row
from flowerexp.errors import UserError
from flowerexp.hints import nearest
from flowerexp.runs import store
from flowerexp.runs.reader import (
    SECONDS,
    Run,
    chosen_epoch,
    epoch_numbers,
    metric_names,
    run_numbers,
)

MOST_CLASSES = 5
"""The number of gained and lost classes that a pair names."""
ROUNDING = 1e-12
"""The most by which sums of the same scores in another order differ."""
CAUTIONS = {1: "single seed: the interval covers image sampling, not seed variance",
            2: "two seeds are too few to estimate seed variance: run a third"}


@dataclass(frozen=True)
class Interval:
    """A difference and its 95% bootstrap interval; NaN bounds if there is no interval."""

    value: float
    low: float = np.nan
    high: float = np.nan

    @property
    def clear(self) -> bool:
        """Whether there is an interval and it excludes zero."""
        return self.low > ROUNDING or self.high < -ROUNDING


@dataclass(frozen=True)
class Pair:
    """The change from a baseline to a row, on the same validation images."""

    name: str
    baseline: str
    epoch: str
    """The compared epoch: last | best"""
    seeds: tuple[int, ...]
    """The seeds that both rows have finished."""
    differences: dict[str, Interval]
    """The difference by metric, as a fraction: acc, recall, precision and f1, then every metric of
    the histories that all runs of the pair define, without interval."""
    agreement: float
    """The fraction of images, over all seeds, with the same prediction from both."""
    p_value: float | None
    """McNemar's exact p-value if each side is a single run."""
    gained: list[tuple[str, float]]
    """The classes whose recall rose most, and by how much; at most MOST_CLASSES."""
    lost: list[tuple[str, float]]
    """The classes whose recall fell most."""
    time_ratio: float | None
    """Mean seconds per epoch divided by the baseline's, without the first epoch."""
    caution: str | None
    """The limit of the interval with fewer than three seeds."""


def named_pairs(rows: Sequence[Row]) -> tuple[list[tuple[int, int]], list[str]]:
    """Indices of rows and the baselines that their configs name, and notes on missing baselines.

    A baseline has the same overrides, so that in a sweep over models each model has its own.
    """
    wanted, notes, absent = [], [], []
    for index, row in enumerate(rows):
        for name in dict.fromkeys(name for run in row.runs for name in run.compared_with):
            named = matches(rows, name, folders=False)
            same = partners(rows, index, named)
            others = [rows[other] for other in named if other != index]
            wanted += [(index, other) for other in same]
            if not named:
                absent.append(f"{row.name} against {name}")
            elif others and not same:
                keys = sorted({text.lstrip("+~").partition("=")[0]
                               for text in row.variant ^ others[0].variant})
                notes.append(f"{row.name} is not compared with its baseline {name}, which is here "
                             f"only with other values of {', '.join(keys)}")
    if absent:
        notes.append("not compared because the baseline is not among these folders: "
                     + ", ".join(absent))
    return wanted, notes


def partners(rows: Sequence[Row], index: int, others: Iterable[int]) -> list[int]:
    """The other rows with the same overrides, preferably trained on the same data."""
    same = [other for other in others
            if other != index and rows[other].variant == rows[index].variant]
    data = [other for other in same if rows[other].differing.get("data")
            == rows[index].differing.get("data")]
    return data or same


def matches(rows: Sequence[Row], text: str, folders: bool = True) -> list[int]:
    """Indices of the rows with this name, or of this experiment, or else in this folder."""
    found = [index for index, row in enumerate(rows) if row.name == text and folders]
    found = found or [index for index, row in enumerate(rows)
                      if any(run.name == text for run in row.runs)]
    if found or not folders or not text:
        return found
    folder = Path(text).resolve()
    return [index for index, row in enumerate(rows)
            if any(run.folder.resolve() == folder or run.folder.name == text
                   for run in row.runs)]


def asked_pairs(rows: Sequence[Row], texts: Iterable[str]
                ) -> tuple[list[tuple[int, int]], list[str]]:
    """Indices of the rows of each `a:b`; raises UserError if a text does not name them."""
    wanted, notes = [], []
    for text in texts:
        left, right = split_pair(rows, text)
        if left == right and len(left) == 1:
            notes.append(f"pair {text}: both are {rows[left[0]].name}: not compared")
            continue
        found = [(one, other) for one in left for other in right]
        if len(found) > 1:
            found = [(one, other) for one in left for other in partners(rows, one, right)]
        if not found:
            raise UserError(f"pair {text} is ambiguous: name one of the rows "
                            + ", ".join(rows[index].name for index in (*left, *right)))
        wanted += found
    return wanted, notes


def split_pair(rows: Sequence[Row], text: str) -> tuple[list[int], list[int]]:
    """The rows of both names of `a:b`; a path may itself contain a colon."""
    splits = [(text[:place], text[place + 1:]) for place, sign in enumerate(text)
              if sign == ":" and text[:place] and text[place + 1:]]
    if not splits:
        raise UserError(f"pair {text} does not name two runs: write a:b, where a is the changed "
                        "run and b the baseline")
    for left, right in splits:
        sides = matches(rows, left), matches(rows, right)
        if all(sides):
            return sides
    unknown = next(name for name in splits[0] if not matches(rows, name))
    names = [row.name for row in rows]
    raise UserError(f"pair {text}: no run here is named '{unknown}', only {', '.join(names[:12])}"
                    f"{' and others' * (len(names) > 12)}{nearest(unknown, names)}")


def build_pair(row: Row, baseline: Row, epoch: str) -> tuple[Pair | None, list[str]]:
    """The change from a baseline to a row, and notes; None if they cannot be compared."""
    title = f"{row.name} against {baseline.name}"
    by_seed = [{run.seed: run for run in side.finished if run.seed is not None}
               for side in (row, baseline)]
    seeds = tuple(sorted(by_seed[0].keys() & by_seed[1].keys()))
    sides = [[side[seed] for seed in seeds] for side in by_seed]
    if reason := refusal(row, baseline, sides):
        return None, [f"{title}: not compared: {reason}"]
    notes = []
    if left_out := sorted(by_seed[0].keys() ^ by_seed[1].keys()):
        notes.append(f"{title}: seed{'s' * (len(left_out) > 1)} {', '.join(map(str, left_out))} "
                     "finished on one side only and left out")
    first = sides[0][0]
    candidate, reference = (np.stack([run.predictions[chosen_epoch(run, epoch) or 0]
                                      for run in side]) for side in sides)
    differences = {name: Interval(*values) for name, values in
                   significance.bootstrap(first.labels, candidate, reference).items()}
    for name, change in history_changes(sides, epoch).items():
        differences.setdefault(name, Interval(change))
    gained, lost = class_changes(first, candidate, reference)
    seconds = [float(np.mean([run_numbers(run)[SECONDS[1]] for run in side])) for side in sides]
    defined = np.isfinite(seconds).all() and seconds[1] > 0
    return Pair(
        row.name, baseline.name, epoch, seeds, differences,
        float((candidate == reference).mean()),
        significance.mcnemar(first.labels, candidate[0], reference[0]) if len(seeds) == 1 else None,
        gained, lost, seconds[0] / seconds[1] if defined else None, CAUTIONS.get(len(seeds))), notes


def refusal(row: Row, baseline: Row, sides: Sequence[Sequence[Run]]) -> str | None:
    """Why two rows cannot be compared, or None; `sides` are their runs of the same seeds."""
    for side in (row, baseline):
        if not side.finished:
            return f"{side.name} has no finished run"
    if not sides[0]:
        seeds = [", ".join(str(run.seed) for run in side.finished) for side in (row, baseline)]
        return f"they have no finished seed in common ({seeds[0]} and {seeds[1]})"
    first = sides[0][0]
    for run in (*sides[0], *sides[1]):
        if not run.predictions.size:
            return f"{run.folder} has no predictions for the validation set"
        if not np.array_equal(run.labels, first.labels):
            return (f"{first.folder} and {run.folder} have different {store.VALID_LABELS}: they "
                    "were not validated on the same images")
    return None


def history_changes(sides: Sequence[Sequence[Run]], epoch: str) -> dict[str, float]:
    """The change of every validation metric that the histories of all runs define."""
    numbers = [[epoch_numbers(run, chosen_epoch(run, epoch) or 0) for run in side]
               for side in sides]
    changes = {}
    for name in metric_names([*sides[0], *sides[1]]):
        candidate, baseline = (np.mean([run.get(name, np.nan) for run in side])
                               for side in numbers)
        changes[name] = float(candidate - baseline)
    return {name: change for name, change in changes.items() if np.isfinite(change)}


def class_changes(run: Run, candidate: significance.Integers, baseline: significance.Integers
                  ) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The classes whose recall rose most and fell most, and by how much, averaged over the seeds.

    Args:
        run: the source of the labels and class names.
        candidate, baseline: int [seeds, images], predicted class ids.
    """
    change = significance.recall_changes(run.labels, candidate, baseline)
    names = run.class_names or tuple(map(str, range(len(change))))

    def most(sign: int) -> list[tuple[str, float]]:
        order = np.argsort(-sign * change, kind="stable")
        return [(names[index], float(change[index])) for index in order
                if sign * change[index] > 0][:MOST_CLASSES]

    return most(1), most(-1)
