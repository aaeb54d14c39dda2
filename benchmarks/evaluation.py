"""What does validation cost compared with bare inference?

    python -m benchmarks.evaluation --json evaluation.json

Images per second, by wall time. The baseline is the compiled forward pass alone, called on a
constant batch; `bare, loop` is the same in a loop of the graph, which overlaps ten batches. The
project's case is what a run does after an epoch: pipeline, forward pass, logits to the host, loss,
confusion matrix and scores. MobileNet 0.25 with random weights at 96 px, batches of 64. Target:
0.95 of the bare call.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import photos
from benchmarks.measuring import compare, in_turn, parser, seconds_of, write_report
from benchmarks.trainers import build_trainer
from flowerexp.data import pipeline
from flowerexp.data.pipeline import Split
from flowerexp.data.sources import Source
from flowerexp.data.tables import Table
from flowerexp.identity import Fingerprint
from flowerexp.train import experiment
from flowerexp.train.experiment import Data
from flowerexp.train.trainer import Trainer

SIZE, BATCH = 96, 64


def bare(trainer: Trainer, steps: int) -> dict[str, Callable[[], Any]]:
    """The baselines: `steps` forward passes of one batch, called and in a loop of the graph."""
    random = np.random.default_rng(0)
    pixels = tf.constant(random.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8))
    forward = tf.function(lambda: trainer.model(pixels, training=False))

    def call() -> None:
        for _ in range(steps):
            logits = forward()
        logits.numpy()

    def run() -> tf.Tensor:
        total = tf.constant(0.0)
        for _ in tf.range(steps):
            total += tf.reduce_sum(trainer.model(pixels, training=False))
        return total

    loop = tf.function(run)
    return {"bare": call, "bare, loop": lambda: loop().numpy()}


def validation(trainer: Trainer, images: Split) -> Callable[[], Any]:
    """The validation of a run after an epoch."""
    source = Source("tfrecords", "", "", SIZE, None, None, {})
    names = tuple(str(label) for label in range(trainer.confusion.shape[0]))
    data = Data(source, names, "", images, images, Fingerprint("", ""))
    return lambda: experiment.valid_scores(
        trainer, data, experiment.predict_logits(trainer, images), {})


def main() -> None:
    options = parser(__doc__, rounds=7)
    photos.add_option(options)
    options.add_argument("--images", type=int, default=4096, help="images that are validated")
    arguments = options.parse_args()
    jpegs, labels = photos.training_set(arguments.data, SIZE, arguments.images)
    steps = len(jpegs) // BATCH
    count = steps * BATCH  # whole steps, so that both do the same work
    table = Table(tf.constant(jpegs[:count]), labels[:count], [""] * count)
    trainer = build_trainer("MobileNet", SIZE, BATCH, 1)
    encoded = Split(table, SIZE)
    decoded = pipeline.cache_decoded(encoded)
    calls = bare(trainer, steps) | {"decoded": validation(trainer, decoded),
                                    "encoded": validation(trainer, encoded)}
    taken = in_turn({case: lambda call=call: seconds_of(call)  # type: ignore[misc]
                     for case, call in calls.items()}, arguments.rounds)
    write_report(arguments.json, {"validation": compare(
        f"validation of {count} images, {SIZE} px, batches of {BATCH}", taken,
        dict.fromkeys(taken, count), "images", ["bare", "bare, loop"], clock="wall")})


if __name__ == "__main__":
    main()
