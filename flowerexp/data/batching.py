"""The plan of a run: sizes derived from config, data set and replicas, checked and printed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowerexp import parts
from flowerexp.config import Config
from flowerexp.data import sampling
from flowerexp.errors import UserError, counted
from flowerexp.models import schedules

MOST_EXAMPLES = 100_000_000
"""Maximum examples per epoch, whose order (eight bytes per example) must fit in memory."""


@dataclass(frozen=True)
class Plan:
    """The sizes of a run.

    A global update is laid out as [workers, replicas per worker, accumulation, batch].
    """

    workers: int
    replicas: int
    """Number of replicas of all workers."""
    batch_size: int
    """Images per micro-batch of one replica."""
    accumulation: int
    """Micro-batches per update of one replica."""
    eval_batch_size: int
    """Images per evaluation step of one replica."""
    examples_per_epoch: int
    """Examples planned by the sampler; an epoch uses updates_per_epoch * update_size of them."""
    updates_per_epoch: int
    epochs: int

    @property
    def replicas_per_worker(self) -> int:
        return self.replicas // self.workers

    @property
    def per_replica_batch(self) -> int:
        """Images per update of one replica."""
        return self.accumulation * self.batch_size

    @property
    def update_size(self) -> int:
        """Images per update of all replicas."""
        return self.replicas * self.per_replica_batch

    @property
    def updates(self) -> int:
        """Number of updates of the whole run."""
        return self.epochs * self.updates_per_epoch


def derive(config: Config, counts: npt.NDArray[np.integer], workers: int, replicas: int) -> Plan:
    """The plan of a run.

    Args:
        config: the run's config.
        counts: int [classes], training images of each class.
        workers, replicas: the strategy's numbers; `replicas` counts those of all workers.

    Raises:
        UserError: for an epoch with too many examples or without an update.
    """
    loop = config.loop
    images = int(counts.sum())
    examples = sampling.examples_per_epoch(counts, config.sampling, config.seed)
    if examples > MOST_EXAMPLES:
        raise UserError(f"an epoch of {examples} examples is more than {MOST_EXAMPLES}: lower "
                        "sampling.target_count")
    epochs = loop.epochs
    if loop.keep_example_budget:
        epochs = max(1, round(epochs * images / examples))
    update_size = replicas * loop.batch_size_per_replica * loop.gradient_accumulation_steps
    if examples < update_size:
        raise UserError(
            f"an epoch of {examples} examples makes no update of {update_size} "
            f"({loop.batch_size_per_replica} x {replicas} replicas x "
            f"{loop.gradient_accumulation_steps}): lower loop.batch_size_per_replica or "
            "loop.gradient_accumulation_steps")
    return Plan(workers, replicas, loop.batch_size_per_replica, loop.gradient_accumulation_steps,
                loop.eval_batch_size_per_replica, examples, examples // update_size, epochs)


def sentences(config: Config, plan: Plan, counts: npt.NDArray[np.integer]) -> list[str]:
    """The sentences that a run logs at its start, one for each derived group of sizes."""
    images, shown = int(counts.sum()), plan.updates_per_epoch * plan.update_size
    present = counts[counts > 0]
    budget = (f" (of {config.loop.epochs}, to keep the example budget)"
              if config.loop.keep_example_budget else "")
    rates = schedules.learning_rates(config.schedule, plan.updates, config.loop.lr_scaling)
    return [
        f"sampling: {parts.describe(config.sampling)}; "
        f"{counted(images, 'image')} of {counted(len(present), 'class')} ({present.min()} to "
        f"{present.max()} each) make {plan.examples_per_epoch} examples, of which an epoch uses "
        f"{shown}",
        f"update: {counted(plan.update_size, 'image')} = {plan.batch_size} per replica x "
        f"{counted(plan.replicas, 'replica')} x {plan.accumulation} accumulated; "
        f"{counted(plan.updates_per_epoch, 'update')} per epoch, "
        f"{counted(plan.epochs, 'epoch')}{budget}, {counted(plan.updates, 'update')} in all",
        f"evaluation: {counted(plan.eval_batch_size * plan.replicas, 'image')} a step = "
        f"{plan.eval_batch_size} per replica x {plan.replicas}",
        f"learning rate: {rates[0]:.3g} in the first update, {rates.max():.3g} at its greatest, "
        f"{rates[-1]:.3g} in the last ({parts.name(config.schedule)}, "
        f"{parts.name(config.optimizer.algorithm)})",
    ]
