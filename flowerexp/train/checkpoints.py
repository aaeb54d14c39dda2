"""Checkpoints of a run: a folder each, whole or not there; the last two and the best are kept.

A manifest in each holds the sizes and hashes of its files and the identity of its run, so that one
that is damaged is told from one that is of another run.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import tensorflow as tf

from flowerexp.errors import UserError, first_line
from flowerexp.runs import store
from flowerexp.strategy import workers

KEPT = 2
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
"""Before the name of what is being written or removed."""


def folder_of(run: Path, update: int) -> Path:
    return run / "checkpoints" / f"update-{update:08d}"


def saved_updates(run: Path) -> list[int]:
    """The updates at which checkpoints were made, ascending.

    Raises:
        OSError: where they cannot be listed, for then the run must not begin anew over them.
    """
    if not (run / "checkpoints").exists():
        return []
    # Not glob, to which a folder that may not be read is an empty one.
    names = [path.name.removeprefix("update-") for path in (run / "checkpoints").iterdir()
             if path.name.startswith("update-") and path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def save(checkpoint: Any, run: Path, update: int, best: int | None, identity: Mapping[str, Any],
         chief: bool) -> None:
    """Writes a checkpoint under a temporary name, makes it current, and drops old ones.

    Those of later updates are dropped too: they could not be read when the run went on before them.

    Args:
        checkpoint: tf.train.Checkpoint; under legacy Keras every worker must take part in writing.
        run: the run folder.
        update: the number of updates done.
        best: the update at the end of the best epoch, whose checkpoint is kept, or None.
        identity: what the run is, by the names of its keys; values that JSON can hold.
        chief: whether this process writes the folder; the others write to a place of their own.

    Raises:
        UserError: for a disk that takes no more.
    """
    target = folder_of(run, update)
    partial = None
    try:
        if chief:
            target.parent.mkdir(exist_ok=True)
            clear(run)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent if chief else None))
        checkpoint.write(str(partial / "state"))
        if chief:
            files = {file.name: describe(file) for file in sorted(partial.iterdir())}
            store.write_json(partial / MANIFEST, {"update": update, "files": files,
                                                    "run": dict(identity)}, indent=1)
            for name in files:
                store.sync(partial / name)
            discard(target)  # of the same update, from before an interruption
            partial.rename(target)
            updates = saved_updates(run)
            current = [each for each in updates if each <= update]
            for old in set(updates) - set(current[-KEPT:]) - {best} | set(updates) - set(current):
                discard(folder_of(run, old))
    except (OSError, tf.errors.OpError) as error:
        if workers.is_peer_failure(error):
            raise
        raise UserError(f"the checkpoint {target} cannot be written ({first_line(error)}): make "
                        "room and rerun the command; what was saved before is whole") from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)


def clear(run: Path) -> None:
    """Removes what a killed process was writing or removing."""
    for stale in (run / "checkpoints").glob(f"{PARTIAL}*"):
        shutil.rmtree(stale)


def discard(folder: Path) -> None:
    """Removes a checkpoint, if it is there, so that half of it never looks like one."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder.rename(folder.with_name(f"{PARTIAL}{folder.name}")))


def describe(file: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    with file.open("rb") as content:
        return {"bytes": file.stat().st_size,
                "sha256": hashlib.file_digest(content, "sha256").hexdigest()}


def fault(run: Path, update: int) -> str | None:
    """Why a checkpoint is not what was written, in a few words; None for one that is whole."""
    folder = folder_of(run, update)
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        files = dict(manifest["files"])
        if manifest["update"] != update or not isinstance(manifest["run"], dict) or not files:
            return f"{MANIFEST} is of another checkpoint"
        for name, described in files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if describe(folder / name) != described:
                return f"{name} is damaged"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{MANIFEST} is damaged" if not isinstance(error, OSError) else str(error)
    return None


def restore(checkpoint: Any, run: Path, update: int, identity: Mapping[str, Any]) -> None:
    """Restores the state of an update from a checkpoint that is whole.

    Raises:
        UserError: for a checkpoint of another config or another model, naming what differs.
    """
    folder = folder_of(run, update)
    then = store.read_json(folder / MANIFEST)["run"]
    now = json.loads(json.dumps(dict(identity)))
    # A key that only one side knows is one that came later, with its default.
    differing = [f"{key}: {then.get(key)} there, {now.get(key)} here"
                 for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
    if differing:
        raise UserError(f"the checkpoint {folder} is of another run ({'; '.join(differing[:5])}"
                        f"{'; and more' * (len(differing) > 5)}): remove it, or start anew with "
                        "fresh=true")
    try:
        # Through a link, for TensorFlow takes brackets in a path for a pattern.
        with tempfile.TemporaryDirectory() as place:
            link = Path(place) / "checkpoint"
            link.symlink_to(folder.resolve(), target_is_directory=True)
            status = checkpoint.read(str(link / "state")).assert_existing_objects_matched()
            status.expect_partial()  # or TensorFlow lists what was not asked for, at its end
    except Exception as error:  # of variables that do not fit, TensorFlow raises several types
        raise UserError(f"the checkpoint {folder} is of another model ({first_line(error)}): "
                        "was the project or a package exchanged? bring it back, or start a new run "
                        "with fresh=true") from error
