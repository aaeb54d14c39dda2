"""Finds run folders and reads each as a whole: identity, progress and numbers of its run.

Reading never raises for a damaged folder, and never writes into one. No TensorFlow here.
"""

import fcntl
import itertools
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerexp import identity, metrics
from flowerexp.errors import UserError, counted
from flowerexp.runs import evaluations, store
from flowerexp.runs.evaluations import Evaluated
from flowerexp.runs.status import RunStatus
from flowerexp.runs.store import Scores

Paths = str | Path | Iterable[str | Path]
"""Run folders, or folders of them; one or several."""
MEASURED = ("replicas", "data")
"""Keys of a run's provenance: the replicas that `auto` chose, and the data's fingerprint."""
SOURCE = "source of "
"""The prefix of the provenance's keys for the code of the user's own parts."""
EPOCHS = ("best", "last")
THIRDS = ("head", "medium", "tail")
"""The names of the macro recall of each third of the classes, by training images."""
SECONDS = ("first epoch seconds", "later epochs seconds")
DECIDING = ("hardware.", "model.", "augmentation", "loop.batch_size_per_replica")
"""The starts of the keys that affect the speed of training."""
IRRELEVANT = ("model.weights", "model.dropout", "model.input_scaling")
"""Keys among these that do not affect it."""
SEED_OF_FOLDER = re.compile(r"\+seed=\d+(\.\d+)?$")
FOLD_OF_FOLDER = re.compile(r"(^|\+)dataset\.fold=\d+(?=\+|$)")
FOLD = "dataset.fold"
"""The key of the fold that validates: folds are runs of one row, as seeds are."""


@dataclass(frozen=True)
class Run:
    """The contents of one run folder."""

    folder: Path
    name: str
    """The name of the experiment, or else of the folder, without the seed."""
    seed: int | None = None
    """The seed; None if the config cannot be read."""
    keys: dict[str, Any] = field(default_factory=dict)
    """The identity of the run without its seed: every config key that can change its numbers,
    dotted, and `replicas` and `data` (the fingerprint) if they are known."""
    variant: frozenset[str] = frozenset()
    """The overrides that make the run differ from its experiment, see `is_variant`."""
    compared_with: tuple[str, ...] = ()
    state: str = "unreadable"
    """The state: new | running | interrupted | failed | done | unreadable"""
    error: str | None = None
    epochs: int | None = None
    """The planned number of epochs, if it is known."""
    history: list[Scores] = field(default_factory=list)
    ids: tuple[str, ...] = ()
    """Ids of the validation set; empty in folders of the first versions."""
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Labels of the validation set, [images]."""
    predictions: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, 0), np.int64))
    """Predicted class ids, [epochs, images]; zero epochs if the folder has no predictions."""
    class_names: tuple[str, ...] = ()
    evaluations: tuple[Evaluated, ...] = ()
    """What the weights of `results.use` predicted for other labelled data."""
    class_counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Training images by class, [classes]; empty if the folder has no counts."""

    @property
    def member(self) -> tuple[int, int]:
        """Seed and fold, by which the runs of one row differ; the fold is 0 without folds."""
        fold = self.keys.get(FOLD)
        return self.seed or 0, fold if isinstance(fold, int) else 0


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
    run = Run(folder, named_after_folder(folder))
    try:
        run = with_config(run)
        status = RunStatus.load(folder)
        measured = {key: value for key, value in status.provenance.items()
                    if key in MEASURED or key.startswith(SOURCE)}
        planned = status.epochs or status.provenance.get("epochs")
        run = replace(run, keys=run.keys | measured, error=status.error,
                      epochs=planned if isinstance(planned, int) else None)
        return with_scores(run, state_of(folder, status), status.valid)
    except UserError as error:
        return replace(run, state="unreadable", error=str(error))
    except OSError as error:
        return replace(run, state="unreadable", error=f"{folder} cannot be read: {error}")


def named_after_folder(folder: Path) -> str:
    """The name of a run folder without the seed and the fold."""
    name = FOLD_OF_FOLDER.sub("", SEED_OF_FOLDER.sub("", folder.name)).lstrip("+")
    return name or (folder.parent.name if FOLD_OF_FOLDER.search(folder.name) else "") or str(folder)


def with_config(run: Run) -> Run:
    """The run with the fields from its config and overrides."""
    plain = store.read_plain(run.folder)
    keys, compared_with = identity.keys(plain), plain.get("compared_with")
    run = replace(run, seed=keys.pop("seed"), keys=keys, compared_with=tuple(
        map(str, compared_with if isinstance(compared_with, list) else ())))
    values = {override: override.lstrip("+~").partition("=")[::2]
              for override in store.read_overrides(run.folder)}
    experiment = [value.strip("'\"") for key, value in values.values() if key == "experiment"]
    return replace(run, name=(experiment[-1] if experiment else "") or run.name,
                   variant=frozenset(text for text, (key, _) in values.items() if is_variant(key)))


