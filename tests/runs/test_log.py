"""run.log, native libraries' messages in it, and progress."""

import io
import os
import re
from contextlib import contextmanager

import pytest
from rich.console import Console

from flowerexp.errors import UserError
from flowerexp.runs import log
from flowerexp.runs.log import RunLogger
from tests.folders import write_run

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d "
NATIVE = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795820629.406517    8105 port.cc:153] oneDNN custom operations are on. You may see
I0000 00:00:1795820629.406955    8105 cudart_stub.cc:31] Could not find cuda drivers on your machine
E0000 00:00:1795820644.641207    8105 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA
2026-11-27 23:04:04.1: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary \
is optimized to use available CPU instructions in performance-critical operations.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the \
appropriate compiler flags.
Corrupt JPEG data: premature end of data segment
2026-11-27 23:04:04.1: W tensorflow/core/framework/op_kernel.cc:1855] RESOURCE_EXHAUSTED: OOM
a line without its end"""


def written(folder):
    return (folder / "run.log").read_text().splitlines()


def test_messages_reach_the_terminal_and_run_log_with_their_time(tmp_path, capsys):
    logger = RunLogger(tmp_path)
    logger.info("a [red]sentence[/red] of 100 %s, " + "long " * 40)
    logger.debug("for the file\n\nonly")
    logger.debug("")
    lines = written(tmp_path)
    assert all(re.match(TIME, line) for line in lines)
    texts = [line.split(" ", 1)[1] for line in lines]
    assert texts == ["a [red]sentence[/red] of 100 %s, " + "long " * 40, "for the file", "", "only",
                     ""]
    assert capsys.readouterr().out == texts[0] + "\n"


def test_a_worker_and_a_command_without_folder_write_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worker = RunLogger(tmp_path, chief=False)
    worker.info("said")
    worker.record(state="running")
    with worker.native_log():
        os.write(2, b"native\n")
    assert (worker.is_chief, worker.is_interactive, capsys.readouterr().out) == (False, False, "")
    RunLogger().info("printed")
    assert capsys.readouterr().out == "printed\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("driver", [False, True])
def test_start_up_noise_is_removed_and_errors_of_native_libraries_stay(tmp_path, monkeypatch,
                                                                       driver):
    """What is said of CUDA is noise only where there is no driver that could be broken."""
    monkeypatch.setattr(log, "NVIDIA", tmp_path if driver else tmp_path / "missing")
    logger = RunLogger(tmp_path)
    with logger.native_log():
        os.write(2, NATIVE.encode())
        assert len(written(tmp_path)) == 9  # a crash would lose nothing
        os.write(2, b"\n")
        logger.debug("failed call to cuInit, oneDNN custom operations are on: our own words stay")
        os.write(2, NATIVE.encode())
    kept = NATIVE.splitlines()[2:4] * driver + NATIVE.splitlines()[-3:]
    lines = written(tmp_path)
    assert lines[:len(kept)] == lines[-len(kept):] == kept
    assert len(lines) == 2 * len(kept) + 1
    assert lines[len(kept)].endswith("our own words stay")


def test_what_an_earlier_process_wrote_is_left_alone(tmp_path):
    (tmp_path / "run.log").write_text(NATIVE + "\n")
    logger = RunLogger(tmp_path)
    logger.debug("more")
    assert written(tmp_path)[:-1] == NATIVE.splitlines()


def test_a_disk_that_takes_no_more_is_an_error(tmp_path):
    logger = RunLogger(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        logger.debug("lost")


def test_a_folder_that_was_moved_is_named_and_not_made_anew(tmp_path):
    folder = write_run(tmp_path / "run", [], [0, 1], [[0, 1]])
    logger = RunLogger(folder)
    logger.debug("before")
    folder.rename(tmp_path / "moved")
    for write in (lambda: logger.debug("lost"), lambda: logger.record(epochs_done=1)):
        with pytest.raises(UserError, match="run was moved or removed while its run was writing"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


@contextmanager
def counting(logger, images, done=0):
    """The progress of a logger whose clock the test sets."""
    clock = Clock()
    with logger.progress(images, done, clock) as advance:
        yield clock, advance


def test_without_a_terminal_the_time_left_and_then_a_line_a_minute(tmp_path, capsys):
    asked = []

    def scores():
        asked.append(1)
        return 0.55268, 0.8255

    with counting(RunLogger(tmp_path), 100_000, 10_000) as (clock, advance):
        clock.seconds += 50  # tracing and compiling, which is not measured
        advance("epoch 2/10", 1_000, scores)
        for _ in range(14):
            clock.seconds += 5
            advance("epoch 2/10", 500, scores)
    assert capsys.readouterr().out.splitlines() == [
        "about 15 min left at 100 images/s",  # 88,000 images after ten seconds
        "epoch 2/10: 18,000 of 100,000 images, 100 images/s, about 14 min left; "
        "loss 0.5527, acc 0.8255"]
    assert len(asked) == 1
    assert len(written(tmp_path)) == 2


def test_short_work_reports_no_time_left(capsys):
    with counting(RunLogger(), 3_000) as (clock, advance):
        for _ in range(3):
            advance("", 1_000)
            clock.seconds += 10
    assert capsys.readouterr().out == ""


def test_more_than_a_day_is_a_warning(capsys):
    with counting(RunLogger(), 1_000_000) as (clock, advance):
        for _ in range(2):
            advance("", 30)
            clock.seconds += 20
    first, second = capsys.readouterr().out.splitlines()
    assert first == "about 7 d 17 h left at 1.50 images/s"
    assert second.startswith("warning: this takes more than a day; a smaller dataset.image_size")


def test_on_a_terminal_the_bar_shows_loss_and_accuracy_and_run_log_has_the_lines(tmp_path):
    logger = RunLogger(tmp_path)
    logger.console = Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False)
    assert logger.is_interactive
    with counting(logger, 1_000) as (clock, advance):
        for _ in range(8):
            clock.seconds += 20
            advance("epoch 1/2", 10, lambda: (1.5, 0.25))
        advance.bar.refresh()
    shown = logger.console.file.getvalue()
    assert "epoch 1/2; loss 1.5000, acc 0.2500" in shown
    assert "of 1,000 images" not in shown
    assert "epoch 1/2: 50 of 1,000 images, 0.50 images/s, about 32 min left" in "".join(
        written(tmp_path))


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3_599, "1 h 0 min"), (12_000, "3 h 20 min"),
    (86_400, "1 d 0 h"), (200_000, "2 d 8 h")])
def test_duration(seconds, text):
    assert log.duration(seconds) == text
