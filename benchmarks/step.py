"""Images per second of a training epoch against the bare compiled step, `model.fit` and PyTorch.

    python -m benchmarks.step --json step.json

The project: its Trainer fed by its own pipeline from decoded images, steps_per_execution=epoch.
Baselines, all with the same sizes, Adam and cross-entropy: the compiled step called on one
constant batch; Keras' `model.fit` with the same steps_per_execution, from uint8 images in memory;
for MobileNet at a quarter of its width, PyTorch (eager, channels last, its default number of
threads), in a second process; each process waits while the other measures.

Targets: 0.98 of the bare step, faster than `model.fit`, not slower than PyTorch.
"""

import importlib.util
import json
import subprocess
import sys
from typing import Any

from benchmarks.measuring import Case, Seconds, compare, in_turn, parser, write_report
from benchmarks.trainers import build_trainer
from benchmarks.training import bare_epoch, fit_epoch, images_in_memory, plain_copy, project_epoch
from flowerexp.models import build

BATCHES = {"EfficientNetB0": 16, "MobileNet": 64}
UPDATES = {"EfficientNetB0": 30, "MobileNet": 60}
"""Updates per epoch, some seconds on two cores."""


class Torch:
    """PyTorch in a process of its own.

    Args:
        batch, size, updates: the sizes of an epoch.
    """

    def __init__(self, batch: int, size: int, updates: int) -> None:
        command = [sys.executable, "-m", "benchmarks.torch_models",
                   *map(str, (batch, size, updates))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.facts = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def epoch(self) -> Seconds:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Seconds(**self.read())

    def close(self) -> None:
        self.process.communicate()  # closes its input, which ends the process


def measure(name: str, size: int, batch: int, updates: int, rounds: int) -> dict[str, Any]:
    """Measures all cases for one model; prints their table and returns their numbers."""
    images = images_in_memory(batch * updates, size)
    trainer = build_trainer(name, size, batch, updates)
    counts = build.parameter_counts(trainer.model)
    cases: dict[str, Case] = {
        "bare step": bare_epoch(plain_copy(trainer), images, batch, updates),
        "model.fit": fit_epoch(plain_copy(trainer), images, batch, updates),
        "project": project_epoch(trainer, images, "epoch")}
    torch = None
    if name == "MobileNet" and importlib.util.find_spec("torch"):
        torch = Torch(batch, size, updates)
        assert tuple(torch.facts["parameters"]) == counts, f"{torch.facts} here, {counts} in Keras"
        cases["PyTorch"] = torch.epoch
    elif name == "MobileNet":
        print("PyTorch is not installed here and is left out")
    try:
        taken = in_turn(cases, rounds)
    finally:
        if torch:
            torch.close()
    report = compare(f"{name}, {size} px, batch {batch}, {updates} updates a round", taken,
                     dict.fromkeys(taken, batch * updates), "images",
                     [case for case in cases if case != "project"], clock="wall")
    return {"cases": report, "parameters": counts, "torch": torch.facts if torch else None,
            "size": size, "batch": batch, "updates": updates}


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--models", nargs="+", choices=BATCHES, default=list(BATCHES))
    options.add_argument("--size", type=int, default=96, help="height and width in pixels")
    options.add_argument("--updates", type=int, help="of an epoch, instead of each model's own")
    arguments = options.parse_args()
    write_report(arguments.json, {name: measure(
        name, arguments.size, BATCHES[name], arguments.updates or UPDATES[name], arguments.rounds)
        for name in arguments.models})


if __name__ == "__main__":
    main()
