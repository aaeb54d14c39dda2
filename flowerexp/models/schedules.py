"""Learning rate schedules as tables with one rate per update. NumPy only."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import Checked, key
from flowerexp.errors import UserError

Rates = npt.NDArray[np.float64]


class Schedule(Protocol):
    """A schedule, constructed with its config keys."""

    def __call__(self, updates: int) -> Rates:
        """The learning rate of every update of the run, float64 [updates], before loop.lr_scaling.
        """


@dataclass(frozen=True)
class Constant(Checked):
    """A linear warm-up from start_lr to max_lr, then max_lr.

    With w = int(updates * warmup), the rate of update u is start + (max - start) * u / w if u < w,
    else `decay(x)` with x = (u - w) / (updates - w).
    """

    start_lr: float | None = key(None, least=0)
    """Learning rate of the first update; null: max_lr / 100."""
    max_lr: float = key(1e-5, above=0)
    """Learning rate at the end of the warm-up."""
    end_lr: float | None = key(None, least=0)
    """Learning rate to which the schedule decays; null: max_lr."""
    warmup: float = key(0.2, least=0, most=1)
    """Fraction of the updates in which the rate rises linearly from start_lr to max_lr."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_end()

    def check_end(self) -> None:
        """Raises UserError for an end_lr that the schedule cannot reach."""
        if self.end != self.max_lr:
            raise UserError(f"end_lr={self.end:g} contradicts schedule=constant, which "
                            f"ends at schedule.max_lr={self.max_lr:g}: leave it out or choose "
                            "schedule=exponential, linear or cosine")

    @property
    def end(self) -> float:
        return self.max_lr if self.end_lr is None else self.end_lr

    def __call__(self, updates: int) -> Rates:
        start = self.max_lr / 100 if self.start_lr is None else self.start_lr
        warmup = int(updates * self.warmup)
        update = np.arange(updates, dtype=np.float64)
        rising = start + (self.max_lr - start) * update / max(warmup, 1)
        x = np.clip((update - warmup) / max(updates - warmup, 1), 0, 1)
        return np.where(update < warmup, rising, self.decay(x))

    def decay(self, x: Rates) -> Rates:
        """The rates after the warm-up; `x` rises from 0 to 1."""
        return np.full(len(x), self.max_lr)


@dataclass(frozen=True)
class Exponential(Constant):
    """Warm-up, then max * (end / max)^x."""

    def check_end(self) -> None:
        if self.end == 0:
            raise UserError("end_lr must be greater than 0 with schedule=exponential, which never "
                            "reaches 0: choose schedule=linear or cosine")

    def decay(self, x: Rates) -> Rates:
        rates: Rates = self.max_lr * (self.end / self.max_lr) ** x
        return rates


@dataclass(frozen=True)
class Linear(Constant):
    """Warm-up, then max + (end - max) * x."""

    def check_end(self) -> None:
        """Accepts any end_lr."""

    def decay(self, x: Rates) -> Rates:
        return self.max_lr + (self.end - self.max_lr) * x


@dataclass(frozen=True)
class Cosine(Linear):
    """Warm-up, then end + (max - end) * (1 + cos(pi x)) / 2.

    One cycle of equation 5 of Loshchilov and Hutter 2017.
    """

    def decay(self, x: Rates) -> Rates:
        return self.end + (self.max_lr - self.end) * (1 + np.cos(np.pi * x)) / 2


def learning_rates(schedule: Any, updates: int, lr_scaling: float = 1.0) -> Rates:
    """float64 [updates], every rate times `lr_scaling` (linear scaling, Goyal et al. 2017).

    Raises UserError if the schedule does not return that many finite rates of at least 0.
    """
    with parts.failures_named(schedule):
        rates = np.asarray(parts.built(schedule)(updates))
    if rates.shape != (updates,) or rates.dtype.kind not in "fiu" or not (
            np.isfinite(rates).all() and (rates >= 0).all()):
        found = " with NaN or less than 0" * (rates.shape == (updates,))
        raise UserError(f"{schedule} must return {updates} finite rates of at least 0, float64 "
                        f"[{updates}], not {rates.dtype} {list(rates.shape)}{found}")
    return rates.astype(np.float64) * lr_scaling
