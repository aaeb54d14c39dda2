"""Run folders to tables and statistics: what differs, and whether the difference is real.

Reads nothing but the folders' files. No TensorFlow here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerexp.results import Scores


@dataclass(frozen=True)
class Run:
    """One run folder as it was read."""

    folder: Path
    name: str
    """The experiment's name, else the folder's name, without the seed."""
    seed: int | None
    """None where the config cannot be read."""
    keys: dict[str, Any]
    """What the run is, but for its seed: every key that can change its numbers by its dotted name,
    `replicas` and `data` (the fingerprint) as far as they are known."""
    variant: frozenset[str]
    """The overrides besides experiment, seed and the keys of a run's place."""
    compared_with: tuple[str, ...]
    state: str
    """new | running | interrupted | failed | done | unreadable"""
    error: str | None
    epochs: int | None
    """How many the run has in all, where it is known."""
    history: list[Scores]
    labels: npt.NDArray[np.int64]
    """[images] of the validation set."""
    predictions: npt.NDArray[np.int64]
    """[epochs, images], class ids."""
    class_names: tuple[str, ...]
    class_counts: npt.NDArray[np.int64]
    """[classes], training images; empty where the folder does not tell."""


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed."""

    name: str
    """Unique in a comparison."""
    runs: tuple[Run, ...]
    """By seed, one of each."""
    differing: dict[str, Any]
    """The keys in which the rows of the comparison differ, and this row's values."""

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.state == "done")


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % bootstrap interval; low and high are None where undefined."""

    value: float
    low: float
    high: float


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
