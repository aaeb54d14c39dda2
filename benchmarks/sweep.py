"""Time and memory of a sweep compared with its runs by hand, and of comparing 200 run folders.

    python -m benchmarks.sweep --json sweep.json

The sweep: the method's eight experiments on the synthetic sample with a small model, an epoch each.
Its baseline: eight `run.py` started one after another with the same overrides. The comparison is of
200 finished runs (40 configs of five seeds) with the sizes of the flower competition, 3,712
validation images of 104 classes and ten epochs, written here as a run writes them; its baseline is
a process with the same imports that reads nothing.

Targets: a sweep within 5 % of the runs by hand, its own process under 200 MiB; under 3 s for the
comparison. With the defaults this takes about twenty minutes on two cores, mostly for the sweeps.
"""

import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from benchmarks.measuring import (
    Case,
    Seconds,
    in_turn,
    parser,
    per_unit,
    print_table,
    process_seconds_of,
    seconds_of,
    write_report,
)
from benchmarks.processes import Peaks, run_watched
from flowerexp import composition, metrics
from flowerexp.comparison import comparison
from flowerexp.runs import store

ROOT = Path(__file__).resolve().parents[1]
RUN = str(ROOT / "run.py")
SMALL = ("dataset=sample", "model=small_cnn", "loop.epochs=1")
MIB = 2**20
IMAGES, CLASSES, EPOCHS, SEEDS = 3_712, 104, 10, 5
IMPORTS = "from flowerexp.cli import main; from flowerexp.comparison import comparison, tables"


def experiments() -> list[str]:
    """The experiments of the method's sweep, from conf/."""
    params = OmegaConf.load(ROOT / "conf/sweep/notebook.yaml")
    return str(params.hydra.sweeper.params.experiment).split(",")


def sweep_cases(jobs: list[str], peaks: dict[str, list[Peaks]]) -> dict[str, Case]:
    """Both cases; every round appends the memory of its processes to `peaks`."""
    def swept(place: str) -> Peaks:
        return run_watched([sys.executable, RUN, "-m", f"experiment={','.join(jobs)}", *SMALL],
                           cwd=place)

    def by_hand(place: str) -> Peaks:
        each = [run_watched([sys.executable, RUN, f"experiment={job}", *SMALL], cwd=place)
                for job in jobs]
        return Peaks(*(max(getattr(one, key) for one in each) for key in vars(each[0])))

    def case(name: str, call: Callable[[str], Peaks]) -> Case:
        def timed() -> Seconds:
            with tempfile.TemporaryDirectory() as place:
                before = children_cpu()
                wall = seconds_of(lambda: peaks[name].append(call(place))).wall
                return Seconds(wall, children_cpu() - before)
        return timed

    return {"by hand": case("by hand", by_hand), "sweep": case("sweep", swept)}


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_sweep(count: int, rounds: int) -> dict[str, Any]:
    jobs = experiments()[:count]
    peaks: dict[str, list[Peaks]] = {"by hand": [], "sweep": []}
    taken = in_turn(sweep_cases(jobs, peaks), rounds)
    report = per_unit(f"{count} jobs", taken, 1, "s", {"sweep": "by hand"})
    rows, memory = [], {}
    for name, each in peaks.items():
        memory[name] = {key: statistics.median(getattr(one, key) for one in each)
                        for key in ("parent", "child", "together")}
        rows.append({"": name, "its own process, MiB": f"{memory[name]['parent'] / MIB:.0f}",
                     "greatest child, MiB": f"{memory[name]['child'] / MIB:.0f}",
                     "all at once, MiB": f"{memory[name]['together'] / MIB:.0f}"})
    print_table("most resident memory (medians of the rounds)", rows)
    return {"jobs": jobs, "overrides": SMALL, "cases": report, "memory_bytes": memory}


def write_runs(root: Path, count: int) -> None:
    """Writes finished runs of one experiment with different learning rates, and of its baseline."""
    random = np.random.default_rng(0)
    labels = np.sort(random.integers(0, CLASSES, IMAGES))
    names = [f"class {label}" for label in range(CLASSES)]
    counts = [12_753 // CLASSES] * CLASSES
    composition.register()
    for config in range(-(-count // SEEDS)):
        changed = [] if config < 2 else [f"schedule.max_lr={config}e-4"]
        experiment = "optimized_loop" if config == 1 else "original"
        overrides = [f"experiment={experiment}", "dataset=flowers_192", *changed]
        composed = composition.compose(overrides)
        for seed in range(min(SEEDS, count - config * SEEDS)):
            folder = root / composition.run_name(None, seed, overrides)
            composed.seed = seed
            store.write_config(folder, composed, [*overrides, f"seed={seed}"])
            store.write_classes(folder, names, counts)
            store.write_json(folder / store.VALID_LABELS, labels.tolist())
            write_scores(folder, labels, random)


def write_scores(folder: Path, labels: np.ndarray[Any, Any], random: np.random.Generator) -> None:
    """Writes history, predictions and status of a run that improves from epoch to epoch."""
    predictions, history = [], []
    for epoch in range(EPOCHS):
        right = random.random(IMAGES) < 0.5 + 0.03 * epoch
        ids = np.where(right, labels, random.integers(0, CLASSES, IMAGES))
        matrix = metrics.confusion_matrix(labels, ids, CLASSES)
        predictions.append(ids.tolist())
        history.append(metrics.epoch_scores("train", 1.0, matrix)
                       | metrics.epoch_scores("valid", 1.1, matrix) | {"train timing": 10.0})
    store.write_predictions(folder, predictions)
    store.write_history(folder, history)
    store.write_json(folder / store.STATUS, {
        "state": "done", "epochs_done": EPOCHS, "epochs": EPOCHS,
        "provenance": {"replicas": 1, "epochs": EPOCHS, "data": "0123456789abcdef"}})


def measure_comparison(count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        write_runs(Path(place), count)
        environment: Mapping[str, str] = os.environ | {"PYTHONPATH": str(ROOT)}

        def process(*words: str) -> Case:
            return lambda: process_seconds_of([sys.executable, *words], env=environment)

        taken = in_turn({
            "imports alone": process("-c", IMPORTS),
            "flowerexp compare": process("-m", "flowerexp", "compare", place),
            "comparison.load": lambda: seconds_of(lambda: comparison.load(place))}, rounds)
    return per_unit(f"{count} run folders", taken, 1, "s",
                    {"flowerexp compare": "imports alone"})


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--jobs", type=int, default=8, help="of the sweep; 0 for none")
    options.add_argument("--runs", type=int, default=200, help="run folders; 0 for none")
    arguments = options.parse_args()
    report = {}
    if arguments.runs:
        report["comparison"] = measure_comparison(arguments.runs, arguments.rounds)
    if arguments.jobs:
        report["sweep"] = measure_sweep(arguments.jobs, arguments.rounds)
    write_report(arguments.json, report)


if __name__ == "__main__":
    main()
