"""The commands of flowerexp other than `run`, which Hydra reads (`flowerexp.cli.run`)."""

import itertools
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from flowerexp import __version__, composition
from flowerexp.cli import data
from flowerexp.errors import UserError, counted, encodable
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger, exit_with_parent

TrustCode = Annotated[bool, typer.Option(
    "--trust-code", help="Allow importing the code outside flowerexp and Keras that a run names.")]
Runs = Annotated[list[Path], typer.Argument(
    metavar="RUN", show_default=False,
    help="Finished run folders; the probabilities of several are averaged.")]
Weights = Annotated[Literal["best", "last"] | None, typer.Option(
    help="Weights of the best epoch by validation F1, or of the last (default: the run's "
         "results.use).", show_default=False)]
Flip = Annotated[Literal["horizontal", "vertical", "both"] | None, typer.Option(
    help="Average the probabilities over each image and its flips (test-time augmentation).",
    show_default=False)]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  help="Experiments with image classifiers on imbalanced data.")


def print_version(asked: bool) -> None:
    if asked:
        print(f"flowerexp {__version__}")
        raise typer.Exit


@app.callback()
def before_every_command(
    version: Annotated[bool, typer.Option(
        "--version", callback=print_version, is_eager=True, help="Print the version and exit.")] =
        False,
) -> None:
    composition.register()


@app.command("run", add_help_option=False)
def run_is_read_by_hydra() -> None:
    """Train a run, or a sweep of several."""


@app.command()
def eda(
    words: Annotated[list[str] | None, typer.Argument(
        metavar="[augmentation] OVERRIDES", show_default=False,
        help="GROUP=OPTION and KEY=VALUE, as for `flowerexp run`. The word augmentation before "
             "them draws images before and after augmentation, instead of the page.")] = None,
    output: Annotated[Path | None, typer.Option(
        help="Folder for eda.html and its figures, or the PNG of augmentation (default: "
             "outputs/eda or outputs/augmentation.png).", show_default=False)] = None,
    images: Annotated[int | None, typer.Option(
        min=1, max=400, help="How many images augmentation shows (default: 12).",
        show_default=False)] = None,
    config_dir: Annotated[Path | None, typer.Option(
        help="A folder with your own options, GROUP/OPTION.yaml.", show_default=False)] = None,
) -> None:
    """Explore the data of a run before training.

    Writes a page with the classes, sample images, batches as the model sees them, and the learning
    rate of the run that the overrides describe.

    Example: python -m flowerexp eda sampling=oversample_100

    Example: python -m flowerexp eda augmentation augmentation=[flip,perspective] --images 8
    """
    overrides = list(words or [])
    if augmentation := overrides[:1] == ["augmentation"]:
        overrides.pop(0)
    with composition.one_sentence():
        from flowerexp.strategy import factory

        if any(override.startswith("sweep=") for override in overrides):
            raise UserError("eda shows one run, and a sweep is several: give the overrides of one")
        config = composition.check(composition.compose(overrides, config_dir))
        if config.hardware.kind == "workers":
            raise UserError("eda runs in one process, and hardware=workers would wait for the "
                            "others: choose hardware=cpu hardware.replicas=N")
        path = output or Path("outputs/augmentation.png" if augmentation else "outputs/eda")
        if augmentation and path.suffix.lower() != ".png":
            raise UserError(f"--output={path} must end in .png")
        if not augmentation and path.exists() and not path.is_dir():
            raise UserError(f"--output={path} is a file: give a folder")
        if not augmentation and images is not None:
            raise UserError("--images needs the word augmentation: eda augmentation --images N")
        factory.prepare(config.hardware)
        logger = RunLogger()
        with logger.native_log():
            from flowerexp import eda

            if augmentation:
                eda.draw_augmentation(config, images or 12, path, logger)
            else:
                eda.look(config, overrides, path, logger)


