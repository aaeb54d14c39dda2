"""An epoch of training in each way that `step` and `overhead` compare, on images in memory.

The baselines are plain Keras: the model with Keras' own dropout, Adam, cross-entropy, and a tf.data
pipeline of uint8 batches, shuffled as indices and gathered, the fastest plain form.
"""

import numpy as np
import tensorflow as tf

from benchmarks.measuring import Case, seconds_of
from benchmarks.trainers import CLASSES
from flowerexp.data import pipeline
from flowerexp.data.pipeline import Split
from flowerexp.data.sampling import Original
from flowerexp.data.tables import Table
from flowerexp.models import layers
from flowerexp.train.trainer import Trainer

LEARNING_RATE = 1e-3


def images_in_memory(count: int, size: int) -> Split:
    """Random pixels and labels, decoded."""
    random = np.random.default_rng(0)
    pixels = tf.constant(random.integers(0, 256, (count, size, size, 3), np.uint8))
    labels = random.integers(0, CLASSES, count).astype(np.int32)
    return Split(Table(pixels, labels, [""] * count), size)


def project_epoch(trainer: Trainer, images: Split, steps: int | str) -> Case:
    """Training epochs as in flowerexp/train/experiment.py, one per call.

    Args:
        steps: loop.steps_per_execution.
    """
    plan = trainer.plan
    batches = pipeline.training_batches(trainer.strategy, images, Original(), plan, 0, None)

    def epoch() -> None:
        trainer.start_epoch()
        number = int(trainer.update.numpy()) // plan.updates_per_epoch
        for _ in trainer.train(batches(number, 0), plan.updates_per_epoch, steps):
            assert trainer.first_bad_update() is None
        assert np.isfinite(trainer.progress().loss)

    return lambda: seconds_of(epoch)


def plain_copy(trainer: Trainer) -> tf.keras.Model:
    """The trainer's model with Keras' own dropout, compiled for `fit`.

    Without XLA, which Keras would choose: on a CPU it is several times slower here.
    """
    model = layers.portable(trainer.model)
    model.compile(tf.keras.optimizers.Adam(LEARNING_RATE),
                  tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  jit_compile=False)
    return model


def fit_epoch(model: tf.keras.Model, images: Split, batch: int, steps: int) -> Case:
    """A call of `model.fit` for an epoch.

    Args:
        model: a compiled model.
        steps: steps_per_execution.
    """
    model.steps_per_execution = steps
    labels, count = tf.constant(images.table.labels), images.count // batch * batch

    def shuffled(_: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.shuffle(tf.range(images.count))[:count]
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order, [-1, batch]))

    # The pixels stay uint8, a quarter of the bytes, until the model's first layer casts them.
    data = tf.data.Dataset.range(1).flat_map(shuffled).map(
        lambda rows: (tf.gather(images.decoded, rows), tf.gather(labels, rows)),
        num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    # Without tf.data's autotuner here too, because fit would wait for it after an epoch.
    data = pipeline.without_autotune(
        data.apply(tf.data.experimental.assert_cardinality(count // batch)))

    def epoch() -> None:
        history = model.fit(data, epochs=1, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()

    return lambda: seconds_of(epoch)


def bare_epoch(model: tf.keras.Model, images: Split, batch: int, updates: int) -> Case:
    """The least there is: a compiled step called so often on one batch, with nothing counted."""
    optimizer = tf.keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(model.trainable_variables)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pixels = tf.gather(images.decoded, tf.range(batch))
    labels = tf.constant(images.table.labels[:batch])

    @tf.function  # type: ignore[untyped-decorator]
    def step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(pixels, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    def epoch() -> None:
        for _ in range(updates):
            loss = step(pixels, labels)
        assert np.isfinite(loss.numpy())

    return lambda: seconds_of(epoch)
