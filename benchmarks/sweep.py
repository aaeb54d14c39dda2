"""What does a sweep cost beside the same runs started by hand, and comparing 200 of them?

    python -m benchmarks.sweep --json sweep.json

Wall time, CPU-seconds and the sweep's own memory for eight small jobs (sweep=notebook on the drawn
sample, an epoch each) against eight processes of run.py, one after another, in turn. Then
`python -m flowerexp compare` of 200 run folders, which are copies of one that differ in their seed
and learning rate. Targets: within 5 %; parent under 200 MiB; under 3 s. Memory is read from /proc
(Linux). A quarter of an hour.
"""

import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Seconds,
    compare,
    in_turn,
    parser,
    print_table,
    process_seconds_of,
    write_report,
)
from flowerexp import results

RUN = str(Path(__file__).parents[1] / "run.py")
SMALL = ("dataset=sample", "model=small_cnn", "loop.epochs=1")
EXPERIMENTS = ("original", "optimized_loop", "accumulate_8", "accumulate_8_lr_x8",
               "oversample_100", "oversample_300", "oversample_300_fewer_epochs", "perspective")
MIB = 2**20


def by_hand(place: Path) -> Seconds:
    """The yardstick: eight processes, one after another, in a folder of their own."""
    folder = Path(tempfile.mkdtemp(dir=place))
    each = [process_seconds_of([sys.executable, RUN, f"experiment={name}", *SMALL], cwd=folder)
            for name in EXPERIMENTS]
    return Seconds(sum(one.wall for one in each), sum(one.cpu for one in each))


def sweep(place: Path, peaks: list[int]) -> Seconds:
    """The same as one command; adds its own process's peak memory in bytes to `peaks`."""
    folder = Path(tempfile.mkdtemp(dir=place))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen([sys.executable, RUN, "sweep=notebook", *SMALL], cwd=folder,
                               stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)  # gone where the process just ended
        peak = max(peak, 1024 * int(found[1]) if found else 0)
        time.sleep(0.2)
    wall = time.perf_counter() - start
    assert process.returncode == 0, "the sweep did not end well"
    peaks.append(peak)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def many_runs(place: Path, count: int) -> Path:
    """So many run folders, half of them with another learning rate."""
    process_seconds_of([sys.executable, RUN, *SMALL, "loop.epochs=10", "name=one"], cwd=place)
    one, folder = place / "outputs/one", place / "many"
    for number in range(count):
        run = folder / f"{number:03d}"
        shutil.copytree(one, run, ignore=shutil.ignore_patterns(
            "checkpoints", "*.png", "*.keras", "*.npy", "events*"))
        config = (run / results.CONFIG).read_text(encoding="utf-8")
        config = re.sub(r"(?m)^seed: .*", f"seed: {number // 2}", config)
        if number % 2:
            config = re.sub(r"max_lr: .*", "max_lr: 0.01", config)
        (run / results.CONFIG).write_text(config, encoding="utf-8")
    return folder


def compared(place: Path, count: int, rounds: int) -> dict[str, Any]:
    """Seconds to compare so many folders, beside those of an import of what compares."""
    folder = many_runs(place, count)
    commands = {"import": ["-c", "import flowerexp.comparison, flowerexp.cli"],
                f"compare {count} folders": ["-m", "flowerexp", "compare", str(folder)]}
    taken = in_turn({name: lambda words=words: process_seconds_of(  # type: ignore[misc]
        [sys.executable, *words], cwd=place) for name, words in commands.items()}, rounds)
    print_table("comparing", [
        {"": name, "s": f"{statistics.median(one.wall for one in each):.2f}",
         "rounds": f"{min(one.wall for one in each):.2f} to {max(one.wall for one in each):.2f}",
         "CPU-s": f"{statistics.median(one.cpu for one in each):.2f}"}
        for name, each in taken.items()])
    return {name: [[one.wall, one.cpu] for one in each] for name, each in taken.items()}


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--folders", type=int, default=200, help="run folders to compare")
    arguments = options.parse_args()
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        report: dict[str, Any] = {"compare": compared(place, arguments.folders, arguments.rounds)}
        taken = in_turn({"by hand": lambda: by_hand(place), "sweep": lambda: sweep(place, peaks)},
                        arguments.rounds)
    report["jobs"] = compare("eight small jobs", taken, dict.fromkeys(taken, len(EXPERIMENTS)),
                             "jobs", ["by hand"], clock="wall")
    print(f"\nmemory of the sweep's own process: {statistics.median(peaks) / MIB:.0f} MiB at most "
          f"({min(peaks) / MIB:.0f} to {max(peaks) / MIB:.0f})")
    write_report(arguments.json, report | {"parent_bytes": peaks})


if __name__ == "__main__":
    main()
