"""The distributed training loop, compiled as a function of (iterator, updates), and prediction.

In an update, every replica accumulates the gradients of its micro-batches, takes one optimizer step
and averages BatchNorm statistics. The scores stay on the device and are read on demand.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.data.batching import Plan
from flowerexp.models import layers
from flowerexp.models.losses import ExampleLoss

SECONDS_PER_CALL = 10.0
"""Target duration of one call of the compiled loop."""
STEPS_PER_PREDICTION = 16
"""Prediction steps per call: hides Python's overhead and bounds the memory for logits."""

Gradients = list[tf.Tensor]


class Progress(NamedTuple):
    """Training scores of the epoch so far, as read from the device."""

    loss: float
    """Mean loss over the updates of the epoch."""
    confusion: npt.NDArray[np.int64]
    """Confusion matrix [classes, classes] of the training forward passes; rows are labels."""
    seconds: float
    """Wall time of training, without validation and checkpoints, including earlier processes."""


class Trainer:
    """Trains and evaluates a model under a strategy.

    Args:
        strategy: a tf.distribute.Strategy.
        model: Keras model, images [n, height, width, 3] -> float32 logits [n, classes].
        optimizer: Keras optimizer, created in the strategy's scope; its variables are built here.
        loss: per-example loss.
        plan: the sizes of an update.
        class_weights: float32 [classes], weight of an example's loss by its label; reported losses
            are unweighted.
        seed: the run's seed, for dropout.
        clip_norm: maximum global norm of an update's gradient, or None.
        jit_compile: compile forward, loss and backward with XLA.
    """

    def __init__(self, strategy: Any, model: Any, optimizer: Any, loss: ExampleLoss, plan: Plan,
                 class_weights: npt.NDArray[np.float32], seed: int = 0,
                 clip_norm: float | None = None, jit_compile: bool = False) -> None:
        self.strategy, self.model, self.optimizer = strategy, model, optimizer
        self.loss, self.plan, self.seed, self.clip_norm = loss, plan, seed, clip_norm
        # Weights that are all 1 are skipped, because they would slow down every update.
        self.class_weights = tf.constant(class_weights) if (class_weights != 1).any() else None
        classes = len(class_weights)
        with strategy.scope():
            optimizer.build(model.trainable_variables)
        self.averaged = moving_statistics(model) if plan.replicas > 1 else []
        # Outside the scope, because restoring a distributed sum would divide it by the replicas.
        variable = functools.partial(tf.Variable, trainable=False)
        self.update = variable(0, dtype=tf.int64, name="update")
        self.loss_sum = variable(0.0, dtype=tf.float64, name="loss_sum")
        self.confusion = variable(tf.zeros([classes, classes], tf.int64), name="confusion")
        self.seconds = variable(0.0, dtype=tf.float64, name="seconds")
        self.first_bad = variable(-1, dtype=tf.int64, name="first_bad")
        self.checkpoint = tf.train.Checkpoint(
            model=model, optimizer=optimizer, update=self.update, loss_sum=self.loss_sum,
            confusion=self.confusion, seconds=self.seconds)
        # Without AutoGraph, which is not needed here and would add a second to every start.
        traced = functools.partial(tf.function, autograph=False)
        self._accumulate = (traced(self.accumulate, jit_compile=True) if jit_compile
                            else self.accumulate)
        self._run_updates = traced(self.run_updates)
        self._predict_steps = traced(self.predict_steps)
        self._gather = traced(lambda number: strategy.gather(
            strategy.run(lambda: number[None]), axis=0))
        self._updates_per_call = 1

    def micro_batch(self, batch: dict[str, tf.Tensor], number: tf.Tensor
                    ) -> tuple[Gradients, tf.Tensor, tf.Tensor]:
        """Gradients, part of the reported loss, and predicted classes of one micro-batch."""
        with layers.dropout_key(self.seed, number), tf.GradientTape() as tape:
            logits = self.model(batch["image"], training=True)
            losses, weighted = self.example_losses(batch, logits)
            trained = tf.reduce_sum(weighted) / self.plan.update_size
            scaled = scale_loss(self.optimizer, trained)
        gradients = tape.gradient(scaled, self.model.trainable_variables,
                                  unconnected_gradients=tf.UnconnectedGradients.ZERO)
        reported = tf.reduce_sum(losses) / self.plan.update_size
        return gradients, reported, tf.argmax(logits, -1, tf.int32)

    def example_losses(self, batch: dict[str, tf.Tensor], logits: tf.Tensor
                       ) -> tuple[tf.Tensor, tf.Tensor]:
        """Per-example losses, float32 [n], unweighted and weighted by class."""
        def of(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            losses = self.loss(labels, logits)
            return losses, losses if self.class_weights is None else (
                losses * tf.gather(self.class_weights, labels))

        losses, weighted = of(batch["label"])
        if "second_label" not in batch:
            return losses, weighted
        # Of a mixed example, `mix_weight` is the weight of the loss for `label`.
        share, (others, weighted_others) = batch["mix_weight"], of(batch["second_label"])
        return (share * losses + (1 - share) * others,
                share * weighted + (1 - share) * weighted_others)

    def accumulate(self, batch: dict[str, tf.Tensor], first: tf.Tensor
                   ) -> tuple[Gradients, tf.Tensor, tf.Tensor]:
        """Summed gradients, loss and predictions int32 [n] of one replica's micro-batches."""
        size, steps = self.plan.batch_size, self.plan.accumulation
        if steps == 1:
            return self.micro_batch(batch, first)
        parts = {key: tf.reshape(value, [steps, size, *value.shape[1:]])
                 for key, value in batch.items()}

        def add(step: tf.Tensor, gradients: Gradients, loss: tf.Tensor, predictions: tf.Tensor
                ) -> tuple[tf.Tensor, Gradients, tf.Tensor, tf.Tensor]:
            part = {key: value[step] for key, value in parts.items()}
            more, part_loss, predicted = self.micro_batch(part, first + tf.cast(step, tf.int64))
            return (step + 1, [one + other for one, other in zip(gradients, more, strict=True)],
                    loss + part_loss,
                    tf.tensor_scatter_nd_update(predictions, [[step]], [predicted]))

        nothing = [tf.zeros(variable.shape, variable.dtype)
                   for variable in self.model.trainable_variables]
        _, gradients, loss, predictions = tf.while_loop(
            lambda step, *_: step < steps, add,
            (tf.constant(0), nothing, tf.constant(0.0), tf.zeros([steps, size], tf.int32)))
        return gradients, loss, tf.reshape(predictions, [-1])

    def replica_update(self, batch: dict[str, tf.Tensor], update: tf.Tensor
                       ) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's update: its loss, and all replicas' (label, prediction), int32 [n, 2]."""
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        first = (update * self.plan.replicas + replica) * self.plan.accumulation
        gradients, loss, predictions = self._accumulate(batch, first)
        gradients = reduce_and_clip(gradients, self.optimizer, self.plan.replicas, self.clip_norm)
        if hasattr(self.optimizer, "get_unscaled_gradients"):  # tf_keras; Keras 3 needs none
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        if self.averaged:
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN,
                                       [tf.identity(variable) for variable in self.averaged])
            for variable, mean in zip(self.averaged, means, strict=True):
                variable.assign(mean)
        return loss, context.all_gather(tf.stack([batch["label"], predictions], -1), axis=0)

    def run_updates(self, iterator: Any, count: tf.Tensor) -> None:
        """Runs `count` updates and adds up their scores."""
        def run_update(done: tf.Tensor) -> tf.Tensor:
            update = self.update.read_value()
            losses, pairs = self.strategy.run(self.replica_update, args=(next(iterator), update))
            loss = self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
            pairs = self.strategy.experimental_local_results(pairs)[0]
            self.confusion.scatter_nd_add(pairs, tf.ones([self.plan.update_size], tf.int64))
            self.loss_sum.assign_add(tf.cast(loss, tf.float64))
            first_bad = self.first_bad.read_value()
            good = tf.logical_or(first_bad >= 0, tf.math.is_finite(loss))
            self.first_bad.assign(tf.where(good, first_bad, update))
            self.update.assign_add(1)
            return done + 1

        tf.while_loop(lambda done: done < count, run_update, [tf.constant(0)])

    def train(self, batches: Any, updates: int, steps_per_execution: int | str) -> Iterator[int]:
        """Runs `updates` updates on the elements of `batches`, yields their number after each call
        of the compiled loop.

        With `epoch`, calls are sized by time (the weights do not depend on it), equally on all
        workers, which otherwise deadlock.
        """
        start = time.perf_counter()
        iterator = iter(batches)
        done = 0
        while done < updates:
            count = min(updates - done, self._updates_per_call if steps_per_execution == "epoch"
                        else int(steps_per_execution))
            self._run_updates(iterator, tf.constant(count))
            done += count
            self.update.numpy()  # waits for the device
            seconds = time.perf_counter() - start
            self.seconds.assign_add(seconds)
            if steps_per_execution == "epoch":
                # The first call traces; growth is limited, so that one fast call does no harm.
                fitting = int(count * SECONDS_PER_CALL / max(self.greatest(seconds), 1e-9))
                self._updates_per_call = max(1, min(fitting, 8 * self._updates_per_call))
            yield count
            start = time.perf_counter()

    def greatest(self, number: float) -> float:
        """The maximum of a number over all workers, so that all decide alike by their clocks or
        signals; every worker must call it.
        """
        if self.plan.workers == 1:
            return number
        return float(self._gather(tf.constant(number, tf.float64)).numpy().max())

    def start_epoch(self) -> None:
        """Resets the scores of the epoch."""
        self.loss_sum.assign(0.0)
        self.seconds.assign(0.0)
        self.confusion.assign(tf.zeros_like(self.confusion))

    def progress(self) -> Progress:
        """Reads the scores of the epoch so far."""
        done = (int(self.update.numpy()) - 1) % self.plan.updates_per_epoch + 1
        return Progress(float(self.loss_sum.numpy()) / done, self.confusion.numpy(),
                        float(self.seconds.numpy()))

    def scores(self) -> tuple[float, float]:
        """Training loss and accuracy of the epoch so far."""
        loss, confusion, _ = self.progress()
        return loss, float(confusion.trace() / confusion.sum())

    def first_bad_update(self) -> int | None:
        """The first update, counted from 0, with a non-finite loss, or None."""
        return None if (update := int(self.first_bad.numpy())) < 0 else update

    def predict_steps(self, iterator: Any, count: tf.Tensor) -> tf.Tensor:
        """Logits of `count` steps, float32 [count, images per step, classes]."""
        def predict_step(done: tf.Tensor, steps: tf.TensorArray
                         ) -> tuple[tf.Tensor, tf.TensorArray]:
            logits = self.strategy.run(lambda images: self.model(images, training=False),
                                       args=(next(iterator),))
            return done + 1, steps.write(done, self.strategy.gather(logits, axis=0))

        size = self.plan.replicas * self.plan.eval_batch_size
        logits = tf.TensorArray(tf.float32, count, element_shape=[size, self.confusion.shape[0]])
        # Sequential: the replicas gather in every step, and gathers must not overlap.
        return tf.while_loop(lambda done, _: done < count, predict_step,
                             (tf.constant(0), logits), parallel_iterations=1)[1].stack()

    def logits(self, batches: Any, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Logits of a split in its order, float32 [images, classes]; of `rows`, int64 [steps, ...],
        each is the image at a position of a step, and -1 is padding.
        """
        iterator = iter(batches)
        logits = np.empty(((rows >= 0).sum(), self.confusion.shape[0]), np.float32)
        for start in range(0, len(rows), STEPS_PER_PREDICTION):
            places = rows[start:start + STEPS_PER_PREDICTION]
            part = self._predict_steps(iterator, tf.constant(len(places))).numpy()
            logits[places[places >= 0]] = part[places.reshape(len(places), -1) >= 0]
        return logits


def moving_statistics(model: Any) -> list[Any]:
    """The moving statistics of trainable BatchNorm layers, which each replica updates alone."""
    def variable_of(weight: Any) -> Any:
        return weight if callable(weight.value) else weight.value  # tf_keras, Keras 3

    # Keras 3 and tf_keras have _flatten_layers; no public API iterates over nested models.
    return [variable_of(weight) for layer in model._flatten_layers()
            if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable
            for weight in (layer.moving_mean, layer.moving_variance)]


def is_scaled(optimizer: Any) -> bool:
    return isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)


def scale_loss(optimizer: Any, loss: tf.Tensor) -> tf.Tensor:
    """The loss times the loss scale of mixed_float16, in Keras 3 or tf_keras."""
    if not is_scaled(optimizer):
        return loss
    return (optimizer.scale_loss(loss) if hasattr(optimizer, "scale_loss")
            else optimizer.get_scaled_loss(loss))


def reduce_and_clip(gradients: Gradients, optimizer: Any, replicas: int,
                    clip_norm: float | None) -> Gradients:
    """Gradients per replica that add up to the update's gradient, clipped by its global norm."""
    # The optimizer sums over replicas. If the sum is needed before (for its norm, or because all
    # replicas must agree on whether it is finite), every replica returns an equal part of it.
    if clip_norm is None and not (is_scaled(optimizer) and replicas > 1):
        return gradients
    context = tf.distribute.get_replica_context()
    gradients = list(context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients))
    if clip_norm is None:
        return gradients
    norm = tf.linalg.global_norm(gradients) * replicas
    limit = scale_loss(optimizer, tf.constant(clip_norm))
    factor = limit / tf.maximum(norm, limit)
    return [gradient * tf.cast(factor, gradient.dtype) for gradient in gradients]
