"""TensorBoard events of a run: scalars and confusion matrix by epoch, and hyperparameters.

Everything follows from the config, the plan and the files of the run folder: the event file is
rewritten when a run resumes, so that no step is duplicated.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib import colormaps
from tensorboard.plugins.hparams import api_pb2, summary

from flowerexp import identity, metrics
from flowerexp.config import Config
from flowerexp.data.batching import Plan
from flowerexp.models import schedules
from flowerexp.plots import confusion
from flowerexp.runs.store import Scores

SIDE = 300
"""Minimum side of a confusion matrix image, in pixels."""
LEARNING_RATE = "learning_rate"
SPEED = "images_per_second"
CONFUSION = "confusion"
"""Tags in addition to those of the scores, such as `train/loss`."""


class Events:
    """The event file of one run folder.

    Steps are epochs, counted from 0 as in the history.

    Args:
        folder: run folder.
        config: the run's config; keys that can change its results are hyperparameters.
        plan: the run's plan.
        labels: int [images], labels of the validation set.
        num_classes: number of classes; above confusion.MOST_CLASSES no matrix is written.
        history, predictions: results of the epochs that were completed before.
    """

    def __init__(self, folder: Path, config: Config, plan: Plan, labels: npt.NDArray[np.integer],
                 num_classes: int, history: Sequence[Scores],
                 predictions: Sequence[list[int]]) -> None:
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self.plan, self.labels, self.num_classes = plan, labels, num_classes
        self.rates = schedules.learning_rates(config.schedule, plan.updates,
                                              config.loop.lr_scaling)
        self.writer = tf.summary.create_file_writer(str(folder))
        self.write_raw(summary.session_start_pb(hyperparameters(config)))
        for epoch, (row, predicted) in enumerate(zip(history, predictions, strict=True)):
            self.write(epoch, row, predicted)

    def write(self, epoch: int, row: Scores, predictions: list[int]) -> None:
        """Writes an epoch: scores, learning rate of its last update, images per second, matrix.

        Args:
            row: the epoch's row of the history; None is not written.
            predictions: predicted class ids of the validation images.
        """
        updates = self.plan.updates_per_epoch
        scalars = {name.replace(" ", "/"): value for name, value in row.items()}
        scalars[LEARNING_RATE] = float(self.rates[(epoch + 1) * updates - 1])
        seconds = row["train timing"]
        scalars[SPEED] = updates * self.plan.update_size / seconds if seconds else None
        with self.writer.as_default(step=epoch):
            for tag, value in scalars.items():
                if value is not None:
                    tf.summary.scalar(tag, value)
            if self.num_classes <= confusion.MOST_CLASSES:
                matrix = metrics.confusion_matrix(self.labels, np.array(predictions),
                                                  self.num_classes)
                tf.summary.image(CONFUSION, confusion_image(matrix)[None])
        self.writer.flush()

    def close(self) -> None:
        """Marks the run as finished; the final metrics are those of the last epoch."""
        self.write_raw(summary.session_end_pb(api_pb2.STATUS_SUCCESS))
        self.writer.close()

    def write_raw(self, written: Any) -> None:
        """Writes a summary protobuf of the HParams plugin."""
        with self.writer.as_default(step=0):
            tf.summary.experimental.write_raw_pb(written.SerializeToString())


def hyperparameters(config: Config) -> dict[str, bool | float | str]:
    """Every key that can change the results of a run, as TensorBoard values.

    None and lists become text.
    """
    return {key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in identity.keys(identity.plain(config)).items()}


def confusion_image(matrix: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """A confusion matrix as pixels: the square root of the share of each true class (rows).

    Without Matplotlib's axes, which take fifty times as long with 104 classes.

    Returns:
        uint8 [side, side, 3], several pixels per cell if there are few classes.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    colors = colormaps["Blues"](np.sqrt(shares), bytes=True)[..., :3]
    scale = math.ceil(SIDE / len(matrix))
    pixels: npt.NDArray[np.uint8] = colors.repeat(scale, 0).repeat(scale, 1)
    return pixels
