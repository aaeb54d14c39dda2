"""Host microseconds of an update at every `steps_per_execution`, against `model.fit`'s.

    python -m benchmarks.overhead --json overhead.json

The model is one dense layer on the mean of an 8 px image, so that almost nothing is computed and an
update's time is the cost of the loop. The baseline is Keras' `model.fit` with the same
steps_per_execution, model and images in memory; `epoch` is all updates of the epoch.

Targets: 160 microseconds at `epoch`, faster than `model.fit` at each.
"""

from typing import Any

from benchmarks.measuring import (
    Case,
    in_turn,
    parser,
    per_unit,
    write_report,
)
from benchmarks.trainers import build_trainer
from benchmarks.training import fit_epoch, images_in_memory, plain_copy, project_epoch

SIZE, BATCH = 8, 16
STEPS = (1, 10, 100, "epoch")


def cases_of(steps: int | str, updates: int) -> dict[str, Case]:
    """Both cases, each with its own model."""
    images = images_in_memory(BATCH * updates, SIZE)
    trainer = build_trainer("trivial", SIZE, BATCH, updates)
    return {f"model.fit, {steps}": fit_epoch(plain_copy(trainer), images, BATCH,
                                             updates if steps == "epoch" else int(steps)),
            f"project, {steps}": project_epoch(trainer, images, steps)}


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--updates", type=int, default=1000, help="of an epoch")
    arguments = options.parse_args()
    cases: dict[str, Case] = {}
    for steps in STEPS:
        cases |= cases_of(steps, arguments.updates)
    taken = in_turn(cases, arguments.rounds)
    report: dict[str, Any] = {"updates": arguments.updates, "batch": BATCH, "size": SIZE}
    report["cases"] = per_unit(
        f"an update of {BATCH} images of {SIZE} px, {arguments.updates} a round", taken,
        arguments.updates / 1e6, "us", {f"project, {steps}": f"model.fit, {steps}"
                                        for steps in STEPS})
    write_report(arguments.json, report)


if __name__ == "__main__":
    main()
