"""Shared by the benchmarks: interleaved rounds, two clocks, ratios of rounds, tables, JSON.

A case is a function that does a fixed amount of work and returns how long it took. Whatever slows
down the machine affects all cases of a round, so a ratio is the median of the rounds' ratios.
"""

import argparse
import concurrent.futures
import gc
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

PACKAGES = ("tensorflow", "keras", "tf-keras", "numpy", "hydra-core", "torch")
FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Seconds:
    """wall: wall time. cpu: CPU time of all threads of the processes involved."""

    wall: float
    cpu: float


Case = Callable[[], Seconds]


def seconds_of(call: Callable[[], Any]) -> Seconds:
    """The time of a call in this process."""
    cpu, start = time.process_time(), time.perf_counter()
    call()
    return Seconds(time.perf_counter() - start, time.process_time() - cpu)


def settled_seconds_of(call: Callable[[], Any]) -> Seconds:
    """The time of a call and of refilling the buffers that it emptied, to about 0.05 s.

    For pipelines: a call that only takes buffered batches would seem to cost nothing.
    """
    record_exit()
    cpu, start = time.process_time(), time.perf_counter()
    call()
    reached = record_exit()
    return Seconds(reached - start, time.process_time() - cpu)


def record_exit() -> float:
    """Waits until background threads have filled their buffers, and returns that time."""
    while True:
        before, reached = time.process_time(), time.perf_counter()
        time.sleep(0.05)
        if time.process_time() - before < 0.002:
            return reached


def process_seconds_of(command: Sequence[str], **options: Any) -> Seconds:
    """The time of a process and its children, which must succeed; options of subprocess.run."""
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, start = cpu(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    wall = time.perf_counter() - start
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-2000:]}"
    return Seconds(wall, cpu() - before)


def helper_process() -> concurrent.futures.ProcessPoolExecutor:
    """A fresh process that runs the functions it is sent."""
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh process."""
    with helper_process() as process:
        return process.submit(function, *arguments).result()


def in_turn(cases: Mapping[str, Case], rounds: int) -> dict[str, list[Seconds]]:
    """Runs every case once per round, after a first round that traces, compiles and fills caches.

    Every other round runs backwards, so that no case always follows the same one.
    """
    for case in cases.values():
        case()
    taken: dict[str, list[Seconds]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases)[::-1 if number % 2 else 1]:
            taken[name].append(cases[name]())
    return taken


def ratios(yardstick: Sequence[float], project: Sequence[float]) -> dict[str, float]:
    """How many times faster the project is: `median`, `least` and `greatest` of the rounds."""
    each = [slow / fast for slow, fast in zip(yardstick, project, strict=True)]
    return {"median": statistics.median(each), "least": min(each), "greatest": max(each)}


def compare(title: str, taken: Mapping[str, Sequence[Seconds]], amounts: Mapping[str, float],
            unit: str, yardsticks: Sequence[str], clock: str = "cpu") -> dict[str, Any]:
    """Prints a table of speeds and ratios; returns the entries of the JSON file.

    Args:
        taken: case -> seconds of its rounds.
        amounts: case -> the work of a round, in `unit`.
        yardsticks: the baselines, a column each.
        clock: cpu or wall, the clock of the ratios.
    """
    rows, report = [], {}
    for name, rounds in taken.items():
        each = {key: [getattr(one, key) / amounts[name] for one in rounds]
                for key in ("wall", "cpu")}
        row = {"": name} | {
            f"{unit} per {label}": digits(1 / statistics.median(each[key]))
            for key, label in (("cpu", "CPU-second"), ("wall", "second"))}
        report[name] = {f"{key}_seconds_each": statistics.median(each[key]) for key in each} | {
            "rounds": [[one.wall, one.cpu] for one in rounds], "amount": amounts[name], "ratio": {}}
        for yardstick in yardsticks:
            row[f"to {yardstick}"] = ""
            if name != yardstick:
                slow = [getattr(one, clock) / amounts[yardstick] for one in taken[yardstick]]
                ratio = ratios(slow, each[clock])
                report[name]["ratio"][yardstick] = ratio
                row[f"to {yardstick}"] = described(ratio)
        rows.append(row)
    counted = {"cpu": "CPU-seconds", "wall": "wall time"}[clock]
    print_table(f"{title} (ratios of {counted})", rows)
    return report


def per_unit(title: str, taken: Mapping[str, Sequence[Seconds]], amount: float, unit: str,
             yardsticks: Mapping[str, str]) -> dict[str, Any]:
    """As `compare`, in seconds instead of speeds.

    Args:
        taken: case -> seconds of its rounds.
        amount: the divisor of a round's seconds that gives `unit`; 1 for seconds per round.
        yardsticks: case -> its baseline, compared by wall time.
    """
    rows, report = [], {}
    for name, rounds in taken.items():
        each = {key: [getattr(one, key) / amount for one in rounds] for key in ("wall", "cpu")}
        medians = {key: statistics.median(values) for key, values in each.items()}
        row = {"": name, f"{unit}": digits(medians["wall"]),
               f"CPU-{unit}": digits(medians["cpu"]), "over its yardstick": "", "ratio": ""}
        report[name] = {**medians, "rounds": [[one.wall, one.cpu] for one in rounds]}
        if yardstick := yardsticks.get(name):
            against = [one.wall / amount for one in taken[yardstick]]
            over = statistics.median(ours - theirs
                                     for ours, theirs in zip(each["wall"], against, strict=True))
            ratio = ratios(each["wall"], against)
            row |= {"over its yardstick": digits(over), "ratio": described(ratio)}
            report[name] |= {"yardstick": yardstick, "over": over, "times_as_long": ratio}
        rows.append(row)
    print_table(f"{title} (ratios of wall time to the yardstick's)", rows)
    return report


def digits(number: float) -> str:
    """The number with four digits, and all of those before the point."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def described(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.3g} ({ratio['least']:.3g} to {ratio['greatest']:.3g})"


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A Markdown table, as benchmarks/README.md takes it."""
    columns = len(rows[0])
    text = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True,
                                          colalign=["left", *["right"] * (columns - 1)])
    print(f"\n{title}\n\n{text}", flush=True)


def memory() -> tuple[int, int]:
    """Resident bytes of this process: current, and peak since `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    now, peak = (int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
                 for key in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak() -> None:
    """Resets the peak memory of this process, which `memory` returns.

    Raises:
        SystemExit: on a system without /proc.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("peak memory is read from /proc, which only Linux has")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark: --rounds and --json."""
    made = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    made.add_argument("--rounds", type=enough_rounds, default=rounds,
                      help=f"rounds, {FEWEST_ROUNDS} or more (default {rounds})")
    made.add_argument("--json", type=Path, help="where to write the numbers")
    return made


def enough_rounds(text: str) -> int:
    if int(text) < FEWEST_ROUNDS:
        raise argparse.ArgumentTypeError(
            f"at least {FEWEST_ROUNDS}: a median of fewer means little")
    return int(text)


def write_report(path: Path | None, report: Mapping[str, Any]) -> None:
    """Prints the machine and, given a path, writes it and the numbers as JSON."""
    here = machine()
    print("\n" + ", ".join(f"{key} {value}" for key, value in here.items()))
    if path:
        text = json.dumps({"machine": here, **report}, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """The processor, cores, system and relevant versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines
                         if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    found = {"processor": processor, "cores": str(len(os.sched_getaffinity(0))),
             "system": platform.system(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
