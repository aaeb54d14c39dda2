"""Callbacks of a run: the protocol, and the built-in events, early stopping and figures.

A custom callback is a class with any of the four methods of `Callback`, named by `_target_` in the
config group `callbacks`. Callbacks are not saved: after a resume they use the state in `RunState`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import metrics, parts
from flowerexp.config import Config, check_range
from flowerexp.data.batching import Plan
from flowerexp.errors import UserError, counted
from flowerexp.runs.log import RunLogger
from flowerexp.runs.store import Scores


@dataclass
class RunState:
    """The state of a run that callbacks see; the lists grow with every epoch.

    Each of several workers calls its own callbacks: write files only if `is_chief`.
    """

    folder: Path
    """Run folder."""
    config: Config
    plan: Plan
    """Sizes of an update, updates of an epoch, number of epochs."""
    class_names: tuple[str, ...]
    class_counts: npt.NDArray[np.int64]
    """Training images of each class, int64 [classes]."""
    labels: npt.NDArray[np.int32]
    """Labels of the validation set, int32 [images]."""
    model: Any
    """The Keras model, with its current weights."""
    logger: RunLogger
    images: Callable[[npt.NDArray[np.integer]], npt.NDArray[np.uint8]]
    """Function of validation indices -> uint8 [n, height, width, 3]; every worker must call it."""
    history: list[Scores] = field(default_factory=list)
    """One row per completed epoch, including those before a resume."""
    predictions: list[list[int]] = field(default_factory=list)
    """Predicted class ids of the validation images, a list per epoch."""
    probabilities: npt.NDArray[np.float64] | None = None
    """Validation probabilities of the chosen weights, float64 [images, classes]; set at the end."""
    update: int = 0
    """Number of completed updates."""
    stopped: str | None = None
    """Reason why no further epoch is trained, or None."""

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.logger.is_chief

    def stop(self, reason: str) -> None:
        """Ends training after this epoch; the run then predicts and finishes."""
        self.stopped = self.stopped or reason


class Callback(Protocol):
    """A callback, constructed with its config keys; each method is optional."""

    def on_train_begin(self, state: RunState) -> None:
        """Before the first update of this process; a resumed run has epochs in its history."""

    def on_update(self, state: RunState) -> None:
        """After every call of the compiled loop, which is one update or many."""

    def on_epoch_end(self, state: RunState) -> None:
        """After validation, when the epoch is in the history; its checkpoint follows.

        A run that is killed in between does the epoch once more: write by epoch.
        """

    def on_train_end(self, state: RunState) -> None:
        """At the end of a finished run, after predictions and model are written."""


METHODS = ("on_train_begin", "on_update", "on_epoch_end", "on_train_end")


class Callbacks:
    """The callbacks of a run, in the order of the config.

    Args:
        chosen: name -> part.
    """

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        self.parts = [(part, parts.built(part)) for part in chosen.values()]
        for part, callback in self.parts:
            if not any(hasattr(callback, method) for method in METHODS):
                raise UserError(f"{part} must have one of {', '.join(METHODS)}")

    def __call__(self, method: str, state: RunState) -> None:
        """Calls a method of the callbacks that have it; exceptions of custom ones name the part."""
        for part, callback in self.parts:
            with parts.failures_named(part):
                getattr(callback, method, lambda state: None)(state)


@dataclass(frozen=True)
class EarlyStopping:
    """Ends the run when validation F1 has not risen for some epochs."""

    patience: int | None = None
    """Number of epochs without a rise; null: never stops."""

    def __post_init__(self) -> None:
        check_range("patience", self.patience, 1)

    def on_train_begin(self, state: RunState) -> None:
        # Asked of the history alone, so that a resumed run ends where it would have ended.
        unfinished = len(state.history) < state.plan.epochs
        if unfinished and metrics.should_stop_early(state.history, self.patience):
            state.stop(f"stopped early after epoch {len(state.history)} of {state.plan.epochs}: "
                       f"validation F1 has not risen for {counted(self.patience or 0, 'epoch')} "
                       "(loop.patience)")

    on_epoch_end = on_train_begin


@dataclass
class TensorBoard:
    """Event files for TensorBoard: see `flowerexp.train.events`."""

    events: Any = field(default=None, init=False, repr=False, compare=False)

    def on_train_begin(self, state: RunState) -> None:
        from flowerexp.train.events import Events

        if state.is_chief:
            self.events = Events(state.folder, state.config, state.plan, state.labels,
                                 len(state.class_names), state.history, state.predictions)

    def on_epoch_end(self, state: RunState) -> None:
        if state.is_chief:
            self.events.write(len(state.history) - 1, state.history[-1], state.predictions[-1])

    def on_train_end(self, state: RunState) -> None:
        if state.is_chief:
            self.events.close()


@dataclass(frozen=True)
class Figures:
    """Draws history, confusion matrix, mistakes and class scores of a finished run."""

    def on_train_end(self, state: RunState) -> None:
        from flowerexp.train import pictures

        assert state.probabilities is not None
        mistaken = state.images(pictures.worst_mistakes(state.labels, state.probabilities))
        if state.is_chief:
            pictures.draw(state.folder, state.logger, state.history, state.class_names,
                          state.class_counts, state.labels, state.probabilities, mistaken)