def split(words: list[Path]) -> tuple[list[Path], list[Path]]:
    """Splits `RUN... INPUT...` into run folders and inputs; raises UserError without an input."""
    runs = list(itertools.takewhile(lambda path: (path / store.CONFIG).is_file(), words))
    count = len(runs) or 1  # what is no run is refused as one
    if count == len(words):
        raise UserError(f"{words[-1]} is a run folder, and an input is missing: give run folders "
                        "first and the input last, as in RUN... INPUT")
    return words[:count], words[count:]


@app.command()
def predict(
    runs: Runs,
    given: Annotated[Path, typer.Argument(
        metavar="INPUT", show_default=False,
        help="One or several images (JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, with "
             "the extra heif HEIC) or TFRecord files (*.tfrec), a folder of "
             "either, searched recursively for images, or the root of a data set (its test split). "
             "Images may have any size.")],
    output: Annotated[Path | None, typer.Option(
        help="The CSV file (default: standard output).", show_default=False)] = None,
    weights: Weights = None,
    flip: Flip = None,
    trust_code: TrustCode = False,
) -> None:
    """Predict the classes of images, as CSV.

    The columns are id, class_id, class_name and probability, then top2_class_id, top2_class_name,
    top2_probability and so on to the fifth class. The id is the record's (FILE:NUMBER if it has
    none) or the image's path, relative to the folder that was given. Images that cannot be read are
    listed and skipped; the exit code is then 1.

    Example: python -m flowerexp predict outputs/A outputs/B photos --output predictions.csv
    """
    # A duplicate of the error stream, because native libraries lose their own.
    with composition.one_sentence(), os.fdopen(os.dup(2), "w") as errors:
        from flowerexp.api import results

        if output and output.is_dir():
            raise UserError(f"--output={output} is a folder: give the name of a file")
        logger, is_stream = RunLogger(), output is None or store.is_stream(output)
        if is_stream:  # the result goes to standard output
            logger.console = Console(file=errors, highlight=False)
        found = results.predict(*split([*runs, given]), weights=weights, flip=flip,
                                trust_code=trust_code, logger=logger)
        text = encodable(found.to_csv(index=False, lineterminator="\n", float_format="%.9g"))
        if output:
            store.write_text(output, text)
        else:
            print(text, end="")
        if not is_stream:
            logger.info(f"predictions of {counted(len(found), 'image')}: {output}")
    if found.attrs["skipped"]:
        raise typer.Exit(1)


