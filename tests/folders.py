"""Run folders made by hand for the tests of what reads them; the files are those of a real run."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from flowerexp import composition, metrics
from flowerexp.runs import store

LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
PREDICTIONS = [[0, 0, 1, 1, 1, 1, 0, 2, 0, 0], [0, 0, 0, 1, 1, 1, 1, 2, 0, 3],
               [0, 0, 0, 1, 1, 1, 0, 2, 0, 3]]
"""Three epochs that have 5, 8 and 7 of ten images right."""


@functools.cache
def compose(overrides: tuple[str, ...]) -> DictConfig:
    composition.register()
    return composition.compose(overrides)


def compose_of_seed(overrides: Sequence[str]) -> DictConfig:
    """The composed config; Hydra takes a quarter of a second for each that differs in more."""
    seeds = [int(override.partition("=")[2]) for override in overrides
             if override.startswith("seed=")]
    config = copy.deepcopy(compose(tuple(override for override in overrides
                                         if not override.startswith("seed="))))
    for seed in seeds:
        config.seed = seed
    return config


def write_run(folder: Path, overrides: Sequence[str], labels: Sequence[int],
              predictions: Sequence[Sequence[int]], seconds: Sequence[float] | None = None,
              names: Sequence[str] | None = None, counts: Sequence[int] | None = None,
              state: str = "done", error: str | None = None, epochs: int | None = None,
              data: str | None = "content-0123456789abcdef", replicas: int = 1,
              ids: Sequence[str] | None = None) -> Path:
    """A run of real overrides with these validation predictions; its scores follow from them.

    Args:
        overrides: as on the command line, for example `experiment=original`, `seed=1`.
        labels: [images] of the validation set.
        predictions: [epochs][images].
        seconds: of every epoch; 10, 8, 8, ... unless given.
        names, counts: of the classes; `class 0` and so on, 100 over (1 + class) unless given.
        epochs: planned; as many as there are predictions unless given.
        data, replicas: of the status' provenance, which is left out where data is None.
        ids: of the validation images; numbers unless given.
    """
    names = names or [f"class {label}" for label in range(max(labels) + 1)]
    counts = counts or [100 // (1 + label) for label in range(len(names))]
    seconds = seconds or [10.0, *[8.0] * len(predictions)]
    store.write_config(folder, compose_of_seed(overrides), overrides)
    store.write_classes(folder, names, counts)
    checksum = store.write_valid(
        folder, list(map(str, range(len(labels)))) if ids is None else ids, list(labels))
    store.write_predictions(folder, predictions, checksum)
    history = []
    for epoch, ids in enumerate(predictions):
        matrix = metrics.confusion_matrix(np.array(labels), np.array(ids), len(names))
        loss = 2.0 / (1 + epoch)
        history.append(metrics.epoch_scores("train", loss, matrix)
                       | metrics.epoch_scores("valid", loss + 0.1, matrix)
                       | {"train timing": seconds[epoch]})
    store.write_history(folder, history)
    provenance = {"replicas": replicas, "epochs": epochs or len(predictions), "data": data}
    status = {"state": state, "error": error, "epochs_done": len(predictions),
              "epochs": epochs or len(predictions), "valid": checksum,
              "provenance": provenance if data else None}
    store.write_json(folder / store.STATUS,
                       {key: value for key, value in status.items() if value is not None})
    return folder


def write_experiment(root: Path, name: str, *overrides: str,
                     predictions: Sequence[Sequence[int]] = PREDICTIONS, **options: Any) -> Path:
    """A run of an experiment in the folder of its name and seed, of LABELS."""
    seed = next((word for word in overrides if word.startswith("seed=")), "seed=0")
    return write_run(root / f"{name}+{seed}", [f"experiment={name}", *overrides], LABELS,
                     predictions, **options)


def write_healthy(root: Path) -> Path:
    """Two seeds of an experiment and of its baseline."""
    for name in ("original", "optimized_loop"):
        for seed in (0, 1):
            write_experiment(root, name, f"seed={seed}")
    return root
