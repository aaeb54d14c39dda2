"""What does the loop add to the bare training step, and how do others fare?

    python -m benchmarks.step --json step.json

Images per second of an epoch, wall time. The yardstick `bare` is the compiled step alone (forward,
loss, backward, Adam) in a loop of the graph, on a batch that never changes. `project` is the
project's trainer fed by its pipeline from decoded images; `fit` is Keras' model.fit on the same
network, optimizer and images, shuffled and batched by tf.data, as many steps an execution; `torch`,
where it is installed, is PyTorch's eager loop, channels_last, on the same MobileNet, in a process
of its own. Targets: 0.98 of the bare step, ahead of `fit`, not behind `torch`.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measuring import Case, compare, helper_process, in_turn, parser, seconds_of
from benchmarks.measuring import write_report as write
from benchmarks.scale_constants import CLASSES, build_trainer
from flowerexp import models, pipeline
from flowerexp.config import Sampling
from flowerexp.pipeline import Images
from flowerexp.records import Table
from flowerexp.trainer import Trainer

SIZE = 96
BATCHES = {"EfficientNetB0": 16, "MobileNet": 64}
IMAGES = 1024
"""Decoded photos' worth of noise that epochs are drawn from."""


def examples() -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int32]]]:
    random = np.random.default_rng(0)
    return (random.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8),
            random.integers(0, CLASSES, IMAGES).astype(np.int32))


def bare(trainer: Trainer, updates: int) -> Callable[[], Any]:
    """The yardstick: `updates` steps on one batch, with a network and an optimizer of their own."""
    model = models.portable(trainer.model)
    optimizer = tf.keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pixels, labels = (tf.constant(part[:trainer.plan.batch_size]) for part in examples())

    def run() -> tf.Tensor:
        loss = tf.constant(0.0)
        for _ in tf.range(updates):
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(pixels, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    compiled = tf.function(run)
    return lambda: compiled().numpy()


def project(trainer: Trainer) -> Callable[[], Any]:
    """An epoch of a run with dataset.cache=decoded and loop.steps_per_execution=epoch."""
    pixels, labels = examples()
    images = Images(Table(None, labels, [""] * IMAGES, (), ()), SIZE, tf.constant(pixels))
    batches = pipeline.training_batches(trainer.strategy, images, Sampling(), trainer.plan, 0, None)

    def run() -> None:
        trainer.start_epoch()
        for _ in trainer.train(batches(0, 0), trainer.plan.updates_per_epoch, "epoch"):
            trainer.first_bad_update()

    return run


def fit(trainer: Trainer, updates: int) -> Callable[[], Any]:
    """An epoch of model.fit."""
    model = models.portable(trainer.model)
    model.compile(tf.keras.optimizers.Adam(1e-3),
                  tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"], steps_per_execution=updates)
    data = tf.data.Dataset.from_tensor_slices(examples()).shuffle(IMAGES).repeat().batch(
        trainer.plan.batch_size).prefetch(tf.data.AUTOTUNE)
    return lambda: model.fit(data, steps_per_epoch=updates, verbose=0)


def measure(name: str, updates: int, rounds: int) -> dict[str, Any]:
    """All cases of one network."""
    batch = BATCHES[name]
    trainer = build_trainer(name, SIZE, batch, updates)
    calls = {"bare": bare(trainer, updates), "project": project(trainer),
             "fit": fit(trainer, updates)}
    cases: dict[str, Case] = {
        case: lambda call=call: seconds_of(call)  # type: ignore[misc]
        for case, call in calls.items()}
    with helper_process() as helper:
        if name == "MobileNet" and importlib.util.find_spec("torch"):
            from benchmarks import torch_step

            cases["torch"] = lambda: helper.submit(
                torch_step.epoch, CLASSES, SIZE, batch, updates).result()
        elif name == "MobileNet":
            print("PyTorch is not installed: pip install torch==2.13.0 adds it to the table")
        taken = in_turn(cases, rounds)
    return compare(f"{name}, {SIZE} px, batches of {batch}, {updates} updates", taken,
                   dict.fromkeys(taken, batch * updates), "images",
                   [case for case in cases if case != "project"], clock="wall")


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--updates", type=int, default=48, help="of an epoch")
    options.add_argument("--models", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    arguments = options.parse_args()
    write(arguments.json, {name: measure(name, arguments.updates, arguments.rounds)
                           for name in arguments.models})


if __name__ == "__main__":
    main()
