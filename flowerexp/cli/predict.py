"""python -m flowerexp predict, evaluate and export: what finished runs are good for."""

import contextlib
import enum
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerexp import composition
from flowerexp.config import Hardware
from flowerexp.errors import UserError
from flowerexp.inference import export as exporting
from flowerexp.inference import inputs, trained
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.strategy import factory


class Weights(enum.Enum):
    """Of which epoch the weights are."""

    best = "best"
    """That of the highest validation F1."""
    last = "last"


class Flip(enum.Enum):
    """What every picture is also looked at as."""

    horizontal = "horizontal"
    """With left and right exchanged."""
    vertical = "vertical"
    """With top and bottom exchanged."""
    both = "both"
    """Each of these, and both at once."""


Runs = Annotated[list[Path], typer.Argument(
    metavar="RUN", show_default=False,
    help="Finished run folders (they hold .hydra/config.yaml); the probabilities of several are "
         "averaged.")]
WeightsOption = Annotated[Weights | None, typer.Option(
    help="Which epoch's weights: the best by validation F1, or the last; those that made the run's "
         "own predictions (its results.use) unless given.", show_default=False)]
FlipOption = Annotated[Flip | None, typer.Option(
    help="Look at every picture also with left and right exchanged, or top and bottom, or in all "
         "four ways, and average the probabilities.", show_default=False)]


def predict(
    runs: Runs,
    given: Annotated[Path, typer.Argument(
        metavar="INPUT", show_default=False,
        help="A folder of TFRecords (*.tfrec), a data set's root (its test split), a folder of "
             "pictures (JPEG, PNG, BMP, GIF; with all folders below), or one or several files, "
             "pictures or TFRecords. Images of any size.")],
    output: Annotated[Path | None, typer.Option(
        help="The CSV; standard output unless given.", show_default=False)] = None,
    weights: WeightsOption = None,
    flip: FlipOption = None,
) -> None:
    """Predict the classes of pictures, as CSV: id, class_id, class_name, probability, top 5.

    The id is that of the record (FILE:NUMBER where it has none), or the picture's path, in a folder
    that below it. The second to fifth class have the columns top2_class_id, top2_class_name,
    top2_probability and so on. Pictures that cannot be read are listed and left out, and the exit
    code is then 1.
    Example: python -m flowerexp predict outputs/A outputs/B photos --output predictions.csv
    """
    with composition.one_sentence():
        found_runs, files = find([*runs, given], weights, labelled=False)
        if output and output.is_dir():
            raise UserError(f"--output={output} is a folder: give the name of a file")
        with speaking(on_errors=output is None) as logger:
            found, faults = look("predict", found_runs, files, flip, logger)
        from flowerexp.comparison import tables

        text = tables.encodable(found.to_csv(index=False, lineterminator="\n",
                                             float_format="%.9g"))
        if output:
            store.write_text(output, text)
            logger.info(f"predictions: {len(found)} pictures in {output}")
        else:
            print(text, end="")
    if faults:
        raise typer.Exit(1)


def evaluate(
    runs: Runs,
    given: Annotated[Path, typer.Argument(
        metavar="DATA", show_default=False,
        help="A folder of TFRecords (*.tfrec) with labels, or one or several such files, a data "
             "set's root (its val split), or a folder of pictures with a folder for each class, of "
             "its name. Images of any size.")],
    weights: WeightsOption = None,
    flip: FlipOption = None,
) -> None:
    """Print accuracy, macro recall, precision and F1, and the report of every class.

    Macro averages are over the classes that occur in labels or predictions. Pictures that cannot be
    read are listed and left out, and the exit code is then 1.
    Example: python -m flowerexp evaluate outputs/A /data/flowers/val
    """
    with composition.one_sentence():
        found_runs, files = find([*runs, given], weights, labelled=True)
        with speaking(on_errors=False) as logger:
            found, faults = look("evaluate", found_runs, files, flip, logger)
        from flowerexp.inference import prediction

        print(prediction.report(found, found_runs[0].names), end="")
    if faults:
        raise typer.Exit(1)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.",
                                        show_default=False)],
    out: Annotated[Path, typer.Argument(
        metavar="OUT", help="A folder that does not exist or is empty, or an earlier export, which "
                            "is replaced.", show_default=False)],
    weights: WeightsOption = None,
) -> None:
    """Write OUT/saved_model, which needs TensorFlow alone, and OUT/model.keras.

    saved_model: JPEG, PNG, BMP or GIF bytes [n] to class_name, class_id, probability and
    probabilities. model.keras: pixels (0 to 255) to logits; OUT/classes.json names the classes.
    Example: python -m flowerexp export outputs/A exported
    """
    with composition.one_sentence():
        found = trained.find(run, weights.value if weights else None)
        exporting.check_folder(out)
        with speaking(on_errors=False) as logger:
            with logger.steps("export", exporting.STEPS) as advance:
                exporting.write(found, out, advance)
            logger.info(f"exported: {found}, as {out}")


def find(words: Sequence[Path], weights: Weights | None, labelled: bool
         ) -> tuple[list[trained.TrainedRun], inputs.Input]:
    """The runs and what they shall look at, checked before TensorFlow is imported."""
    folders, paths = inputs.split_words(words)
    runs = trained.find_all(folders, weights.value if weights else None)
    sizes = [run.image_size for run in runs if run.image_size is not None]
    return runs, inputs.find(paths, sizes, runs[0].names if labelled else None)


def look(task: str, runs: Sequence[trained.TrainedRun], given: inputs.Input, flip: Flip | None,
         logger: RunLogger) -> tuple[Any, list[Any]]:
    """What `inference.predict` or `inference.evaluate` returns, with a bar and what was left out.
    """
    for run in runs:
        logger.info(f"run: {run}")
    if len(runs) > 1:
        logger.info(f"the probabilities of {len(runs)} runs are averaged")
    if given.others:
        logger.info(f"files and hidden folders in {given.path} that are no pictures by their "
                    f"names, left out: {given.others}")
    with logger.steps("loading", None):
        from flowerexp.inference import prediction

        ensemble = prediction.Ensemble(runs, flip.value if flip else None)
    function = getattr(prediction, task)
    with logger.progress(prediction.count(given), 0) as advance:
        found, faults = function(ensemble, given, lambda count: advance(task, count))
    for fault in faults:
        logger.info(f"left out: {fault.sentence}")
    if faults:
        logger.info(f"faults: {len(faults)}, listed above; all other pictures are in the result")
    return found, faults


@contextlib.contextmanager
def speaking(on_errors: bool) -> Iterator[RunLogger]:
    """The voice of a command while native libraries are silent.

    Args:
        on_errors: speak on the error stream, for standard output is the result.
    """
    from rich.console import Console

    factory.prepare(Hardware("cpu"))
    logger = RunLogger()
    with os.fdopen(os.dup(2), "w") as errors:
        if on_errors:
            logger.console = Console(file=errors, highlight=False)
        with logger.native_log():
            yield logger
