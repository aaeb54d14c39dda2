"""Hydra's entry: composes conf/ and the command line into one run, and executes its folder.

With `-m` or `sweep=NAME` it composes several, and every job's folder is executed by a process of
its own.
"""

import contextlib
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from flowerexp import composition

SHOWING = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i")
"""Hydra's flags that show something and run nothing."""

composition.register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def compose_and_execute(composed: DictConfig) -> float | None:
    from flowerexp.sweeps import jobs
    from flowerexp.train import launch  # here, for what shows something must start quickly

    job = HydraConfig.get()
    folder, overrides = Path(job.runtime.output_dir), list(job.overrides.task)
    try:
        if job.mode == RunMode.MULTIRUN:
            return jobs.run_job(folder, composed, overrides, job.runtime.choices["hydra/launcher"])
        with composition.one_sentence():  # here too: Hydra adds lines of its own to what is raised
            composition.check_sweep_level_keys(overrides)
            if code := launch.execute(folder, composed, overrides):
                sys.exit(code)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # Hydra made it; where nothing was run, nothing is left
    return None


def print_help() -> None:
    """The page as Hydra would print it, which lists all groups first and takes a second for it."""
    page = OmegaConf.load(composition.conf_folder() / "hydra/help/flowerexp.yaml")
    print(OmegaConf.create({"hydra": {"help": page}}).hydra.help.template)


def main() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise here, not print and exit
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print_help()
        return
    with composition.one_sentence(), contextlib.ExitStack() as stack:
        if not any(word.partition("=")[0] in SHOWING for word in words):
            from flowerexp.sweeps import session  # as above

            stack.enter_context(session.closing())
        composition.check_group_overrides(words)
        compose_and_execute()


if __name__ == "__main__":
    main()
