"""Logging of a run: lines on the terminal and in run.log, progress, and status.json."""

import contextlib
import datetime
import logging
import os
import platform
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from flowerexp.runs import store
from flowerexp.runs.status import RunStatus

NVIDIA = Path("/proc/driver/nvidia")
"""A path that exists if an NVIDIA driver is loaded; only then do CUDA messages matter."""
NOISE = re.compile(rb"^(?!\d{4}-\d\d-\d\dT).*(?:" + b"|".join((  # never a line of ours
    rb"All log messages before absl::InitializeLog\(\) is called",
    rb"oneDNN custom operations are on",
    rb"This TensorFlow binary is optimized to use available CPU instructions",
    rb"To enable the following instructions: .*rebuild TensorFlow",
    rb"Unable to register cu\w+ factory",
    rb"computation_placer already registered",
    rb"TF-TRT Warning: Could not find TensorRT")) + rb")")
"""Lines that TensorFlow writes at every start and that no setting suppresses."""
NO_GPU = re.compile(rb"^(?!\d{4}-\d\d-\d\dT).*(?:Could not find cuda drivers"
                    rb"|failed call to cuInit|cuda_diagnostics|cuda-capable device)")
"""Further such lines on a machine without an NVIDIA driver."""
LINE_SECONDS = 60
"""Seconds between two progress lines if there is no terminal."""
MEASURE_SECONDS = 10
"""Seconds for which the speed is measured before the time left is estimated."""
DAY = 24 * 60 * 60

Scores = Callable[[], tuple[float, float]]
"""A function that returns the loss and the accuracy of the epoch so far."""


