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
from flowerexp.config import Config
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


@dataclass(frozen=True)
class Batch:
    """The first update of the first epoch."""

    images: npt.NDArray[np.uint8]
    """Pixels, [update size, height, width, 3]"""
    labels: npt.NDArray[np.int32]
    """Class ids, [update size]"""
    shapes: str
    """The names, dtypes and shapes of the arrays that one replica receives."""


@dataclass(frozen=True)
class View:
    """The data and numbers behind the page."""

    data: Data
    numbers: Plan
    splits: dict[str, Split]
    """The splits by name: train, val and, if the dataset has one, test."""
    original: Batch
    """The first update without sampling and augmentation."""
    sampled: Batch
    """The first update with the config's sampling, before augmentation."""
    repeats: npt.NDArray[np.int64]
    """How often each image is seen in the first epoch, [training images]."""
    sentences: list[str]
    """The derived numbers of the run, in sentences."""


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
    path = page.write(
        folder / PAGE, TEMPLATE, all_pictures(config, view), logger, overrides=overrides,
        sentences=[view.data.source.reason, *view.sentences], classes=class_rows(view),
        place=place, features=features,
        test=view.splits["test"].count if "test" in view.splits else 0)
    logger.info(f"page: {path}")
    return path


def prepare(config: Config, logger: RunLogger) -> View:
    """Reads the data and the first updates; raises UserError like `look`."""
    strategy, sentence = factory.build_strategy(config.hardware)
    cache = "none" if config.dataset.cache == "none" else "encoded"
    with logger.steps("data and first updates", 5) as advance:
        data = experiment.load_data(replace(config.dataset, cache=cache), logger)
        advance()
        numbers, augment = experiment.derive(config, data.source, data.counts,
                                             pipeline.count_workers(strategy),
                                             strategy.num_replicas_in_sync)
        splits = {"train": data.train, "val": data.valid}
        if test := experiment.load_test(config.dataset, data):
            splits["test"] = Split(test, data.source.image_size)
        advance()
        batches = []
        for policy, transform in ((sampling.Original(), None), (config.sampling, None),
                                  (config.sampling, augment)):
            batches.append(first_batch(config, data, strategy, numbers, policy, transform))
            advance()
    original, sampled, fed = batches
    repeats = sampling.example_repeats(data.train.table.labels, config.sampling, config.seed, 0)
    sentences = [
        f"hardware: {sentence}", *map(split_sentence, splits.items()),
        *batching.sentences(config, numbers, data.counts),
        f"batch: each replica receives {fed.shapes} per update, as {numbers.accumulation} x "
        f"{counted(numbers.batch_size, 'image')}",
        augment.sentence if augment else "augmentation: none"]
    return View(data, numbers, splits, original, sampled, repeats, sentences)


def split_sentence(split: tuple[str, Split]) -> str:
    """The images and classes of a split, given as (name, images)."""
    name, images = split
    labels = images.table.labels
    total = f"{name}: {counted(images.count, 'image')}"
    if (labels < 0).all():
        return f"{total} without labels"
    counts = np.bincount(labels)
    present = counts[counts > 0]
    each = f"{low} to {high}" if (low := present.min()) < (high := present.max()) else f"{high}"
    return f"{total} of {counted(len(present), 'class')}, {each} each"


def class_rows(view: View) -> list[tuple[str, list[int]]]:
    """Name, and label, training, validation and sampled images of every class, in label order.

    Sampled images are those of the first epoch before it is cut to whole updates.
    """
    numbers = np.column_stack([np.arange(len(view.data.names)), view.data.counts,
                               *counts_of(view)])
    return list(zip(view.data.names, numbers.tolist(), strict=True))


def counts_of(view: View) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """int64 [classes] twice: validation images, and training examples after sampling."""
    classes = len(view.data.names)
    valid = np.bincount(view.data.valid.table.labels, minlength=classes)
    sampled = np.bincount(view.data.train.table.labels, view.repeats, classes)
    return valid, sampled.astype(np.int64)


