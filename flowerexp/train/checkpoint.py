"""Checkpoints of a run: written atomically, and verified before they are restored.

A checkpoint is a folder that is created complete or not at all. Its manifest holds the sizes and
hashes of its files and the identity of its run, and so distinguishes a damaged checkpoint from that
of another run. The last two checkpoints and that of the best epoch are kept.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import tensorflow as tf

from flowerexp import metrics
from flowerexp.errors import UserError, counted, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.runs.status import RunStatus
from flowerexp.runs.store import Scores
from flowerexp.strategy import workers
from flowerexp.train.trainer import Trainer

MAX_TO_KEEP = 2
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
"""Prefix of the name of a checkpoint that is being written or removed."""


def folder_of(run: Path, update: int) -> Path:
    """The folder of the checkpoint made after an update."""
    return run / "checkpoints" / f"update-{update:08d}"


def saved_updates(run: Path) -> list[int]:
    """The updates after which checkpoints were made, ascending.

    Raises:
        OSError: if they cannot be listed; a run must not restart over checkpoints it cannot see.
    """
    if not (run / "checkpoints").exists():
        return []
    # Not glob, which treats an unreadable folder as an empty one.
    names = [path.name.removeprefix("update-") for path in (run / "checkpoints").iterdir()
             if path.name.startswith("update-") and path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def save(checkpoint: Any, run: Path, update: int, best: int | None, identity: Mapping[str, Any],
         chief: bool) -> None:
    """Writes a checkpoint under a temporary name, renames it, and removes old ones.

    Those of later updates are removed too: they were unreadable when the run resumed.

    Args:
        checkpoint: tf.train.Checkpoint; under legacy Keras every worker must take part in writing.
        run: the run folder.
        update: number of updates done.
        best: the update that ended the best epoch, whose checkpoint is kept, or None.
        identity: identity of the run, config key -> JSON value.
        chief: whether this process writes the run folder; others write to a temporary folder.

    Raises:
        UserError: if the disk is full or not writable.
    """
    target = folder_of(run, update)
    partial = None
    try:
        if chief:
            target.parent.mkdir(exist_ok=True)
            remove_partial(run)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent if chief else None))
        checkpoint.write(str(partial / "state"))
        if chief:
            files = {file.name: size_and_hash(file) for file in sorted(partial.iterdir())}
            store.write_json(partial / MANIFEST, {"update": update, "files": files,
                                                  "run": dict(identity)}, indent=1)
            for name in files:
                store.sync(partial / name)
            remove(target)  # of the same update, from before an interruption
            partial.rename(target)
            updates = saved_updates(run)
            current = [each for each in updates if each <= update]
            for old in set(updates) - {*current[-MAX_TO_KEEP:], *({best} & set(current))}:
                remove(folder_of(run, old))
    except (OSError, tf.errors.OpError) as error:
        if workers.is_peer_failure(error):
            raise
        raise UserError(f"the checkpoint {target} cannot be written ({first_line(error)}): free "
                        "some space, then rerun the command; earlier checkpoints are intact"
                        ) from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)


def remove_partial(run: Path) -> None:
    """Removes what a killed process left half written or half removed."""
    for partial in (run / "checkpoints").glob(f"{PARTIAL}*"):
        shutil.rmtree(partial)


def remove(folder: Path) -> None:
    """Removes a checkpoint, if it exists; renames it first, so that half never looks whole."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder.rename(folder.with_name(f"{PARTIAL}{folder.name}")))


