"""Finds finished runs and the weights to predict with. No TensorFlow here."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerexp import identity, metrics, parts
from flowerexp.config import Config, one_of
from flowerexp.errors import UserError
from flowerexp.runs import reader, store
from flowerexp.runs.status import RunStatus


@dataclass(frozen=True)
class TrainedRun:
    """A finished run and its chosen weights."""

    folder: Path
    config: Config
    provenance: dict[str, Any]
    """The numbers of its plan and the fingerprint of its data."""
    names: tuple[str, ...]
    """The class names in label order."""
    image_size: int | None
    """The height and width in pixels; None if only the saved model tells."""
    weights: str
    """The chosen epoch: best | last"""
    epoch: int
    """The epoch of the weights, counted from 0."""
    saved: bool
    """Whether the folder's model.keras holds these weights; otherwise a checkpoint does."""
    trust_code: bool = False
    """Whether the user's own code that the run names may be imported."""

    def __str__(self) -> str:
        return f"{self.folder}, weights of epoch {self.epoch + 1} ({self.weights})"


def find(folder: Path, weights: str | None = None, trust_code: bool = False) -> TrainedRun:
    """Finds a finished run and the weights to predict with.

    Args:
        folder: the run folder.
        weights: best | last; None for the run's `results.use`.
        trust_code: whether code that the run names may be imported, if its model needs it.

    Raises:
        UserError: for a folder that holds no run, a run that is not finished, or a missing
            model.keras that should hold the weights.
    """
    if weights is not None:
        one_of("weights", weights, reader.EPOCHS)
    config = store.read_config(folder)
    status = RunStatus.load(folder)
    state, history = reader.state_of(folder, status), store.read_history(folder)
    if state != "done":
        planned = status.epochs or config.loop.epochs
        raise UserError(f"the run {folder} is not finished ({state}, {len(history)} of {planned} "
                        f"epochs): resume it with `python -m flowerexp resume {folder}`")
    names = store.read_classes(folder)[0]
    best = metrics.best_epoch(history)
    if not names or best is None or not status.provenance:
        raise UserError(f"{folder} is incomplete: {store.CLASSES}, {store.HISTORY} or the "
                        f"provenance in {store.STATUS} is missing; restore it, or train again "
                        "with fresh=true")
    epochs = {"best": best, "last": len(history) - 1}
    wanted = weights or config.results.use
    saved = epochs[wanted] == epochs[config.results.use]
    if saved and not (folder / store.MODEL).is_file():
        raise UserError(f"{folder / store.MODEL} is missing, which holds the run's weights: "
                        "restore it, or train again with fresh=true")
    if trust_code:
        parts.add_import_paths(status.code_path)
    return TrainedRun(folder, config, status.provenance, tuple(names), status.image_size, wanted,
                      epochs[wanted], saved, trust_code)


def find_all(folders: Sequence[Path], weights: str | None = None, trust_code: bool = False
             ) -> list[TrainedRun]:
    """Finds runs that can predict together: of the same classes, of any image sizes.

    Raises:
        UserError: see `find`; also for runs of different classes.
    """
    if not folders:
        raise UserError("no run folder is given: name at least one")
    found = [find(folder, weights, trust_code) for folder in folders]
    first = found[0]
    for other in found[1:]:
        if other.names != first.names:
            pairs = enumerate(itertools.zip_longest(first.names, other.names, fillvalue="none"))
            label, one, another = next((label, *pair) for label, pair in pairs
                                       if len(set(pair)) > 1)
            raise UserError(f"{first.folder} and {other.folder} cannot be averaged, because class "
                            f"{label} is {one} in the first and {another} in the second: give runs "
                            "of the same classes")
    return found


def identity_of(run: TrainedRun) -> dict[str, Any]:
    """The identity of a run as its checkpoints record it."""
    return identity.keys(identity.plain(run.config)) | run.provenance
