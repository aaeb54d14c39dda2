"""python -m flowerexp data: the commands that look after data sets."""

from typing import Annotated

import typer

from flowerexp import composition
from flowerexp.config import Hardware
from flowerexp.journal import Journal

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after data sets.")


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
    an id that occurs twice, the same JPEG in two splits, a class without training images.
    Example: python -m flowerexp data check /data/flowers --size 192
    """
    with composition.one_sentence():
        from flowerexp import hardware

        hardware.prepare(Hardware("cpu"))
        journal = Journal()
        with journal.native_log():
            from flowerexp import data_check

            readable = data_check.run(root, size, classes, names, journal.console)
    if not readable:
        raise typer.Exit(1)
