"""`flowerexp run`, also `python run.py`: composes conf/ and the command line, and runs the result.

With `-m` or `sweep=NAME` the command is several runs, and a process of its own executes each.
Hydra parses the words; a value that its grammar refuses though it is plain text is quoted before.
"""

import contextlib
import os
import re
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from flowerexp import __version__, composition

PRINTING = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i")
"""Hydra's flags that print something and run nothing."""
COMPLETING = ("--shell-completion", "-sc")

composition.register()  # at import, because the launchers' workers unpickle what is below
OmegaConf.register_new_resolver("run_command", composition.run_command, replace=True)


@hydra.main(version_base="1.3", config_path=str(composition.conf_folder()), config_name="config")
def compose_and_execute(composed: DictConfig) -> float | None:
    from flowerexp.sweeps import jobs
    from flowerexp.train import launch  # here, because what only prints must start quickly

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
        launch.remove_empty(folder)  # Hydra made it; where nothing was run, nothing is left
    return None


def print_help() -> None:
    """The page as Hydra would print it, which lists all groups first and takes a second for it."""
    page = OmegaConf.load(composition.conf_folder() / "hydra/help/flowerexp.yaml")
    print(OmegaConf.create({"hydra": {"help": page}}).hydra.help.template)


def config_groups() -> str:
    """The lines of the help page that list every group of conf/ and its options."""
    from flowerexp.runs.reader import natural

    folder = composition.conf_folder()
    composed: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    defaults = {group: option for entry in composed["defaults"] if isinstance(entry, dict)
                for group, option in entry.items() if (folder / group).is_dir()}
    lines = []
    for group, default in defaults.items():
        first = [default] if isinstance(default, str) else list(default or ["(none)"])
        files = sorted((path.stem for path in (folder / group).glob("*.yaml")), key=natural)
        options = [*first, *(name for name in files if name not in first)]
        lines += textwrap.wrap(", ".join(options), 80, initial_indent=f"  {group:<14}",
                               subsequent_indent=" " * 16)
    return "\n".join(lines)


def complete(words: Sequence[str]) -> None:
    """Prints Hydra's completion script, or its answer to the shell's question."""
    folder = re.search(r"(?:--config-dir|-cd)[ =](\S+)", os.environ.get("COMP_LINE", ""))
    sys.argv[1:] = [*words, *(["--config-dir", folder[1]] if folder else [])]
    with contextlib.suppress(Exception):  # no suggestion, rather than an error at the prompt
        compose_and_execute()


OmegaConf.register_new_resolver("config_groups", config_groups, replace=True)


def prepare(words: Sequence[str]) -> list[str]:
    """The words for Hydra, with overrides and flags in any order, checked as far as it does not.

    Raises:
        UserError: for a config directory that does not exist, or GROUP=VALUE without an option.
    """
    parser = get_args_parser()
    parser.prog = composition.run_command()
    parsed = parser.parse_intermixed_args(list(words))
    flags = list(words)
    for override in parsed.overrides:
        flags.remove(override)
    if parsed.config_dir:
        composition.add_import_path(Path(parsed.config_dir))
    overrides = composition.quoted(parsed.overrides)
    composition.check_group_overrides(overrides)
    if parsed.cfg == "job" and not parsed.resolve:
        flags.append("--resolve")  # the values that the run would get, not the references of conf/
    return [*overrides, *flags]


def main(words: Sequence[str]) -> None:
    """Runs the command.

    Args:
        words: of the command line, without the program's name.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise here, not print and exit
    prints = any(word.partition("=")[0] in PRINTING for word in words)
    if prints:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as `... | head` expects
    if list(words) in (["--help"], ["-h"]):
        print_help()
    elif "--version" in words:
        print(f"flowerexp {__version__}")
    elif any(word in COMPLETING for word in words):
        complete(words)
    else:
        with composition.one_sentence(), contextlib.ExitStack() as stack:
            if not prints:
                from flowerexp.sweeps import session  # as above

                stack.enter_context(session.sweep_session())
            sys.argv[1:] = prepare(words)
            compose_and_execute()
