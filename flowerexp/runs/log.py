"""What a run says: sentences on the terminal and in run.log, progress, and status.json."""

import contextlib
import datetime
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from flowerexp.runs import store
from flowerexp.runs.status import RunStatus


def now() -> str:
    """Local time in ISO 8601, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


class SpeedColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "- images/s")


class RunLogger:
    """The voice of one process about one run folder.

    Args:
        folder: of the run; None for a command that has none, which speaks on the terminal only.
        chief: False for a worker that says nothing and writes nothing.
    """

    def __init__(self, folder: Path | None = None, chief: bool = True) -> None:
        self.folder = folder if chief else None
        self.console = Console(quiet=not chief, highlight=False)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.folder is not None

    def info(self, sentence: str) -> None:
        """One line on the terminal and, with its time, in run.log."""
        self.console.print(sentence, markup=False, soft_wrap=True)
        self.debug(sentence)

    def debug(self, text: str) -> None:
        """Lines in run.log only."""
        if self.folder:
            with (self.folder / store.LOG).open("a", encoding="utf-8") as file:
                file.writelines(f"{now()} {line}\n" for line in text.splitlines() or [""])

    @contextlib.contextmanager
    def native_log(self) -> Iterator[None]:
        """Sends the standard error stream to run.log, where native libraries write as they like.

        TensorFlow greets with lines that no setting silences, libjpeg comments on what it reads.
        A traceback of ours is printed after the block, so it stays on the terminal.
        """
        sys.stderr.flush()
        terminal = os.dup(2)
        target = os.open(self.folder / store.LOG if self.folder else os.devnull,
                         os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(target, 2)
        os.close(target)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)

    def log_traceback(self) -> None:
        self.debug(traceback.format_exc())

    def record(self, **fields: Any) -> None:
        """Updates fields of status.json; None removes one."""
        if self.folder:
            status = RunStatus.load_or_new(self.folder)
            replace(status, **fields, updated=now()).save(self.folder)

    @contextlib.contextmanager
    def progress(self, images: int, done: int) -> Iterator[Callable[[str, int], None]]:
        """A bar with images per second and time left where there is a terminal, else nothing.

        Args:
            images: of the whole, of which `done` are done before.

        Yields:
            A function that takes the bar's title and the images done since its last call.
        """
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), SpeedColumn(),
                   TimeRemainingColumn(compact=True), TextColumn("left"))
        # Not the error stream, which is the native libraries'.
        with Progress(*columns, console=self.console, transient=True, redirect_stderr=False,
                      disable=not self.console.is_terminal or self.console.quiet) as bar:
            task = bar.add_task("", total=images, completed=done)
            yield lambda title, count: bar.update(task, description=title, advance=count)

    @contextlib.contextmanager
    def steps(self, title: str, count: int | None) -> Iterator[Callable[..., None]]:
        """A bar of things done one after another where there is a terminal, else nothing.

        Args:
            count: of the things; None where it is not known.

        Yields:
            A function that takes how many were done since its last call, 1 unless given.
        """
        # Not the error stream, which is the native libraries'.
        with Progress(console=self.console, transient=True, redirect_stderr=False,
                      disable=not self.console.is_terminal or self.console.quiet) as bar:
            task = bar.add_task(title, total=count)
            yield lambda number=1: bar.advance(task, number)


def exit_with_parent(parent: int) -> None:
    """Has this process end in order, by SIGTERM, when its parent is gone."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def process() -> dict[str, Any]:
    """Where this process runs, for a second one that finds the folder taken."""
    return {"host": platform.node(), "pid": os.getpid()}
