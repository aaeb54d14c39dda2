"""Optimizers, with a table of learning rates as their schedule.

The trainer clips gradients, because only it sees the gradient of the whole update.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import Checked, key
from flowerexp.errors import UserError
from flowerexp.lazy import tf


class Optimizer(Protocol):
    """An optimizer, constructed with its config keys.

    A class of keras.optimizers can be used as it is: `_target_: keras.optimizers.Lion`.
    """

    def __call__(self, learning_rate: Any) -> Any:
        """A Keras optimizer with this learning rate, a Keras LearningRateSchedule."""


class KerasOptimizer(Checked):
    """Base of the built-in optimizers: builds the Keras class of the same name with the set keys.
    """

    def __call__(self, learning_rate: Any) -> Any:
        keys = {key: value for key, value in vars(self).items() if value is not None}
        return getattr(tf.keras.optimizers, type(self).__name__)(learning_rate, **keys)


@dataclass(frozen=True)
class Adam(KerasOptimizer):
    """Adam (Kingma and Ba 2015)."""

    beta_1: float = key(0.9, least=0, below=1)
    beta_2: float = key(0.999, least=0, below=1)
    epsilon: float = key(1e-7, above=0)
    weight_decay: float | None = key(None, least=0)
    """Decoupled weight decay: an update shrinks weights by this times the learning rate."""


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: float | None = key(0.004, least=0)


@dataclass(frozen=True)
class SGD(KerasOptimizer):
    """Stochastic gradient descent with momentum."""

    momentum: float = key(0.0, least=0, below=1)
    nesterov: bool = False
    weight_decay: float | None = key(None, least=0)
    """Decoupled weight decay: an update shrinks weights by this times the learning rate."""


def build(algorithm: Any, rates: npt.NDArray[np.float64], precision: str) -> Any:
    """A Keras optimizer of the learning rates, float64 [updates].

    With loss scaling for the precision mixed_float16 (Micikevicius et al. 2018). Raises UserError
    if the part `algorithm` does not return an optimizer of the Keras in use.
    """
    from flowerexp.models.layers import TableSchedule  # imports TensorFlow

    schedule, base = TableSchedule(rates), tf.keras.optimizers.Optimizer
    if isinstance(algorithm, parts.Part) and inspect.isclass(algorithm.factory) and issubclass(
            algorithm.factory, base):
        optimizer = algorithm.build(learning_rate=schedule)
    else:
        make = parts.built(algorithm)
        with parts.failures_named(algorithm):
            optimizer = make(schedule) if callable(make) else make
    if not isinstance(optimizer, base):
        raise UserError(f"{algorithm} must give an optimizer of {base.__module__.split('.')[0]}, "
                        f"not {type(optimizer).__module__}.{type(optimizer).__name__}")
    if precision == "mixed_float16":
        return tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
