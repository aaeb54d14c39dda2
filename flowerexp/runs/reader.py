"""Finds and reads run folders for comparison: identity, progress and numbers of each run.

Reading never raises for a damaged folder, and never writes into one. No TensorFlow here.
"""

import itertools
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowerexp import composition, identity, metrics
from flowerexp.errors import UserError, counted, first_line
from flowerexp.runs import store
from flowerexp.runs.status import RunStatus
from flowerexp.runs.store import Scores

Paths = str | Path | Iterable[str | Path]
"""Run folders, or folders of them; one or several."""
MEASURED = ("replicas", "data")
"""Keys of a run's provenance: the replicas that `auto` chose, and the data's fingerprint."""
SOURCE = "source of "
"""The prefix of the provenance's keys for the code of the user's own parts."""
NEEDED = ("valid loss", "valid acc", "valid recall", "valid precision", "valid f1", "train timing")
EPOCHS = ("best", "last")
THIRDS = ("head", "medium", "tail")
"""The names of the macro recall of each third of the classes, by training images."""
SECONDS = ("first epoch seconds", "later epochs seconds")
MOST_CLASSES = 2**20
"""The most classes if classes.json does not tell how many, so that counts fit in memory."""
SEED_OF_FOLDER = re.compile(r"\+seed=\d+(\.\d+)?$")

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader, several times as fast as OmegaConf's and equivalent for its files."""


@dataclass(frozen=True)
class Run:
    """The contents of one run folder."""

    folder: Path
    name: str
    """The name of the experiment, or else of the folder, without the seed."""
    seed: int | None
    """The seed; None if the config cannot be read."""
    keys: dict[str, Any]
    """The identity of the run without its seed: every config key that can change its numbers,
    dotted, and `replicas` and `data` (the fingerprint) if they are known."""
    variant: frozenset[str]
    """The overrides that make the run differ from its experiment, see `is_variant`."""
    compared_with: tuple[str, ...]
    state: str
    """The state: new | running | interrupted | failed | done | unreadable"""
    error: str | None
    epochs: int | None
    """The planned number of epochs, if it is known."""
    history: list[Scores]
    labels: npt.NDArray[np.int64]
    """Labels of the validation set, [images]."""
    predictions: npt.NDArray[np.int64]
    """Predicted class ids, [epochs, images]; zero epochs if the folder has no predictions."""
    class_names: tuple[str, ...]
    class_counts: npt.NDArray[np.int64]
    """Training images by class, [classes]; empty if the folder has no counts."""


def find_folders(paths: Paths) -> list[Path]:
    """The run folders at or below each path, in natural order, each once.

    Raises:
        UserError: for a path that does not exist or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if not path.is_dir():
            raise UserError(f"{path} " + ("is not a folder: give run folders, or folders of them"
                                          if path.exists() else "does not exist"))
        below = list(walk(path, set()))
        if not below:
            raise UserError(f"{path} holds no run: no folder at or below it has a "
                            f"{store.CONFIG}")
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise UserError("name at least one run folder, or a folder of them")
    return list(found.values())


def walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Run folders at or below a folder; links are followed, and no folder is visited twice."""
    if (resolved := folder.resolve()) in seen:
        return
    seen.add(resolved)
    if (folder / store.CONFIG).is_file():
        yield folder
        return
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    for name in sorted(names, key=natural):
        yield from walk(folder / name, seen)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key by which seed=2 comes before seed=10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part)
            for part in re.split(r"(\d+)", text) if part]


def read_run(folder: Path) -> Run:
    """Reads a run folder; a damaged file makes it `unreadable`, with a sentence in `error`.

    What could be read of such a folder is kept; without a config, its seed is None.
    """
    nothing = np.zeros(0, np.int64)
    run = Run(folder, SEED_OF_FOLDER.sub("", folder.name) or str(folder), None, {}, frozenset(), (),
              "unreadable", None, None, [], nothing, nothing[None][:0], (), nothing)
    try:
        run = with_config(run)
        status = RunStatus.load(folder)
        run = with_status(run, status)
        return with_scores(run, state_of(folder, status))
    except UserError as error:
        return replace(run, state="unreadable", error=str(error))
    except (OSError, RecursionError) as error:
        return replace(run, state="unreadable", error=f"{folder} cannot be read: {error}")


