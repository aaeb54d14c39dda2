"""Data exploration: what the pipeline makes of a dataset, as pictures and one page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.figure import Figure

from flowerexp import parts
from flowerexp.augment import base
from flowerexp.config import Config, Hardware
from flowerexp.data import batching, pipeline, sampling
from flowerexp.data.batching import Plan
from flowerexp.data.pipeline import Split
from flowerexp.data.prepare import checks
from flowerexp.errors import UserError, counted
from flowerexp.models import schedules
from flowerexp.plots import distributions, gallery, page, style
from flowerexp.plots.page import Picture
from flowerexp.runs.log import RunLogger
from flowerexp.strategy import factory
from flowerexp.train import experiment
from flowerexp.train.experiment import Data

PAGE = "eda.html"
TEMPLATE = "eda.html.jinja"
SAMPLES = 24
"""The number of images in a grid of samples."""
FROM_BATCH = 12
"""The number of images in a grid of a batch."""


Batch = dict[str, npt.NDArray[Any]]
"""The arrays of an update on all replicas: `image` uint8 [update size, height, width, 3], `label`
int32 [update size], and those of mixing."""


@dataclass(frozen=True)
class View:
    """The data and numbers behind the page.

    splits: by name: train and, if there are any, val and test.
    original: the first update without sampling and augmentation.
    sampled: the first update with the config's sampling, before augmentation.
    repeats: int64 [training images], how often each is seen in the first epoch.
    counts: int64 [classes, 3], training and validation images, and training examples after
        sampling, before the epoch is cut to whole updates.
    sentences: the derived numbers of the run.
    """

    data: Data
    numbers: Plan
    splits: dict[str, Split]
    original: Batch
    sampled: Batch
    repeats: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    sentences: list[str]


def look(config: Config, overrides: Sequence[str], folder: Path, logger: RunLogger) -> Path:
    """Writes eda.html and its pictures, and logs the derived numbers of the run.

    The data are read, repeated and batched as by a run on this machine; images stay encoded until
    they are shown.

    Args:
        config: the config of the run.
        overrides: the overrides that composed it, for the page.
        folder: the folder for the page and for pictures/.
        logger: logs what a run would log, and the path of the page.

    Returns:
        The path of the page.

    Raises:
        UserError: the errors of a run before its first update.
    """
    view = prepare(config, logger)
    for line in view.sentences:
        logger.info(line)
    place, features = checks.first_record(view.data.train.table)
    rows = [[label, *counts] for label, counts in enumerate(view.counts.tolist())]
    path = page.write(
        folder / PAGE, TEMPLATE, all_pictures(config, view), logger, overrides=overrides,
        sentences=[view.data.source.reason, *view.sentences],
        classes=list(zip(view.data.names, rows, strict=True)), place=place, features=features,
        test=view.splits["test"].count if "test" in view.splits else 0)
    logger.info(f"page: {path}")
    return path


def prepare(config: Config, logger: RunLogger) -> View:
    """Reads the data and the first updates; raises UserError like `look`."""
    strategy, sentence = factory.build_strategy(config.hardware)
    cache = "none" if config.dataset.cache == "none" else "encoded"
    with logger.steps("data and first updates", 5) as advance:
        data = experiment.load_data(replace(config.dataset, cache=cache), logger,
                                    train_on=config.train_on)
        advance()
        numbers, augment = experiment.derive(config, data.source, data.counts,
                                             pipeline.count_workers(strategy),
                                             strategy.num_replicas_in_sync)
        splits = {"train": data.train} | ({"val": data.valid} if data.valid.count else {})
        if test := experiment.load_test(config.dataset, data):
            splits["test"] = Split(test, data.source.image_size)
        advance()
        batches = []
        for policy, transform in ((sampling.Original(), None), (config.sampling, None),
                                  (config.sampling, augment)):
            batches.append(first_batch(config, data, strategy, numbers, policy, transform))
            advance()
    (original, _), (sampled, _), (_, shapes) = batches
    labels, classes = data.train.table.labels, len(data.names)
    repeats = sampling.example_repeats(labels, config.sampling, config.seed, 0)
    counts = np.column_stack([data.counts, np.bincount(data.valid.table.labels, minlength=classes),
                              np.bincount(labels, repeats, classes).astype(np.int64)])
    sentences = [
        f"hardware: {sentence}", *(split_sentence(name, split) for name, split in splits.items()),
        *batching.sentences(config, numbers, data.counts),
        f"batch: each replica receives {shapes} per update, as {numbers.accumulation} x "
        f"{counted(numbers.batch_size, 'image')}",
        augment.sentence if augment else "augmentation: none"]
    return View(data, numbers, splits, original, sampled, repeats, counts, sentences)


def split_sentence(name: str, images: Split) -> str:
    """The images and classes of a split."""
    labels = images.table.labels
    total = f"{name}: {counted(images.count, 'image')}"
    if (labels < 0).all():
        return f"{total} without labels"
    counts = np.bincount(labels)
    present = counts[counts > 0]
    each = f"{low} to {high}" if (low := present.min()) < (high := present.max()) else f"{high}"
    return f"{total} of {counted(len(present), 'class')}, {each} each"


def first_batch(config: Config, data: Data, strategy: Any, numbers: Plan, sampler: Any,
                augment: Any) -> tuple[Batch, str]:
    """The first update that the pipeline would feed with this sampler and augmentation.

    A sampler whose epoch is shorter than the config's still fills one update, as in a run.

    Returns:
        Its arrays, and the names, dtypes and shapes of those that one replica receives.
    """
    one = replace(numbers, updates_per_epoch=1)
    batches = pipeline.training_batches(strategy, data.train, sampler, one, config.seed, augment)
    with experiment.bad_records_named(data.train):
        fed = next(iter(batches(0, 0)))
    local = {key: strategy.experimental_local_results(value) for key, value in fed.items()}
    shapes = ", ".join(f"{key} {replicas[0].dtype.name} {replicas[0].shape.as_list()}"
                       for key, replicas in local.items())
    return {key: np.concatenate([each.numpy() for each in replicas])
            for key, replicas in local.items()}, shapes


# Pictures

def all_pictures(config: Config, view: View) -> dict[str, list[Picture]]:
    """The pictures of every section of the page, by its anchor."""
    data, numbers, names = view.data, view.numbers, view.data.names
    train, valid, sampled = view.counts.T
    spread = sampling.class_occurrences(data.train.table.labels, view.repeats, len(names))
    rates = schedules.learning_rates(config.schedule, numbers.updates, config.loop.lr_scaling)
    kind = parts.name(config.sampling)

    def shares(file: str, title: str, counts: npt.NDArray[np.int64], *called: str) -> Picture:
        return Picture(file, title,
                       lambda: distributions.shares(train, counts, called, names, title))

    def samples_of(name: str, images: Split) -> Picture:
        return Picture(f"samples-{name}.png", f"Samples of {name}",
                       lambda: samples(name, images, names, config.seed))

    seen = f"How often an image is seen per epoch ({kind})"
    return {
        "labels": [
            *([shares("labels-validation.png", "Class shares in the training and validation sets",
                      valid, "training", "validation")] if valid.any() else []),
            shares("labels-sampled.png",
                   f"Class shares in the first epoch, without and with sampling ({kind})",
                   sampled, "original", "sampled")],
        "repeats": [Picture("repeats.png", seen, lambda: distributions.occurrences(
            sampling.class_repeats(train, config.sampling, data.train.table.labels, config.seed),
            spread, names, seen))],
        "samples": [samples_of(name, images) for name, images in view.splits.items()],
        "batches": [Picture(
            "batches.png", "The first images of the first update, before augmentation: original "
            f"and {kind}", lambda: batch_grids(view, kind))],
        "rates": [Picture(
            "learning-rate.png", "The learning rate of every update",
            lambda: distributions.learning_rate(
                rates, numbers.updates_per_epoch,
                f"Learning rate of {counted(len(rates), 'update')} "
                f"({parts.name(config.schedule)})"))],
    }


def samples(split: str, images: Split, names: Sequence[str], seed: int) -> Figure:
    """A grid of random images of a split, in its order, with their classes or else ids."""
    random = np.random.default_rng((seed, images.count))
    chosen = np.sort(random.choice(images.count, min(SAMPLES, images.count), replace=False))
    labels = images.table.labels[chosen]
    lines = [(names[label] if label >= 0 else f"id {images.table.ids[index]}",)
             for index, label in zip(chosen.tolist(), labels.tolist(), strict=True)]
    with experiment.bad_records_named(images):
        shown = pipeline.gather_images(images, chosen)
    return gallery.grid(shown, lines, f"{split}: {len(chosen)} of {counted(images.count, 'image')}")


def batch_grids(view: View, kind: str) -> Figure:
    """The first images of the original and of the sampled batch side by side."""
    return gallery.side_by_side([
        (f"{name}: {counted(len(set(batch['label'].tolist())), 'class')} in "
         f"{counted(len(batch['label']), 'image')}",
         batch["image"][:FROM_BATCH],
         [(view.data.names[label],) for label in batch["label"][:FROM_BATCH]])
        for batch, name in ((view.original, "original"), (view.sampled, kind))])


def draw_augmentation(config: Config, count: int, path: Path, logger: RunLogger) -> None:
    """Draws the first images of the first epoch before and after augmentation.

    The pipeline and micro-batches are those of a run, and therefore the mixed pairs too.

    Args:
        config: the config of the run.
        count: how many images, at least 1.
        path: the PNG.
        logger: logs which dataset is used.

    Raises:
        UserError: without an augmentation, or for a dataset that a run would refuse.
    """
    augment = base.build(config.augmentation, config.seed, config.loop.batch_size_per_replica)
    if augment is None:
        raise UserError("augmentation=none leaves images as they are: choose one, for example "
                        "augmentation=perspective")
    data = experiment.load_data(config.dataset, logger, train_on=config.train_on)
    micro_batches = -(-count // config.loop.batch_size_per_replica)
    plan = Plan(workers=1, replicas=1, batch_size=config.loop.batch_size_per_replica,
                accumulation=micro_batches, eval_batch_size=1, examples_per_epoch=data.train.count,
                updates_per_epoch=1, epochs=1)
    augment.check(plan.per_replica_batch, data.source.image_size)

    def keep_original(batch: pipeline.Batch, epoch: tf.Tensor, positions: tf.Tensor
                      ) -> pipeline.Batch:
        return {**augment(batch, epoch, positions), "original": batch["image"]}

    strategy, _ = factory.build_strategy(Hardware("cpu"))  # where a run augments, on the host
    batch, _ = first_batch(config, data, strategy, plan, config.sampling, keep_original)
    batch = {key: value[:count] for key, value in batch.items()}
    others = batch.get("second_label", batch["label"])
    shares = batch.get("mix_weight", np.ones(len(batch["label"])))
    names = [data.names[label] for label in batch["label"]]
    after = [name if share == 1 else f"{share:.2f} {name}\n{1 - share:.2f} {data.names[other]}"
             for name, other, share in zip(names, others, shares, strict=True)]
    style.save(gallery.pairs(batch["original"], names, batch["image"], after, augment.sentence),
               path)
    logger.info(augment.sentence)
    logger.info(f"picture: {path}")
