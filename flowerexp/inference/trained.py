"""Finished runs and the weights that predict. No TensorFlow here."""

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
    """A finished run with the weights that were chosen."""

    folder: Path
    config: Config
    provenance: dict[str, Any]
    """The numbers of its plan and the fingerprint of its data."""
    names: tuple[str, ...]
    """Of the classes, in label order."""
    image_size: int | None
    """Height and width in pixels; None where only the saved model tells."""
    weights: str
    """best | last"""
    epoch: int
    """Whose weights these are, from 0."""
    saved: bool
    """Whether the folder's model.keras holds these weights; else a checkpoint does."""
    trust_code: bool = False
    """Whether code of the user's own that the run names may be imported."""

    def __str__(self) -> str:
        return f"{self.folder}, weights of epoch {self.epoch + 1} ({self.weights})"


def find(folder: Path, weights: str | None = None, trust_code: bool = False) -> TrainedRun:
    """A finished run with the weights that predict.

    Args:
        folder: of the run.
        weights: best | last; None for those of the run's own predictions, its `results.use`.
        trust_code: whether code that the run names may be imported, if its model needs it.

    Raises:
        UserError: for a folder that holds no run, a run that is not finished, or one without
            model.keras where that has the weights.
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
    size = status.data.get("image_size")
    return TrainedRun(folder, config, status.provenance, tuple(names), size, wanted,
                      epochs[wanted], saved, trust_code)


def find_all(folders: Sequence[Path], weights: str | None = None, trust_code: bool = False
             ) -> list[TrainedRun]:
    """Runs that can predict together: of the same classes, of whatever image sizes.

    Raises:
        UserError: as of `find`, and for runs of other classes.
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
    """What the checkpoints of a run say that it is."""
    return identity.keys(identity.plain(run.config)) | run.provenance
