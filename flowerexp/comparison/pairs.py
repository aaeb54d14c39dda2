"""Compares a row with its baseline: which rows are paired, and how they differ."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flowerexp.comparison import significance
from flowerexp.comparison.alignment import Predicted, align
from flowerexp.comparison.rows import Row
from flowerexp.errors import UserError
from flowerexp.hints import nearest
from flowerexp.runs.reader import SECONDS, Run, chosen_epoch, metric_names, run_numbers

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
    """The difference by metric, as a fraction: acc, recall, precision and f1, the same on each data
    set that all runs were evaluated on (`test acc`), then every metric of the histories that all
    runs of the pair define, without interval."""
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


def named_pairs(rows: Sequence[Row]) -> tuple[list[tuple[Row, Row]], list[str]]:
    """Rows with the baselines that their configs name, and notes on missing baselines.

    A baseline has the same overrides, so that in a sweep over models each model has its own.
    """
    wanted, notes, absent = [], [], []
    for row in rows:
        for name in dict.fromkeys(name for run in row.runs for name in run.compared_with):
            named = [other for other in rows if name in other.experiments]
            others = [other for other in named if other is not row]
            same = partners(row, others)
            wanted += [(row, other) for other in same]
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


def partners(row: Row, others: Iterable[Row]) -> list[Row]:
    """The others with the same overrides, preferably trained on the same data."""
    same = [other for other in others if other is not row and other.variant == row.variant]
    data = [other for other in same if other.differing.get("data") == row.differing.get("data")]
    return data or same


def matches(rows: Sequence[Row], text: str) -> list[Row]:
    """The rows with this name, or else of this experiment, or else with a run in this folder."""
    folder = Path(text).resolve()
    return ([row for row in rows if row.name == text]
            or [row for row in rows if text in row.experiments]
            or [row for row in rows if any(run.folder.resolve() == folder or run.folder.name == text
                                           for run in row.runs)])


def asked_pairs(rows: Sequence[Row], texts: Iterable[str]
                ) -> tuple[list[tuple[Row, Row]], list[str]]:
    """The rows of every `a:b` or `a:b,c:d`, and notes; raises UserError for unknown names."""
    wanted, notes = [], []
    for text, left, right in (pair for each in texts for pair in split_pairs(rows, each)):
        if left == right and len(left) == 1:
            notes.append(f"pair {text}: both are {left[0].name}: not compared")
            continue
        found = [(one, other) for one in left for other in right]
        if len(found) > 1:
            found = [(one, other) for one in left for other in partners(one, right)]
        if not found:
            raise UserError(f"pair {text} is ambiguous: name one of the rows "
                            + ", ".join(row.name for row in (*left, *right)))
        wanted += found
    return wanted, notes


def split_pairs(rows: Sequence[Row], text: str) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """Each pair of `a:b` or `a:b,c:d` with the rows of both sides.

    Names may contain commas and colons: the longest reading whose names are known is taken.
    """
    parts = text.split(",")
    while parts:
        readings = readings_of(parts)
        if not readings:
            raise UserError(f"pair {','.join(parts)} does not name two runs: write a:b, where a is "
                            "the changed run and b the baseline")
        for left, right in readings:
            sides = matches(rows, left), matches(rows, right)
            if all(sides):
                break
        else:
            unknown = right if sides[0] else left
            names = [row.name for row in rows]
            raise UserError(f"pair {left}:{right}: no run here is named '{unknown}', only "
                            f"{', '.join(names[:12])}{' and others' * (len(names) > 12)}"
                            f"{nearest(unknown, names)}")
        yield f"{left}:{right}", *sides
        parts = parts[1 + left.count(",") + right.count(","):]


def readings_of(parts: Sequence[str]) -> list[tuple[str, str]]:
    """The readings of the first of several pairs, which were split at their commas."""
    found = []
    for end in range(len(parts), 0, -1):
        pair = ",".join(parts[:end])
        found += [(pair[:place], pair[place + 1:]) for place in range(len(pair) - 2, 0, -1)
                  if pair[place] == ":"]
    return found


def build_pair(row: Row, baseline: Row, epoch: str, common: bool, titles: Mapping[str, str]
               ) -> tuple[Pair | None, list[str]]:
    """The change from a baseline to a row, and notes; None if they cannot be compared.

    Args:
        common: see `alignment.align`.
        titles: see `evaluations.titles`.
    """
    title = f"{row.name} against {baseline.name}"
    seeds, folds, sides, notes = common_runs(row, baseline)
    try:
        check_finished(row, baseline, sides)
        pooled = [side[start:start + len(folds)] for side in sides
                  for start in range(0, len(side), len(folds))]
        found = align([pool([predicted(run, epoch) for run in runs]) for runs in pooled], common)
    except UserError as error:
        return None, [f"{title}: not compared: {error}"]
    notes = [f"{title}: {note}" for note in (*found.notes, *notes)]
    labels, (candidate, reference) = found.labels, np.split(found.predictions, 2)
    numbers = [pd.DataFrame([run_numbers(run) for run in side]).mean(skipna=False)
               for side in sides]
    changes = (numbers[0] - numbers[1]).dropna()
    differences = {name: Interval(*values) for name, values in
                   significance.bootstrap(labels, candidate, reference).items()}
    for data, judged in held_out([*sides[0], *sides[1]], titles).items():
        try:
            other = align(judged, common)
        except UserError as error:  # their classes differ
            notes.append(f"{title}: not compared on {data}: {error}")
            continue
        one, another = np.split(other.predictions, 2)
        scores = significance.bootstrap(other.labels, one, another)
        differences |= {f"{data} {name}": Interval(*values) for name, values in scores.items()}
    for name in metric_names([*sides[0], *sides[1]]):
        if f"{epoch} {name}" in changes:
            differences.setdefault(name, Interval(changes[f"{epoch} {name}"]))
    recalls = pd.Series(significance.recall_changes(labels, candidate, reference))
    recalls.index = pd.Index(found.names[:len(recalls)] or recalls.index.map(str))
    gained = recalls[recalls > 0].nlargest(MOST_CLASSES).items()
    lost = recalls[recalls < 0].nsmallest(MOST_CLASSES).items()
    seconds, baseline_seconds = (side[SECONDS[1]] for side in numbers)
    return Pair(
        row.name, baseline.name, epoch, seeds, differences,
        float((candidate == reference).mean()),
        significance.mcnemar(labels, candidate[0], reference[0]) if len(seeds) == 1 else None,
        [(str(name), change) for name, change in gained],
        [(str(name), change) for name, change in lost],
        seconds / baseline_seconds if baseline_seconds > 0 and seconds >= 0 else None,
        CAUTIONS.get(len(seeds))), notes


def common_runs(row: Row, baseline: Row
                ) -> tuple[tuple[int, ...], list[int], list[list[Run]], list[str]]:
    """The seeds and folds that both sides have finished, their runs on each side, by seed and then
    fold, and notes on what is left out.
    """
    members = [{run.member: run for run in side.finished if run.seed is not None}
               for side in (row, baseline)]
    both = members[0].keys() & members[1].keys()
    seeds = tuple(sorted({seed for seed, _ in both}))
    folds = [fold for fold in sorted({fold for _, fold in both})
             if all((seed, fold) in both for seed in seeds)]
    sides = [[side[seed, fold] for seed in seeds for fold in folds] for side in members]
    notes = []
    if len(folds) > 1:
        notes.append(f"on the validation images of {len(folds)} folds together")
    if {fold for side in members for _, fold in side} - {*folds}:
        notes.append(f"only folds {', '.join(map(str, folds))} finished for every seed on both "
                     "sides")
    if left_out := sorted({seed for seed, _ in members[0]} ^ {seed for seed, _ in members[1]}):
        notes.append(f"seed{'s' * (len(left_out) > 1)} {', '.join(map(str, left_out))} finished on "
                     "one side only and left out")
    return seeds, folds, sides, notes


def pool(folds: Sequence[Predicted]) -> Predicted:
    """The predictions of the folds of one seed for all of their validation images."""
    if len(folds) == 1:
        return folds[0]
    return Predicted(folds[0].where, tuple(each for fold in folds for each in fold.ids),
                     np.concatenate([fold.labels for fold in folds]),
                     np.concatenate([fold.predictions for fold in folds]), folds[0].names)


def check_finished(row: Row, baseline: Row, sides: Sequence[Sequence[Run]]) -> None:
    """Raises UserError if two rows cannot be compared; `sides` are their runs of the same seeds."""
    for side in (row, baseline):
        if not side.finished:
            raise UserError(f"{side.name} has no finished run")
    if not sides[0]:
        seeds = [", ".join(dict.fromkeys(str(run.seed) for run in side.finished))
                 for side in (row, baseline)]
        raise UserError(f"they have no finished seed in common ({seeds[0]} and {seeds[1]})")
    for run in (*sides[0], *sides[1]):
        if not run.predictions.size:
            raise UserError(f"{run.folder} has no predictions for the validation set")


def held_out(runs: Sequence[Run], titles: Mapping[str, str]) -> dict[str, list[Predicted]]:
    """The evaluations of all runs on each data set that all were evaluated on, by its title."""
    found: dict[str, list[Predicted]] = {}
    for run in runs:
        for each in run.evaluations:
            found.setdefault(titles[each.fingerprint], []).append(Predicted(
                each.data, each.ids, np.array(each.labels), np.array(each.predictions),
                each.names))
    return {title: judged for title, judged in found.items() if len(judged) == len(runs)}


def predicted(run: Run, epoch: str) -> Predicted:
    """What a run predicted for its validation images, at its last or best epoch."""
    return Predicted(str(run.folder), run.ids, run.labels,
                     run.predictions[chosen_epoch(run, epoch) or 0], run.class_names)
