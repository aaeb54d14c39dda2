"""Runs that differ only in their seed and fold, grouped into the rows of a comparison."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerexp.runs.reader import FOLD, MEASURED, Run, frozen, in_order, named_after_folder

NOT_SET = "not set"
"""The value of a key that only other rows have."""
UNKNOWN = "unknown"
"""The value of a measured key of runs that ended before it was measured."""


@dataclass(frozen=True, eq=False)
class Row:
    """Runs that differ only in their seed and fold."""

    name: str
    """A name that is unique in the comparison."""
    runs: tuple[Run, ...]
    """One run of each seed and fold, in their order."""
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
    def experiments(self) -> set[str]:
        return {run.name for run in self.runs}

    @property
    def variant(self) -> frozenset[str]:
        return self.runs[0].variant


def build_rows(runs: Sequence[Run]) -> tuple[list[Row], set[Path], list[str]]:
    """Rows with the baselines first, superseded folders, and notes on duplicates.

    A run that ended before its replicas and data were measured joins the first row that fits.

    Args:
        runs: runs with a seed.
    """
    def config(run: Run) -> Any:
        return frozen({key: value for key, value in run.keys.items()
                       if key not in (FOLD, *MEASURED)})

    complete: dict[Any, dict[str, Any]] = {}
    for run in runs:
        if all(key in run.keys for key in MEASURED):
            complete.setdefault(config(run), run.keys)
    groups: dict[Any, tuple[dict[str, Any], dict[tuple[int, int], Run]]] = {}
    superseded, notes = set(), []
    for run in runs:
        keys = complete.get(config(run), {}) | run.keys
        keys.pop(FOLD, None)
        _, by_member = groups.setdefault(frozen(keys), (keys, {}))
        earlier = by_member.setdefault(run.member, run)
        if earlier is not run:
            kept, dropped = ((run, earlier) if run.state == "done" != earlier.state
                             else (earlier, run))
            by_member[run.member] = kept
            superseded |= {dropped.folder} if kept.state == "done" else set()
            notes.append(f"{kept.folder} and {dropped.folder} hold the same run: "
                         "only the first is used")
    different = differing_keys([keys for keys, _ in groups.values()])
    members = [sorted(by_member.values(), key=lambda run: run.member)
               for _, by_member in groups.values()]
    rows = [Row(name, tuple(each), {key: keys.get(key, UNKNOWN if key in MEASURED else NOT_SET)
                                    for key in different})
            for name, each, (keys, _) in zip(unique_names([each[0] for each in members]), members,
                                             groups.values(), strict=True)]
    return baselines_first(rows), superseded, notes


def baselines_first(rows: Iterable[Row]) -> list[Row]:
    """Rows after the baselines that their configs name, otherwise in the given order."""
    runs = [row.runs[0] for row in rows]
    depths = dict.fromkeys((run.name for run in runs), 0)
    for _ in depths:  # no chain is longer; configs that name each other in a ring end as well
        for run in runs:
            depths[run.name] = 1 + max((depths[name] for name in run.compared_with
                                        if name in depths), default=-1)
    return sorted(rows, key=lambda row: depths[row.runs[0].name])


def differing_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The keys with several values among the rows; a missing measurement is not a value."""
    return [key for key in in_order(rows)
            if len({frozen(row.get(key, NOT_SET)) for row in rows
                    if key in row or key not in MEASURED}) > 1]


def unique_names(runs: Sequence[Run]) -> list[str]:
    """The name of each run; if runs share one, with its overrides, or as its folder."""
    names = [run.name for run in runs]
    for index, run in enumerate(runs):
        same = [other.variant for other in runs if other.name == run.name]
        if own := run.variant - frozenset.intersection(*same):
            names[index] += f" ({', '.join(sorted(own))})"
    # Runs of one experiment on several data differ in their folders' names alone.
    for naming in (named_after_folder, str,
                   lambda folder: str(folder.resolve())):
        names = [name if names.count(name) == 1 else naming(run.folder)
                 for run, name in zip(runs, names, strict=True)]
    return names
