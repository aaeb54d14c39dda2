"""Look before training: what the pipeline makes of a data set, as pictures and one page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.figure import Figure

from flowerexp.augment import base
from flowerexp.config import Config, Sampling
from flowerexp.data import batching, pipeline, sampling
from flowerexp.data.batching import Plan
from flowerexp.data.pipeline import Split
from flowerexp.data.prepare import checks
from flowerexp.errors import UserError
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
"""Images in a grid of samples."""
FROM_BATCH = 12
"""Images in a grid of a batch."""


@dataclass(frozen=True)
class ClassRow:
    """A line of the page's table."""

    name: str
    label: int
    train: int
    valid: int
    sampled: int
    """How often its images are seen in the first epoch, before it is cut to whole updates."""


@dataclass(frozen=True)
class Batch:
    """The first update of the first epoch."""

    images: npt.NDArray[np.uint8]
    """[update size, height, width, 3]"""
    labels: npt.NDArray[np.int32]
    """[update size]"""
    shapes: str
    """What one replica gets, in words."""


@dataclass(frozen=True)
class View:
    """What the page is made of."""

    data: Data
    numbers: Plan
    splits: dict[str, Split]
    """By name: train, val and, where there is one, test."""
    original: Batch
    sampled: Batch
    """Without and with the config's sampling, both before augmentation."""
    repeats: npt.NDArray[np.int64]
    """[training images], how often each is seen in the first epoch."""
    sentences: list[str]


def look(config: Config, overrides: Sequence[str], folder: Path, logger: RunLogger) -> Path:
    """Writes eda.html and its pictures, and says in what numbers the run would be trained.

    The data are read, repeated and batched as by a run on the hardware of this machine; images
    stay encoded until they are shown.

    Args:
        config: of the run.
        overrides: that made it, for the page.
        folder: of the page and of pictures/.
        journal: says what a run would, and where the page is.

    Returns:
        The path of the page.

    Raises:
        UserError: whatever a run would end with before its first update.
    """
    view = prepare(config, logger)
    for line in view.sentences:
        logger.info(line)
    everything = all_pictures(config, view)
    place, features = checks.first_record(view.data.train.table)
    with logger.steps("pictures", sum(map(len, everything.values()))) as advance:
        path = page.write(
            folder / PAGE, TEMPLATE, everything, advance, overrides=overrides,
            sentences=[view.data.source.reason, *view.sentences], classes=class_rows(view),
            place=place, features=features,
            test=view.splits["test"].count if "test" in view.splits else 0)
    logger.info(f"page: {path}")
    return path


def prepare(config: Config, logger: RunLogger) -> View:
    """Reads the data and the first updates; raises UserError as `look`."""
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
        for policy, transform in ((Sampling(), None), (config.sampling, None),
                                  (config.sampling, augment)):
            batches.append(first_batch(config, data, strategy, numbers, policy, transform))
            advance()
    original, sampled, fed = batches
    repeats = sampling.example_repeats(data.train.table.labels, config.sampling, config.seed, 0)
    sentences = [
        f"hardware: {sentence}", *map(split_sentence, splits.items()),
        *batching.sentences(config, numbers, data.counts),
        f"batch: each replica gets {fed.shapes} in an update, as {numbers.accumulation} x "
        f"{numbers.batch_size} images", augment.sentence if augment else "augmentation: none"]
    return View(data, numbers, splits, original, sampled, repeats, sentences)


def split_sentence(split: tuple[str, Split]) -> str:
    """Images and classes of a split, (name, images)."""
    name, images = split
    labels = images.table.labels
    if (labels < 0).all():
        return f"{name}: {images.count} images without labels"
    counts = np.bincount(labels)
    present = counts[counts > 0]
    return (f"{name}: {images.count} images of {len(present)} classes, {present.min()} to "
            f"{present.max()} each")


def class_rows(view: View) -> list[ClassRow]:
    """The counts of every class, in label order."""
    valid, sampled = counts_of(view)
    return [ClassRow(name, label, *map(int, (view.data.counts[label], valid[label],
                                             sampled[label])))
            for label, name in enumerate(view.data.names)]


def counts_of(view: View) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """int64 [classes] twice: validation images, and training examples after sampling."""
    classes = len(view.data.names)
    valid = np.bincount(view.data.valid.table.labels, minlength=classes)
    sampled = np.bincount(view.data.train.table.labels, view.repeats, classes)
    return valid, sampled.astype(np.int64)


