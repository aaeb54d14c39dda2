"""Run folders to tables and statistics: what differs, and whether the difference is real.

Reads nothing but the folders' files. No TensorFlow here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flowerexp.comparison import significance
from flowerexp.config import nearest, one_of
from flowerexp.errors import UserError
from flowerexp.runs import store
from flowerexp.runs.reader import (
    EPOCHS,
    MEASURED,
    SECONDS,
    Paths,
    Run,
    chosen_epoch,
    find_folders,
    frozen,
    in_order,
    read_run,
    run_numbers,
    state_of,
)

__all__ = ["Comparison", "Interval", "Pair", "Row", "Run", "compare", "find_folders", "load",
           "read_run", "state_of"]

NOT_SET = "not set"
"""The value of a key that another row has."""
UNKNOWN = "unknown"
"""The value of what a run measures at its start, where it did not come so far."""
MOST_CLASSES = 5
"""Gained and lost ones of a pair."""
ROUNDING = 1e-12
"""What sums of the same scores in another order can differ by."""
CAUTIONS = {1: "one seed: the interval knows the chance of the images, not that of the seeds",
            2: "two seeds are too few to judge what a seed changes: run a third"}


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed."""

    name: str
    """Unique in a comparison."""
    runs: tuple[Run, ...]
    """By seed, one of each."""
    differing: dict[str, Any]
    """The keys in which the rows of the comparison differ, and this row's values; the texts
    NOT_SET and UNKNOWN where it has none."""

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.state == "done")

    @property
    def counted(self) -> tuple[Run, ...]:
        """The runs that its numbers are of: the finished, else those that have an epoch."""
        return self.finished or tuple(run for run in self.runs if run.history)

    @property
    def variant(self) -> frozenset[str]:
        return self.runs[0].variant


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > ROUNDING or self.high < -ROUNDING


@dataclass(frozen=True)
class Pair:
    """What a row changes against its baseline, on the same validation images."""

    name: str
    baseline: str
    epoch: str
    """last | best"""
    seeds: tuple[int, ...]
    """Those that both have."""
    differences: dict[str, Interval]
    """By metric: acc, recall, precision, f1 (a share, not per cent)."""
    agreement: float
    """Share of the images, over all seeds, for which both predict the same class."""
    p_value: float | None
    """McNemar's exact one, for a single run each."""
    gained: list[tuple[str, float]]
    """Classes whose recall rose most, with how much, at most five."""
    lost: list[tuple[str, float]]
    time_ratio: float | None
    """Mean seconds of an epoch over the baseline's, the first epoch apart."""
    caution: str | None
    """What the interval does not know, where there are under three seeds."""


@dataclass(frozen=True)
class Comparison:
    """Everything that is said of some run folders."""

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    failures: tuple[Run, ...]
    """Runs that are failed, interrupted or unreadable."""
    notes: tuple[str, ...]
    """Sentences: pairs that were refused and why, folders that hold the same run."""


def compare(paths: Paths, pairs: Sequence[str] = (), epoch: str = "last") -> Comparison:
    """Rows, pairs and failures of the run folders at or below some paths.

    Args:
        paths: run folders, or folders of them; one or several.
        pairs: `a:b`, a against b, names of rows, experiments or folders (a folder stands for its
            row); without any, the pairs that the configs name.
        epoch: last, or each run's best, which was chosen on the images it is judged by.

    Raises:
        UserError: for a path without runs, a pair of unknown or ambiguous names.
    """
    one_of("--epoch", epoch, EPOCHS)
    runs = [read_run(folder) for folder in find_folders(paths)]
    rows, superseded, notes = build_rows([run for run in runs if run.seed is not None])
    rows = baselines_first(rows)
    wanted, remarks = asked_pairs(rows, pairs) if pairs else named_pairs(rows)
    notes += remarks
    built = [build_pair(rows[row], rows[baseline], epoch)
             for row, baseline in dict.fromkeys(wanted)]
    found = tuple(pair for pair, _ in built if pair)
    notes += [sentence for _, sentences in built for sentence in sentences]
    failures = tuple(run for run in runs if run.state in ("failed", "interrupted", "unreadable")
                     and run.folder not in superseded)
    return Comparison(tuple(rows), found, failures, tuple(notes))


