"""Compares run folders: their rows, the pairs among them, and the runs that did not finish.

Reads only the files of the folders. No TensorFlow here, and Matplotlib only to draw a page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flowerexp.comparison.pairs import Pair, asked_pairs, build_pair, named_pairs
from flowerexp.comparison.rows import Row, baselines_first, build_rows
from flowerexp.config import one_of
from flowerexp.errors import counted
from flowerexp.runs.reader import (
    EPOCHS,
    Paths,
    Run,
    find_folders,
    frozen,
    in_order,
    number_names,
    read_run,
    run_numbers,
)


@dataclass(frozen=True)
class Comparison:
    """The result of comparing run folders; a notebook shows its table."""

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    failures: tuple[Run, ...]
    """The runs that are failed, interrupted or unreadable."""
    notes: tuple[str, ...]
    """Sentences about pairs that were not compared and why, and about duplicate runs."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per group of runs that differ only in their seed.

        The columns are `name`, `best` (whether it is the marked row), `n` (the number of runs
        behind its numbers), `seeds` and `state` (texts); the keys in which rows differ; then every
        number of `load`, its mean under its own name and its standard deviation (n - 1) under
        `... std`. Undefined values are NaN.
        """
        from flowerexp.comparison import tables

        return tables.frame(self)

    @property
    def differences(self) -> pd.DataFrame:
        """One row per pair and metric: `run`, `baseline`, `metric`, `difference`, `low`, `high`.

        The last two bound the 95% bootstrap interval; they are NaN for a metric that predictions
        alone do not determine.
        """
        return pd.DataFrame(
            [(pair.name, pair.baseline, metric, found.value, found.low, found.high)
             for pair in self.pairs for metric, found in pair.differences.items()],
            columns=["run", "baseline", "metric", "difference", "low", "high"])

    def to_html(self, path: str | Path) -> Path:
        """Writes the report, one self-contained page, and returns its path."""
        from flowerexp.comparison import report

        return report.write_page(self, Path(path))

    def __repr__(self) -> str:
        return (f"<Comparison: {counted(len(self.rows), 'row')}, "
                f"{counted(len(self.pairs), 'pair')}, {counted(len(self.failures), 'failure')}>")

    def _repr_html_(self) -> str:
        from flowerexp.comparison import tables

        return tables.to_html(self)


def compare(paths: Paths, pairs: Sequence[str] = (), epoch: str = "last") -> Comparison:
    """Compares the run folders at or below some paths.

    Args:
        paths: one or several run folders, or folders of them.
        pairs: `a:b` compares a with the baseline b; each is the name of a row or experiment, or a
            folder (and then its row). By default the pairs that the configs name.
        epoch: last, or best: that of each run, which was selected on the same validation images.

    Raises:
        UserError: for a path without runs, or a pair of unknown or ambiguous names.
    """
    one_of("epoch", epoch, EPOCHS)
    runs = [read_run(folder) for folder in find_folders(paths)]
    rows, superseded, notes = build_rows([run for run in runs if run.seed is not None])
    rows = baselines_first(rows)
    wanted, remarks = asked_pairs(rows, pairs) if pairs else named_pairs(rows)
    built = [build_pair(rows[row], rows[baseline], epoch)
             for row, baseline in dict.fromkeys(wanted)]
    notes += remarks + [sentence for _, sentences in built for sentence in sentences]
    failures = tuple(run for run in runs if run.state in ("failed", "interrupted", "unreadable")
                     and run.folder not in superseded)
    return Comparison(tuple(rows), tuple(pair for pair, _ in built if pair), failures,
                      tuple(notes))


def load(paths: Paths) -> pd.DataFrame:
    """Loads runs as a table, one row per run, in the order of the folders.

    The columns are `folder` (text), `name` (the experiment's, else the folder's), `seed`, `state`
    (new, running, interrupted, failed, done, unreadable), `error`, `epochs done`; then every config
    key that can change a run's numbers by its dotted name, `replicas` and `data` (the fingerprint)
    included, missing if a run does not have it, lists as tuples; then, for the `best` epoch
    (highest validation F1, the earliest on a tie) and for the `last`: `best epoch` (from 1),
    `best loss`, `acc`, `recall`, `precision`, `f1` and any further metric of the histories on the
    validation set, and `best head`, `medium`, `tail`, the macro recall of the classes in thirds by
    training count; then `first epoch seconds` and `later epochs seconds` (mean of training).
    Undefined values are NaN.

    Args:
        paths: one or several run folders, or folders of them.

    Raises:
        UserError: for a path that does not exist or holds no run.
    """
    runs = [read_run(folder) for folder in find_folders(paths)]
    keys = in_order([run.keys for run in runs])
    names = number_names(runs)
    rows: list[dict[str, Any]] = []
    for run in runs:
        numbers = run_numbers(run)
        rows.append({"folder": str(run.folder), "name": run.name, "seed": run.seed,
                     "state": run.state, "error": run.error, "epochs done": len(run.history)}
                    | {key: frozen(run.keys.get(key)) for key in keys}
                    | {name: numbers.get(name, math.nan) for name in names})
    return pd.DataFrame(rows).astype({"seed": "Int64"})
