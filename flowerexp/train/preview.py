"""Previews of runs: finds their data and derives their plans before any of them starts.

In a child process, which imports TensorFlow and releases the devices when it ends.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from flowerexp import identity, parts
from flowerexp.config import Config
from flowerexp.data.batching import Plan
from flowerexp.errors import UserError, counted
from flowerexp.runs import reader
from flowerexp.runs.log import DAY, RunLogger, duration, exit_with_parent
from flowerexp.runs.status import RunStatus
from flowerexp.strategy import factory

COMPETITION_CLASS_COUNTS = (18, 782)
"""Published numbers of training images of the competition's smallest and largest class."""


@dataclass(frozen=True)
class Preview:
    """What is known about a run before it starts."""

    sentences: tuple[str, ...]
    """Which data set the run uses and why, and how it is divided."""
    data: identity.Fingerprint | None
    """None if the files are missing."""
    plans: tuple[Plan, ...]
    """One plan; several that bound its numbers if the images of each class are not known; none if
    only the machine that will run it knows the number of replicas."""
    image_size: int


def preview(configs: Mapping[str, Config], remote: bool = False, dry_run: bool = False
            ) -> dict[str, Preview]:
    """The preview of every config, by run name.

    Args:
        remote: whether the runs will execute on other machines.
        dry_run: whether the competition's published sizes replace its files if they are missing;
            for display only, never for training.

    Raises:
        UserError: for missing data or weights, or sizes that do not fit, with the name of the first
            such run.
    """
    by_hardware: dict[str, dict[str, Config]] = {}
    for name, config in configs.items():
        by_hardware.setdefault(repr(config.hardware), {})[name] = config
    previews: dict[str, Preview] = {}
    context = multiprocessing.get_context("spawn")
    for group in by_hardware.values():  # a process can set up only one strategy
        with concurrent.futures.ProcessPoolExecutor(1, context) as process:
            try:
                previews |= process.submit(preview_in_child, group, remote, dry_run).result()
            except BrokenProcessPool as error:
                raise UserError("the process that checks the data before the start was killed: is "
                                "there too little memory?") from error
    return {name: previews[name] for name in configs}


def preview_in_child(configs: Mapping[str, Config], remote: bool, dry_run: bool
                     ) -> dict[str, Preview]:
    """The previews of configs with the same hardware, in a fresh process."""
    exit_with_parent(os.getppid())
    hardware = next(iter(configs.values())).hardware
    factory.prepare(hardware)
    with RunLogger().native_log():
        from flowerexp.data import pipeline
        from flowerexp.models import backbones
        from flowerexp.train import experiment

        # Of a machine that is not this one, only the config can tell them.
        workers, replicas = 1, hardware.replicas or (1 if hardware.kind == "cpu" else None)
        if not remote:
            strategy, _ = factory.build_strategy(hardware)
            workers, replicas = pipeline.count_workers(strategy), strategy.num_replicas_in_sync
        read: dict[str, Any] = {}
        tables: dict[str, Any] = {}
        previews: dict[str, Preview] = {}
        for name, config in configs.items():
            try:
                parts.try_all(identity.all_parts(config))
                key = repr((config.dataset, config.train_on))
                if key not in tables:
                    tables[key] = find_data(config, dry_run, read)
                backbones.check_weights_exist(config.model.backbone)
                source, sentences, data, counts = tables[key]
                plans = [] if replicas is None else [
                    experiment.derive(config, source, each, workers, replicas)[0]
                    for each in counts]
                previews[name] = Preview(sentences, data, tuple(dict.fromkeys(plans)),
                                         source.image_size)
            except UserError as error:
                where = f"{name}: " if len(configs) > 1 else ""
                raise UserError(f"{where}{error}") from error
    return previews


def find_data(config: Config, dry_run: bool, read: dict[str, Any]
              ) -> tuple[Any, tuple[str, ...], identity.Fingerprint | None,
                         list[npt.NDArray[np.int64]]]:
    """A data set's source, what is said of it, its fingerprint, and its class counts, each int64
    [classes].

    Published sizes in place of missing files have no fingerprint and several class counts.

    Args:
        read: the sources and splits that were read before, by their dataset undivided.
    """
    from flowerexp.data import sources, splits
    from flowerexp.data.prepare import photo_cache

    dataset = config.dataset
    flowers, whole = dataset.source, splits.undivided(dataset)
    if dry_run and type(flowers) is sources.Flowers and dataset == whole:
        try:
            sources.competition_root(flowers)
        except UserError:
            return published(flowers)
    if (key := repr(whole)) not in read:
        source = photo_cache.find(dataset, RunLogger(), dry_run=dry_run)
        read[key] = source, splits.read(source, dataset, keep_images=False)
    source, tables = read[key]
    found = splits.divide(tables, source, dataset, config.train_on)
    return source, (source.reason, *found.sentences), found.fingerprint, [found.counts]


