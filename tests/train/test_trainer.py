"""The loop against the golden vectors, against itself on more replicas, and against plain Keras."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import metrics
from flowerexp.config import Hardware
from flowerexp.data import pipeline
from flowerexp.data.batching import Plan
from flowerexp.data.tables import Table
from flowerexp.models import layers, losses, optimizers
from flowerexp.strategy import factory
from flowerexp.train.trainer import Trainer

WEIGHTS = ("conv/kernel", "conv/bias", "dense/kernel", "dense/bias")


@functools.cache  # strategies of one process share the numbers of their collectives
def strategy_of(replicas):
    return factory.build_strategy(Hardware("cpu", replicas))[0]


def plan_of(replicas, batch, accumulation, updates, epochs=1):
    size = replicas * batch * accumulation
    return Plan(1, replicas, batch, accumulation, 8, updates * size, updates, epochs)


def small_network(extra=(), size=12, classes=5):
    """The golden vectors' network, with other layers between convolution and pooling."""
    inputs = tf.keras.Input((size, size, 3))
    features = tf.keras.layers.Rescaling(1 / 255)(inputs)
    features = tf.keras.layers.Conv2D(4, 3, 2, activation="relu", name="conv")(features)
    for layer in extra:
        features = layer()(features)
    features = tf.keras.layers.GlobalAveragePooling2D()(features)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(classes, dtype="float32", name="dense")(
        features))


def trainer_of(strategy, plan, make=small_network, rate=1e-2, optimizer=None, weights=None,
               classes=5, precision="float32", **options):
    tf.keras.utils.set_random_seed(3)
    with strategy.scope():
        model = make()
        built = optimizers.build(optimizer or optimizers.Adam(), np.full(plan.updates, rate),
                                 precision)
    if weights:
        model.set_weights(weights)
    options.setdefault("class_weights", np.ones(classes, np.float32))
    loss = losses.bind(losses.CrossEntropy(), np.ones(classes, int))
    return Trainer(strategy, model, built, loss, plan, **options)


def batches_of(trainer, images, labels, **more):
    """The stored order, dealt to replicas as the pipeline deals it."""
    data = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels, **more})
    return trainer.strategy.distribute_datasets_from_function(
        lambda _: data.batch(trainer.plan.per_replica_batch, drop_remainder=True))


def train(trainer, images, labels, steps_per_execution="epoch", **more):
    updates = trainer.plan.updates_per_epoch
    return list(trainer.train(batches_of(trainer, images, labels, **more), updates,
                              steps_per_execution))


def random_examples(count, size=12, classes=5):
    random = np.random.default_rng(5)
    return (random.integers(0, 256, (count, size, size, 3), np.uint8),
            random.integers(0, classes, count).astype(np.int32))


