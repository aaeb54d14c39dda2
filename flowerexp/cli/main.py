"""The commands of flowerexp other than `run`, which Hydra reads (`flowerexp.cli.run`)."""

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerexp import __version__, composition
from flowerexp.cli import data, eda, predict
from flowerexp.errors import UserError
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger, exit_with_parent
from flowerexp.train import launch


class Epoch(enum.Enum):
    """The epoch that pairs are compared at."""

    last = "last"
    best = "best"
    """Each run's own, by validation F1: chosen on the data that it is compared on."""


app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  help="Experiments with image classifiers on imbalanced data.")


@app.command("run", add_help_option=False)
def run_is_read_by_hydra() -> None:
    """Train a run, or a sweep of several."""


app.add_typer(eda.app, name="eda")
app.add_typer(data.app, name="data")
for command in (predict.predict, predict.evaluate, predict.export):
    app.command()(command)


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


@app.command("compare")
def compare(
    paths: Annotated[list[Path], typer.Argument(
        help="Run folders, or folders of run folders. With --csv, --md or --json, a path with that "
             "extension is the file to write.", show_default=False)],
    pair: Annotated[list[str] | None, typer.Option(
        "--pairs", help="CANDIDATE:BASELINE, names of experiments or folders, instead of the pairs "
                        "that the configs name; may be repeated or separated by commas.",
        show_default=False)] = None,
    epoch: Annotated[Epoch, typer.Option(help="Epoch at which the pairs are compared.")] =
        Epoch.last,
    csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Everything as Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    output: Annotated[Path | None, typer.Option(
        help="Folder for report.html, its figures, and the tables in all three formats.",
        show_default=False)] = None,
) -> None:
    """Compare runs, with confidence intervals.

    Prints what differs between them, their metrics, and which differences are significant. Runs
    that differ only in their seed share a row.

    Example: python -m flowerexp compare outputs/notebook --output comparison
    """
    with composition.one_sentence():
        from flowerexp.comparison import comparison, tables

        if output and output.exists() and not output.is_dir():
            raise UserError(f"--output={output} is a file: give a folder")
        wanted = [name for name, asked in (("csv", csv), ("md", md), ("json", json)) if asked]
        files = {name: path for name in wanted for path in paths
                 if path.suffix == f".{name}" and not path.is_dir()}
        logger = RunLogger()
        with logger.steps("comparing", None):
            compared = comparison.compare(
                [path for path in paths if path not in files.values()], pair or [], epoch.value)
        for name in wanted:
            text = tables.FORMATS[name](compared)
            if name in files:
                store.write_text(files[name], text)
            else:
                print(text, end="")
        if not wanted:
            tables.show(compared, logger.console)
        if output:
            write_comparison(compared, output, logger)


def write_comparison(compared: Any, output: Path, logger: RunLogger) -> None:
    """Writes the page, its figures and the tables of a comparison, with a progress bar."""
    from flowerexp.comparison import report, tables

    for name, write in tables.FORMATS.items():
        store.write_text(output / f"comparison.{name}", write(compared))
    logger.info(f"page: {report.write(compared, output / report.PAGE, logger, files=True)}")


@app.command("resume")
def resume(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    deadline: Annotated[float | None, typer.Option(hidden=True)] = None,
    trust_code: predict.TrustCode = False,
) -> None:
    """Resume an interrupted run.

    It continues exactly where it stopped; for a finished run, its result is printed.

    Example: python -m flowerexp resume outputs/notebook/perspective+seed=0
    """
    if parent is not None:
        exit_with_parent(parent)
    with composition.one_sentence():
        if code := launch.resume(folder, deadline, trust_code):
            raise typer.Exit(code)


def names() -> list[str]:
    """The commands, for the shell's completion."""
    return list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def main() -> None:
    app(prog_name="flowerexp" if Path(sys.argv[0]).name == "flowerexp" else "python -m flowerexp")
