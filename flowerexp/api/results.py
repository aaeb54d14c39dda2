"""Loads, compares and uses runs. Loading and comparing need no TensorFlow."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flowerexp import metrics
from flowerexp.api.run import Run
from flowerexp.comparison import comparison
from flowerexp.comparison.comparison import Comparison
from flowerexp.config import Hardware, one_of
from flowerexp.inference import export as exporting
from flowerexp.inference import inputs, trained
from flowerexp.runs import reader
from flowerexp.runs.log import RunLogger
from flowerexp.strategy import factory

Runs = Run | str | Path | Sequence[Run | str | Path]
"""One or several runs, or their folders."""


def load_run(path: str | Path, *, trust_code: bool = False) -> Run:
    """Loads the run of a folder, in any state.

    Args:
        path: a run folder.
        trust_code: whether its model may import your own code that the folder names. Loading
            imports nothing.

    Raises:
        UserError: for a folder that holds no run.
    """
    return Run(path, trust_code)


def load_runs(*paths: str | Path, trust_code: bool = False) -> list[Run]:
    """Loads the runs at or below some folders, in natural order; see `load_run`."""
    return [Run(folder, trust_code) for folder in reader.find_folders(paths)]


def compare(*paths: Runs, pairs: str | Sequence[str] = (), epoch: str = "last") -> Comparison:
    """Compares runs: what differs, their metrics, and which differences are significant.

    Args:
        paths: runs, run folders, or folders of them.
        pairs: "a:b" or "a:b,c:d" compares a with the baseline b, like the command's `--pairs`; by
            default the pairs that the configs name.
        epoch: last, or best: that of each run, which was selected on the same validation images.

    Raises:
        UserError: for a path without runs, or a pair of unknown or ambiguous names.
    """
    return comparison.compare([folder for each in paths for folder in _folders(each)], pairs,
                              epoch)


def predict(runs: Runs, photos: str | Path | Sequence[str | Path], *, weights: str | None = None,
            flip: str | None = None, trust_code: bool = False) -> pd.DataFrame:
    """Predicts the classes of photos; several runs are averaged.

    Args:
        runs: finished runs of the same classes.
        photos: a folder of photos or TFRecords, one or several such files, or the root of a data
            set (its test split).
        weights: best or last epoch; by default the run's `results.use`.
        flip: horizontal, vertical or both: averages over flipped copies of each photo as well.
        trust_code: whether your own code that a run folder names may be imported; not needed for
            runs loaded with trust_code=True.

    Returns:
        A row per photo: `id`, `class_id`, `class_name`, `probability`, then `top2_class_id`,
        `top2_class_name`, `top2_probability` and so on, up to the fifth class.

    Warns:
        UserWarning: naming photos that cannot be read; they are left out.

    Raises:
        UserError: for an unfinished run, or if no photo can be read.
    """
    found: pd.DataFrame = _infer("predict", runs, photos, weights, flip, trust_code)
    return found


def evaluate(runs: Runs, data: str | Path | Sequence[str | Path], *, weights: str | None = None,
             flip: str | None = None, trust_code: bool = False) -> dict[str, float]:
    """Accuracy (`acc`) and macro `recall`, `precision` and `f1` on labelled images.

    Args:
        runs, weights, flip, trust_code: see `predict`.
        data: a folder of TFRecords with labels, a folder with a folder of photos for each class, or
            the root of a data set (its val split).

    Warns, Raises:
        See `predict`.
    """
    return metrics.scores(_infer("evaluate", runs, data, weights, flip, trust_code))


def export(run: Run | str | Path, folder: str | Path, *, weights: str | None = None,
           trust_code: bool = False) -> Path:
    """Writes a SavedModel that needs TensorFlow alone, model.keras and classes.json to a folder.

    Args:
        run: a finished run.
        folder: a folder that is new, empty, or an earlier export, which is replaced.
        weights, trust_code: see `predict`.
    """
    chosen = trained.find(_folders(run)[0], weights, trust_code or _trusted(run))
    exporting.check_folder(Path(folder))
    with _inference():
        exporting.write(chosen, Path(folder))
    return Path(folder)


def _infer(task: str, runs: Runs, data: str | Path | Sequence[str | Path], weights: str | None,
           flip: str | None, trust_code: bool) -> Any:
    """The result of `prediction.predict` or `prediction.evaluate`."""
    if flip is not None:
        one_of("flip", flip, ("horizontal", "vertical", "both"))
    chosen = trained.find_all(_folders(runs), weights, trust_code or _trusted(runs))
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(each) for each in data]
    sizes = [each.image_size for each in chosen if each.image_size is not None]
    given = inputs.find(paths, sizes, chosen[0].names if task == "evaluate" else None)
    with _inference():
        from flowerexp.inference import prediction

        ensemble = prediction.Ensemble(chosen, flip)
        found, faults = getattr(prediction, task)(ensemble, given, lambda count: None)
    if faults:
        warnings.warn(f"{len(faults)} photo{'s' * (len(faults) != 1)} left out: "
                      + "; ".join(fault.sentence for fault in faults), stacklevel=3)
    return found


@contextlib.contextmanager
def _inference() -> Iterator[None]:
    """Prepares TensorFlow in this process and drops its native messages."""
    factory.prepare(Hardware("cpu"))
    with RunLogger().native_log():
        yield


def _trusted(runs: Runs) -> bool:
    """Whether all of these are runs loaded with trust_code=True."""
    if isinstance(runs, Run | str | Path):
        return isinstance(runs, Run) and runs.trust_code
    return all(map(_trusted, runs))


def _folders(runs: Runs) -> list[Path]:
    if isinstance(runs, Run):
        return [runs.folder]
    if isinstance(runs, str | Path):
        return [Path(runs)]
    return [folder for each in runs for folder in _folders(each)]
