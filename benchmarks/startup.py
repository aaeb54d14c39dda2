"""Seconds until `run.py` shows its help or a config, and until a run's first update has ended.

    python -m benchmarks.startup --json startup.json

Baselines: `python -c "import hydra, omegaconf"` for the commands that only print, and `python -c
"import tensorflow"` for a run. The run trains MobileNet at 64 px on the synthetic sample, which the
first round leaves in the user's cache; its weights come from a local file, as ImageNet's would. The
clock stops when the folder of checkpoints exists, which a run with a tiny `loop.max_minutes`
creates right after its first update, so the project needs no code for this measurement.

Targets: 0.5 s, 0.5 s, and 6 s over TensorFlow's import.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import (
    Case,
    Seconds,
    in_turn,
    parser,
    per_unit,
    process_seconds_of,
    write_report,
)

ROOT = Path(__file__).resolve().parents[1]
RUN = str(ROOT / "run.py")
POLL_SECONDS = 0.005
LONGEST = 300.0
WEIGHTS = """
import sys, tensorflow as tf
tf.keras.applications.MobileNet(input_shape=(64, 64, 3), include_top=False, weights=None
                                ).save_weights(sys.argv[1])
"""


def cpu_seconds_of(process: int) -> float:
    """CPU-seconds of a running process and its children that have ended (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def first_update(folder: Path, overrides: Sequence[str]) -> Seconds:
    """The time of run.py until the end of its first update, when it is killed.

    Args:
        folder: its working directory, which gets its outputs.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, RUN, *overrides, "name=first", "loop.max_minutes=1e-9"]
        with (Path(place) / "said").open("w+", encoding="utf-8") as said:
            start = time.perf_counter()
            process = subprocess.Popen(command, cwd=place, stdout=said, stderr=said)
            try:
                while not (Path(place) / "outputs/first/checkpoints").exists():
                    if process.poll() is not None or time.perf_counter() - start > LONGEST:
                        said.seek(0)
                        raise AssertionError(f"{command} made no update: {said.read()[-2000:]}")
                    time.sleep(POLL_SECONDS)
                return Seconds(time.perf_counter() - start, cpu_seconds_of(process.pid))
            finally:
                process.kill()
                process.wait()


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--model", default="mobilenet", help="model=... of the run")
    arguments = options.parse_args()
    hydra, tensorflow = "import hydra, omegaconf", "import tensorflow"
    with tempfile.TemporaryDirectory() as place:
        weights = Path(place) / "mobilenet.weights.h5"
        overrides = ["dataset=sample", f"model={arguments.model}", "model.weights=null"]
        if arguments.model == "mobilenet":
            process_seconds_of([sys.executable, "-c", WEIGHTS, str(weights)])
            overrides[-1] = f"model.weights={weights}"

        def case(*words: str) -> Case:
            return lambda: process_seconds_of([sys.executable, *words], cwd=place)

        cases = {hydra: case("-c", hydra), "run.py --help": case(RUN, "--help"),
                 "run.py --cfg job": case(RUN, "--cfg", "job"),
                 tensorflow: case("-c", tensorflow),
                 "run.py to its first update": lambda: first_update(Path(place), overrides)}
        taken = in_turn(cases, arguments.rounds)
    report = per_unit("start", taken, 1, "s", {
        "run.py --help": hydra, "run.py --cfg job": hydra,
        "run.py to its first update": tensorflow})
    write_report(arguments.json, {"cases": report, "model": arguments.model})


if __name__ == "__main__":
    main()
