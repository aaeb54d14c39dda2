"""TensorBoard events of a run: the history's scalars by epoch."""

from pathlib import Path

import tensorflow as tf

from flowerexp.results import Scores


class Events:
    """The event file of one run folder, written anew from the history when a run goes on.

    Args:
        folder: of the run.
        history: epochs that have ended before.
    """

    def __init__(self, folder: Path, history: list[Scores]) -> None:
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self.writer = tf.summary.create_file_writer(str(folder))
        for epoch, row in enumerate(history):
            self.write(epoch, row)

    def write(self, epoch: int, row: Scores) -> None:
        """The scalars of one epoch, as `train/loss` and so on."""
        with self.writer.as_default(step=epoch):
            for name, value in row.items():
                if value is not None:
                    tf.summary.scalar(name.replace(" ", "/"), value)
        self.writer.flush()