def is_variant(key: str) -> bool:
    """Whether an override of this key makes a run differ from its experiment."""
    return not (key in ("experiment", "seed", "sweep", FOLD, *identity.PLACE_KEYS,
                        *identity.INERT_KEYS) or re.match(r"hydra[./]", key))


def state_of(folder: Path, status: RunStatus) -> str:
    """The state of a run: `new` before its first status, `interrupted` if its process is gone.

    A killed run leaves `running` behind; a live one holds the folder's lock.
    """
    killed = status.state == "running" and not is_held(folder / store.LOCK)
    return "interrupted" if killed else status.state


def is_held(lock: Path) -> bool:
    """Whether a process holds filelock's lock on a file.

    filelock itself would create the file and open it for writing, which a folder may not allow.
    """
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def with_scores(run: Run, state: str, checksum: str | None) -> Run:
    """The run in its state, with its epochs, classes, labels and predictions.

    Args:
        checksum: that of the validation images' ids and labels, if it is known.
    """
    folder, history = run.folder, store.read_history(run.folder)
    if state == "done" and not history:
        raise UserError(f"{folder} is done and holds no epoch in {store.HISTORY}")
    names, counts = store.read_classes(folder)
    classes = len(names) or store.MOST_CLASSES
    ids, labels = store.read_valid(folder, checksum, classes)
    predictions = store.read_predictions(folder, len(labels), classes)
    if state != "done" and len(predictions):
        # The files of an epoch are written one after the other; an interrupt may come in between.
        history, predictions = history[:len(predictions)], predictions[:len(history)]
    elif len(predictions) and len(predictions) != len(history):
        raise UserError(f"{folder / store.VALID_PREDICTIONS} holds "
                        f"{counted(len(predictions), 'epoch')} where {store.HISTORY} holds "
                        f"{len(history)}")
    check_accuracies(folder, history, labels, predictions)
    used = run.keys.get("results.use", "last")
    evaluated = tuple(each for each in evaluations.read(folder)
                      if each.weights == used and each.flip is None)
    return replace(run, state=state, history=history, evaluations=evaluated, ids=ids, labels=labels,
                   predictions=predictions,
                   class_names=tuple(names), class_counts=np.array(counts, np.int64))


def check_accuracies(folder: Path, history: list[Scores], labels: npt.NDArray[np.int64],
                     predictions: npt.NDArray[np.int64]) -> None:
    """Raises UserError if predictions and labels do not give the accuracies of the history."""
    found = (predictions == labels).mean(1) if labels.size else np.zeros(0)
    for epoch, (accuracy, row) in enumerate(zip(found, history, strict=False)):
        stated = row.get("valid acc")
        if stated is not None and abs(stated - accuracy) > store.ROUNDING:
            raise UserError(f"{folder}: {store.VALID_PREDICTIONS} and {store.VALID_LABELS} give an "
                            f"accuracy of {accuracy:.4f} for epoch {epoch + 1} where "
                            f"{store.HISTORY} says {stated:.4f}",
                            "restore the files as the run wrote them")


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


def test_numbers(run: Run, titles: Mapping[str, str]) -> dict[str, float]:
    """The scores of a run's evaluations by the title of their data; NaN if it has none there."""
    found = {f"{title} {name}": math.nan for title in titles.values() for name in metrics.NAMES}
    for each in run.evaluations:
        title = titles[each.fingerprint]
        found |= {f"{title} {name}": each.scores[name] for name in metrics.NAMES}
    return found


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


def seconds_per_image(folder: Path, plain: Mapping[str, Any], image_size: int) -> float | None:
    """The training time of an image, measured by the runs in and next to a folder.

    Args:
        folder: a folder of runs and sweeps, or a sweep itself.
        plain: the config of the run to estimate, as nested dicts.
        image_size: the height and width of its images in pixels.

    Returns:
        The median over the runs of the same model, image size and hardware on this machine, each
        represented by the median of its epochs; the first epoch, which compiles, counts only if it
        is the only one. None without such a run.
    """
    measured = []
    for config in itertools.chain(folder.glob(f"*/{store.CONFIG}"),
                                  folder.glob(f"*/*/{store.CONFIG}"),
                                  folder.parent.glob(f"*/{store.CONFIG}")):
        run = config.parent.parent
        try:
            status = RunStatus.load(run)
            if (status.host != platform.node() or status.image_size != image_size
                    or speed_keys(store.read_plain(run)) != speed_keys(plain)):
                continue
            images = math.prod(int(status.provenance[number] or 0) for number in (
                "updates_per_epoch", "replicas", "accumulation", "batch_size"))
            seconds = [value for row in store.read_history(run) if (value := row["train timing"])]
            measured.append(statistics.median(seconds[1:] or seconds) / images)
        except (UserError, ArithmeticError, KeyError, ValueError):
            continue  # damaged folders are ignored
    return statistics.median(measured) if measured else None


def speed_keys(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that affect the speed of training."""
    return {key: value for key, value in identity.keys(plain).items()
            if key not in IRRELEVANT and key.startswith(DECIDING)}
