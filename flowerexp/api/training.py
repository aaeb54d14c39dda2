"""Configs, runs and sweeps in Python and notebooks. No TensorFlow in the caller's process.

Each run trains in a process of its own, as in a sweep: the caller's process keeps its devices,
memory, signals and error stream, a run that the system kills does not end the notebook, and the
next run can use other hardware.
"""

import html
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from flowerexp import composition
from flowerexp.api.results import load_runs
from flowerexp.api.run import Run
from flowerexp.errors import UserError
from flowerexp.train import launch

CHILD = ("import sys; from flowerexp.runs.log import exit_with_parent; "
         "exit_with_parent(int(sys.argv.pop(1))); "
         "from flowerexp.cli import run; run.main(sys.argv[1:])")
"""The child's program: `flowerexp run`, which exits gracefully once its parent is gone."""


class ReadOnlyConfig:
    """The values of a config or a group, read as attributes; `print` shows them as YAML.

    They cannot be changed, because names and folders follow from the overrides: compose again.
    """

    def __init__(self, values: DictConfig, prefix: str = "") -> None:
        vars(self).update(_values=values, _prefix=prefix)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") or key == "_values":  # of this object, not of the config
            raise AttributeError(key)
        if key not in self._values:
            raise AttributeError(composition.unknown_key(f"{self._prefix}{key}"))
        value = self._values[key]
        if isinstance(value, DictConfig):
            return ReadOnlyConfig(value, f"{self._prefix}{key}.")
        return tuple(value) if isinstance(value, ListConfig) else value

    def __setattr__(self, key: str, value: Any) -> None:
        raise UserError(f"{self._prefix}{key} of a composed config cannot be changed: compose "
                        f"again with \"{self._prefix}{key}={value}\"")

    def __str__(self) -> str:
        return OmegaConf.to_yaml(self._values)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class ComposedConfig(ReadOnlyConfig):
    """A config as the command line composes it, with the `overrides` and `config_dir` it is of.

    Its `folder` is the run folder that the command line would use, below outputs/.
    """

    overrides: tuple[str, ...]
    config_dir: str | Path | None
    folder: Path

    def __init__(self, overrides: Sequence[str], config_dir: str | Path | None, values: DictConfig,
                 folder: Path) -> None:
        super().__init__(values)
        vars(self).update(overrides=tuple(overrides), config_dir=config_dir, folder=folder)

    def __repr__(self) -> str:
        return f"<ComposedConfig of {' '.join(self.overrides) or 'the defaults'}>"


def compose(*overrides: str, config_dir: str | Path | None = None) -> ComposedConfig:
    """Composes and checks the config of a run, as `flowerexp run OVERRIDES` does.

    Args:
        overrides: `key=value` or `group=option`, for example "model=mobilenet", "loop.epochs=3".
        config_dir: a folder of your own config groups, like the command's `--config-dir`.

    Raises:
        UserError: for an unknown key or option, or a value out of range.
    """
    composed, folder = _load(overrides, config_dir, RunMode.RUN)
    if composed.hydra.mode == RunMode.MULTIRUN:
        raise UserError("these overrides are a sweep of several runs: use flowerexp.sweep(...)")
    with flag_override(composed, ["struct", "readonly"], False):
        del composed["hydra"]
    composition.check_sweep_level_keys(overrides)
    composition.check(composed)
    OmegaConf.resolve(composed)
    OmegaConf.set_readonly(composed, True)
    return ComposedConfig(overrides, config_dir, composed, folder)


def run(config: ComposedConfig, folder: str | Path | None = None) -> Run:
    """Trains a run; resumes an interrupted one, and returns a finished one.

    What the run prints appears here. An interrupt (Ctrl-C, a notebook's stop button) lets it save
    a checkpoint and then raises KeyboardInterrupt; a second one ends it at once.

    Args:
        config: as `compose` returns it.
        folder: the run folder; by default the one that the command line would use.

    Returns:
        The finished run, or an unfinished one that `loop.max_minutes` stopped.

    Raises:
        UserError: for a run that cannot start or fails.
    """
    if not isinstance(config, ComposedConfig):
        raise UserError("flowerexp.run takes a config: run(flowerexp.compose(...))")
    if config.dry_run:
        raise UserError("dry_run=true trains nothing: leave it out, or use the command line")
    place = Path(folder) if folder is not None else config.folder
    words = list(config.overrides)
    if folder is not None:
        quoted = str(place).replace("\\", "\\\\").replace("'", "\\'")
        words.append(f"hydra.run.dir='{quoted}'")
    code, error = _execute(words, config.config_dir)
    if config.fresh:  # the child chose the folder: the last one with a run
        place = next(iter(launch.fresh_folders(place)[-2::-1]), place)
    if code in (0, launch.OUT_OF_TIME):
        return Run(place)
    raise UserError(error or f"the run {place} ended with the exit code {code}: its log is in "
                             f"{place / 'run.log'}; call run again to resume it")


