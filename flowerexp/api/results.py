"""Loads, compares and uses runs: one function for each, which the command line calls too.

Loading and comparing need no TensorFlow.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flowerexp.api.run import Run
from flowerexp.comparison import comparison
from flowerexp.comparison.comparison import Comparison
from flowerexp.config import one_of
from flowerexp.errors import UserError, counted
from flowerexp.inference import export as exporting
from flowerexp.inference import held_out, inputs, prediction, trained
from flowerexp.inference.trained import TrainedRun
from flowerexp.runs import evaluations, reader
from flowerexp.runs.log import RunLogger

Paths = Run | str | os.PathLike[str] | Iterable["Paths"]
"""One or several runs or paths."""
SILENT = RunLogger(chief=False)
"""The logger of functions that are called from Python."""


def load_run(run: Run | str | os.PathLike[str], *, trust_code: bool = False) -> Run:
    """Loads the run of a folder, in any state.

    Args:
        run: a run folder, or a run, which is loaded again.
        trust_code: whether its model may import your own code that the folder names. Loading
            imports nothing.

    Raises:
        UserError: for a folder that holds no run.
    """
    return Run(run, trust_code)


def load_runs(*folders: Paths, trust_code: bool = False) -> list[Run]:
    """Loads the runs at or below some folders, in natural order; see `load_run`."""
    trusted = trust_code or _trusted(folders)
    return [Run(folder, trusted) for folder in reader.find_folders(_paths(folders))]


def compare(*paths: Paths, pairs: str | Sequence[str] = (), epoch: str = "last",
            common: bool = False) -> Comparison:
    """Compares runs: what differs, their metrics, and which differences are significant.

    Args:
        paths: runs, run folders, or folders of them.
        pairs: "a:b" or "a:b,c:d" compares a with the baseline b, like the command's `--pairs`; by
            default the pairs that the configs name.
        epoch: last, or best: that of each run, which was selected on the same validation images.
        common: whether pairs of runs that were validated on different images or classes are
            compared on those that they have in common; otherwise they are not compared.

    Raises:
        UserError: for a path without runs, or a pair of unknown or ambiguous names.
    """
    texts = [pairs] if isinstance(pairs, str) else pairs
    if not isinstance(texts, Iterable) or not all(isinstance(text, str) for text in texts):
        raise UserError(f'pairs={pairs!r} is not a list of texts: give ["a:b"]')
    return comparison.compare(_paths(paths), list(texts), epoch, common)


def predict(runs: Paths, photos: Paths, *, weights: str | None = None,
            flip: str | None = None, trust_code: bool = False, logger: RunLogger = SILENT
            ) -> pd.DataFrame:
    """Predicts the classes of photos; several runs are averaged.

    Args:
        runs: finished runs of the same classes.
        photos: a folder of photos or TFRecords, one or several such files, or the root of a data
            set (its test split).
        weights: best or last epoch; by default the run's `results.use`.
        flip: horizontal, vertical or both: averages over flipped copies of each photo as well.
        trust_code: whether your own code that a run folder names may be imported; not needed for
            runs loaded with trust_code=True.
        logger: shows the progress of the command line, and what was skipped.

    Returns:
        A row per photo in the input's order: `id`, `class_id`, `class_name`, `probability`, then
        `top2_class_id`, `top2_class_name`, `top2_probability` and so on, up to the fifth class.
        Its `attrs["skipped"]` has a sentence for each photo that cannot be read.

    Warns:
        UserWarning: naming these photos, which are left out.

    Raises:
        UserError: for an unfinished run, or if no photo can be read.
    """
    rows, skipped = list[pd.DataFrame](), list[str]()
    chosen = trained.find_all(_paths(runs), weights, trust_code or _trusted(runs))
    for batch in _predictions("predict", chosen, photos, flip, logger, skipped):
        rows += [batch.top_classes()] if batch.ids else []
    found = pd.concat(rows, ignore_index=True)
    found.attrs["skipped"] = skipped
    return found


def evaluate(runs: Paths, data: Paths, *, weights: str | None = None,
             flip: str | None = None, common: bool = False, split: str | None = None,
             trust_code: bool = False, logger: RunLogger = SILENT) -> prediction.Evaluation:
    """Accuracy (`acc`) and macro `recall`, `precision` and `f1` on labelled images.

    Args:
        runs, weights, flip, trust_code, logger: see `predict`.
        data: a folder of TFRecords with labels, a folder with a folder of photos for each class, or
            the root of a data set (its val split). Classes are matched by name where a file beside
            the records names them.
        common: whether images of classes that the run does not know are left out; otherwise they
            are a mistake.
        split: train, val or test of a data set; by default val. The labels of test records are read
            from the `test_labels.csv` that an import writes.

    Returns:
        A dict, which also has the `confusion` matrix, the `report()` of every class, and `skipped`.
        Those of a single run are kept in its folder with their predictions, for `compare`.

    Warns, Raises:
        See `predict`.
    """
    confusion, skipped, ids = np.zeros((), np.int64), list[str](), list[str]()
    found: list[tuple[Any, ...]] = []
    chosen = trained.find_all(_paths(runs), weights, trust_code or _trusted(runs))
    for batch in _predictions("evaluate", chosen, data, flip, logger, skipped, common, split):
        ids += batch.ids
        found.append((batch.labels, batch.digests, batch.predictions))
        confusion = confusion + batch.confusion_matrix()
    result = prediction.Evaluation(confusion, batch.names, skipped)
    if len(chosen) > 1:
        return result
    judged = held_out.Judged(ids, *map(np.concatenate, zip(*found, strict=True)))
    try:
        given = ", ".join([*map(str, _paths(data)), *([split] if split else [])])
        kept = held_out.keep(chosen[0], given, flip, judged, result)
    except OSError as error:
        logger.info(f"not kept in {chosen[0].folder}, which cannot be written ({error.strerror})")
        return result
    logger.info(f"kept for `compare` in {chosen[0].folder / evaluations.FOLDER / kept.file}")
    if kept.caution:
        logger.info(f"caution: {kept.data}: {kept.caution}")
    return result


def export(run: Run | str | os.PathLike[str], folder: str | os.PathLike[str], *,
           weights: str | None = None, trust_code: bool = False, logger: RunLogger = SILENT
           ) -> Path:
    """Writes a SavedModel that needs TensorFlow alone, model.keras and classes.json to a folder.

    Args:
        run: a finished run.
        folder: a folder that is new, empty, or an earlier export, which is replaced.
        weights, trust_code, logger: see `predict`.
    """
    chosen = Run(run, trust_code)
    found = trained.find(chosen.folder, weights, chosen.trust_code)
    with logger.native_log(), logger.steps("export", exporting.STEPS) as advance:
        exporting.write(found, Path(folder), advance)
    logger.info(f"exported {found} to {folder}")
    return Path(folder)


def _predictions(task: str, chosen: Sequence[TrainedRun], data: Paths, flip: str | None,
                 logger: RunLogger, skipped: list[str], common: bool = False,
                 split: str | None = None) -> Iterator[prediction.Batch]:
    """Yields predictions after all arguments are checked, which needs no TensorFlow.

    Args:
        task: predict | evaluate.
        skipped: receives a sentence for each image that cannot be read.
        common, split: see `evaluate`.
    """
    if split is not None:
        one_of("split", split, inputs.SPLITS)
    if flip is not None:
        one_of("flip", flip, tuple(filter(None, prediction.FLIPS)))
    labelled = task == "evaluate"
    given = inputs.find(_paths(data), [run.image_size for run in chosen if run.image_size],
                        chosen[0].names if labelled else None, split, common)
    skipped += given.skipped
    for note in given.notes:
        logger.info(note)
    for run in chosen:
        logger.info(f"run: {run}")
    if len(chosen) > 1:
        logger.info(f"the probabilities of {len(chosen)} runs are averaged")
    if given.others:
        logger.info(f"hidden folders and files without an image extension in {given.path}, "
                    f"skipped: {given.others}")
    read = 0
    with logger.native_log():
        with logger.steps("loading", None):
            ensemble = prediction.Ensemble(chosen, flip)
        offset = getattr(chosen[0].config.dataset.source, "label_offset", None) or 0
        classes = (prediction.classes_of(given, ensemble.names, offset, common) if labelled
                   else None)
        if classes and classes.sentence:
            logger.info(classes.sentence)
        with logger.progress(prediction.count(given), 0) as advance:
            for batch in ensemble.predict(given, classes):
                yield batch
                read += len(batch.ids)
                skipped += [fault.sentence for fault in batch.faults]
                advance(task, len(batch.ids) + len(batch.faults))
    if not read:
        raise UserError(f"{given.path}: no image can be used"
                        + (f", {len(skipped)} are bad; the first: {skipped[0]}" if skipped
                           else ": there is none"))
    for sentence in skipped:
        logger.info(f"skipped: {sentence}")
    if skipped:
        logger.info(f"images that cannot be used, not in the result: {len(skipped)}")
    if skipped and logger is SILENT:
        warnings.warn(f"{counted(len(skipped), 'photo')} left out: {'; '.join(skipped)}",
                      stacklevel=3)


def _paths(given: Paths) -> list[Path]:
    """One or several runs or paths as a list; raises UserError for anything else."""
    if isinstance(given, str | os.PathLike):
        return [Path(given)]
    if isinstance(given, Iterable):
        return [path for each in given for path in _paths(each)]
    raise UserError(f"{given!r} is neither a run nor a path: give one, or a list of them")


def _trusted(runs: Paths) -> bool:
    """Whether all of these are runs loaded with trust_code=True."""
    if isinstance(runs, Run):
        return runs.trust_code
    if isinstance(runs, str | bytes | os.PathLike) or not isinstance(runs, Iterable):
        return False
    return all(map(_trusted, runs))
