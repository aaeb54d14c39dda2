"""python -m flowerexp: the commands beside run.py."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerexp import composition, execution, results
from flowerexp.config import Config
from flowerexp.errors import UserError
from flowerexp.journal import Journal, stop_without

Overrides = Annotated[list[str] | None, typer.Argument(
    help="GROUP=OPTION and KEY=VALUE, the same as for run.py.", show_default=False)]


class Epoch(enum.Enum):
    """At which epoch pairs are compared."""

    last = "last"
    best = "best"
    """Of each run, by validation F1: chosen on the data it is compared on."""


app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  help="Commands around the runs of flowerexp (a run itself: python run.py).")
eda = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="Look at the data before training.")
app.add_typer(eda, name="eda")
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                   help="Look after data sets.")
app.add_typer(data, name="data")


@app.callback()
def before_every_command() -> None:
    composition.register()


def checked(overrides: list[str] | None) -> Config:
    """The config of a command's overrides, checked before TensorFlow is imported."""
    return composition.check(composition.compose(overrides or []))


@app.command("compare")
def compare(
    paths: Annotated[list[Path], typer.Argument(
        help="Run folders, or folders of them. After --csv, --md or --json a path that ends in "
             "the format's name is the file to write.", show_default=False)],
    pair: Annotated[list[str] | None, typer.Option(
        "--pairs", help="CHANGED:BASELINE, names of experiments or folders, instead of the pairs "
                        "that the configs name; may be given several times or with commas.",
        show_default=False)] = None,
    epoch: Annotated[Epoch, typer.Option(help="Which epoch the pairs are compared at.")] =
        Epoch.last,
    csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Everything as Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    output: Annotated[Path | None, typer.Option(
        help="A folder for report.html, its pictures, and all three formats.",
        show_default=False)] = None,
) -> None:
    """Compare runs: what differs, their metrics, and whether a difference is real.

    Runs that differ only in their seed are one row. Example:
    python -m flowerexp compare outputs/notebook --output comparison
    """
    with composition.one_sentence():
        from flowerexp import comparison, tables

        wanted = [name for name, asked in (("csv", csv), ("md", md), ("json", json)) if asked]
        files = {name: path for name in wanted for path in paths
                 if path.suffix == f".{name}" and not path.is_dir()}
        compared = comparison.compare([path for path in paths if path not in files.values()],
                                      [text for texts in pair or [] for text in texts.split(",")],
                                      epoch.value)
        for name in wanted:
            text = tables.FORMATS[name](compared)
            if name in files:
                results.write_text(files[name], text)
            else:
                print(text, end="")
        console = Journal().console
        if not wanted:
            tables.show(compared, console)
        if output:
            write_comparison(compared, output, console)


def write_comparison(compared: Any, output: Path, console: Any) -> None:
    """The page, its pictures and the tables of a comparison; drawing takes a while."""
    from rich.progress import Progress

    from flowerexp import report, tables

    for name, write in tables.FORMATS.items():
        results.write_text(output / f"comparison.{name}", write(compared))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=report.count(compared))
        page = report.write(compared, output, lambda: bar.advance(task))
    console.print(f"page: {page}", soft_wrap=True, markup=False)


@app.command("resume")
def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    deadline: Annotated[float | None, typer.Option(hidden=True)] = None,
) -> None:
    """Go on with the run of a folder where it stopped; a finished one says its result.

    Example: python -m flowerexp resume outputs/notebook/perspective+seed=0
    """
    if parent is not None:
        stop_without(parent)
    with composition.one_sentence():
        if code := execution.resume(folder, deadline):
            raise typer.Exit(code)


@eda.command("augmentation")
def draw_augmentation(
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(min=1, max=400, help="How many images to show.")] = 12,
    output: Annotated[Path, typer.Option(help="The PNG.")] = Path("augmentation.png"),
) -> None:
    """Draw images beside what the augmentation makes of them.

    Example: python -m flowerexp eda augmentation augmentation=[flip,perspective] --images 8
    """
    with composition.one_sentence():
        config = checked(overrides)
        if output.suffix.lower() != ".png":
            raise UserError(f"--output={output} must end in .png")
        from flowerexp import hardware

        hardware.prepare(config.hardware)
        journal = Journal()
        with journal.native_log():
            from flowerexp import eda

            eda.draw_augmentation(config, images, output, journal)


@data.command("check")
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
        from flowerexp.config import Hardware
        from flowerexp.journal import Journal

        hardware.prepare(Hardware("cpu"))
        journal = Journal()
        with journal.native_log():
            from flowerexp import data_check

            readable = data_check.run(root, size, classes, names, journal.console)
    if not readable:
        raise typer.Exit(1)


def main() -> None:
    app(prog_name="python -m flowerexp")