@app.command()
def evaluate(
    runs: Runs,
    given: Annotated[Path, typer.Argument(
        metavar="DATA", show_default=False,
        help="One or several TFRecord files (*.tfrec) with labels, a folder of them, the root of a "
             "data set (its val split), or a folder that holds a folder of images for each class. "
             "Images may have any size.")],
    weights: Weights = None,
    flip: Flip = None,
    common: Annotated[bool, typer.Option(
        "--common", help="Leave out images of classes that the run does not know.")] = False,
    of_split: Annotated[str | None, typer.Option(
        "--split", help="train, val or test of a data set (default: val). The labels of imported "
                        "test records are in their test_labels.csv.", show_default=False)] = None,
    trust_code: TrustCode = False,
) -> None:
    """Evaluate runs on labeled images.

    Prints accuracy, macro recall, precision and F1, and a report of every class. Macro averages are
    over the classes that occur in labels or predictions. Images that cannot be read are listed and
    skipped; the exit code is then 1. What a single run predicts is kept in its folder, and
    `compare` shows its scores beside those of the validation set.

    Example: python -m flowerexp evaluate outputs/A /data/flowers/val
    """
    with composition.one_sentence():
        from flowerexp.api import results

        found = results.evaluate(*split([*runs, given]), weights=weights, flip=flip, common=common,
                                 split=of_split, trust_code=trust_code, logger=RunLogger())
        print(found.report(), end="")
    if found.skipped:
        raise typer.Exit(1)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.",
                                        show_default=False)],
    out: Annotated[Path, typer.Argument(
        metavar="OUT", help="A folder that is new or empty, or holds an earlier export, which is "
                            "replaced.", show_default=False)],
    weights: Weights = None,
    trust_code: TrustCode = False,
) -> None:
    """Export a model to serve.

    OUT/saved_model needs TensorFlow alone: it maps bytes [n] of JPEG (turned as its EXIF
    orientation says), PNG, GIF, BMP or WebP to class_name, class_id, probability and probabilities.
    OUT/model.keras needs Keras alone: it maps pixels (0 to
    255) to logits, and OUT/classes.json names the classes.

    Example: python -m flowerexp export outputs/A exported
    """
    with composition.one_sentence():
        from flowerexp.api import results

        results.export(run, out, weights=weights, trust_code=trust_code, logger=RunLogger())


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(
        help="Run folders, or folders of run folders. With --csv, --md or --json, a path with that "
             "extension, or a device, is the file to write.", show_default=False)],
    pair: Annotated[list[str] | None, typer.Option(
        "--pairs", help="CANDIDATE:BASELINE, names of experiments or folders, instead of the pairs "
                        "that the configs name; may be repeated or separated by commas.",
        show_default=False)] = None,
    epoch: Annotated[Literal["last", "best"], typer.Option(
        help="Epoch at which the pairs are compared; best is each run's own.")] = "last",
    common: Annotated[bool, typer.Option(
        "--common", help="Compare runs that were validated on different images or classes on those "
                         "that they have in common.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Everything as Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    output: Annotated[Path | None, typer.Option(
        help="Folder for report.html, its figures, and the tables in all three formats.",
        show_default=False)] = None,
) -> None:
    """Compare runs, with confidence intervals.

    Prints what differs between them, their metrics, and which differences are significant. Runs
    that differ only in their seed share a row. If no run can be read, the exit code is 1.

    Example: python -m flowerexp compare outputs/notebook --output comparison
    """
    with composition.one_sentence():
        from flowerexp.api import results
        from flowerexp.comparison import tables

        if output and output.exists() and not output.is_dir():
            raise UserError(f"--output={output} is a file: give a folder")
        wanted = [name for name, asked in (("csv", csv), ("md", md), ("json", json)) if asked]
        files = {name: path for name in wanted for path in paths if not path.is_dir()
                 and (path.suffix == f".{name}" or store.is_stream(path))}
        logger = RunLogger()
        with logger.steps("comparing", None):
            compared = results.compare(*(path for path in paths if path not in files.values()),
                                       pairs=pair or [], epoch=epoch, common=common)
        for name in wanted:
            text = tables.FORMATS[name](compared)
            if name in files:
                store.write_text(files[name], text)
            else:
                print(text, end="")
        if not wanted:
            tables.show(compared, logger.console)
        if output:
            from flowerexp.comparison import report  # imports Matplotlib

            for name, write in tables.FORMATS.items():
                store.write_text(output / f"comparison.{name}", write(compared))
            page = report.write(compared, output / report.PAGE, logger, files=True)
            logger.info(f"page: {page}")
    runs = itertools.chain(compared.failures, *(row.runs for row in compared.rows))
    if {found.state for found in runs} == {"unreadable"}:
        raise typer.Exit(1)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    deadline: Annotated[float | None, typer.Option(hidden=True)] = None,
    trust_code: TrustCode = False,
) -> None:
    """Resume an interrupted run.

    It continues exactly where it stopped; for a finished run, its result is printed.

    Example: python -m flowerexp resume outputs/notebook/perspective+seed=0
    """
    if parent is not None:
        exit_with_parent(parent)
    with composition.one_sentence():
        from flowerexp.train import launch

        if code := launch.resume(folder, deadline, trust_code):
            raise typer.Exit(code)


app.add_typer(data.app, name="data")


def names() -> list[str]:
    """The commands, for the shell's completion."""
    return list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def main() -> None:
    app(prog_name="flowerexp" if Path(sys.argv[0]).name == "flowerexp" else "python -m flowerexp")
