"""Mixed precision and XLA at small size: what is scaled, skipped, kept, and equal.

Under either Keras: tests/proofs/kerases.py runs this file with tf_keras.
"""

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.config import Model
from flowerexp.models import build, optimizers
from flowerexp.models.backbones import SmallCNN
from flowerexp.models.heads import Pooled
from tests.train.test_trainer import (
    batches_of,
    plan_of,
    random_examples,
    small_network,
    strategy_of,
    train,
    trainer_of,
)

SGD = optimizers.SGD(momentum=0.9)
CLASS_OVERFLOWS = np.array([1, 1, 1, 1, 1e30], np.float32)
"""A weight of a loss whose gradient no float16 holds; the reported loss does not know it."""


@pytest.fixture
def precision(request):
    tf.keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    tf.keras.mixed_precision.set_global_policy("float32")


def overflowing_examples(updates):
    """Eight images an update; the last image of the first one, on the last replica, overflows."""
    images, labels = random_examples(8 * updates)
    labels = np.minimum(labels, 3)
    labels[7] = 4
    return images, labels


def float16_trainer(replicas, updates, **options):
    return trainer_of(strategy_of(replicas), plan_of(replicas, 8 // replicas, 1, updates),
                      optimizer=SGD, precision="mixed_float16", class_weights=CLASS_OVERFLOWS,
                      **options)


def values_on_replicas(trainer, variable):
    stored = variable if callable(variable.value) else variable.value  # tf_keras, Keras 3
    return [value.numpy() for value in trainer.strategy.experimental_local_results(stored)]


def scale_and_counter(optimizer):
    """The loss scale, and the updates since it changed, in either Keras."""
    if hasattr(optimizer, "dynamic_scale"):
        return float(optimizer.dynamic_scale.numpy()), int(optimizer.step_counter.numpy())
    return float(optimizer.loss_scale), int(optimizer.dynamic_counter.numpy())


@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize(("replicas", "jit_compile"), [(1, False), (2, False), (2, True)])
def test_an_overflow_on_one_replica_skips_the_update_on_all_and_halves_the_scale(
        precision, replicas, jit_compile):
    trainer = float16_trainer(replicas, 3, jit_compile=jit_compile)
    images, labels = overflowing_examples(3)
    optimizer, seen = trainer.optimizer, [trainer.model.get_weights()]
    scale, _ = scale_and_counter(optimizer)
    for _ in trainer.train(batches_of(trainer, images, labels), 3, 1):
        seen.append(trainer.model.get_weights())
        assert scale_and_counter(optimizer) == (scale / 2, len(seen) - 2)
        for variable in trainer.model.trainable_variables:
            values = values_on_replicas(trainer, variable)
            assert len(values) == replicas
            for value in values:
                np.testing.assert_array_equal(value, values[0])
    for before, after in zip(*seen[:2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert all((before != after).any() for before, after in zip(*seen[1:3], strict=True))
    assert trainer.first_bad_update() is None
    assert all(np.isfinite(weight).all() for weight in seen[-1])


@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize("clip_norm", [None, 0.01])
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_scale_is_taken_out_of_the_step(precision, replicas, clip_norm):
    """Plain gradient descent by hand, in float32; half precision has three digits."""
    images, labels = random_examples(8)
    trainer = trainer_of(strategy_of(replicas), plan_of(replicas, 8 // replicas, 1, 1), rate=1.0,
                         optimizer=optimizers.SGD(), precision=precision, clip_norm=clip_norm)
    before = trainer.model.get_weights()
    train(trainer, images, labels)
    tf.keras.mixed_precision.set_global_policy("float32")
    plain = small_network()
    plain.set_weights(before)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(
            labels, plain(images.astype(np.float32)), from_logits=True))
    gradients = tape.gradient(loss, plain.trainable_variables)
    if clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    largest = max(abs(gradient.numpy()).max() for gradient in gradients)
    for start, gradient, end in zip(before, gradients, trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(start - end, gradient, atol=0.01 * largest)


@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_loss_scale_is_in_the_checkpoint(precision, replicas, tmp_path):
    """Stopped after an overflow and two updates that count towards the next doubling."""
    images, labels = overflowing_examples(6)
    straight, first, second = (float16_trainer(replicas, 6) for _ in range(3))
    train(straight, images, labels)
    part = first.train(batches_of(first, images, labels), 6, 1)
    for _ in range(3):
        next(part)
    path = first.checkpoint.write(str(tmp_path / "state"))
    second.checkpoint.read(path).assert_existing_objects_matched()
    assert scale_and_counter(second.optimizer) == (2.0**14, 2)
    list(second.train(batches_of(second, images[24:], labels[24:]), 3, 1))
    for one, other in zip(straight.optimizer.variables, second.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(straight.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_convolutions_are_half_and_logits_and_loss_are_float32(precision):
    def make():
        return build.build(Model(SmallCNN(), Pooled()), 16, 5, precision)

    trainer = trainer_of(strategy_of(1), plan_of(1, 4, 1, 1), make=make, precision=precision)
    images, labels = random_examples(4, 16)
    model = trainer.model
    features = model.get_layer("small_cnn").output
    assert features.dtype == precision.removeprefix("mixed_")
    logits = model(images)
    assert logits.dtype == tf.float32
    # More digits than half precision has: the head itself is computed in float32.
    assert (tf.cast(tf.cast(logits, features.dtype), tf.float32) != logits).numpy().any()
    losses = trainer.example_losses({"label": tf.constant(labels)}, logits)
    assert [loss.dtype for loss in losses] == [tf.float32] * 2


def test_the_losses_of_twenty_updates_are_the_same_under_xla():
    images, labels = random_examples(160, 16)
    losses = []
    for jit_compile in (False, True):
        trainer = trainer_of(
            strategy_of(1), plan_of(1, 4, 2, 20), jit_compile=jit_compile, rate=1e-3,
            make=lambda: build.build(Model(SmallCNN(), Pooled()), 16, 5))
        sums = [0.0]
        for _ in trainer.train(batches_of(trainer, images, labels), 20, 1):
            sums.append(float(trainer.loss_sum.numpy()))
        losses.append(np.diff(sums))
    assert len(losses[0]) == 20
    assert losses[0].max() - losses[0].min() > 0.1  # the updates differ
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
