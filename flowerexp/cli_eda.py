"""python -m flowerexp eda: the commands that look before training."""

from pathlib import Path
from typing import Annotated

import typer

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError
from flowerexp.journal import Journal

Overrides = Annotated[list[str] | None, typer.Argument(
    help="GROUP=OPTION and KEY=VALUE, the same as for run.py.", show_default=False)]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="Look at the data before training.")


def checked(overrides: list[str] | None) -> Config:
    """The config of a command's overrides, checked before TensorFlow is imported."""
    return composition.check(composition.compose(overrides or []))


@app.command("augmentation")
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
