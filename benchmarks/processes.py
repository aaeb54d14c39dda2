"""Memory of a running process and its children, observed from outside (Linux, /proc)."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.05


@dataclass
class Peaks:
    """Peak resident bytes so far. Pages shared by processes count in each."""

    parent: int = 0
    """The peak of the process itself."""
    child: int = 0
    """The largest peak of its descendants."""
    together: int = 0
    """The peak of the sum over all of them."""


@contextlib.contextmanager
def worker_failure_guard(process: int) -> Iterator[Peaks]:
    """Samples a process and its descendants while the block runs, 20 times a second."""
    peaks, over = Peaks(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            resident = {each: resident_bytes(each) for each in (process, *below(process))}
            peaks.together = max(peaks.together, sum(now for now, _ in resident.values()))
            for each, (_, most) in resident.items():
                if each == process:
                    peaks.parent = max(peaks.parent, most)
                else:
                    peaks.child = max(peaks.child, most)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def resident_bytes(process: int) -> tuple[int, int]:
    """Current and peak resident bytes; zeros if the process has ended."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key in ("VmRSS", "VmHWM"):
                found[key] = int(value.split()[0]) * 1024
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


def below(process: int) -> list[int]:
    """The descendants of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            children = (task / "children").read_text(encoding="ascii")
            for child in map(int, children.split()):
                found += [child, *below(child)]
    return found


def run_watched(command: Sequence[str], **options: Any) -> Peaks:
    """Runs a command, which must succeed; options of subprocess.Popen."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, **options)
    with worker_failure_guard(process.pid) as peaks:
        said, _ = process.communicate()
    assert process.returncode == 0, f"{command} ended with {process.returncode}: {said[-2000:]}"
    return peaks
