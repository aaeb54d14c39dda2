"""Estimates the training time of a run from similar runs on this machine."""

import itertools
import math
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowerexp import identity
from flowerexp.errors import UserError
from flowerexp.runs import store
from flowerexp.runs.status import RunStatus

DECIDING = ("hardware", "model", "augmentation", "loop.batch_size_per_replica")
"""Config keys, or groups of them, that affect the speed of training."""
IRRELEVANT = ("model.weights", "model.dropout", "model.input_scaling")
"""Keys of these groups that do not affect it."""


def seconds_per_image(folder: Path, plain: Mapping[str, Any], image_size: int) -> float | None:
    """The training time of an image, measured by the runs in and next to a folder.

    Args:
        folder: a folder of runs and sweeps, or a sweep itself.
        plain: the config of the run to estimate, as nested dicts.
        image_size: the height and width of its images in pixels.

    Returns:
        The median over the runs of the same model, image size and hardware on this machine, each
        represented by the median of its epochs; the first epoch, which compiles, counts only if it
        is the only one. None without such a run.
    """
    wanted = speed_keys(plain)
    measured = []
    for config in itertools.chain(folder.glob(f"*/{store.CONFIG}"),
                                  folder.glob(f"*/*/{store.CONFIG}"),
                                  folder.parent.glob(f"*/{store.CONFIG}")):
        run = config.parent.parent
        try:
            status = RunStatus.load(run)
            if (status.host != platform.node() or status.image_size != image_size
                    or speed_keys(store.read_plain(run)) != wanted):
                continue
            images = math.prod(int(status.provenance[number] or 0) for number in (
                "updates_per_epoch", "replicas", "accumulation", "batch_size"))
            seconds = [value for row in store.read_history(run) if (value := row["train timing"])]
            measured.append(statistics.median(seconds[1:] or seconds) / images)
        except (UserError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            continue  # damaged folders are ignored
    return statistics.median(measured) if measured else None


def speed_keys(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that affect the speed of training."""
    return {key: value for key, value in identity.keys(plain).items()
            if key not in IRRELEVANT and any(
                key == start or key.startswith(f"{start}.") for start in DECIDING)}
