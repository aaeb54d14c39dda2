"""Checkpoints of a run: written atomically, and verified before they are restored.

A checkpoint is a folder. Its manifest holds the sizes and hashes of its files and the identity of
its run, and so distinguishes a damaged checkpoint from that of another run. The last two
checkpoints and that of the best epoch are kept.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import tensorflow as tf

from flowerexp import metrics
from flowerexp.errors import UserError, counted, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
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

    Args:
        identity: what the run must be: config key -> JSON value, the plan, hashes of code and data.

    Raises:
        UserError: for a checkpoint of another run or model; the message names the differences.
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
                        "restore its config, code, data or hardware, or start a new run with "
                        "fresh=true")
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


class Checkpointer:
    """Saves and restores the checkpoints of one run.

    Args:
        folder: run folder.
        logger: the run's logger; only the chief writes the folder.
        trainer: trainer whose state is saved and restored.
        identity: see `restore`.
        minutes: interval of checkpoints within an epoch; None: at the end of epochs only.
    """

    def __init__(self, folder: Path, logger: RunLogger, trainer: Trainer,
                 identity: Mapping[str, Any], minutes: float | None = None) -> None:
        self.folder, self.logger, self.trainer = folder, logger, trainer
        self.identity, self.minutes = identity, minutes
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last checkpoint or the start, on any worker.

        Every worker must call it.
        """
        due = self.minutes is not None and time.monotonic() - self.saved_at >= 60 * self.minutes
        return bool(self.trainer.greatest(due))

    def save(self, history: Sequence[Scores]) -> None:
        """Writes a checkpoint under a temporary name, renames it, and removes old ones.

        That of the best epoch is kept. Those of later updates are removed: they were unreadable
        when the run resumed. Under legacy Keras every worker must take part in writing.

        Raises:
            UserError: if the disk is full or not writable, or the folder has gone.
        """
        self.logger.check_in_place()
        update, best = int(self.trainer.update.numpy()), metrics.best_epoch(history)
        target, chief, partial = folder_of(self.folder, update), self.logger.is_chief, None
        try:
            if chief:
                target.parent.mkdir(exist_ok=True)
                remove_partial(self.folder)
            partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent if chief else None))
            self.trainer.checkpoint.write(str(partial / "state"))
            if chief:
                files = {file.name: size_and_hash(file) for file in sorted(partial.iterdir())}
                store.write_json(partial / MANIFEST, {"update": update, "files": files,
                                                      "run": dict(self.identity)}, indent=1)
                for name in files:
                    store.sync(partial / name)
                remove(target)  # of the same update, from before an interruption
                partial.rename(target)
                updates = saved_updates(self.folder)
                kept = [each for each in updates if each <= update][-MAX_TO_KEEP:]
                if best is not None:
                    kept.append(self.end_of(best))
                for old in set(updates).difference(kept):
                    remove(folder_of(self.folder, old))
        except (OSError, tf.errors.OpError) as error:
            if workers.is_peer_failure(error):
                raise
            raise UserError(f"the checkpoint {target} cannot be written ({first_line(error)}): "
                            "free some space, then rerun the command; earlier checkpoints are "
                            "intact") from error
        finally:
            if partial:
                shutil.rmtree(partial, ignore_errors=True)
        self.saved_at = time.monotonic()

    def end_of(self, epoch: int) -> int:
        """The update that ends an epoch, counted from 0."""
        return (epoch + 1) * self.trainer.plan.updates_per_epoch

    def restore_latest(self, images: int, classes: int) -> tuple[list[Scores], list[list[int]]]:
        """Restores the latest intact checkpoint, if there are any.

        Args:
            images, classes: number of validation images and of classes.

        Returns:
            History and predicted class ids of the validation images of the epochs before it.

        Raises:
            UserError: if there are checkpoints and none is intact, if the checkpoint belongs to
                another run, if the results of the epochs before it are missing, or if the workers
                resume from different updates.
        """
        if self.logger.is_chief:
            remove_partial(self.folder)
        damages, completed = [], None
        for update in reversed(saved_updates(self.folder)):
            folder = folder_of(self.folder, update)
            damage = find_damage(self.folder, update)
            if damage is None:
                restore(self.trainer.checkpoint, self.folder, update, self.identity)
                completed = self.completed_before(update, images, classes)
                break
            damages.append(f"{folder.name}: {damage}")
            self.logger.info(f"the checkpoint {folder} cannot be read ({damage}): using the one "
                             "before it; this one is removed when the next one is written")
        if damages and completed is None:
            raise UserError(f"no checkpoint in {self.folder / 'checkpoints'} can be read "
                            f"({'; '.join(damages)}): remove them, then rerun the command to train "
                            "from the start")
        here = int(self.trainer.update.numpy())
        least, most = -int(self.trainer.greatest(-here)), int(self.trainer.greatest(here))
        if least != most:
            raise UserError(f"the workers would resume from different updates ({least} and {most}, "
                            f"this one from {here}): the run folder, {self.folder}, must be on a "
                            "disk that all of them share")
        return completed or ([], [])

    def completed_before(self, update: int, images: int, classes: int
                         ) -> tuple[list[Scores], list[list[int]]]:
        """History and predictions of the epochs before a checkpoint, from the run folder."""
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
        return history[:epochs], predictions[:epochs]

    def load_epoch(self, epoch: int) -> None:
        """Loads the weights from the end of an epoch (counted from 0) into the model."""
        update = self.end_of(epoch)
        if damage := find_damage(self.folder, update):
            raise UserError(f"the checkpoint {folder_of(self.folder, update)} of the best epoch, "
                            f"{epoch + 1}, cannot be read ({damage}), and results.use=best needs "
                            f"it: remove {self.folder / 'checkpoints'}, then rerun the command to "
                            "train from the start, to the same numbers")
        weights = tf.train.Checkpoint(model=self.trainer.model)
        restore(weights, self.folder, update, self.identity)
