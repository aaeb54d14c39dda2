"""`flowerexp eda`: data and augmentation of a run, explored before it is trained."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger

Overrides = Annotated[list[str] | None, typer.Argument(
    help="GROUP=OPTION and KEY=VALUE, as for `flowerexp run`.", show_default=False)]
ConfigDir = Annotated[Path | None, typer.Option(
    help="A folder with your own options, GROUP/OPTION.yaml.", show_default=False)]


class WordsOrCommand(TyperGroup):
    """A command that takes any words, unless the first one names one of its subcommands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["names a command"] = bool(args) and args[0] in self.commands
        ctx.allow_interspersed_args = not ctx.meta["names a command"]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        if ctx.meta.get("names a command"):  # its words are not ours
            return [param for param in params if param.param_type_name != "argument"]
        return params


app = typer.Typer(cls=WordsOrCommand, invoke_without_command=True, rich_markup_mode=None,
                  subcommand_metavar="| COMMAND [ARGS]...")


def checked(overrides: list[str] | None, config_dir: Path | None) -> Config:
    """The config of a command's overrides, checked before TensorFlow is imported."""
    if any(override.startswith("sweep=") for override in overrides or []):
        raise UserError("eda shows one run, and a sweep is several: give the overrides of one")
    return composition.check(composition.compose(overrides or [], config_dir))


@app.callback()
def look(
    context: typer.Context,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="A folder for eda.html and its figures.")] =
        Path("outputs/eda"),
    config_dir: ConfigDir = None,
) -> None:
    """Explore the data of a run before training.

    Writes a page with the classes, sample images, batches as the model sees them, and the learning
    rate of the run that the overrides describe.

    Example: python -m flowerexp eda sampling=oversample_100
    """
    if context.invoked_subcommand:
        return
    with composition.one_sentence():
        config = checked(overrides, config_dir)
        if config.hardware.kind == "workers":
            raise UserError("eda runs in one process, and hardware=workers would wait for the "
                            "others: choose hardware=cpu hardware.replicas=N")
        if output.exists() and not output.is_dir():
            raise UserError(f"--output={output} is a file: give a folder")
        from flowerexp.strategy import factory

        factory.prepare(config.hardware)
        logger = RunLogger()
        with logger.native_log():
            from flowerexp import eda

            eda.look(config, overrides or [], output, logger)


@app.command("augmentation")
def draw_augmentation(
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(min=1, max=400, help="How many images to show.")] = 12,
    output: Annotated[Path, typer.Option(help="The PNG.")] = Path("outputs/augmentation.png"),
    config_dir: ConfigDir = None,
) -> None:
    """Draw images before and after it.

    Example: python -m flowerexp eda augmentation augmentation=[flip,perspective] --images 8
    """
    with composition.one_sentence():
        config = checked(overrides, config_dir)
        if output.suffix.lower() != ".png":
            raise UserError(f"--output={output} must end in .png")
        from flowerexp.strategy import factory

        factory.prepare(config.hardware)
        logger = RunLogger()
        with logger.native_log():
            from flowerexp import eda

            eda.draw_augmentation(config, images, output, logger)
