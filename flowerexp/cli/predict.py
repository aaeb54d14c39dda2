"""`flowerexp predict`, `evaluate` and `export`: inference with finished runs."""

import contextlib
import enum
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerexp import composition
from flowerexp.config import Hardware
from flowerexp.errors import UserError, counted, encodable
from flowerexp.inference import export as exporting
from flowerexp.inference import inputs, trained
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.strategy import factory


class Weights(enum.Enum):
    """The epoch whose weights are used."""

    best = "best"
    """The epoch of the highest validation F1."""
    last = "last"


class Flip(enum.Enum):
    """The flipped copies of each image that are predicted too (test-time augmentation)."""

    horizontal = "horizontal"
    vertical = "vertical"
    both = "both"
    """The horizontal, the vertical, and the horizontal and vertical flip."""


TrustCode = Annotated[bool, typer.Option(
    "--trust-code", help="Allow importing the code outside flowerexp and Keras that a run names.")]
Runs = Annotated[list[Path], typer.Argument(
    metavar="RUN", show_default=False,
    help="Finished run folders; the probabilities of several are averaged.")]
WeightsOption = Annotated[Weights | None, typer.Option(
    help="Weights of the best epoch by validation F1, or of the last (default: the run's "
         "results.use).", show_default=False)]
FlipOption = Annotated[Flip | None, typer.Option(
    help="Average the probabilities over each image and its flips (test-time augmentation).",
    show_default=False)]


def predict(
    runs: Runs,
    given: Annotated[Path, typer.Argument(
        metavar="INPUT", show_default=False,
        help="One or several images (JPEG, PNG, BMP, GIF) or TFRecord files (*.tfrec), a folder of "
             "either, searched recursively for images, or the root of a data set (its test split). "
             "Images may have any size.")],
    output: Annotated[Path | None, typer.Option(
        help="The CSV file (default: standard output).", show_default=False)] = None,
    weights: WeightsOption = None,
    flip: FlipOption = None,
    trust_code: TrustCode = False,
) -> None:
    """Predict the classes of images, as CSV.

    The columns are id, class_id, class_name and probability, then top2_class_id, top2_class_name,
    top2_probability and so on to the fifth class. The id is the record's (FILE:NUMBER if it has
    none) or the image's path, relative to the folder that was given. Images that cannot be read are
    listed and skipped; the exit code is then 1.

    Example: python -m flowerexp predict outputs/A outputs/B photos --output predictions.csv
    """
    with composition.one_sentence():
        found_runs, files = find_all([*runs, given], weights, False, trust_code)
        if output and output.is_dir():
            raise UserError(f"--output={output} is a folder: give the name of a file")
        stream = output is None or store.is_stream(output)
        with quiet_logger(on_errors=stream) as logger:
            found, faults = infer("predict", found_runs, files, flip, logger)
        text = encodable(found.to_csv(index=False, lineterminator="\n", float_format="%.9g"))
        if output:
            store.write_text(output, text)
        if output and not stream:
            logger.info(f"predictions of {counted(len(found), 'image')}: {output}")
        if output is None:
            print(text, end="")
    if faults:
        raise typer.Exit(1)


def evaluate(
    runs: Runs,
    given: Annotated[Path, typer.Argument(
        metavar="DATA", show_default=False,
        help="One or several TFRecord files (*.tfrec) with labels, a folder of them, the root of a "
             "data set (its val split), or a folder that holds a folder of images for each class. "
             "Images may have any size.")],
    weights: WeightsOption = None,
    flip: FlipOption = None,
    trust_code: TrustCode = False,
) -> None:
    """Evaluate runs on labeled images.

    Prints accuracy, macro recall, precision and F1, and a report of every class. Macro averages are
    over the classes that occur in labels or predictions. Images that cannot be read are listed and
    skipped; the exit code is then 1.

    Example: python -m flowerexp evaluate outputs/A /data/flowers/val
    """
    with composition.one_sentence():
        found_runs, files = find_all([*runs, given], weights, True, trust_code)
        with quiet_logger(on_errors=False) as logger:
            found, faults = infer("evaluate", found_runs, files, flip, logger)
        from flowerexp.inference import prediction

        print(prediction.report(found, found_runs[0].names), end="")
    if faults:
        raise typer.Exit(1)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.",
                                        show_default=False)],
    out: Annotated[Path, typer.Argument(
        metavar="OUT", help="A folder that is new or empty, or holds an earlier export, which is "
                            "replaced.", show_default=False)],
    weights: WeightsOption = None,
    trust_code: TrustCode = False,
) -> None:
    """Export a model to serve.

    OUT/saved_model needs TensorFlow alone: it maps JPEG, PNG, BMP or GIF bytes [n] to class_name,
    class_id, probability and probabilities. OUT/model.keras needs Keras alone: it maps pixels (0 to
    255) to logits, and OUT/classes.json names the classes.

    Example: python -m flowerexp export outputs/A exported
    """
    with composition.one_sentence():
        found = trained.find(run, weights.value if weights else None, trust_code)
        exporting.check_folder(out)
        with quiet_logger(on_errors=False) as logger:
            with logger.steps("export", exporting.STEPS) as advance:
                exporting.write(found, out, advance)
            logger.info(f"exported {found} to {out}")


def find_all(words: Sequence[Path], weights: Weights | None, labelled: bool, trust_code: bool
             ) -> tuple[list[trained.TrainedRun], inputs.Input]:
    """The runs and their input, checked before TensorFlow is imported."""
    folders, paths = inputs.split_words(words)
    runs = trained.find_all(folders, weights.value if weights else None, trust_code)
    sizes = [run.image_size for run in runs if run.image_size is not None]
    return runs, inputs.find(paths, sizes, runs[0].names if labelled else None)


def infer(task: str, runs: Sequence[trained.TrainedRun], given: inputs.Input, flip: Flip | None,
          logger: RunLogger) -> tuple[Any, list[Any]]:
    """The result of `prediction.predict` or `.evaluate`, with a progress bar and what was skipped.
    """
    for run in runs:
        logger.info(f"run: {run}")
    if len(runs) > 1:
        logger.info(f"the probabilities of {len(runs)} runs are averaged")
    if given.others:
        logger.info(f"hidden folders and files without an image extension in {given.path}, "
                    f"skipped: {given.others}")
    with logger.steps("loading", None):
        from flowerexp.inference import prediction

        ensemble = prediction.Ensemble(runs, flip.value if flip else None)
    function = getattr(prediction, task)
    with logger.progress(prediction.count(given), 0) as advance:
        found, faults = function(ensemble, given, lambda count: advance(task, count))
    for fault in faults:
        logger.info(f"skipped: {fault.sentence}")
    if faults:
        logger.info(f"images that cannot be read, not in the result: {len(faults)}")
    return found, faults


@contextlib.contextmanager
def quiet_logger(on_errors: bool) -> Iterator[RunLogger]:
    """The logger of a command that keeps native libraries silent.

    Args:
        on_errors: log to the error stream, because standard output is the result.
    """
    from rich.console import Console

    factory.prepare(Hardware("cpu"))
    logger = RunLogger()
    with os.fdopen(os.dup(2), "w") as errors:
        if on_errors:
            logger.console = Console(file=errors, highlight=False)
        with logger.native_log():
            yield logger
