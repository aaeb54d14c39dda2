"""`flowerexp data`: the commands that prepare and check data sets."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerexp import composition
from flowerexp.config import Hardware
from flowerexp.runs.log import RunLogger

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="Prepare and check data sets.")

SizeOption = Annotated[int, typer.Option(
    min=1, help="Height and width of the records' images, in pixels.")]
SeedOption = Annotated[int, typer.Option(
    min=0, help="Seed of the splits and of the order of the records.")]
WorkersOption = Annotated[int | None, typer.Option(
    min=1, help="Photos converted in parallel (default: one per CPU core); the records do not "
                "depend on it.", show_default=False)]
ExifOption = Annotated[bool, typer.Option(
    "--exif/--no-exif", help="Rotate and mirror photos as the orientation in their EXIF data "
                             "says.")]
StrictOption = Annotated[bool, typer.Option(
    "--strict", help="Exit with code 1 if a photo could not be used.")]
ResizeOption = Annotated[str, typer.Option(
    help="How photos become squares: crop, pad or stretch.")]
ColumnOption = Annotated[list[str] | None, typer.Option(
    metavar="KIND=NAME", help="A column of the table, of path, label, group or split, or a feature "
    "of the data set; several times for several (default: found by their content).",
    show_default=False)]
ValOption = Annotated[float, typer.Option(
    help="Fraction of the photos for validation, more than 0.")]
TestOption = Annotated[float, typer.Option(
    help="Fraction of the photos for the test split; 0 for none.")]
HubArgument = Annotated[str, typer.Argument(
    help="As the library names it, or a folder that the library wrote.", show_default=False)]
OutArgument = Annotated[Path, typer.Argument(
    help="Folder of the data set, later dataset.root of the runs.", show_default=False)]


@contextlib.contextmanager
def silent_tensorflow() -> Iterator[RunLogger]:
    """The logger of a command that imports TensorFlow in the block."""
    with composition.one_sentence():
        from flowerexp.strategy import factory

        factory.prepare(Hardware("cpu"))
        logger = RunLogger()
        with logger.native_log():
            yield logger


@app.command("check")
def check_data(
    root: Annotated[str, typer.Argument(
        help="As dataset.root: records in any layout that a run recognises.",
        show_default=False)],
    size: Annotated[int | None, typer.Option(
        min=1, help="As dataset.image_size, in pixels.", show_default=False)] = None,
    classes: Annotated[int | None, typer.Option(
        min=1, help="As dataset.num_classes.", show_default=False)] = None,
    names: Annotated[str | None, typer.Option(
        help="As dataset.class_names, a file.", show_default=False)] = None,
    overrides: Annotated[list[str] | None, typer.Argument(
        help="Further keys of dataset=tfrecords, as dataset.features.label=NAME.",
        show_default=False)] = None,
    near: Annotated[bool, typer.Option(
        "--near", help="Find images that are nearly the same, too.")] = False,
    bits: Annotated[int, typer.Option(
        min=0, max=32, help="With --near: the most bits of 64 in which the perceptual hashes of "
                            "two such images differ.")] = 10,
    output: Annotated[Path, typer.Option(
        help="With --near: folder for the picture of pairs (near.png) and the list of groups "
             "(groups.csv).")] = Path("outputs/near"),
) -> None:
    """Check every record of a data set.

    Says which layout it recognised, lists every issue, then the number of images of each class. The
    exit code is 1 if an issue would stop a run. Others are warnings: a duplicate id, an image that
    is in two splits, a class without training images, and with --near images that are nearly the
    same, as copies and bursts are: groups.csv keeps them on one side of a run's division
    (dataset.groups=FILE dataset.folds=5).

    Example: python -m flowerexp data check /data/flowers --size 192 --near
    """
    with silent_tensorflow() as logger:
        from flowerexp.data.prepare import checks

        keys = {"root": root, "image_size": size, "num_classes": classes, "class_names": names}
        words = [f"dataset.{key}={value}" for key, value in keys.items() if value is not None]
        composition.register()
        composed = composition.compose(["dataset=tfrecords", *words, *(overrides or [])])
        readable = checks.run(composition.check(composed).dataset.source, logger,
                              output if near else None, bits)
    if not readable:
        raise typer.Exit(1)


def import_with(start: Callable[..., bool], options: tuple[Any, ...], column: list[str] | None,
                workers: int | None, strict: bool) -> None:
    """Imports by `start`, a function of ConversionOptions of some options, the number of workers,
    the logger and the columns, which returns whether every photo could be read.
    """
    with silent_tensorflow() as logger:
        from flowerexp.data.prepare import convert

        complete = start(convert.ConversionOptions(*options), workers or os.cpu_count() or 1,
                         logger, dict(each.partition("=")[::2] for each in column or ()))
    if strict and not complete:
        raise typer.Exit(1)


@app.command("import")
@app.command("from-folder", help="The former name of import.")
def import_photos(
    images: Annotated[str, typer.Argument(
        metavar="PATH", help="A folder with a folder per class, or with train, val and test of "
        "these; a CSV or TSV, or the folder of one with its photos; Parquet files.",
        show_default=False)],
    out: OutArgument,
    size: SizeOption = 192,
    val: ValOption = 0.15,
    test: TestOption = 0.15,
    seed: SeedOption = 0,
    exif: ExifOption = True,
    resize: ResizeOption = "crop",
    column: ColumnOption = None,
    workers: WorkersOption = None,
    strict: StrictOption = False,
) -> None:
    """Convert photos to TFRecords.

    OUT/tfrecords-jpeg-SxS gets train, val and test: those of PATH or, if it has none, a stratified
    split that depends on the seed and the photos' relative paths only. Photos are turned as
    their EXIF orientation says, center-cropped to a square and resized. Photos that cannot be
    used are listed in unreadable.csv, copies of an image in duplicates.csv. The test records have
    no labels; these are in test_labels.csv. Rerun the command to resume an interrupted conversion.

    Example: python -m flowerexp data import photos flowers --size 192
    """
    def start(*how: Any) -> bool:
        from flowerexp.data.prepare import convert

        return convert.run(images, out, *how)

    import_with(start, (size, val, test, seed, exif, resize), column, workers, strict)


@app.command("from-tfds")
def from_tfds(
    name: HubArgument, out: OutArgument, size: SizeOption = 192, val: ValOption = 0.15,
    test: TestOption = 0.15, seed: SeedOption = 0, exif: ExifOption = True,
    resize: ResizeOption = "crop", column: ColumnOption = None, workers: WorkersOption = None,
    strict: StrictOption = False,
) -> None:
    """Import from TensorFlow Datasets.

    Needs the extra tfds, which downloads to $TFDS_DATA_DIR (default ~/tensorflow_datasets).
    A data set of one split is divided, others keep their splits.

    Example: python -m flowerexp data from-tfds tf_flowers flowers --size 192
    """
    def start(*how: Any) -> bool:
        from flowerexp.data.prepare import hubs

        return hubs.run(hubs.tfds, name, out, *how)

    import_with(start, (size, val, test, seed, exif, resize), column, workers, strict)


@app.command("from-huggingface")
def from_hugging_face(
    name: HubArgument, out: OutArgument, size: SizeOption = 192, val: ValOption = 0.15,
    test: TestOption = 0.15, seed: SeedOption = 0, exif: ExifOption = True,
    resize: ResizeOption = "crop", column: ColumnOption = None, workers: WorkersOption = None,
    strict: StrictOption = False,
    config: Annotated[str | None, typer.Option(
        help="Configuration of a data set that has several.", show_default=False)] = None,
) -> None:
    """Import from Hugging Face.

    Needs the extra huggingface, which downloads to $HF_HOME (default ~/.cache/huggingface).
    A data set of one split is divided, others keep their splits.

    Example: python -m flowerexp data from-huggingface beans beans --column label=labels
    """
    def start(*how: Any) -> bool:
        from flowerexp.data.prepare import hubs

        return hubs.run(lambda given: hubs.hugging_face(given, config), name, out, *how)

    import_with(start, (size, val, test, seed, exif, resize), column, workers, strict)


@app.command("oxford102")
def fetch_oxford(
    out: OutArgument,
    size: SizeOption = 192,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the records.")] = 0,
    workers: WorkersOption = None,
    strict: StrictOption = False,
    home: Annotated[str | None, typer.Option(
        help="Address of a mirror of the three archives.", show_default=False)] = None,
) -> None:
    """Download Oxford 102 Flowers.

    Uses the official splits: 1020 photos for training, 1020 for validation and 6149 for testing;
    many papers swap the first and the last. Rerun the command to resume an interrupted download
    (345 MB, kept in OUT/downloads) or conversion. The photos are for research use.

    Example: python -m flowerexp data oxford102 flowers102 --size 192
    """
    with silent_tensorflow() as logger:
        from flowerexp.data.prepare import convert, oxford102

        complete = oxford102.run(out, convert.ConversionOptions(size, seed=seed),
                                 workers or os.cpu_count() or 1, logger, home or oxford102.HOME)
    if strict and not complete:
        raise typer.Exit(1)


@app.command("kaggle")
def fetch_kaggle(out: OutArgument) -> None:
    """Download the Kaggle competition.

    Needs the package kagglehub (pip install "flowerexp[kaggle]"), a Kaggle token (KAGGLE_API_TOKEN
    or ~/.kaggle/kaggle.json), and the rules of tpu-getting-started accepted on its page. The files
    stay in kagglehub's cache ($KAGGLEHUB_CACHE, default ~/.cache/kagglehub); OUT links to them.

    Example: python -m flowerexp data kaggle flowers
    """
    with composition.one_sentence():
        from flowerexp.data.prepare import kaggle

        kaggle.run(out, RunLogger())  # kagglehub's bars go to the standard error stream