def first_batch(config: Config, data: Data, strategy: Any, numbers: Plan, policy: Sampling,
                augment: base.Augment | None) -> Batch:
    """The first update that the pipeline would feed with this policy and augmentation.

    A policy whose epoch is shorter than the config's still fills one update, as in a run.
    """
    one = replace(numbers, updates_per_epoch=1)
    batches = pipeline.training_batches(strategy, data.train, policy, one, config.seed, augment)
    try:
        fed = next(iter(batches(0, 0)))
    except tf.errors.InvalidArgumentError as error:
        experiment.raise_fault(data.train, True, error)
        raise
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
    kind = config.sampling.kind

    def shares(file: str, title: str, counts: npt.NDArray[np.int64], *called: str) -> Picture:
        return Picture(file, title, lambda: distributions.shares(data.counts, counts, called,
                                                                 data.names, title))

    def samples_of(name: str, images: Split) -> Picture:
        return Picture(f"samples-{name}.png", f"Samples of {name}",
                       lambda: samples(name, images, data.names, config.seed))

    seen = f"How often an image is seen in an epoch ({kind})"
    return {
        "labels": [
            shares("labels-validation.png", "Training against validation", valid, "training",
                   "validation"),
            shares("labels-sampled.png", f"Original against sampled ({kind}), first epoch",
                   sampled, "original", "sampled")],
        "repeats": [Picture("repeats.png", seen, lambda: distributions.occurrences(
            sampling.class_repeats(data.counts, config.sampling), spread, data.names, seen))],
        "samples": [samples_of(name, images) for name, images in view.splits.items()],
        "batches": [Picture(
            "batches.png", "The first images of the first update, before augmentation: original "
            f"beside {kind}", lambda: batch_grids(view, kind))],
        "rates": [Picture(
            "learning-rate.png", "The learning rate of every update",
            lambda: distributions.learning_rate(
                rates, numbers.updates_per_epoch,
                f"Learning rate of {len(rates)} updates ({config.schedule.kind})"))],
    }


def samples(split: str, images: Split, names: Sequence[str], seed: int) -> Figure:
    """A grid of images of a split under their classes, or their ids where they have no labels.

    Which ones are drawn by lot; they stand in the split's order.
    """
    random = np.random.default_rng((seed, images.count))
    chosen = np.sort(random.choice(images.count, min(SAMPLES, images.count), replace=False))
    labels = images.table.labels[chosen]
    lines = [(names[label] if label >= 0 else f"id {images.table.ids[index]}",)
             for index, label in zip(chosen.tolist(), labels.tolist(), strict=True)]
    try:
        shown = pipeline.pick(images, chosen)
    except tf.errors.InvalidArgumentError as error:
        experiment.raise_fault(images, split != "test", error)
        raise
    return gallery.grid(shown, lines, f"{split}: {len(chosen)} of {images.count} images")


def batch_grids(view: View, kind: str) -> Figure:
    """The first images of the original and of the sampled batch side by side."""
    return gallery.side_by_side([
        (f"{name}: {len(set(batch.labels.tolist()))} classes in {len(batch.labels)} images",
         batch.images[:FROM_BATCH],
         [(view.data.names[label],) for label in batch.labels[:FROM_BATCH]])
        for batch, name in ((view.original, "original"), (view.sampled, kind))])


def draw_augmentation(config: Config, count: int, path: Path, logger: RunLogger) -> None:
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
    augment = base.build(config.augmentation, config.seed,
                                 config.loop.batch_size_per_replica)
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
    batch = {key: value.numpy()[:count] for key, value in next(iter(batches(0, 0))).items()}
    others = batch.get("second_label", batch["label"])
    shares = batch.get("mix_weight", np.ones(len(batch["label"])))
    names = [data.names[label] for label in batch["label"]]
    after = [name if share == 1 else f"{share:.2f} {name}\n{1 - share:.2f} {data.names[other]}"
             for name, other, share in zip(names, others, shares, strict=True)]
    style.save(gallery.pairs(batch["original"], names, batch["image"], after, augment.sentence),
               path)
    logger.info(augment.sentence)
    logger.info(f"picture: {path}")
