"""Logging of a run: lines on the terminal and in run.log, progress, and status.json."""

import contextlib
import datetime
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import progress as bars
from rich.console import Console

from flowerexp.errors import UserError, printable
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


class RunLogger:
    """Logs the messages of one process about one run folder.

    run.log is opened for every message, so that other processes can write in between. Native
    libraries write to it directly, so a crash loses nothing; NOISE is removed afterwards.

    Args:
        folder: the run folder; None logs to the terminal only.
        chief: whether this is the chief; other workers print and write nothing.
    """

    def __init__(self, folder: Path | None = None, chief: bool = True) -> None:
        self.folder = folder if chief else None
        self.console = Console(quiet=not chief, highlight=False)
        self._path = self.folder / store.LOG if self.folder else Path(os.devnull)
        self._filtered = self._path.stat().st_size if self._path.exists() else 0
        """The size in bytes up to which noise was removed."""
        self._has_config = self.folder is not None and (self.folder / store.CONFIG).exists()

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
        self.console.print(printable(sentence), markup=False, soft_wrap=True)
        self.debug(sentence)

    def debug(self, text: str) -> None:
        """Logs lines to run.log only."""
        self.check_in_place()
        with self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{now()} {line}\n" for line in text.splitlines() or [""])
        self._remove_noise()

    def _remove_noise(self) -> None:
        """Removes NOISE from what was written since the last call."""
        if self.folder is None or not self._path.exists():
            return
        with self._path.open("a+b") as file:
            file.seek(self._filtered)
            added = file.read()
            noise = (NOISE,) if NVIDIA.exists() else (NOISE, NO_GPU)
            kept = b"".join(line for line in added.splitlines(keepends=True)
                            if not any(pattern.match(line) for pattern in noise))
            if kept != added:
                file.truncate(self._filtered)
                file.write(kept)
            self._filtered += len(kept)

    def check_in_place(self) -> None:
        """Raises UserError if the run folder has gone, before a write would create half of one."""
        if self._has_config and self.folder and not (self.folder / store.CONFIG).exists():
            raise UserError(f"{self.folder} was moved or removed while its run was writing to it",
                            "resume it where it is now: python -m flowerexp resume FOLDER")

    @contextlib.contextmanager
    def native_log(self) -> Iterator[None]:
        """Redirects the standard error stream, to which native libraries write, to run.log.

        A traceback of this package is printed after the block, so it still reaches the terminal.
        """
        sys.stderr.flush()
        with os.fdopen(os.dup(2), "wb") as terminal, self._path.open("ab") as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(terminal.fileno(), 2)
                with contextlib.suppress(OSError):  # a full disk is reported separately
                    self._remove_noise()

    def record(self, **fields: Any) -> None:
        """Updates fields of status.json; None removes one."""
        self.check_in_place()
        if self.folder:
            status = RunStatus.load_or_new(self.folder)
            replace(status, **fields, updated=now()).save(self.folder)

    @contextlib.contextmanager
    def progress(self, images: int, done: int, clock: Callable[[], float] = time.monotonic
                 ) -> Iterator["Progress"]:
        """Shows the progress: a bar on a terminal, otherwise a line per minute.

        Args:
            images: the total number of images, of which `done` were processed before.
            clock: a function that returns the time in seconds.
        """
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=24),
                   bars.TextColumn("{task.fields[speed]}"), bars.TimeRemainingColumn(compact=True),
                   bars.TextColumn("left"))
        with self._bar(*columns, get_time=clock, speed_estimate_period=math.inf) as bar:
            yield Progress(self, bar, bar.add_task("", total=images, completed=done, speed=""))

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

    def _bar(self, *columns: bars.ProgressColumn | str, **options: Any) -> bars.Progress:
        # The error stream is left to native libraries.
        return bars.Progress(*columns, console=self.console, transient=True, redirect_stderr=False,
                             disable=not self.is_interactive, **options)


class Progress:
    """Counts images, and reports speed, time left, loss and accuracy.

    The time left is reported once the speed is known, if it is over a minute; then, without a
    terminal, every LINE_SECONDS. Rich measures the speed of the last 1,000 calls, without the first
    call, which traces and compiles.
    """

    def __init__(self, logger: RunLogger, bar: bars.Progress, task: bars.TaskID) -> None:
        self.logger, self.bar, self.task = logger, bar, bar.tasks[task]
        self.first: float | None = None
        self.estimated = False
        self.scores = ""
        self.reported = self.refreshed = bar.get_time()

    def __call__(self, title: str, count: int,
                 scores: Callable[[], tuple[float, float]] | None = None) -> None:
        """Adds `count` images.

        Args:
            title: the title of the bar, for example `epoch 2/30`.
            count: the number of images since the last call.
            scores: returns the loss and the accuracy of the epoch so far; called only when they
                are shown, at most once a second.
        """
        instant = self.bar.get_time()
        if self.logger.is_interactive and instant - self.refreshed >= 1:
            self.refreshed, self.scores = instant, describe(scores)
        self.bar.update(self.task.id, description=title + self.scores, advance=count)
        if self.first is None:
            self.first = instant
        if not self.task.speed:
            return
        speed, left = describe_speed(self.task.speed), self.task.time_remaining or 0
        self.bar.update(self.task.id, speed=speed)
        if not self.estimated and instant - self.first >= MEASURE_SECONDS:
            self.estimated, self.reported = True, instant
            if left >= 60:
                self.logger.info(f"about {duration(left)} left at {speed}")
            if left > DAY:
                self.logger.info("warning: this takes more than a day; a smaller "
                                 "dataset.image_size, model or loop.epochs takes less, and a GPU "
                                 "or TPU is faster")
        elif instant - self.reported >= LINE_SECONDS:
            self.reported = instant
            line = (f"{title}: {self.task.completed:,} of {self.task.total:,} images, {speed}, "
                    f"about {duration(left)} left{describe(scores)}")
            (self.logger.debug if self.logger.is_interactive else self.logger.info)(line)


def describe_speed(speed: float) -> str:
    return f"{speed:,.{0 if speed >= 10 else 2}f} images/s"


def describe(scores: Callable[[], tuple[float, float]] | None) -> str:
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
