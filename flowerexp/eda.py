"""Look before training: what the pipeline makes of a data set, as pictures."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from flowerexp import augmentation, experiment, pipeline, plots
from flowerexp.config import Config
from flowerexp.errors import UserError
from flowerexp.journal import Journal
from flowerexp.plan import Plan


def draw_augmentation(config: Config, count: int, path: Path, journal: Journal) -> None:
    """Draws the first images of the first epoch beside what the augmentation makes of them.

    The same pipeline as in a run, in micro-batches of the config, so that mixed pairs are those of
    a run.

    Args:
        config: whose data set, sampling, seed and augmentation are shown.
        count: how many images, at least 1.
        path: of the PNG.
        journal: says which data set was taken.

    Raises:
        UserError: without an augmentation, or for a data set that a run would refuse.
    """
    augment = augmentation.build(config.augmentation, config.seed,
                                 config.loop.batch_size_per_replica)
    if augment is None:
        raise UserError("augmentation=none leaves images as they are: choose one, for example "
                        "augmentation=perspective")
    data = experiment.load_data(config.dataset, journal)
    micro_batches = -(-count // config.loop.batch_size_per_replica)
    plan = Plan(workers=1, replicas=1, batch_size=config.loop.batch_size_per_replica,
                accumulation=micro_batches, eval_batch_size=1, examples_per_epoch=data.train.count,
                updates_per_epoch=1, epochs=1)

    def keep_original(batch: pipeline.Batch, epoch: tf.Tensor, positions: tf.Tensor
                      ) -> pipeline.Batch:
        return {**augment(batch, epoch, positions), "original": batch["image"]}

    batches = pipeline.training_batches(tf.distribute.get_strategy(), data.train, config.sampling,
                                        plan, config.seed, keep_original)
    batch = {key: value.numpy()[:count] for key, value in next(iter(batches(0, 0))).items()}
    others = batch.get("other_label", batch["label"])
    shares = batch.get("share", np.ones(len(batch["label"])))
    names = [data.names[label] for label in batch["label"]]
    after = [name if share == 1 else f"{share:.2f} {name}\n{1 - share:.2f} {data.names[other]}"
             for name, other, share in zip(names, others, shares, strict=True)]
    plots.save(plots.pairs(batch["original"], names, batch["image"], after, augment.sentence), path)
    journal.say(augment.sentence)
    journal.say(f"picture: {path}")