def size_and_hash(file: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    with file.open("rb") as content:
        return {"bytes": file.stat().st_size,
                "sha256": hashlib.file_digest(content, "sha256").hexdigest()}


def find_damage(run: Path, update: int) -> str | None:
    """How a checkpoint is damaged, in a few words; None if it is intact."""
    folder = folder_of(run, update)
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        files = dict(manifest["files"])
        if manifest["update"] != update or not isinstance(manifest["run"], dict) or not files:
            return f"{MANIFEST} is of another checkpoint"
        for name, expected in files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if size_and_hash(folder / name) != expected:
                return f"{name} is damaged"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return str(error)
    except (ValueError, TypeError, KeyError):
        return f"{MANIFEST} is damaged"
    return None


def restore(checkpoint: Any, run: Path, update: int, identity: Mapping[str, Any]) -> None:
    """Restores the state after an update from an intact checkpoint.

    Raises:
        UserError: for a checkpoint of another config or model; the message names the differences.
    """
    folder = folder_of(run, update)
    then = store.read_json(folder / MANIFEST)["run"]
    now = json.loads(json.dumps(dict(identity)))
    # A missing key counts as null, the default of keys that were added later.
    differing = [f"{key}: {then.get(key)} there, {now.get(key)} here"
                 for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
    if differing:
        raise UserError(f"the checkpoint {folder} belongs to another run "
                        f"({'; '.join(differing[:5])}{'; and more' * (len(differing) > 5)}): "
                        "remove it, or start a new run with fresh=true")
    try:
        # Through a link, because TensorFlow treats brackets in a path as a pattern.
        with tempfile.TemporaryDirectory() as place:
            link = Path(place) / "checkpoint"
            link.symlink_to(folder.resolve(), target_is_directory=True)
            status = checkpoint.read(str(link / "state")).assert_existing_objects_matched()
            status.expect_partial()  # else TensorFlow warns at exit about unused values
    except Exception as error:  # TensorFlow raises several types for variables that do not fit
        raise UserError(f"the checkpoint {folder} belongs to another model ({first_line(error)}): "
                        "was flowerexp or another package updated? go back to that version, or "
                        "start a new run with fresh=true") from error


def check_provenance(folder: Path, logger: RunLogger, now: Mapping[str, Any]) -> None:
    """Raises UserError if the folder's checkpoints were made on other data or replicas.

    The config does not identify them: `auto` uses what is available, and files can change.

    Args:
        now: the plan, the data's fingerprint as `data`, and hashes of custom parts.
    """
    then = RunStatus.load_or_new(folder).provenance
    if then and saved_updates(folder):
        differing = [f"{key}: {then.get(key)} there, {value} here" for key, value in now.items()
                     if then.get(key) != value]
        if differing:
            raise UserError(f"{folder} was started on other hardware or data "
                            f"({'; '.join(differing)}): restore them, or start a new run with "
                            "fresh=true")
    logger.record(provenance=dict(now))


@dataclass(frozen=True)
class CompletedEpochs:
    """Results of the completed epochs."""

    history: list[Scores]
    predictions: list[list[int]]
    """Predicted class ids of the validation images, a list per epoch."""


class Checkpointer:
    """Saves and restores the checkpoints of one run.

    Args:
        folder: run folder.
        logger: the run's logger; only the chief's logger writes.
        trainer: trainer whose state is saved and restored.
        identity: identity of the run; checkpoints of other runs are refused.
        minutes: interval of checkpoints within an epoch; None: at the end of epochs only.
    """

    def __init__(self, folder: Path, logger: RunLogger, trainer: Trainer,
                 identity: Mapping[str, Any], minutes: float | None = None) -> None:
        self.folder, self.logger, self.trainer = folder, logger, trainer
        self.identity, self.minutes = identity, minutes
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last checkpoint, or since the start.

        Every worker must call it: if a checkpoint is due on one, it is due on all.
        """
        due = self.minutes is not None and time.monotonic() - self.saved_at >= 60 * self.minutes
        return bool(self.trainer.greatest(due))

    def save(self, history: Sequence[Scores]) -> None:
        """Saves a checkpoint now; that of the best epoch is kept."""
        best = metrics.best_epoch(history)
        kept = None if best is None else (best + 1) * self.trainer.plan.updates_per_epoch
        save(self.trainer.checkpoint, self.folder, int(self.trainer.update.numpy()), kept,
             self.identity, self.logger.is_chief)
        self.saved_at = time.monotonic()

    def restore_latest(self, images: int, classes: int) -> CompletedEpochs:
        """Restores the latest intact checkpoint; returns the epochs completed before it.

        Args:
            images: number of validation images.
            classes: number of classes.

        Raises:
            UserError: if there are checkpoints and none is intact, if the checkpoint belongs to
                another run, or if the results of the epochs before it are missing.
        """
        if self.logger.is_chief:
            remove_partial(self.folder)
        damages = []
        for update in reversed(saved_updates(self.folder)):
            folder = folder_of(self.folder, update)
            damage = find_damage(self.folder, update)
            if damage is None:
                restore(self.trainer.checkpoint, self.folder, update, self.identity)
                return self.completed_before(update, images, classes)
            damages.append(f"{folder.name}: {damage}")
            self.logger.info(f"the checkpoint {folder} cannot be read ({damage}): using the one "
                             "before it; this one is removed when the next one is written")
        if damages:
            raise UserError(f"no checkpoint in {self.folder / 'checkpoints'} can be read "
                            f"({'; '.join(damages)}): remove them, then rerun the command to train "
                            "from the start")
        return CompletedEpochs([], [])

    def check_workers_in_sync(self) -> None:
        """Raises UserError if the workers resume from different updates."""
        here = int(self.trainer.update.numpy())
        least, most = -int(self.trainer.greatest(-here)), int(self.trainer.greatest(here))
        if least != most:
            raise UserError(f"the workers would resume from different updates ({least} and {most}, "
                            f"this one from {here}): the run folder, {self.folder}, must be on a "
                            "disk that all of them share")

    def completed_before(self, update: int, images: int, classes: int) -> CompletedEpochs:
        """The epochs completed before a checkpoint, read from the run folder."""
        plan, checkpoint = self.trainer.plan, folder_of(self.folder, update)
        epochs, inside = divmod(update, plan.updates_per_epoch)
        remedy = (f"the scores of {counted(epochs, 'epoch')} before the checkpoint {checkpoint} "
                  f"exist nowhere else: restore the file, or remove {checkpoint.parent} and rerun "
                  "the command to train from the start, to the same numbers")
        try:
            history = store.read_history(self.folder)
            predictions = store.read_predictions(self.folder, images, classes).tolist()
        except UserError as error:  # its own remedy is for folders without checkpoints
            raise UserError(f"{error.problem}; {remedy}") from error
        for name, rows in ((store.HISTORY, history), (store.VALID_PREDICTIONS, predictions)):
            if len(rows) < epochs:
                raise UserError(f"{self.folder / name} ends after "
                                f"{counted(len(rows), 'epoch')}; {remedy}")
        where = f" and {inside} of {plan.updates_per_epoch} updates" if inside else ""
        self.logger.info(f"resuming from {checkpoint}: {epochs} of {plan.epochs} epochs{where} are "
                         "done")
        return CompletedEpochs(history[:epochs], predictions[:epochs])

    def load_epoch(self, epoch: int) -> None:
        """Loads the weights from the end of an epoch (counted from 0) into the model."""
        update = (epoch + 1) * self.trainer.plan.updates_per_epoch
        damage = find_damage(self.folder, update)
        if damage:
            raise UserError(f"the checkpoint {folder_of(self.folder, update)} of the best epoch, "
                            f"{epoch + 1}, cannot be read ({damage}), and results.use=best needs "
                            f"it: remove {self.folder / 'checkpoints'}, then rerun the command to "
                            "train from the start, to the same numbers")
        weights = tf.train.Checkpoint(model=self.trainer.model)
        restore(weights, self.folder, update, self.identity)
