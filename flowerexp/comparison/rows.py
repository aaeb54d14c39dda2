"""Runs that differ only in their seed, grouped into the rows of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowerexp.runs.reader import MEASURED, Run, frozen, in_order

NOT_SET = "not set"
"""The value of a key that only other rows have."""
UNKNOWN = "unknown"
"""The value of a measured key of runs that ended before it was measured."""


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed."""

    name: str
    """A name that is unique in the comparison."""
    runs: tuple[Run, ...]
    """One run of each seed, by seed."""
    differing: dict[str, Any]
    """This row's values of the keys in which the rows of the comparison differ; NOT_SET or UNKNOWN
    if it has none."""

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.state == "done")

    @property
    def counted(self) -> tuple[Run, ...]:
        """The runs behind the row's numbers: the finished ones, else those with an epoch."""
        return self.finished or tuple(run for run in self.runs if run.history)

    @property
    def variant(self) -> frozenset[str]:
        return self.runs[0].variant


def build_rows(runs: Sequence[Run]) -> tuple[list[Row], set[Path], list[str]]:
    """Rows in the order of the folders, superseded folders, and notes on duplicates.

    A run that ended before its replicas and data were measured joins the first row that fits.
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
        _, by_seed = groups.setdefault(frozen(keys), (keys, {}))
        earlier = by_seed.setdefault(run.seed, run)
        if earlier is not run:
            kept, dropped = ((run, earlier) if run.state == "done" != earlier.state
                             else (earlier, run))
            by_seed[run.seed] = kept
            superseded |= {dropped.folder} if kept.state == "done" else set()
            notes.append(f"{kept.folder} and {dropped.folder} hold the same run: "
                         "only the first is used")
    different = differing_keys([keys for keys, _ in groups.values()])
    rows = [Row("", tuple(by_seed[seed] for seed in sorted(by_seed, key=lambda seed: seed or 0)),
                {key: keys.get(key, UNKNOWN if key in MEASURED else NOT_SET)
                 for key in different}) for keys, by_seed in groups.values()]
    return [replace(row, name=name) for row, name in zip(rows, unique_names(rows), strict=True)
            ], superseded, notes


def baselines_first(rows: Sequence[Row]) -> list[Row]:
    """Rows after the baselines that their configs name, otherwise in the given order."""
    depths = dict.fromkeys((row.runs[0].name for row in rows), 0)
    for _ in depths:  # no chain is longer; configs that name each other in a ring end as well
        for row in rows:
            below = [depths[name] for name in row.runs[0].compared_with if name in depths]
            depths[row.runs[0].name] = max(below, default=-1) + 1
    return sorted(rows, key=lambda row: depths[row.runs[0].name])


def without_measured(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in MEASURED}


def differing_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The keys with several values among the rows; a missing measurement is not a value."""
    return [key for key in in_order(rows)
            if len({frozen(row.get(key, NOT_SET)) for row in rows
                    if key in row or key not in MEASURED}) > 1]


def unique_names(rows: Sequence[Row]) -> list[str]:
    """The name of each row's runs; with its overrides, or as its folder, if rows share one."""
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