def published(flowers: Any) -> tuple[Any, tuple[str, ...], None, list[npt.NDArray[np.int64]]]:
    """As `find_data`, of the competition's published sizes."""
    from flowerexp.data import sources

    train, valid, test = sources.COMPETITION_COUNTS.values()
    classes, (least, most) = sources.COMPETITION_CLASSES, COMPETITION_CLASS_COUNTS
    reason = ("dataset: the competition's files are not here; planned with its published "
              f"sizes: {train:,} training, {valid:,} validation and {test:,} test images "
              f"of {classes} classes. The images of each class are not published, only "
              f"their range, {least} to {most}: numbers that depend on them are ranges (~: "
              "approximate)")
    source = sources.Source("flowers", reason, "", flowers.image_size or 192, None, classes, {})
    return source, (reason,), None, extreme_counts(train, classes, least, most)


def extreme_counts(total: int, classes: int, least: int, most: int
                   ) -> list[npt.NDArray[np.int64]]:
    """Two class counts, int64 [classes], with this sum, minimum and maximum: as many classes as
    possible have one of these two sizes, or the same size. Oversampling each class to N images
    yields the most and the fewest examples, a sum of a convex function of the counts.
    """
    unequal, equal = np.full(classes, least), np.full(classes, (total - least - most) // (
        classes - 2))
    unequal[:(total - classes * least) // (most - least)] = most
    unequal[-2] += total - unequal.sum()
    equal[[0, -1]] = most, least
    equal[1:1 + total - equal.sum()] += 1
    return [unequal, equal]


def show(logger: RunLogger, folder: Path, previews: Mapping[str, Preview],
         configs: Mapping[str, Config]) -> None:
    """Prints the data set and a row for every run: epochs, updates per epoch and in total, images
    per update, progress, and estimated training time if such a run was measured on this machine.

    Args:
        folder: parent of the run folders.
        previews: previews by run name.
        configs: configs, by run name, of the runs that this machine will train.
    """
    seconds = {}
    for name, config in configs.items():
        images = [plan.updates * plan.update_size for plan in previews[name].plans]
        speed = reader.seconds_per_image(folder, identity.plain(config), previews[name].image_size)
        if speed is not None and images:
            seconds[name] = speed * max(images)
    for said in dict.fromkeys(said for each in previews.values() for said in each.sentences):
        logger.info(said)
    table = Table(box=None, pad_edge=False, collapse_padding=True)  # 34-character names fit
    table.add_column("run", overflow="fold")
    for title in ("epochs", "updates\nper epoch", "updates\nin total", "update\nsize"):
        table.add_column(title, justify="right")
    table.add_column("status")
    if seconds:
        table.add_column("training", justify="right")
    for name, each in previews.items():
        status = RunStatus.load_or_new(folder / name)
        done = counted(status.epochs_done, "epoch") if status.epochs_done else "new"
        epochs, updates, total, size = (cell(name, each.plans) for name in (
            "epochs", "updates_per_epoch", "updates", "update_size"))
        # The plans do not bound the product of two numbers that vary.
        about = "~" if "-" in epochs[1:] and "-" in updates[1:] else ""
        training = f"about {duration(seconds[name])}" if name in seconds else "-"
        table.add_row(name, epochs, updates, about + total, size,
                      "finished" if status.state == "done" else done, *[training] * bool(seconds))
    logger.console.print(table)
    if max(seconds.values(), default=0) > DAY:
        logger.info("warning: training takes more than a day")


def cell(number: str, plans: tuple[Plan, ...]) -> str:
    """A number of the plans, by name, or its range; `-` without a plan."""
    values = sorted({getattr(plan, number) for plan in plans})
    return "-".join(map(str, values[:1] + values[1:][-1:])) or "-"
