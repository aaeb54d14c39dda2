"""What runs would be: their data found and their numbers derived, before any of them starts.

A child process does it, because it needs TensorFlow, which the parent of a sweep does not import,
and releases the devices when it ends.
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
from flowerexp.config import Config, Dataset, Hardware
from flowerexp.data.batching import Plan
from flowerexp.errors import UserError, counted
from flowerexp.runs import timing
from flowerexp.runs.log import DAY, RunLogger, duration, exit_with_parent
from flowerexp.runs.status import RunStatus
from flowerexp.strategy import factory

COMPETITION_CLASS_COUNTS = (18, 782)
"""Training images of the competition's rarest and commonest class; the others are not published."""


@dataclass(frozen=True)
class Preview:
    """What is known of a run before it starts."""

    source: str
    """Which data set it takes, and why."""
    data: str | None
    """The fingerprint of the data; None if they are not here."""
    plans: tuple[Plan, ...]
    """One plan; several, which bound its numbers, if the images of each class are not known; none
    if the number of replicas shows only on the machine that will run it."""
    image_size: int


def preview(configs: Mapping[str, Config], remote: bool = False, dry_run: bool = False
            ) -> dict[str, Preview]:
    """The preview of every config.

    Args:
        configs: by the name of the run.
        remote: whether the runs will be on other machines than this one.
        dry_run: whether the published sizes of the competition stand in for its files if these are
            not here. Nothing may be trained by them.

    Raises:
        UserError: for missing data or weights, or numbers that do not fit, by the name of the first
            such run.
    """
    by_hardware: dict[str, dict[str, Config]] = {}
    for name, config in configs.items():
        by_hardware.setdefault(repr(config.hardware), {})[name] = config
    previews: dict[str, Preview] = {}
    for group in by_hardware.values():  # a process can set up only one strategy
        context = multiprocessing.get_context("spawn")
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
        from flowerexp.models import backbones
        from flowerexp.train import experiment

        workers, replicas = count_replicas(hardware, remote)
        tables: dict[str, Any] = {}
        previews: dict[str, Preview] = {}
        for name, config in configs.items():
            try:
                parts.try_all(identity.all_parts(config))
                key = repr(config.dataset)
                if key not in tables:
                    tables[key] = find_data(config.dataset, dry_run)
                backbones.check_weights_exist(config.model.backbone)
                source, data, counts = tables[key]
                plans = [] if replicas is None else [
                    experiment.derive(config, source, each, workers, replicas)[0]
                    for each in counts]
                previews[name] = Preview(source.reason, data, tuple(dict.fromkeys(plans)),
                                         source.image_size)
            except UserError as error:
                where = f"{name}: " if len(configs) > 1 else ""
                raise UserError(f"{where}{error}") from error
    return previews


def find_data(dataset: Dataset, dry_run: bool
              ) -> tuple[Any, str | None, list[npt.NDArray[np.int64]]]:
    """A data set's source, its fingerprint, and its counts, int64 [classes] images of each class.

    The published sizes that stand in for missing files have no fingerprint and several counts.
    """
    from flowerexp.data import sources

    flowers = dataset.source
    if dry_run and type(flowers) is sources.Flowers:
        try:
            sources.competition_root(flowers)
        except UserError:
            train, valid, test = sources.COMPETITION_COUNTS.values()
            classes, (least, most) = sources.COMPETITION_CLASSES, COMPETITION_CLASS_COUNTS
            reason = ("dataset: the competition's files are not here; planned with its published "
                      f"sizes: {train:,} training, {valid:,} validation and {test:,} test images "
                      f"of {classes} classes. The images of each class are not published, only "
                      f"their range, {least} to {most}: numbers that depend on them are ranges (~: "
                      "approximate)")
            source = sources.Source("flowers", reason, "", flowers.image_size or 192, None,
                                    classes, {})
            return source, None, extreme_counts(train, classes, least, most)
    source = sources.find(dataset.source)
    counts, data = sources.class_counts(source, dataset.on_bad_record)
    return source, data, [counts]


def extreme_counts(total: int, classes: int, least: int, most: int
                   ) -> list[npt.NDArray[np.int64]]:
    """Two counts of images by class, int64 [classes], with this sum, minimum and maximum.

    The first has as many of the largest and smallest classes as possible, the second as many equal
    ones. Repeating each class up to N images makes the most examples of the first and the fewest of
    the second, because that is a sum of a convex function of the counts.
    """
    unequal, equal = np.full(classes, least), np.full(classes, (total - least - most) // (
        classes - 2))
    unequal[:(total - classes * least) // (most - least)] = most
    unequal[-2] += total - unequal.sum()
    equal[[0, -1]] = most, least
    equal[1:1 + total - equal.sum()] += 1
    return [unequal, equal]


def count_replicas(hardware: Hardware, remote: bool) -> tuple[int, int | None]:
    """Workers and replicas of this machine's strategy; of another one, what the config tells."""
    from flowerexp.data import pipeline

    if remote:
        return 1, hardware.replicas or (1 if hardware.kind == "cpu" else None)
    strategy, _ = factory.build_strategy(hardware)
    return pipeline.count_workers(strategy), strategy.num_replicas_in_sync


def show(logger: RunLogger, folder: Path, previews: Mapping[str, Preview],
         configs: Mapping[str, Config]) -> None:
    """Prints the data set, and a line for every run: epochs, updates of an epoch and in total,
    images of an update, how far it is, and how long it trains if such a run was measured here.

    Args:
        logger: that prints them.
        folder: that contains the folders of the runs.
        previews: by the name of the run.
        configs: of the runs that this machine will train, by their names.
    """
    seconds = {name: train_seconds(folder, config, previews[name])
               for name, config in configs.items()}
    known = [each for each in seconds.values() if each is not None]
    for source in dict.fromkeys(each.source for each in previews.values()):
        logger.info(source)
    table = Table(box=None, pad_edge=False, collapse_padding=True)  # names of 34 in 80 columns
    table.add_column("run", overflow="fold")
    for title in ("epochs", "updates\nper epoch", "updates\nin total", "update\nsize"):
        table.add_column(title, justify="right")
    table.add_column("status")
    if known:
        table.add_column("training", justify="right")
    for name, each in previews.items():
        status = RunStatus.load_or_new(folder / name)
        done = counted(status.epochs_done, "epoch") if status.epochs_done else "new"
        epochs, updates, total, size = (cell(name, each.plans) for name in (
            "epochs", "updates_per_epoch", "updates", "update_size"))
        # Of the product of two numbers that vary, the plans do not show the extremes.
        about = "~" if "-" in epochs[1:] and "-" in updates[1:] else ""
        table.add_row(name, epochs, updates, about + total, size,
                      "finished" if status.state == "done" else done,
                      *[estimate(seconds.get(name))] * bool(known))
    logger.console.print(table)
    if known and max(known) > DAY:
        logger.info("warning: training takes more than a day")


def train_seconds(folder: Path, config: Config, preview: Preview) -> float | None:
    """Time to train all epochs of a run at the speed of measured runs; None without any."""
    speed = timing.seconds_per_image(folder, identity.plain(config), preview.image_size)
    images = [plan.updates * plan.update_size for plan in preview.plans]
    return speed * max(images) if speed is not None and images else None


def estimate(seconds: float | None) -> str:
    return "-" if seconds is None else f"about {duration(seconds)}"


def cell(number: str, plans: tuple[Plan, ...]) -> str:
    """A number of the plans by its name, or its range; `-` without a plan."""
    values = sorted({getattr(plan, number) for plan in plans})
    return "-".join(map(str, values[:1] + values[1:][-1:])) or "-"