def now() -> str:
    """Local time in ISO 8601, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def duration(seconds: float) -> str:
    """A time in its two largest units, for example `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 24:
        return "{} d {} h".format(*divmod(round(seconds / 3600), 24))
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class LogFile(logging.Handler):
    """Handler of run.log: timestamped lines of this package, and native libraries' output.

    The file is opened for every message, so that other processes can write in between. Native
    libraries write to it directly, so a crash loses nothing; NOISE is removed afterwards.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.filtered = path.stat().st_size if path.exists() else 0
        """The size in bytes up to which noise was removed."""

    def emit(self, record: logging.LogRecord) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{now()} {line}\n"
                            for line in record.getMessage().splitlines() or [""])
        self.remove_noise()

    def remove_noise(self) -> None:
        """Removes NOISE from what was written since the last call."""
        if not self.path.exists():
            return
        with self.path.open("a+b") as file:
            file.seek(self.filtered)
            added = file.read()
            kept = b"".join(line for line in added.splitlines(keepends=True) if not (
                NOISE.match(line) or (NO_GPU.match(line) and not NVIDIA.exists())))
            if kept != added:
                file.truncate(self.filtered)
                file.write(kept)
            self.filtered += len(kept)


class RunLogger:
    """Logs the messages of one process about one run folder.

    Args:
        folder: the run folder; None logs to the terminal only.
        chief: whether this is the chief; other workers print and write nothing.
    """

    def __init__(self, folder: Path | None = None, chief: bool = True) -> None:
        self.folder = folder if chief else None
        self.console = Console(quiet=not chief, highlight=False)
        self._file = LogFile(self.folder / store.LOG) if self.folder else logging.NullHandler()
        terminal = logging.Handler(logging.INFO)
        terminal.emit = lambda record: self.console.print(  # type: ignore[method-assign]
            record.getMessage(), markup=False, soft_wrap=True)
        self._logger = logging.Logger("flowerexp", logging.DEBUG)
        self._logger.handlers = [terminal, self._file]

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.folder is not None

    @property
    def is_interactive(self) -> bool:
        """Whether the output is a terminal, which can show a progress bar."""
        return self.console.is_terminal and not self.console.quiet

    def info(self, sentence: str) -> None:
        """Logs a line to the terminal and, timestamped, to run.log."""
        self._logger.info(sentence)

    def debug(self, text: str) -> None:
        """Logs lines to run.log only."""
        self._logger.debug(text)

    @contextlib.contextmanager
    def native_log(self) -> Iterator[None]:
        """Redirects the standard error stream, to which native libraries write, to run.log.

        A traceback of this package is printed after the block, so it still reaches the terminal.
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
            if isinstance(self._file, LogFile):
                with contextlib.suppress(OSError):  # a full disk is reported separately
                    self._file.remove_noise()

    def log_traceback(self) -> None:
        self.debug(traceback.format_exc())

    def record(self, **fields: Any) -> None:
        """Updates fields of status.json; None removes one."""
        if self.folder:
            status = RunStatus.load_or_new(self.folder)
            replace(status, **fields, updated=now()).save(self.folder)

    @contextlib.contextmanager
    def progress(self, images: int, done: int) -> Iterator["Progress"]:
        """Shows the progress: a bar on a terminal, otherwise a line per minute.

        Args:
            images: the total number of images, of which `done` were processed before.

        Yields:
            A function of the title, the images done since the last call, and `Scores` if known.
        """
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=24),
                   SpeedColumn(), bars.TimeRemainingColumn(compact=True),
                   bars.TextColumn("left"))
        with self._bar(*columns) as bar:
            yield Progress(self, images, done, bar)

    @contextlib.contextmanager
    def steps(self, title: str, count: int | None) -> Iterator[Callable[..., None]]:
        """Shows a progress bar of steps on a terminal, otherwise nothing.

        Args:
            count: the number of steps; None if it is unknown.

        Yields:
            A function of the number of steps since its last call, 1 by default.
        """
        with self._bar(*bars.Progress.get_default_columns()) as bar:
            task = bar.add_task(title, total=count)
            yield lambda number=1: bar.advance(task, number)

    def _bar(self, *columns: bars.ProgressColumn | str) -> bars.Progress:
        # The error stream is left to native libraries.
        return bars.Progress(*columns, console=self.console, transient=True,
                                 redirect_stderr=False, disable=not self.is_interactive)


class SpeedColumn(bars.ProgressColumn):
    """Images per second."""

    def render(self, task: bars.Task) -> Text:
        return Text(describe_speed(task.speed) if task.speed else "- images/s")


class Progress:
    """Counts images, and reports speed, time left, loss and accuracy.

    The time left is reported once the speed is known, if it is over a minute; then, without a
    terminal, every LINE_SECONDS. The first call is not measured, because it traces and compiles.

    Args:
        logger: the logger for the reports.
        images: the total number of images.
        done: the number of images processed before.
        bar: the progress bar, shown on a terminal.
        clock: a function that returns the time in seconds.
    """

    def __init__(self, logger: RunLogger, images: int, done: int, bar: bars.Progress,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.logger, self.images, self.done, self.clock = logger, images, done, clock
        self.bar, self.task = bar, bar.add_task("", total=images, completed=done)
        self.first: tuple[float, int] | None = None
        self.estimated = False
        self.scores = ""
        self.reported = self.refreshed = clock()

    def __call__(self, title: str, count: int, scores: Scores | None = None) -> None:
        """Adds `count` images.

        Args:
            title: the title of the bar, for example `epoch 2/30`.
            count: the number of images since the last call.
            scores: called only when they are shown, at most once a second.
        """
        self.done += count
        instant = self.clock()
        if self.logger.is_interactive and instant - self.refreshed >= 1:
            self.refreshed, self.scores = instant, describe(scores)
        self.bar.update(self.task, description=title + self.scores, advance=count)
        if self.first is None:
            self.first = instant, self.done
        seconds, measured = instant - self.first[0], self.done - self.first[1]
        if not seconds or not measured:
            return
        speed = measured / seconds
        left = (self.images - self.done) / speed
        if not self.estimated and seconds >= MEASURE_SECONDS:
            self.estimated, self.reported = True, instant
            self.estimate(left, speed)
        elif instant - self.reported >= LINE_SECONDS:
            self.reported = instant
            line = (f"{title}: {self.done:,} of {self.images:,} images, {describe_speed(speed)}, "
                    f"about {duration(left)} left{describe(scores)}")
            (self.logger.debug if self.logger.is_interactive else self.logger.info)(line)

    def estimate(self, left: float, speed: float) -> None:
        """Reports the time left if it is over a minute, and warns if it is over a day."""
        if left >= 60:
            self.logger.info(f"about {duration(left)} left at {describe_speed(speed)}")
        if left > DAY:
            self.logger.info("warning: this takes more than a day; a smaller dataset.image_size, "
                             "model or loop.epochs takes less, and a GPU or TPU is faster")


def describe_speed(speed: float) -> str:
    return f"{speed:,.{0 if speed >= 10 else 2}f} images/s"


def describe(scores: Scores | None) -> str:
    """`; loss 0.5527, acc 0.8255`, or nothing."""
    if scores is None:
        return ""
    loss, accuracy = scores()
    return f"; loss {loss:.4f}, acc {accuracy:.4f}"


def exit_with_parent(parent: int) -> None:
    """Ends this process gracefully, by SIGTERM, once its parent is gone."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def process() -> dict[str, Any]:
    """The host and process id, for the message about a locked folder."""
    return {"host": platform.node(), "pid": os.getpid()}
