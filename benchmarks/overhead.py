"""What does an update cost the host, when the network costs next to nothing?

    python -m benchmarks.overhead --json overhead.json

Microseconds of wall time an update of 16 images of 8 px through one dense layer, for each number of
steps an execution; the yardstick is Keras' model.fit with the same network, optimizer, images and
setting. Targets: 160 us at `epoch`, ahead of `fit` at each.
"""

import statistics
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measuring import (
    described,
    in_turn,
    parser,
    print_table,
    ratios,
    seconds_of,
    write_report,
)
from benchmarks.scale_constants import CLASSES, build_trainer
from flowerexp import pipeline
from flowerexp.config import Sampling
from flowerexp.pipeline import Images
from flowerexp.records import Table

SETTINGS: tuple[int | str, ...] = (1, 10, 100, "epoch")
IMAGES, SIZE, BATCH = 256, 8, 16


def epochs(updates: int) -> dict[str, Any]:
    """case -> an epoch of it; the project's and `fit`'s, for each setting a network of its own."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8)
    labels = random.integers(0, CLASSES, IMAGES).astype(np.int32)
    images = Images(Table(None, labels, [""] * IMAGES, (), ()), SIZE, tf.constant(pixels))
    made: dict[str, Any] = {}
    for setting in SETTINGS:
        trainer = build_trainer("trivial", SIZE, BATCH, updates)
        batches = pipeline.training_batches(trainer.strategy, images, Sampling(), trainer.plan, 0,
                                            None)

        def project(trainer: Any = trainer, batches: Any = batches, setting: Any = setting) -> None:
            for _ in trainer.train(batches(0, 0), updates, setting):
                pass

        model = tf.keras.models.clone_model(trainer.model)
        model.compile(tf.keras.optimizers.Adam(1e-3),
                      tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                      metrics=["accuracy"],
                      steps_per_execution=updates if setting == "epoch" else setting)
        data = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(IMAGES).repeat().batch(
            BATCH).prefetch(tf.data.AUTOTUNE)

        def fit(model: Any = model, data: Any = data) -> None:
            model.fit(data, steps_per_epoch=updates, verbose=0)

        made |= {f"project {setting}": project, f"fit {setting}": fit}
    return made


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--updates", type=int, default=1000, help="of an epoch")
    arguments = options.parse_args()
    taken = in_turn({case: lambda call=call: seconds_of(call)  # type: ignore[misc]
                     for case, call in epochs(arguments.updates).items()}, arguments.rounds)
    each = {case: [1e6 * one.wall / arguments.updates for one in rounds]
            for case, rounds in taken.items()}
    cpu = {case: 1e6 * statistics.median(one.cpu for one in rounds) / arguments.updates
           for case, rounds in taken.items()}
    rows, report = [], {}
    for setting in SETTINGS:
        fit, project = each[f"fit {setting}"], each[f"project {setting}"]
        ratio = ratios(fit, project)
        rows.append({"steps per execution": str(setting),
                     "fit, us": f"{statistics.median(fit):.0f}",
                     "project, us": f"{statistics.median(project):.0f}",
                     "fit, CPU us": f"{cpu[f'fit {setting}']:.0f}",
                     "project, CPU us": f"{cpu[f'project {setting}']:.0f}",
                     "times as fast": described(ratio)})
        report[str(setting)] = {"fit": fit, "project": project, "ratio": ratio}
    print_table("an update with a trivial model (ratios of wall time)", rows)
    write_report(arguments.json, report)


if __name__ == "__main__":
    main()
