"""How long until something happens?

    python -m benchmarks.startup --json startup.json

Seconds of `python run.py --help`, of `--cfg job`, and of `run.py` until the first update of
MobileNet is done, on the drawn sample; as a process each, in turn. Yardsticks: the import of Hydra,
which the first two cannot do without, and of TensorFlow, which the third cannot. Targets: 0.5 s,
0.5 s, and 6 s over TensorFlow's import. The first update is seen by its checkpoint
(loop.checkpoint_minutes), the writing of which is counted too.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import photos
from benchmarks.measuring import Case, Seconds, in_turn, parser, print_table, process_seconds_of
from benchmarks.measuring import write_report as write

RUN = str(Path(__file__).parents[1] / "run.py")
WEIGHTS = photos.SHARED.parents[1] / "weights/mobilenet_2_5_224_tf_no_top.h5"
IMPORTS = {"import hydra": "import hydra, omegaconf", "import tensorflow": "import tensorflow"}


def first_update(place: Path, weights: str) -> Seconds:
    """Until the first update of a run is saved; the run is then killed."""
    folder = Path(tempfile.mkdtemp(dir=place))
    command = [sys.executable, RUN, "dataset=sample", "model=mobilenet", "model.alpha=0.25",
               f"model.weights={weights}", "loop.steps_per_execution=1",
               "loop.checkpoint_minutes=1e-6", "name=first"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    checkpoints = folder / "outputs/first/checkpoints"
    while not (checkpoints.is_dir() and any(checkpoints.glob("*/*.index"))):
        assert run.poll() is None, f"{command} ended before its first update"
        time.sleep(0.005)
    wall = time.perf_counter() - start
    run.kill()
    run.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def cases(place: Path, weights: str) -> dict[str, Case]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    commands = {name: [sys.executable, "-c", text] for name, text in IMPORTS.items()}
    commands |= {f"run.py {' '.join(words)}": [sys.executable, RUN, *words]
                 for words in (("--help",), ("--cfg", "job"))}
    made: dict[str, Case] = {
        name: lambda command=command: process_seconds_of(  # type: ignore[misc]
            command, cwd=place, env=environment) for name, command in commands.items()}
    return made | {"run.py until the first update": lambda: first_update(place, weights)}


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--weights", default=str(WEIGHTS) if WEIGHTS.exists() else "null",
                         help="of MobileNet 0.25, a file; null for random ones")
    arguments: argparse.Namespace = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        taken = in_turn(cases(Path(place), arguments.weights), arguments.rounds)
    rows: list[dict[str, Any]] = []
    for name, rounds in taken.items():
        walls = sorted(one.wall for one in rounds)
        rows.append({"": name, "s": f"{walls[len(walls) // 2]:.2f}",
                     "rounds": f"{walls[0]:.2f} to {walls[-1]:.2f}",
                     "CPU-s": f"{sorted(one.cpu for one in rounds)[len(rounds) // 2]:.2f}"})
    over = sorted(run.wall - tensorflow.wall for run, tensorflow in zip(
        taken["run.py until the first update"], taken["import tensorflow"], strict=True))
    rows.append({"": "first update, over TensorFlow's import", "s": f"{over[len(over) // 2]:.2f}",
                 "rounds": f"{over[0]:.2f} to {over[-1]:.2f}", "CPU-s": ""})
    print_table("until something happens", rows)
    write(arguments.json, {name: [[one.wall, one.cpu] for one in rounds]
                           for name, rounds in taken.items()})


if __name__ == "__main__":
    main()
