"""Hydra's entry: composes conf/ and the command line into one run, and executes its folder."""

import contextlib
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from flowerexp import composition, execution

composition.register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def compose_and_execute(composed: DictConfig) -> None:
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    with composition.one_sentence():  # here too: Hydra adds lines of its own to what a job raises
        try:
            if code := execution.execute(folder, composed, list(job.overrides.task)):
                sys.exit(code)
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # Hydra made it; where nothing was run, nothing is left


def main() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise here, not print and exit
    with composition.one_sentence():
        composition.refuse_no_option(sys.argv[1:])
        compose_and_execute()


if __name__ == "__main__":
    main()
