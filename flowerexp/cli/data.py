"""python -m flowerexp data: the commands that make data sets and look after them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from flowerexp import composition
from flowerexp.config import Hardware
from flowerexp.runs.log import RunLogger

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="Make data sets of photos, and look after them.")

SizeOption = Annotated[int, typer.Option(
    min=1, help="Height and width of the records' images, in pixels.")]
SeedOption = Annotated[int, typer.Option(
    min=0, help="Draws the splits and the order of the records.")]
WorkersOption = Annotated[int | None, typer.Option(
    min=1, help="Photos converted at the same time (default: one for each processor core); the "
                "records do not depend on it.", show_default=False)]
StrictOption = Annotated[bool, typer.Option(
    "--strict", help="Exit code 1 where a photo could not be used; without it, 0.")]
OutArgument = Annotated[Path, typer.Argument(
    help="The data set's folder, dataset.root of the runs.", show_default=False)]


@app.command("check")
def check_data(
    root: Annotated[str, typer.Argument(
        help="As dataset.root: holds train, val and perhaps test, or folders tfrecords-jpeg-SxS.",
        show_default=False)],
    size: Annotated[int | None, typer.Option(
        min=1, help="As dataset.image_size, in pixels.", show_default=False)] = None,
    classes: Annotated[int | None, typer.Option(
        min=1, help="As dataset.num_classes.", show_default=False)] = None,
    names: Annotated[str | None, typer.Option(
        help="As dataset.class_names, a file.", show_default=False)] = None,
) -> None:
    """Read every record and list every fault, then the images of each class.

    The exit code is 1 where a fault would stop a run. Faults that stop none are called doubtful:
    an id that occurs twice, the same picture in two splits, a class without training images.
    Example: python -m flowerexp data check /data/flowers --size 192
    """
    with composition.one_sentence():
        from flowerexp.strategy import factory

        factory.prepare(Hardware("cpu"))
        logger = RunLogger()
        with logger.native_log():
            from flowerexp.data.prepare import checks

            readable = checks.run(root, size, classes, names, logger)
    if not readable:
        raise typer.Exit(1)


@contextlib.contextmanager
def converting() -> Iterator[RunLogger]:
    """What making a data set needs: one sentence for a mistake, and the voice to speak with."""
    with composition.one_sentence():
        from flowerexp.strategy import factory

        factory.prepare(Hardware("cpu"))
        logger = RunLogger()
        with logger.native_log():
            try:
                yield logger
            except KeyboardInterrupt:
                logger.info("stopped: the same command goes on from here")
                raise


@app.command("from-folder")
def from_folder(
    images: Annotated[Path, typer.Argument(
        help="Holds a folder per class; or a CSV of path,label, paths relative to its folder.",
        show_default=False)],
    out: OutArgument,
    size: SizeOption = 192,
    val: Annotated[float, typer.Option(
        help="Share of the photos to validate with, more than 0.")] = 0.15,
    test: Annotated[float, typer.Option(
        help="Share of the photos to test with; 0 for none.")] = 0.15,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    strict: StrictOption = False,
) -> None:
    """Make TFRecords of your own photos: of a folder per class, or of a CSV of path,label.

    OUT/tfrecords-jpeg-SxS gets train, val and test. Each class is split alike, by nothing but the
    seed and the photos' relative paths. A photo becomes its middle square; EXIF's orientation is
    not looked at. Those that cannot be used are listed in unreadable.csv, copies of a picture in
    duplicates.csv. The records of test have no labels: these are in test_labels.csv. Stopped at
    any moment, the same command goes on.
    Example: python -m flowerexp data from-folder photos flowers --size 192
    """
    with converting() as logger:
        from flowerexp.data.prepare import convert

        complete = convert.run(images, out, convert.ConversionOptions(size, val, test, seed),
                                  workers or os.cpu_count() or 1, logger)
    if strict and not complete:
        raise typer.Exit(1)


@app.command("oxford102")
def fetch_oxford(
    out: OutArgument,
    size: SizeOption = 192,
    seed: Annotated[int, typer.Option(min=0, help="Draws the order of the records.")] = 0,
    workers: WorkersOption = None,
    strict: StrictOption = False,
    home: Annotated[str | None, typer.Option(
        help="Another address that holds the same three archives.", show_default=False)] = None,
) -> None:
    """Fetch the Oxford 102 Flowers photos from their home, and make TFRecords of them.

    With the official splits: 1020 photos to train, 1020 to validate and 6149 to test, which many
    papers swap. The download (345 MB, kept in OUT/downloads) and the conversion go on with the same
    command wherever they were stopped. The photos are for research use.
    Example: python -m flowerexp data oxford102 flowers102 --size 192
    """
    with converting() as logger:
        from flowerexp.data.prepare import convert, oxford102

        complete = oxford102.run(out, convert.ConversionOptions(size, seed=seed),
                                 workers or os.cpu_count() or 1, logger, home or oxford102.HOME)
    if strict and not complete:
        raise typer.Exit(1)


@app.command("kaggle")
def fetch_kaggle(out: OutArgument) -> None:
    """Fetch the competition's files (tpu-getting-started) through kagglehub.

    Needs pip install -c constraints.txt -e ".[kaggle]", a token of Kaggle (KAGGLE_API_TOKEN, or
    ~/.kaggle/kaggle.json) and the competition's rules accepted on its page. The files stay in
    kagglehub's cache ($KAGGLEHUB_CACHE, else ~/.cache/kagglehub); OUT gets links to them.
    Example: python -m flowerexp data kaggle flowers
    """
    with composition.one_sentence():
        from flowerexp.strategy import factory

        factory.prepare(Hardware("cpu"))
        logger = RunLogger()
        with logger.native_log():
            from flowerexp.data.prepare import kaggle
        kaggle.run(out, logger)  # kagglehub's bars go to the standard error stream
