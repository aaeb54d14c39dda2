"""Hydra's entry: composes conf/ and the command line into one run, and executes its folder."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from flowerexp import composition, execution
from flowerexp.errors import UserError

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"

composition.register()


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the process with a sentence for the user's mistakes; our own stay loud."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if TRACEBACKS:
            raise
        sys.exit(f"flowerexp: {composition.explain(error)}")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def compose_and_execute(composed: DictConfig) -> None:
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    with one_sentence():  # here too, as Hydra adds lines of its own to what a job raises
        try:
            if code := execution.execute(folder, composed, list(job.overrides.task)):
                sys.exit(code)
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # Hydra made it; where nothing was run, nothing is left


def main() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise here, not print and exit
    with one_sentence():
        composition.refuse_no_option(sys.argv[1:])
        compose_and_execute()


if __name__ == "__main__":
    main()