def first_batch(config: Config, data: Data, strategy: Any, numbers: Plan, sampler: Any,
                augment: base.Augment | None) -> Batch:
    """The first update that the pipeline would feed with this sampler and augmentation.

    A sampler whose epoch is shorter than the config's still fills one update, as in a run.
    """
    one = replace(numbers, updates_per_epoch=1)
    batches = pipeline.training_batches(strategy, data.train, sampler, one, config.seed, augment)
    with experiment.bad_records_named(data.train):
        fed = next(iter(batches(0, 0)))
    local = {key: strategy.experimental_local_results(value) for key, value in fed.items()}
    shapes = ", ".join(f"{key} {parts[0].dtype.name} {parts[0].shape.as_list()}"
                       for key, parts in local.items())
    images, labels = (np.concatenate([part.numpy() for part in local[key]])
                      for key in ("image", "label"))
    return Batch(images, labels, shapes)


# Pictures

def all_pictures(config: Config, view: View) -> dict[str, list[Picture]]:
    """The pictures of every section of the page, by its anchor."""
    data, numbers = view.data, view.numbers
    valid, sampled = counts_of(view)
    spread = sampling.class_occurrences(data.train.table.labels, view.repeats,
                                        len(data.names))
    rates = schedules.learning_rates(config.schedule, numbers.updates, config.loop.lr_scaling)
    kind = parts.name(config.sampling)

    def shares(file: str, title: str, counts: npt.NDArray[np.int64], *called: str) -> Picture:
        return Picture(file, title, lambda: distributions.shares(data.counts, counts, called,
                                                                 data.names, title))

    def samples_of(name: str, images: Split) -> Picture:
        return Picture(f"samples-{name}.png", f"Samples of {name}",
                       lambda: samples(name, images, data.names, config.seed))

    seen = f"How often an image is seen per epoch ({kind})"
    return {
        "labels": [
            shares("labels-validation.png", "Class shares in the training and validation sets",
                   valid, "training", "validation"),
            shares("labels-sampled.png",
                   f"Class shares in the first epoch, without and with sampling ({kind})",
                   sampled, "original", "sampled")],
        "repeats": [Picture("repeats.png", seen, lambda: distributions.occurrences(
            sampling.class_repeats(data.counts, config.sampling, data.train.table.labels,
                                   config.seed), spread, data.names, seen))],
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
    """A grid of random images of a split with their classes, or their ids if they have no labels.

    They are shown in the split's order.
    """
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
        (f"{name}: {counted(len(set(batch.labels.tolist())), 'class')} in "
         f"{counted(len(batch.labels), 'image')}",
         batch.images[:FROM_BATCH],
         [(view.data.names[label],) for label in batch.labels[:FROM_BATCH]])
        for batch, name in ((view.original, "original"), (view.sampled, kind))])


def draw_augmentation(config: Config, count: int, path: Path, logger: RunLogger) -> None:
    """Draws the first images of the first epoch before and after augmentation.

    The pipeline and micro-batches are those of a run, and therefore the mixed pairs too.

    Args:
        config: the config with the dataset, sampling, seed and augmentation.
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
    data = experiment.load_data(config.dataset, logger)
    micro_batches = -(-count // config.loop.batch_size_per_replica)
    plan = Plan(workers=1, replicas=1, batch_size=config.loop.batch_size_per_replica,
                accumulation=micro_batches, eval_batch_size=1, examples_per_epoch=data.train.count,
                updates_per_epoch=1, epochs=1)
    augment.check(plan.per_replica_batch, data.source.image_size)

    def keep_original(batch: pipeline.Batch, epoch: tf.Tensor, positions: tf.Tensor
                      ) -> pipeline.Batch:
        return {**augment(batch, epoch, positions), "original": batch["image"]}

    batches = pipeline.training_batches(tf.distribute.get_strategy(), data.train, config.sampling,
                                        plan, config.seed, keep_original)
    with experiment.bad_records_named(data.train):
        first = next(iter(batches(0, 0)))
    batch = {key: value.numpy()[:count] for key, value in first.items()}
    others = batch.get("second_label", batch["label"])
    shares = batch.get("mix_weight", np.ones(len(batch["label"])))
    names = [data.names[label] for label in batch["label"]]
    after = [name if share == 1 else f"{share:.2f} {name}\n{1 - share:.2f} {data.names[other]}"
             for name, other, share in zip(names, others, shares, strict=True)]
    style.save(gallery.pairs(batch["original"], names, batch["image"], after, augment.sentence),
               path)
    logger.info(augment.sentence)
    logger.info(f"picture: {path}")
