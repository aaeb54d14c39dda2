"""How a run goes on: what it was begun on, its checkpoints in time, and the epochs before them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from flowerexp.errors import UserError
from flowerexp.runs import reader, store
from flowerexp.runs.log import RunLogger
from flowerexp.runs.store import Scores
from flowerexp.train import checkpoints
from flowerexp.train.trainer import Trainer


@dataclass(frozen=True)
class CompletedEpochs:
    """The epochs that have ended."""

    history: list[Scores]
    predictions: list[list[int]]
    """Class ids of the validation set by epoch."""


def check_provenance(folder: Path, logger: RunLogger, now: Mapping[str, Any]) -> None:
    """Raises UserError where the folder's checkpoints were made on other data or replicas.

    The config alone does not tell: `auto` takes what is there, and files can be exchanged.

    Args:
        now: the plan's numbers, and the fingerprint of the data as `data`.
    """
    then = store.last_status(folder).get("beginning")
    if isinstance(then, dict) and checkpoints.saved_updates(folder):
        differing = [f"{key}: {then.get(key)} there, {value} here" for key, value in now.items()
                     if then.get(key) != value]
        if differing:
            raise UserError(f"{folder} was begun on other hardware or data "
                            f"({'; '.join(differing)}): bring them back, or start beside it with "
                            "fresh=true")
    logger.record(beginning=dict(now))


class Checkpointer:
    """The checkpoints of one run.

    Args:
        folder: of the run.
        journal: the run's voice; only the chief's writes.
        trainer: whose state is saved and restored.
        identity: what the run is; a checkpoint of another is refused.
        minutes: after which a checkpoint inside an epoch is due, or None.
    """

    def __init__(self, folder: Path, logger: RunLogger, trainer: Trainer,
                 identity: Mapping[str, Any], minutes: float | None = None) -> None:
        self.folder, self.logger, self.trainer = folder, logger, trainer
        self.identity, self.minutes = identity, minutes
        self.saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last checkpoint, or since the start.

        Every worker must ask: what is due for one is due for all.
        """
        due = self.minutes is not None and time.monotonic() - self.saved >= 60 * self.minutes
        return bool(self.trainer.greatest(due))

    def save(self, completed: CompletedEpochs) -> None:
        """A checkpoint of now; that of the end of the best epoch stays."""
        best = store.best_epoch(completed.history)
        kept = None if best is None else (best + 1) * self.trainer.plan.updates_per_epoch
        checkpoints.save(self.trainer.checkpoint, self.folder, int(self.trainer.update.numpy()),
                         kept, self.identity, self.logger.is_chief)
        self.saved = time.monotonic()

    def restore_latest(self, images: int, classes: int) -> CompletedEpochs:
        """Restores the last checkpoint that can be read; returns what the run had done up to it.

        Args:
            images: of the validation set.
            classes: of the data set.

        Raises:
            UserError: where there are checkpoints and none can be read, where the one is of another
                run, or where the results of the epochs before it are not there.
        """
        if self.logger.is_chief:
            checkpoints.clear(self.folder)
        faults = []
        for update in reversed(checkpoints.saved_updates(self.folder)):
            where = checkpoints.folder_of(self.folder, update)
            fault = checkpoints.fault(self.folder, update)
            if fault is None:
                checkpoints.restore(self.trainer.checkpoint, self.folder, update, self.identity)
                return self.completed_before(where, update, images, classes)
            faults.append(f"{where.name}: {fault}")
            self.logger.info(f"the checkpoint {where} cannot be read ({fault}): the one before it "
                             "is used, and this one is removed when the next is written")
        if faults:
            raise UserError(f"no checkpoint in {self.folder / 'checkpoints'} can be read "
                            f"({'; '.join(faults)}): remove them, and the same command trains from "
                            "the start")
        return CompletedEpochs([], [])

    def check_workers_in_sync(self) -> None:
        """Raises UserError where the workers go on from different updates."""
        here = int(self.trainer.update.numpy())
        least, most = -int(self.trainer.greatest(-here)), int(self.trainer.greatest(here))
        if least != most:
            raise UserError(f"the workers would go on from different updates ({least} and {most}, "
                            f"this one from {here}): the run folder, {self.folder}, must be on a "
                            "disk that all of them share")

    def completed_before(self, checkpoint: Path, update: int, images: int, classes: int
                         ) -> CompletedEpochs:
        """The epochs that ended before a checkpoint, from the files of the folder."""
        numbers = self.trainer.plan
        epochs, inside = divmod(update, numbers.updates_per_epoch)
        remedy = (f"the scores of the {epochs} epochs before the checkpoint {checkpoint} are "
                  f"nowhere else: bring the file back, or remove {checkpoint.parent}, and the same "
                  "command trains from the start, to the same numbers")
        try:
            history = reader.finite_history(store.read_history(self.folder),
                                          self.folder / store.HISTORY)
            predictions = reader.read_predictions(self.folder, images, classes).tolist()
        except UserError as error:
            # What comes after the colon is for a folder without checkpoints.
            raise UserError(f"{str(error).partition(': run')[0]}; {remedy}") from error
        for name, rows in ((store.HISTORY, history), (store.VALID_PREDICTIONS, predictions)):
            if len(rows) < epochs:
                raise UserError(f"{self.folder / name} ends after {len(rows)} epochs; {remedy}")
        where = f" and {inside} of {numbers.updates_per_epoch} updates" if inside else ""
        self.logger.info(f"going on from {checkpoint}: {epochs} of {numbers.epochs} epochs{where} "
                         "are done")
        return CompletedEpochs(history[:epochs], predictions[:epochs])

    def load_epoch(self, epoch: int) -> None:
        """Gives the model the weights of the end of an epoch, counted from 0."""
        update = (epoch + 1) * self.trainer.plan.updates_per_epoch
        fault = checkpoints.fault(self.folder, update)
        if fault:
            raise UserError(f"the checkpoint {checkpoints.folder_of(self.folder, update)} of the "
                            f"best epoch, {epoch + 1}, cannot be read ({fault}), and "
                            "results.use=best predicts with it: remove "
                            f"{self.folder / 'checkpoints'}, and the same command trains from the "
                            "start, to the same numbers")
        weights = tf.train.Checkpoint(model=self.trainer.model)
        checkpoints.restore(weights, self.folder, update, self.identity)
