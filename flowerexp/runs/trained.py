"""Finished runs, and which of their weights predict. No TensorFlow here."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError
from flowerexp.runs import reader, store


@dataclass(frozen=True)
class TrainedRun:
    """A finished run with the weights that were chosen."""

    folder: Path
    config: Config
    beginning: dict[str, Any]
    """Of its status: the plan and the fingerprint of the data."""
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

    def __str__(self) -> str:
        return f"{self.folder}, weights of epoch {self.epoch + 1} ({self.weights})"


def find(folder: Path, weights: str | None = None) -> TrainedRun:
    """A run folder as one that predicts.

    Args:
        folder: of the run.
        weights: best | last; None for those of the run's own predictions, its `results.use`.

    Raises:
        UserError: for a folder that holds no run, a run that is not finished, or one without
            model.keras where that has the weights.
    """
    config = store.read_config(folder)
    status = store.read_status(folder)
    state, history = reader.state_of(folder, status), store.read_history(folder)
    if state != "done":
        planned = status.get("epochs", config.loop.epochs)
        raise UserError(f"the run {folder} is not finished ({state}, {len(history)} of {planned} "
                        f"epochs): go on with `python -m flowerexp resume {folder}`")
    names = store.read_classes(folder)[0]
    best, beginning = store.best_epoch(history), status.get("beginning")
    if not names or best is None or not isinstance(beginning, dict):
        raise UserError(f"{folder} is not whole, for {store.CLASSES}, {store.HISTORY} or the "
                        f"beginning in {store.STATUS} is missing: bring it back, or train again "
                        "with fresh=true")
    epochs = {"best": best, "last": len(history) - 1}
    wanted = weights or config.results.use
    saved = epochs[wanted] == epochs[config.results.use]
    if saved and not (folder / store.MODEL).is_file():
        raise UserError(f"{folder / store.MODEL} is missing, which holds the run's weights: "
                        "bring it back, or train again with fresh=true")
    data = status.get("data")
    size = data.get("image_size") if isinstance(data, dict) else None
    return TrainedRun(folder, config, beginning, tuple(names), size or config.dataset.image_size,
                   wanted, epochs[wanted], saved)


def split_words(words: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The run folders and the inputs of `RUN... INPUT`; of inputs there are several if all are
    files.

    Raises:
        UserError: where inputs are missing, or for a folder in between that is no run.
    """
    is_run = [(path / store.CONFIG).is_file() for path in words]
    grammar = "give run folders first and what they shall look at last, as in RUN... INPUT"
    if all(is_run):
        raise UserError(f"{words[-1]} is a run folder, and an input is missing: {grammar}")
    first = is_run.index(False)
    inputs = words[first:]
    wrong = [path for path in inputs[:-1] if not path.is_file()]
    if first == 0 or wrong or any(is_run[first:]):
        raise UserError(f"{(wrong or inputs)[0]} is no run folder, for it holds no "
                        f"{store.CONFIG}: {grammar}")
    return list(words[:first]), list(inputs)


def find_all(folders: Sequence[Path], weights: str | None = None) -> list[TrainedRun]:
    """Runs that can predict together: of the same classes, of whatever image sizes.

    Raises:
        UserError: as of `find`, and for runs of other classes.
    """
    found = [find(folder, weights) for folder in folders]
    first = found[0]
    for other in found[1:]:
        if other.names != first.names:
            pairs = enumerate(itertools.zip_longest(first.names, other.names, fillvalue="none"))
            label, one, another = next((label, *pair) for label, pair in pairs
                                       if len(set(pair)) > 1)
            raise UserError(f"{first.folder} and {other.folder} cannot be averaged, for class "
                            f"{label} is {one} in the first and {another} in the second: give runs "
                            "of the same classes")
    return found


def identity(run: TrainedRun) -> dict[str, Any]:
    """What the checkpoints of a run say that it is."""
    return composition.identity(asdict(run.config)) | run.beginning