@pytest.mark.parametrize(("accumulation", "steps_per_execution"), [(1, "epoch"), (1, 1), (4, 3)])
@pytest.mark.parametrize(("replicas", "jit_compile"), [(1, False), (2, False), (2, True)])
def test_reproduces_the_golden_epoch(shared, replicas, jit_compile, accumulation,
                                     steps_per_execution):
    golden = np.load(shared / "reference/training.npz")
    labels = golden["labels"].astype(np.int32)
    plan = plan_of(replicas, 4 // replicas, accumulation, 64 // (4 * accumulation))
    trainer = trainer_of(strategy_of(replicas), plan, jit_compile=jit_compile,
                         weights=[golden[f"initial/{name}"] for name in WEIGHTS])
    train(trainer, golden["images"], labels, steps_per_execution)
    progress = trainer.progress()
    expected = {key.partition("/")[2]: golden[key] for key in golden
                if key.startswith(f"accumulate{accumulation}/")}
    assert progress.loss == pytest.approx(float(expected["train_loss"]), abs=1e-5)
    matrix = metrics.confusion_matrix(labels, expected["predictions"], 5)
    np.testing.assert_array_equal(progress.confusion, matrix)
    assert metrics.scores(progress.confusion)["acc"] == pytest.approx(
        float(expected["train_acc"]), abs=1e-6)
    for weight, name in zip(trainer.model.get_weights(), WEIGHTS, strict=True):
        np.testing.assert_allclose(weight, expected[f"final/{name}"], atol=1e-5)


def test_slices_give_the_same_bits_and_one_trace():
    images, labels = random_examples(64)
    ends = []
    for steps_per_execution in (1, 3, 16, "epoch"):
        trainer = trainer_of(strategy_of(1), plan_of(1, 4, 1, 16, epochs=2))
        calls = train(trainer, images, labels, steps_per_execution)
        assert sum(calls) == 16
        if steps_per_execution != "epoch":
            assert max(calls) == steps_per_execution
        trainer.start_epoch()
        train(trainer, images, labels, steps_per_execution)
        assert trainer._run_updates.experimental_get_tracing_count() == 1
        ends.append([*trainer.model.get_weights(), trainer.progress().loss])
    for end in ends[1:]:
        for one, other in zip(ends[0], end, strict=True):
            np.testing.assert_array_equal(one, other)


def test_two_replicas_of_half_the_batch_end_as_one():
    images, labels = random_examples(96)
    ends = []
    for replicas in (1, 2):  # a process has one group of replicas; four: test_launch
        trainer = trainer_of(strategy_of(replicas), plan_of(replicas, 8 // replicas, 1, 12))
        train(trainer, images, labels)
        ends.append((trainer.model.get_weights(), trainer.progress()))
    for weights, progress in ends[1:]:
        for one, other in zip(ends[0][0], weights, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_array_equal(ends[0][1].confusion, progress.confusion)


def test_two_replicas_are_two_micro_batches_with_batch_norm_and_dropout():
    """Masks are keyed by the global micro-batch, so where it is computed does not matter."""
    images, labels = random_examples(96)
    extra = (tf.keras.layers.BatchNormalization, lambda: layers.KeyedDropout(0.5, 1))
    ends = []
    for replicas, accumulation in ((1, 2), (2, 1)):
        trainer = trainer_of(strategy_of(replicas), plan_of(replicas, 4, accumulation, 12),
                             make=lambda: small_network(extra), seed=7)
        train(trainer, images, labels)
        ends.append([variable.numpy() for variable in trainer.model.trainable_variables])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    other_seed = trainer_of(strategy_of(1), plan_of(1, 4, 2, 12),
                            make=lambda: small_network(extra), seed=8)
    train(other_seed, images, labels)
    assert abs(other_seed.model.trainable_variables[0].numpy() - ends[0][0]).max() > 1e-3


def test_batch_norm_statistics_are_the_mean_over_replicas_in_every_update():
    images, labels = random_examples(8)
    extra = (lambda: tf.keras.layers.BatchNormalization(momentum=0.5),)
    strategy = strategy_of(2)
    trainer = trainer_of(strategy, plan_of(2, 4, 1, 1), make=lambda: small_network(extra))
    before = trainer.model.get_weights()
    train(trainer, images, labels)
    scaled = tf.constant(images / 255.0, tf.float32)
    activations = tf.nn.relu(tf.nn.conv2d(scaled, before[0], 2, "VALID") + before[1]).numpy()
    means = [activations[part].mean((0, 1, 2)) for part in (slice(0, 4), slice(4, 8))]
    for variable in trainer.averaged:
        values = [value.numpy() for value in strategy.experimental_local_results(variable)]
        np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_allclose(trainer.averaged[0].numpy(), 0.5 * np.mean(means, 0), atol=1e-6)


def test_class_weights_scale_the_gradient_and_not_the_reported_loss():
    images, labels = random_examples(16)
    weights = np.array([0.5, 1, 2, 3, 0.25], np.float32)
    plain = trainer_of(strategy_of(1), plan_of(1, 16, 1, 1), optimizer=optimizers.SGD(), rate=1.0)
    before = plain.model.get_weights()
    with tf.GradientTape() as tape:
        each = tf.keras.losses.sparse_categorical_crossentropy(
            labels, plain.model(images.astype(np.float32)), from_logits=True)
        weighted = tf.reduce_sum(each * weights[labels]) / 16
    expected = tape.gradient(weighted, plain.model.trainable_variables)
    trainer = trainer_of(strategy_of(1), plan_of(1, 16, 1, 1), optimizer=optimizers.SGD(),
                         rate=1.0, class_weights=weights, weights=before)
    train(trainer, images, labels)
    for start, gradient, end in zip(before, expected, trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(start - gradient, end, atol=1e-6)
    assert trainer.progress().loss == pytest.approx(float(tf.reduce_mean(each)), rel=1e-6)


def test_mixed_labels_weigh_both_losses():
    images, labels = random_examples(8)
    others, share = (labels + 1) % 5, np.linspace(0.5, 1, 8).astype(np.float32)
    trainer = trainer_of(strategy_of(1), plan_of(1, 8, 1, 1))
    logits = trainer.model(images.astype(np.float32)).numpy()
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    rows = np.arange(8)
    expected = -(share * logs[rows, labels] + (1 - share) * logs[rows, others]).mean()
    train(trainer, images, labels, second_label=others, mix_weight=share)
    assert trainer.progress().loss == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_mixed_labels_is_that_of_both_weighted_losses():
    images, labels = random_examples(8)
    others, share = (labels + 2) % 5, np.linspace(0.5, 1, 8).astype(np.float32)
    weights = np.array([0.5, 1, 2, 3, 0.25], np.float32)
    trainer = trainer_of(strategy_of(1), plan_of(1, 4, 2, 1), optimizer=optimizers.SGD(), rate=1.0,
                         class_weights=weights)
    before = trainer.model.get_weights()
    with tf.GradientTape() as tape:
        logs = tf.nn.log_softmax(trainer.model(images.astype(np.float32)))
        target = (share * weights[labels])[:, None] * np.eye(5)[labels] + (
            (1 - share) * weights[others])[:, None] * np.eye(5)[others]
        loss = -tf.reduce_sum(tf.cast(target, tf.float32) * logs) / 8
    expected = tape.gradient(loss, trainer.model.trainable_variables)
    train(trainer, images, labels, second_label=others, mix_weight=share)
    for start, gradient, end in zip(before, expected, trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(start - gradient, end, atol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_clipping_is_by_the_norm_of_the_whole_update(replicas):
    images, labels = random_examples(16)
    plan = plan_of(replicas, 4 // replicas, 4, 1)
    free = trainer_of(strategy_of(replicas), plan, optimizer=optimizers.SGD(), rate=1.0)
    before = free.model.get_weights()
    train(free, images, labels)
    step = [end - start for start, end in zip(before, free.model.get_weights(), strict=True)]
    norm = np.sqrt(sum(np.square(part).sum() for part in step))
    clipped = trainer_of(strategy_of(replicas), plan, optimizer=optimizers.SGD(), rate=1.0,
                         clip_norm=float(norm) / 4, weights=before)
    train(clipped, images, labels)
    for start, part, end in zip(before, step, clipped.model.get_weights(), strict=True):
        np.testing.assert_allclose(end - start, part / 4, atol=1e-6)


def test_the_first_update_that_is_not_finite_is_named():
    images, labels = random_examples(64)
    labels = np.minimum(labels, 3)
    trainer = trainer_of(strategy_of(1), plan_of(1, 4, 1, 16))
    plain = trainer.loss
    trainer.loss = lambda label, logits: tf.where(label == 4, np.inf, plain(label, logits))
    train(trainer, images, labels, 2)
    assert trainer.first_bad_update() is None
    trainer.update.assign(0)
    labels[[22, 50]] = 4
    train(trainer, images, labels, 3)
    assert trainer.first_bad_update() == 22 // 4


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_on_float32_variables(replicas, precision):
    images, labels = random_examples(16)
    tf.keras.mixed_precision.set_global_policy(precision)
    try:
        trainer = trainer_of(strategy_of(replicas), plan_of(replicas, 16 // replicas, 1, 30),
                             precision=precision, optimizer=optimizers.Adam())
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert trainer.model.get_layer("conv").compute_dtype == precision.removeprefix("mixed_")
    assert all(variable.dtype == "float32" for variable in trainer.model.trainable_variables)
    train(trainer, np.tile(images, (30, 1, 1, 1)), np.tile(labels, 30), 1)
    first = np.log(5)
    assert np.isfinite(trainer.progress().loss)
    assert trainer.progress().loss < first + 0.05
    assert trainer.first_bad_update() is None


@pytest.mark.parametrize("replicas", [1, 2])
def test_logits_come_in_order_for_any_number_of_images(replicas):
    trainer = trainer_of(strategy_of(replicas), plan_of(replicas, 4, 1, 1))
    for count in (0, 1, 7, 16, 33):
        images, labels = random_examples(count)
        fed = pipeline.Split(Table(tf.constant(images), labels, [""] * count), 12)
        batches, rows = pipeline.evaluation_batches(trainer.strategy, fed, trainer.plan)
        expected = (trainer.model(images.astype(np.float32)).numpy() if count
                    else np.zeros((0, 5)))  # Conv2D takes no empty batch
        logits = trainer.logits(batches, rows)
        assert logits.shape == (count, 5)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
