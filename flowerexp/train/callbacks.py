"""Callbacks of a run: the protocol, and early stopping, TensorBoard events and figures.

A custom callback is a class with any of the four methods of `Callback`, named by `_target_` in the
config group `callbacks`. Callbacks are not saved: after a resume they use the state in `RunState`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from flowerexp import identity, metrics, parts
from flowerexp.config import Checked, Config, key
from flowerexp.data.batching import Plan
from flowerexp.errors import UserError, counted
from flowerexp.lazy import tf
from flowerexp.models import schedules
from flowerexp.runs.log import RunLogger
from flowerexp.runs.store import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MISTAKES = 24
"""Maximum number of images in the grid of mistakes."""
SIDE = 300
"""Minimum side of TensorBoard's image of a confusion matrix, in pixels."""


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
    """Labels of the validation set, int32 [images]; of no image with train_on=all."""
    model: Any
    """The Keras model, with its current weights."""
    logger: RunLogger
    images: Callable[[npt.NDArray[np.integer]], npt.NDArray[np.uint8]]
    """Function of validation indices -> uint8 [n, height, width, 3]; every worker must call it."""
    history: list[Scores] = field(default_factory=list)
    """One row per completed epoch, including those before a resume."""
    predictions: list[list[int]] = field(default_factory=list)
    """Predicted class ids of the validation images, a list per epoch."""
    probabilities: npt.NDArray[np.float32] | None = None
    """Validation probabilities of the chosen weights, float32 [images, classes]; set at the end."""
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
    """The callbacks of a run, given as name -> part, in the order of the config."""

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
class EarlyStopping(Checked):
    """Ends the run when validation F1 has not risen for some epochs."""

    patience: int | None = key(None, least=1)
    """Number of epochs without a rise; null: never stops."""

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
    """Writes scalars and confusion matrix of every epoch, and hyperparameters, for TensorBoard.

    Steps are epochs, counted from 0. The event file is rewritten when a run resumes, so that no
    step is duplicated.
    """

    rates: Any = field(default=None, init=False, repr=False, compare=False)
    """The learning rate of every update, float [updates]."""
    writer: Any = field(default=None, init=False, repr=False, compare=False)

    def on_train_begin(self, state: RunState) -> None:
        if not state.is_chief:
            return
        from tensorboard.plugins.hparams import summary

        for stale in state.folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self.rates = schedules.learning_rates(state.config.schedule, state.plan.updates,
                                              state.config.loop.lr_scaling)
        self.writer = tf.summary.create_file_writer(str(state.folder))
        self.write_raw(summary.session_start_pb(hyperparameters(state.config)))
        for epoch in range(len(state.history)):
            self.write(epoch, state)

    def on_epoch_end(self, state: RunState) -> None:
        if state.is_chief:
            self.write(len(state.history) - 1, state)

    def on_train_end(self, state: RunState) -> None:
        if state.is_chief:
            from tensorboard.plugins.hparams import api_pb2, summary

            self.write_raw(summary.session_end_pb(api_pb2.STATUS_SUCCESS))
            self.writer.close()

    def write(self, epoch: int, state: RunState) -> None:
        """Writes an epoch: scores, learning rate of its last update, images per second, matrix."""
        from flowerexp.plots import confusion

        row, updates = state.history[epoch], state.plan.updates_per_epoch
        classes = len(state.class_names)
        scalars = {name.replace(" ", "/"): value for name, value in row.items()}
        scalars["learning_rate"] = float(self.rates[(epoch + 1) * updates - 1])
        if seconds := row["train timing"]:
            scalars["images_per_second"] = updates * state.plan.update_size / seconds
        with self.writer.as_default(step=epoch):
            for tag, value in scalars.items():
                if value is not None:
                    tf.summary.scalar(tag, value)
            if classes <= confusion.MOST_CLASSES and len(state.labels):
                matrix = metrics.confusion_matrix(state.labels, np.array(state.predictions[epoch]),
                                                  classes)
                tf.summary.image("confusion", confusion_image(matrix)[None])
        self.writer.flush()

    def write_raw(self, written: Any) -> None:
        """Writes a summary protobuf of the HParams plugin."""
        with self.writer.as_default(step=0):
            tf.summary.experimental.write_raw_pb(written.SerializeToString())


def hyperparameters(config: Config) -> dict[str, bool | float | str]:
    """Every key that can change a run's results, for TensorBoard; None and lists become text."""
    return {key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in identity.keys(identity.plain(config)).items()}


def confusion_image(matrix: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """A confusion matrix as pixels, uint8 [side, side, 3], several per cell if there are few
    classes: the square root of the share of each true class (rows).
    """
    from matplotlib import colormaps  # without its axes, which take fifty times as long

    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    colors = colormaps["Blues"](np.sqrt(shares), bytes=True)[..., :3]
    scale = math.ceil(SIDE / len(matrix))
    pixels: npt.NDArray[np.uint8] = colors.repeat(scale, 0).repeat(scale, 1)
    return pixels


@dataclass(frozen=True)
class Figures:
    """Draws history, confusion matrix, mistakes and class scores; logs why one is missing."""

    def on_train_end(self, state: RunState) -> None:
        from flowerexp.plots import classes, confusion, history, style

        assert state.probabilities is not None
        wrong = mistakes(state.labels, state.probabilities)
        images = state.images(wrong[:MOST_MISTAKES])
        if not state.is_chief:
            return
        if not len(state.labels):
            state.logger.info("without validation only history.png is drawn")
            style.save(history.draw([state.history]), state.folder / "history.png")
            return
        names = state.class_names
        matrix = metrics.confusion_matrix(state.labels, state.probabilities.argmax(-1), len(names))
        figures: dict[str, Callable[[], Figure]] = {
            "history.png": lambda: history.draw([state.history]),
            "classes.png": lambda: classes.draw(
                state.class_counts, metrics.class_scores(matrix)["f1"], names)}
        if len(names) <= confusion.MOST_CLASSES:
            figures["confusion.png"] = lambda: confusion.draw(matrix, names)
        else:
            state.logger.info("confusion.png and TensorBoard's confusion matrices are not drawn: "
                              f"{len(names)} classes are more than {confusion.MOST_CLASSES}")
        if len(wrong):
            figures["mistakes.png"] = lambda: grid_of_mistakes(state, wrong, images)
        else:
            state.logger.info("mistakes.png is not drawn: every validation image is classified "
                              "correctly")
        with state.logger.steps("pictures", len(figures)) as advance:
            for name, figure in figures.items():
                style.save(figure(), state.folder / name)
                advance()


def mistakes(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
             ) -> npt.NDArray[np.int64]:
    """int64 [mistakes], the indices of the misclassified images, the most confident first.

    Images of equal probability keep their order.
    """
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")]


def grid_of_mistakes(state: RunState, wrong: npt.NDArray[np.int64],
                     images: npt.NDArray[np.uint8]) -> Figure:
    """The images of the first ones of `wrong`, with names and probabilities."""
    from flowerexp.plots import gallery

    names, labels, probabilities = state.class_names, state.labels, state.probabilities
    assert probabilities is not None
    lines = [(f"true: {names[labels[index]]}", f"pred: {names[probabilities[index].argmax()]}",
              f"probability {probabilities[index].max():.3f}")
             for index in wrong[:len(images)].tolist()]
    which = (f"the {len(images)} most confident of {len(wrong)}" if len(images) < len(wrong) else
             f"{len(wrong)}, the most confident first")
    return gallery.grid(images, lines,
                        f"Misclassified among {len(labels)} validation images: {which}")