def with_config(run: Run) -> Run:
    """The run with the fields from its config and overrides."""
    path = run.folder / store.CONFIG
    plain: Any = read_yaml(path)
    if (not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain)
            or type(plain.get("seed")) is not int):
        raise UserError(f"{path} holds no config of a run")
    try:
        plain = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{path} cannot be read: {composition.explain(error)}") from error
    keys = identity.keys(plain)
    seed = keys.pop("seed")
    compared_with = plain.get("compared_with")
    run = replace(run, seed=seed, keys=keys, compared_with=tuple(
        map(str, compared_with if isinstance(compared_with, list) else ())))
    overrides = read_yaml(run.folder / store.OVERRIDES) or []
    if not isinstance(overrides, list):
        raise UserError(f"{run.folder / store.OVERRIDES} holds no list of overrides")
    values = {str(override): str(override).lstrip("+~").partition("=")[::2]
              for override in overrides}
    experiment = [value.strip("'\"") for key, value in values.values() if key == "experiment"]
    return replace(run, name=(experiment[-1] if experiment else "") or run.name,
                   variant=frozenset(text for text, (key, _) in values.items() if is_variant(key)))


def is_variant(key: str) -> bool:
    """Whether an override of this key makes a run differ from its experiment."""
    return not (key in ("experiment", "seed", "sweep", *identity.PLACE_KEYS,
                        *identity.INERT_KEYS) or re.match(r"hydra[./]", key))


def read_yaml(path: Path) -> Any:
    """The file as plain values; None if it does not exist."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), YAML_LOADER)  # a safe loader
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


def with_status(run: Run, status: RunStatus) -> Run:
    """The run with the fields of its status, except for the state."""
    known = status.provenance
    sources = {key: value for key, value in known.items() if key.startswith(SOURCE)}
    return replace(run, keys=run.keys | {key: known[key] for key in MEASURED if key in known}
                   | sources,
                   error=status.error, epochs=status.epochs or known.get("epochs"))


def state_of(folder: Path, status: RunStatus) -> str:
    """The state of a run: `new` before its first status, `interrupted` if its process is gone.

    A killed run leaves `running` behind; a live one holds the folder's lock.
    """
    killed = status.state == "running" and not is_held(folder / store.LOCK)
    return "interrupted" if killed else status.state


def is_held(lock: Path) -> bool:
    """Whether a process holds filelock's lock on a file, checked without writing to it.

    filelock itself creates the file and opens it for writing, which a folder may not allow.
    """
    if sys.platform == "win32":  # there is no way to check without acquiring it
        return lock.exists()
    import fcntl

    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def with_scores(run: Run, state: str) -> Run:
    """The run in its state, with its epochs, classes, labels and predictions."""
    folder = run.folder
    history = finite_history(store.read_history(folder), folder / store.HISTORY)
    if state == "done" and not history:
        raise UserError(f"{folder} is done and holds no epoch in {store.HISTORY}")
    names, counts = store.read_classes(folder)
    classes = len(names) or MOST_CLASSES
    path = folder / store.VALID_LABELS
    labels = class_ids(store.read_json(path) if path.exists() else [], path, classes)
    predictions = read_predictions(folder, len(labels), classes)
    if state != "done" and len(predictions):
        # The files of an epoch are written one after the other; an interrupt may come in between.
        history, predictions = history[:len(predictions)], predictions[:len(history)]
    elif len(predictions) and len(predictions) != len(history):
        raise UserError(f"{folder / store.VALID_PREDICTIONS} holds "
                        f"{counted(len(predictions), 'epoch')} where {store.HISTORY} holds "
                        f"{len(history)}")
    return replace(run, state=state, history=history, labels=labels, predictions=predictions,
                   class_names=tuple(names), class_counts=np.array(counts, np.int64))


def finite_history(history: Sequence[Any], path: Path) -> list[Scores]:
    """The epochs with None for non-finite values; raises UserError if it is not a history."""
    for row in history:
        if not isinstance(row, dict) or not all(key in row for key in NEEDED) or not all(
                value is None or type(value) in (int, float) for value in row.values()):
            raise UserError(f"{path} does not hold the scores of every epoch")
    return [{key: value if value is not None and math.isfinite(value) else None
             for key, value in row.items()} for row in history]


def read_predictions(folder: Path, images: int, classes: int) -> npt.NDArray[np.int64]:
    """int64 [epochs, images]; zero epochs if the folder has no predictions.

    Raises:
        UserError: for a file without a class id below `classes` for every epoch and validation
            image.
    """
    path = folder / store.VALID_PREDICTIONS
    if not path.exists():
        return np.zeros((0, images), np.int64)
    rows = [class_ids(row, path, classes) for row in store.read_predictions(folder)]
    if any(len(row) != images for row in rows):
        raise UserError(f"{path} holds other images than {store.VALID_LABELS}")
    return np.stack(rows) if rows else np.zeros((0, images), np.int64)


def class_ids(values: Any, path: Path, classes: int) -> npt.NDArray[np.int64]:
    """int64 [images]; raises UserError for anything but a list of ids below `classes`."""
    try:
        ids = np.array(values if values != [] else np.zeros(0, np.int64))
    except (ValueError, OverflowError):
        ids = np.zeros(())
    if ids.ndim != 1 or ids.dtype.kind != "i" or (ids.size and not (
            ids.min() >= 0 and ids.max() < classes)):
        raise UserError(f"{path} does not hold a class for every image")
    return ids.astype(np.int64, copy=False)


def metric_names(runs: Iterable[Run]) -> list[str]:
    """The validation metrics of the runs' histories, the built-in ones first."""
    found = dict.fromkeys(key.removeprefix("valid ") for run in runs for row in run.history
                          for key in row if key.startswith("valid ") and key != "valid loss")
    return list(dict.fromkeys((*metrics.NAMES, *found)))