def load(paths: Paths) -> pd.DataFrame:
    """One row a run, in the order of the folders.

    The columns are `folder` (text), `name` (the experiment's, else the folder's), `seed`, `state`
    (new, running, interrupted, failed, done, unreadable), `error`, `epochs done`; then every key of
    the configs that can change a run's numbers by its dotted name, `replicas` and `data` (the
    fingerprint) included, missing where a run does not have it, lists as tuples; then, each for the
    `best` epoch (highest validation F1, the earliest on a tie) and the `last`: `best epoch` (from
    1), `best loss`, `acc`, `recall`, `precision`, `f1` on the validation set and `best head`,
    `medium`, `tail`, macro recall of the classes in thirds by training count; then `first epoch
    seconds` and `later epochs seconds` (mean of training). Undefined is NaN.

    Args:
        paths: run folders, or folders of them; one or several.

    Raises:
        UserError: for a path that does not exist or holds no run.
    """
    heads: list[dict[str, Any]] = []
    keys: list[dict[str, Any]] = []
    numbers = []
    for folder in find_folders(paths):
        run = read_run(folder)
        heads.append({"folder": str(folder), "name": run.name, "seed": run.seed,
                      "state": run.state, "error": run.error, "epochs done": len(run.history)})
        keys.append({key: frozen(value) for key, value in run.keys.items()})
        numbers.append(run_numbers(run))
    ordered = in_order(keys)
    table = pd.DataFrame([head | {key: of.get(key) for key in ordered} | scores
                          for head, of, scores in zip(heads, keys, numbers, strict=True)])
    return table.astype({"seed": "Int64"})


# Rows

def build_rows(runs: Sequence[Run]) -> tuple[list[Row], set[Path], list[str]]:
    """Rows in the order of the folders, folders that others replace, and what there is to note.

    A run that ended before it knew its replicas and data belongs to the first that does.
    """
    complete: dict[Any, dict[str, Any]] = {}
    for run in runs:
        if all(key in run.keys for key in MEASURED):
            complete.setdefault(frozen(without_measured(run.keys)), run.keys)
    groups: dict[Any, tuple[dict[str, Any], dict[int | None, Run]]] = {}
    superseded, notes = set(), []
    for run in runs:
        keys = run.keys
        if not all(key in keys for key in MEASURED):
            keys = complete.get(frozen(without_measured(keys)), {}) | keys
        _, of_seeds = groups.setdefault(frozen(keys), (keys, {}))
        before = of_seeds.setdefault(run.seed, run)
        if before is not run:
            kept, left = (run, before) if run.state == "done" != before.state else (before, run)
            of_seeds[run.seed] = kept
            superseded |= {left.folder} if kept.state == "done" else set()
            notes.append(f"{kept.folder} and {left.folder} hold the same run: the first is taken")
    different = differing_keys([keys for keys, _ in groups.values()])
    rows = [Row("", tuple(of_seeds[seed] for seed in sorted(of_seeds, key=lambda seed: seed or 0)),
                {key: keys.get(key, UNKNOWN if key in MEASURED else NOT_SET)
                 for key in different}) for keys, of_seeds in groups.values()]
    return [replace(row, name=name) for row, name in zip(rows, unique_names(rows), strict=True)
            ], superseded, notes


def baselines_first(rows: Sequence[Row]) -> list[Row]:
    """Rows after those that their configs hold them against, else in the order they have."""
    depths = dict.fromkeys((row.runs[0].name for row in rows), 0)
    for _ in depths:  # no chain is longer; configs that name one another in a ring end as well
        for row in rows:
            below = [depths[name] for name in row.runs[0].compared_with if name in depths]
            depths[row.runs[0].name] = max(below, default=-1) + 1
    return sorted(rows, key=lambda row: depths[row.runs[0].name])


def without_measured(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in MEASURED}


def differing_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The keys of which the rows have several values; what was not measured is no value."""
    return [key for key in in_order(rows)
            if len({frozen(row.get(key, NOT_SET)) for row in rows
                    if key in row or key not in MEASURED}) > 1]


def unique_names(rows: Sequence[Row]) -> list[str]:
    """The name of each row's runs; where several have one, with its overrides, else its folder."""
    plain = [row.runs[0].name for row in rows]
    names = list(plain)
    for index, row in enumerate(rows):
        same = [other for other, name in zip(rows, plain, strict=True) if name == plain[index]]
        own = row.variant - frozenset.intersection(*(other.variant for other in same))
        if own:
            names[index] += f" ({', '.join(sorted(own))})"
    for naming in (str, Path.resolve):
        names = [name if names.count(name) == 1 else str(naming(row.runs[0].folder))
                 for row, name in zip(rows, names, strict=True)]
    return names


# Pairs

