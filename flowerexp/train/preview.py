"""What runs would be: their data found and their numbers derived, before any of them starts.

The work is done in a process of its own, for it needs TensorFlow, which the parent of a sweep does
not import, and gives the devices back when it ends.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from flowerexp.config import Config, Hardware
from flowerexp.data.batching import Plan
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger, exit_with_parent
from flowerexp.runs.status import RunStatus
from flowerexp.strategy import factory


@dataclass(frozen=True)
class Preview:
    """What is known of a run before it starts."""

    source: str
    """Which data set it takes, and why."""
    data: str
    """The fingerprint of the data."""
    plan: Plan | None
    """None where the number of replicas shows only on the machine that will run it."""


def preview(configs: Mapping[str, Config], elsewhere: bool = False) -> dict[str, Preview]:
    """The preview of every config.

    Args:
        configs: by the name of the run.
        elsewhere: whether the runs will be on other machines than this one.

    Raises:
        UserError: for data or weights that are not there, or numbers that do not fit, by the
            name of the first run.
    """
    by_hardware: dict[str, dict[str, Config]] = {}
    for name, config in configs.items():
        by_hardware.setdefault(repr(config.hardware), {})[name] = config
    found: dict[str, Preview] = {}
    for group in by_hardware.values():  # a process can set up one strategy only
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as process:
            try:
                found |= process.submit(look, group, elsewhere).result()
            except BrokenProcessPool as error:
                raise UserError("the process that looks at the data before the start was killed: "
                                "is there too little memory?") from error
    return {name: found[name] for name in configs}


def look(configs: Mapping[str, Config], elsewhere: bool) -> dict[str, Preview]:
    """The previews of configs of one hardware, in a fresh process."""
    exit_with_parent(os.getppid())
    asked = next(iter(configs.values())).hardware
    factory.prepare(asked)
    with RunLogger().native_log():
        from flowerexp.data import sources
        from flowerexp.models import build

        workers, replicas = replicas_here(asked) if not elsewhere else replicas_asked(asked)
        tables: dict[str, Any] = {}
        found: dict[str, Preview] = {}
        for name, config in configs.items():
            try:
                key = repr(config.dataset)
                if key not in tables:
                    source = sources.find(config.dataset)
                    tables[key] = source, *sources.class_counts(
                        source, config.dataset.on_bad_record)
                build.check_weights_exist(config.model)
                source, counts, data = tables[key]
                found[name] = of_run(config, source, counts, data, workers, replicas)
            except UserError as error:
                where = f"{name}: " if len(configs) > 1 else ""
                raise UserError(f"{where}{error}") from error
    return found


def of_run(config: Config, source: Any, counts: Any, data: str, workers: int,
           replicas: int | None) -> Preview:
    """The preview of one run on a source whose classes have these counts and this fingerprint."""
    from flowerexp.train import experiment

    numbers = None
    if replicas is not None:
        numbers, _ = experiment.derive(config, source, counts, workers, replicas)
    return Preview(source.reason, data, numbers)


def replicas_here(asked: Hardware) -> tuple[int, int | None]:
    """Workers and replicas of this machine's strategy."""
    from flowerexp.data import pipeline

    strategy, _ = factory.build_strategy(asked)
    return pipeline.count_workers(strategy), strategy.num_replicas_in_sync


def replicas_asked(asked: Hardware) -> tuple[int, int | None]:
    """One worker, and the replicas that the config itself tells, for a machine out of sight."""
    return 1, asked.replicas or (1 if asked.kind == "cpu" else None)


def show(logger: RunLogger, folder: Path, previews: Mapping[str, Preview]) -> None:
    """Prints the data set, and a line for every run: epochs, updates of an epoch and in all, images
    of an update, and what was done of it before.

    Args:
        folder: that holds the runs' folders.
    """
    for source in dict.fromkeys(each.source for each in previews.values()):
        logger.info(source)
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for title in ("epochs", "updates\nan epoch", "updates\nin all", "images of\nan update"):
        table.add_column(title, justify="right")
    table.add_column("before")
    for name, each in previews.items():
        numbers = each.plan
        cells = ("-",) * 4 if numbers is None else (
            str(numbers.epochs), str(numbers.updates_per_epoch), str(numbers.updates),
            str(numbers.update_size))
        status = RunStatus.load_or_new(folder / name)
        done = status.epochs_done
        table.add_row(name, *cells, {"done": "finished"}.get(
            status.state, f"{done} epochs" if done else "new"))
    logger.console.print(table)
