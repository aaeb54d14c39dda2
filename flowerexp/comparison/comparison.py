"""Compares run folders: their rows, the pairs among them, and the runs that did not finish."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flowerexp import metrics
from flowerexp.comparison import wording
from flowerexp.comparison.pairs import Pair, asked_pairs, build_pair, named_pairs
from flowerexp.comparison.rows import Row, build_rows
from flowerexp.config import one_of
from flowerexp.errors import counted, encodable
from flowerexp.runs import evaluations, reader
from flowerexp.runs.reader import Paths, Run


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

        The columns are `name`, `best` (the finished row with the highest mean F1 at the last epoch,
        if two are finished), `n` (the number of runs behind its numbers), `seeds` and `state`
        (texts); the keys in which rows differ; then every number of `load` and, from `evaluate`,
        `test acc` and so on, its mean under its own name and its standard deviation (n - 1) under
        `... std`. Undefined values are NaN.
        """
        rows = self.rows
        counted_runs = [run for row in rows for run in row.counted]
        titles = titles_of(rows)
        names = [*reader.number_names(counted_runs),
                 *(f"{title} {name}" for title in titles.values() for name in metrics.NAMES)]
        numbers = [pd.DataFrame([reader.run_numbers(run) | reader.test_numbers(run, titles)
                                 for run in row.counted], columns=names, dtype=float)
                   for row in rows]
        means = [each.mean(skipna=False) for each in numbers]
        deviations = [each.std(skipna=False) for each in numbers]
        f1 = pd.Series([mean["last f1"] if row.finished else math.nan
                        for row, mean in zip(rows, means, strict=True)], dtype=float)
        best = f1.idxmax() if f1.count() > 1 else None
        table: dict[str, list[Any]] = {
            "name": [row.name for row in rows],
            "best": [index == best for index in range(len(rows))],
            "n": [len(row.counted) for row in rows],
            "seeds": [", ".join(dict.fromkeys(str(run.seed) for run in row.counted))
                      for row in rows],
            "state": [wording.state(row) for row in rows]}
        for key in rows[0].differing if rows else ():
            values = [row.differing[key] for row in rows]
            table[key] = [wording.value_text(value) if isinstance(value, list) else value
                          for value in values]
        for name in names:
            table[name] = [mean[name] for mean in means]
            table[f"{name} std"] = [deviation[name] for deviation in deviations]
        return frame(table)

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

        return report.write(self, Path(path))

    def __repr__(self) -> str:
        return (f"<Comparison: {counted(len(self.rows), 'row')}, "
                f"{counted(len(self.pairs), 'pair')}, {counted(len(self.failures), 'failure')}>")

    def _repr_html_(self) -> str:
        from flowerexp.comparison import tables

        return tables.to_html(self)


def titles_of(rows: Sequence[Row]) -> Mapping[str, str]:
    """The titles of the data sets on which the runs of all rows were evaluated."""
    return evaluations.titles(each for row in rows for run in row.counted
                              for each in run.evaluations)


def compare(paths: Paths, pairs: str | Sequence[str] = (), epoch: str = "last",
            common: bool = False) -> Comparison:
    """Compares the run folders at or below some paths.

    Args:
        paths: one or several run folders, or folders of them.
        pairs: `a:b` compares a with the baseline b; each is the name of a row or experiment, or a
            folder (and then its row). Several in one text are separated by commas. By default the
            pairs that the configs name.
        epoch: last, or best: that of each run, which was selected on the same validation images.
        common: whether pairs of runs that were validated on different images or classes are
            compared on those that they have in common; otherwise they are not compared.

    Raises:
        UserError: for a path without runs, or a pair of unknown or ambiguous names.
    """
    one_of("epoch", epoch, reader.EPOCHS)
    runs = [reader.read_run(folder) for folder in reader.find_folders(paths)]
    rows, superseded, notes = build_rows([run for run in runs if run.seed is not None])
    texts = [pairs] if isinstance(pairs, str) else pairs
    wanted, remarks = asked_pairs(rows, texts) if pairs else named_pairs(rows)
    built = [build_pair(row, baseline, epoch, common, titles_of(rows))
             for row, baseline in dict.fromkeys(wanted)]
    notes += [f"{run.folder}: {each.data}: {each.caution}" for row in rows for run in row.counted
              for each in run.evaluations if each.caution]
    notes += remarks + [sentence for _, sentences in built for sentence in sentences]
    failures = [run for run in runs if run.state in ("failed", "interrupted", "unreadable")
                and run.folder not in superseded]
    return Comparison(tuple(rows), tuple(pair for pair, _ in built if pair), tuple(failures),
                      tuple(notes))


def load(paths: Paths) -> pd.DataFrame:
    """Loads runs as a table, one row per run, in the order of the folders.

    The columns are `folder` (text), `name` (the experiment's, else the folder's), `seed`, `state`
    (new, running, interrupted, failed, done, unreadable), `error`, `epochs done`; then every config
    key that can change a run's numbers by its dotted name, `replicas` and `data` (the fingerprint)
    included, missing if a run does not have it, lists as tuples; then, for the `best` epoch
    (highest validation F1, the earliest on a tie) and the `last`: `best epoch` (from 1), `best
    loss`, `acc`, `recall`, `precision`, `f1` and any further validation metric, and `best head`,
    `medium`, `tail`, the macro recall of each third of the classes by training count; then `first
    epoch seconds` and `later epochs seconds` (mean of training). Undefined values are NaN.

    Args and errors: see `compare`.
    """
    runs = [reader.read_run(folder) for folder in reader.find_folders(paths)]
    keys = reader.in_order([run.keys for run in runs])
    rows = [{"folder": str(run.folder), "name": run.name, "seed": run.seed, "state": run.state,
             "error": run.error, "epochs done": len(run.history)}
            | {key: reader.frozen(run.keys.get(key)) for key in keys}
            | dict.fromkeys(reader.number_names(runs), math.nan) | reader.run_numbers(run)
            for run in runs]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return frame(columns).astype({"seed": "Int64"})


def frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """A data frame; bytes of a folder's name that are no text are replaced, as Arrow needs it."""
    return pd.DataFrame({name: [encodable(value) if isinstance(value, str) else value
                                for value in values] for name, values in columns.items()})