def named_pairs(rows: Sequence[Row]) -> tuple[list[tuple[int, int]], list[str]]:
    """Indices of the rows whose configs name one another, and why some have no baseline.

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
                notes.append(f"{row.name} is to be held against {name}, which is here only with "
                             f"other values of {', '.join(keys)}: no pair")
    if absent:
        notes.append(f"no pair, for the baseline is not among these folders: {', '.join(absent)}")
    return wanted, notes


def partners(rows: Sequence[Row], index: int, others: Iterable[int]) -> list[int]:
    """Of other rows, those with the same overrides, and if there are any with the same data."""
    same = [other for other in others
            if other != index and rows[other].variant == rows[index].variant]
    data = [other for other in same if rows[other].differing.get("data")
            == rows[index].differing.get("data")]
    return data or same


def matches(rows: Sequence[Row], text: str, folders: bool = True) -> list[int]:
    """Indices of the rows of a name: the row's, else an experiment's, else a folder's."""
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
    """Indices of the rows of `a:b`; raises UserError for a text that does not name them."""
    wanted, notes = [], []
    for text in texts:
        left, right = split_pair(rows, text)
        if left == right and len(left) == 1:
            notes.append(f"--pairs {text}: both are {rows[left[0]].name}: no pair")
            continue
        found = [(one, other) for one in left for other in right]
        if len(found) > 1:
            found = [(one, other) for one in left for other in partners(rows, one, right)]
        if not found:
            raise UserError(f"--pairs {text} could be several pairs: name one of the rows "
                            + ", ".join(rows[index].name for index in (*left, *right)))
        wanted += found
    return wanted, notes


def split_pair(rows: Sequence[Row], text: str) -> tuple[list[int], list[int]]:
    """The rows of both names of a:b, of which a path may hold a colon itself."""
    splits = [(text[:place], text[place + 1:]) for place, sign in enumerate(text)
              if sign == ":" and text[:place] and text[place + 1:]]
    if not splits:
        raise UserError(f"--pairs {text} names no two runs: write --pairs a:b, where a is what "
                        "changed and b the baseline")
    for left, right in splits:
        sides = matches(rows, left), matches(rows, right)
        if all(sides):
            return sides
    unknown = next(name for name in splits[0] if not matches(rows, name))
    names = [row.name for row in rows]
    raise UserError(f"--pairs {text}: no run here is named '{unknown}', but {', '.join(names[:12])}"
                    f"{' and others' * (len(names) > 12)}{nearest(unknown, names)}")


def build_pair(row: Row, baseline: Row, epoch: str) -> tuple[Pair | None, list[str]]:
    """What a row changes against its baseline; None, and the reason, where that cannot be said."""
    title = f"{row.name} against {baseline.name}"
    ours, theirs = ({run.seed: run for run in side.finished if run.seed is not None}
                    for side in (row, baseline))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    runs = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    if reason := refusal(row, baseline, runs):
        return None, [f"{title}: no pair, for {reason}"]
    notes = []
    if left_out := sorted(ours.keys() ^ theirs.keys()):
        notes.append(f"{title}: only one side has finished seed{'s' * (len(left_out) > 1)} "
                     f"{', '.join(map(str, left_out))}, which the pair leaves out")
    labels = runs[0][0].labels
    ours_there, theirs_there = (
        np.stack([run.predictions[chosen_epoch(run, epoch) or 0] for run in side])
        for side in runs)
    found = significance.bootstrap(labels, ours_there, theirs_there)
    gained, lost = class_changes(runs[0][0], ours_there, theirs_there)
    seconds = [float(np.mean([run_numbers(run)[SECONDS[1]] for run in side])) for side in runs]
    defined = np.isfinite(seconds).all() and seconds[1] > 0
    return Pair(
        row.name, baseline.name, epoch, seeds,
        {name: Interval(*values) for name, values in found.items()},
        float((ours_there == theirs_there).mean()),
        significance.mcnemar(labels, ours_there[0], theirs_there[0])
        if len(seeds) == 1 else None,
        gained, lost, seconds[0] / seconds[1] if defined else None, CAUTIONS.get(len(seeds))), notes


def refusal(row: Row, baseline: Row, runs: tuple[list[Run], list[Run]]) -> str | None:
    """Why two rows are no pair; None where they are one, of `runs`, which have the same seeds."""
    for side in (row, baseline):
        if not side.finished:
            return f"{side.name} has no finished run"
    if not runs[0]:
        of_sides = [", ".join(str(run.seed) for run in side.finished) for side in (row, baseline)]
        return f"they have no finished seed in common ({of_sides[0]} and {of_sides[1]})"
    first = runs[0][0]
    for run in (*runs[0], *runs[1]):
        if not run.predictions.size:
            return f"{run.folder} has no predictions on the validation set"
        if not np.array_equal(run.labels, first.labels):
            return (f"{first.folder} and {run.folder} have different {store.VALID_LABELS}: they "
                    "were not judged by the same images")
    return None


def class_changes(run: Run, ours: significance.Integers, theirs: significance.Integers
                  ) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The classes whose recall rose most and fell most, with how much, the mean over the seeds.

    Args:
        run: that names the classes and has the labels.
        ours, theirs: int [seeds, images], class ids.
    """
    change = significance.recall_changes(run.labels, ours, theirs)
    names = run.class_names or tuple(map(str, range(len(change))))

    def most(sign: int) -> list[tuple[str, float]]:
        order = np.argsort(-sign * change, kind="stable")
        return [(names[index], float(change[index])) for index in order
                if sign * change[index] > 0][:MOST_CLASSES]

    return most(1), most(-1)
