"""Checkpoints of a run: a folder each, whole or not there; the last two and the best are kept."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from flowerexp import results
from flowerexp.errors import UserError

KEPT = 2


def folder_of(run: Path, update: int) -> Path:
    return run / "checkpoints" / f"update-{update:08d}"


def saved_updates(run: Path) -> list[int]:
    """The updates at which checkpoints were made, ascending."""
    return sorted(int(path.name.removeprefix("update-"))
                  for path in (run / "checkpoints").glob("update-*") if path.is_dir())


def save(checkpoint: Any, run: Path, update: int, best: int | None, chief: bool) -> None:
    """Writes a checkpoint under a temporary name, makes it current, and drops old ones.

    Args:
        checkpoint: tf.train.Checkpoint; under legacy Keras every worker must take part in writing.
        run: the run folder.
        update: the number of updates done.
        best: the update at the end of the best epoch, whose checkpoint is kept, or None.
        chief: whether this process writes the folder; the others write to a place of their own.
    """
    target = folder_of(run, update)
    if chief:
        target.parent.mkdir(exist_ok=True)
        for stale in target.parent.glob(".partial-*"):
            shutil.rmtree(stale)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent if chief else None))
    try:
        checkpoint.write(str(partial / "state"))
        if chief:
            for file in partial.iterdir():
                results.sync(file)
            if target.exists():  # the same state, from before an interruption
                shutil.rmtree(target)
            partial.rename(target)
    except (OSError, tf.errors.OpError) as error:
        first = str(error).strip().split("\n")[0]
        raise UserError(f"the checkpoint {target} cannot be written ({first}): make room and run "
                        "the same command again; what was saved before is whole") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if chief:
        updates = saved_updates(run)
        for old in set(updates) - set(updates[-KEPT:]) - {best}:
            shutil.rmtree(folder_of(run, old))


def restore(checkpoint: Any, run: Path, update: int) -> None:
    """Restores the state of an update; raises UserError where it cannot be read or does not fit."""
    folder = folder_of(run, update)
    try:
        # Through a link, for TensorFlow takes brackets in a path for a pattern.
        with tempfile.TemporaryDirectory() as place:
            link = Path(place) / "checkpoint"
            link.symlink_to(folder.resolve(), target_is_directory=True)
            checkpoint.read(str(link / "state")).assert_existing_objects_matched()
    except Exception as error:  # a damaged file raises what its bytes happen to mean
        first = str(error).strip().split("\n")[0]
        raise UserError(f"the checkpoint {folder} cannot be read or is of another model ({first}): "
                        "remove it to go on from the one before, or start anew with fresh=true") \
            from error