def number_names(runs: Iterable[Run]) -> list[str]:
    """The names of the runs' numbers, in the order of a table's columns."""
    of_epoch = ("epoch", "loss", *metric_names(runs), *THIRDS)
    return [f"{when} {name}" for when in EPOCHS for name in of_epoch] + list(SECONDS)


def run_numbers(run: Run) -> dict[str, float]:
    """The run's numbers by the names of `number_names`; NaN if undefined."""
    numbers = dict.fromkeys(number_names([run]), math.nan)
    for when in EPOCHS:
        if (epoch := chosen_epoch(run, when)) is not None:
            numbers |= {f"{when} {name}": value for name, value in
                        ({"epoch": epoch + 1} | epoch_numbers(run, epoch)).items()}
    seconds = [number(row["train timing"]) for row in run.history]
    if seconds:
        numbers[SECONDS[0]] = seconds[0]
    if seconds[1:]:
        numbers[SECONDS[1]] = float(np.mean(seconds[1:]))
    return numbers


def chosen_epoch(run: Run, when: str) -> int | None:
    """The index of a run's best or last epoch; None before the first."""
    if when == "best":
        return metrics.best_epoch(run.history)
    return len(run.history) - 1 if run.history else None


def epoch_numbers(run: Run, epoch: int) -> dict[str, float]:
    """An epoch's validation loss and metrics; with predictions, also the thirds' recalls."""
    found = {key.removeprefix("valid "): number(value)
             for key, value in run.history[epoch].items() if key.startswith("valid ")}
    if not len(run.predictions) or not len(run.class_counts):
        return found
    by_class = metrics.recalls(run.labels, run.predictions[epoch], len(run.class_counts))
    for name, third in zip(THIRDS, metrics.thirds(run.class_counts), strict=True):
        present = by_class[third][~np.isnan(by_class[third])]
        found[name] = float(present.mean()) if present.size else np.nan
    return found


def number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def frozen(value: Any) -> Any:
    """A hashable form of the value: lists as tuples, dicts as sorted pairs."""
    if isinstance(value, dict):
        return tuple(sorted((str(key), frozen(inner)) for key, inner in value.items()))
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def in_order(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The keys of all rows in order of first appearance, with those of MEASURED at the end."""
    keys = dict.fromkeys(itertools.chain.from_iterable(rows))
    return [*(key for key in keys if key not in MEASURED), *(key for key in MEASURED
                                                             if key in keys)]