def sweep(*overrides: str, config_dir: str | Path | None = None) -> list[Run]:
    """Trains the runs of a sweep, as `flowerexp run -m OVERRIDES` does; finished ones are kept.

    Args:
        overrides: see `compose`; a key with several values ("seed=1,2,3") is swept.
        config_dir: see `compose`.

    Returns:
        The runs in the folder of the sweep; none for `dry_run=true`.

    Raises:
        UserError: for a mistake in any of the runs, before the first starts; and for runs that did
            not finish, naming each and its error.
    """
    composed, folder = _load(overrides, config_dir, RunMode.MULTIRUN)
    code, error = _execute(["-m", *overrides], config_dir)
    if error:
        raise UserError(error)
    if composed.dry_run or not folder.is_dir():
        return []
    runs = load_runs(folder)
    if code in (0, launch.OUT_OF_TIME):
        return runs
    unfinished = [f"{each.folder.name} ({each.status.error or each.status.state})"
                  for each in runs if each.status.state != "done"]
    raise UserError(f"{len(unfinished)} of {len(runs)} runs in {folder} did not finish: "
                    f"{', '.join(unfinished)}: call sweep again to resume them, or "
                    f"flowerexp.load_runs({str(folder)!r}) to read what there is")


def _load(overrides: Sequence[str], config_dir: str | Path | None, mode: RunMode
          ) -> tuple[DictConfig, Path]:
    """The composed config, with Hydra's own node `hydra`, and the folder of the run or sweep."""
    if wrong := [each for each in overrides if not isinstance(each, str)]:
        raise UserError(f"{wrong[0]!r} is not an override: give texts, \"group=option\" or "
                        "\"key=value\"")
    composition.register()
    try:
        given = composition.for_hydra(overrides, None if config_dir is None else Path(config_dir))
        with initialize_config_dir(str(composition.conf_folder()), version_base="1.3"):
            composed = GlobalHydra.instance().config_loader().load_configuration(
                "config", given, mode, from_shell=False)
            names = composed.hydra.run if mode == RunMode.RUN else composed.hydra.sweep
            return composed, Path(names.dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(composition.explain(error)) from error


def _execute(words: Sequence[str], config_dir: str | Path | None) -> tuple[int, str]:
    """Runs `flowerexp run WORDS` in a child process and prints its lines as they come.

    Returns:
        The exit code, and the sentence of the error that it ended with, else an empty text.
    """
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        filter(None, (package, os.environ.get("PYTHONPATH")))), "PYTHONIOENCODING": "utf-8"}
    # One sentence per error, because tracebacks are in the run's log; and plain lines, even if a
    # notebook's kernel asks for the colors and bars of a terminal.
    for name in ("HYDRA_FULL_ERROR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        environment.pop(name, None)
    own = [] if config_dir is None else ["--config-dir", str(config_dir)]
    terminal = sys.stdout is sys.__stdout__ and os.isatty(1)  # the child shows a bar there
    with tempfile.TemporaryFile() as errors:
        # In its own session, so that an interrupt reaches it only once, from here.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, str(os.getpid()), *own, *words], env=environment,
            stdout=None if terminal else subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL,
            start_new_session=True, encoding="utf-8", errors="backslashreplace")
        try:
            _relay(process)
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                _relay(process)
            finally:
                process.kill()  # no effect if it has ended
            raise
        errors.seek(0)
        lines = errors.read().decode("utf-8", "backslashreplace").strip().splitlines()
    last = lines[-1] if lines else ""
    return process.returncode, last.removeprefix("flowerexp: ") if process.returncode else ""


def _relay(process: subprocess.Popen[str]) -> None:
    """Prints what a process writes until it ends."""
    for line in process.stdout or ():
        print(line, end="", flush=True)
    process.wait()
