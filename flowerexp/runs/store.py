"""The files of a run folder, written whole or not at all, and read back. No TensorFlow here."""

import contextlib
import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flowerexp import composition
from flowerexp.config import Config
from flowerexp.errors import UserError, first_line

CONFIG = Path(".hydra/config.yaml")
OVERRIDES = Path(".hydra/overrides.yaml")
STATUS = "status.json"
HISTORY = "history.json"
CLASSES = "classes.json"
VALID_LABELS = "valid_labels.json"
VALID_IDS = "valid_ids.json"
VALID_PREDICTIONS = "valid_preds.json"
TEST_PREDICTIONS = "test_preds.json"
SUBMISSION = "submission.csv"
VALID_PROBABILITIES = "valid_probs.npy"
TEST_PROBABILITIES = "test_probs.npy"
MODEL = "model.keras"
LOG = "run.log"
LOCK = ".lock"

Scores = dict[str, float | None]
"""One epoch of the history: `train loss`, `train acc`, ... `valid f1`, `train timing`."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path of the same suffix, which replaces `path` if the block succeeds.

    A symbolic link is kept, and its target is replaced. A device, a pipe and /dev/stdout are kept
    as well, and the finished file is copied into them.

    Raises:
        UserError: for a folder.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder, f"file{path.suffix}")
            yield partial
            with partial.open("rb") as source, \
                    open(stream_descriptor(path), "wb") as stream:
                shutil.copyfileobj(source, stream)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that a path names, as /dev/stdout does; else None."""
    descriptors = Path(f"/proc/{os.getpid()}/fd")
    while path.parent.resolve() != descriptors and path.is_symlink():
        path = path.parent / path.readlink()
    return int(path.name) if path.parent.resolve() == descriptors else None


def is_stream(path: Path) -> bool:
    """Whether a path leads to no regular file, or to an open descriptor of this process."""
    return path.exists() and (not path.is_file() or own_descriptor(path) is not None)


def stream_descriptor(path: Path) -> int:
    """An open descriptor that writes to a stream, which is not truncated."""
    number = own_descriptor(path)
    if number is None:
        return os.open(path, os.O_WRONLY | os.O_APPEND)
    sys.stdout.flush()
    return os.dup(number)  # it shares the position in the file, so that nothing is overwritten


def sync(path: Path) -> None:
    """Flushes a file to the disk, so that its contents are there before it is renamed."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Writes strict JSON, with None for undefined values; NaN and infinity raise, as bugs."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError for a file that does not exist or is not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", f"is {path.parent} a run folder?") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})",
                        "rerun the folder's command with fresh=true") from error


def write_config(folder: Path, composed: Any, overrides: Sequence[str]) -> None:
    """Writes the composed config and the overrides, as Hydra does."""
    write_text(folder / CONFIG, OmegaConf.to_yaml(composed))
    write_text(folder / OVERRIDES, OmegaConf.to_yaml(list(overrides)))


def read_config(folder: Path) -> Config:
    """The checked config of a run folder."""
    return composition.check(read_composed(folder))


def read_composed(folder: Path) -> DictConfig:
    """The config of a run folder as it was composed; raises UserError if there is none."""
    path = folder / CONFIG
    try:
        composed = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {folder} is not a run folder") from None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(composed, DictConfig):
        raise UserError(f"{path} holds no config")
    return composed


def read_overrides(folder: Path) -> list[str]:
    """The overrides of the command line; empty if the folder has none."""
    path = folder / OVERRIDES
    try:
        overrides: Any = OmegaConf.load(path) if path.exists() else []
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    return [str(override) for override in overrides]


def write_history(folder: Path, history: Sequence[Scores]) -> None:
    write_json(folder / HISTORY, {str(epoch): row for epoch, row in enumerate(history)}, indent=1)


def read_history(folder: Path) -> list[Scores]:
    """The epochs of a run in order; empty before the end of the first one."""
    if not (folder / HISTORY).exists():
        return []
    return by_epoch(read_json(folder / HISTORY), folder / HISTORY)


def write_classes(folder: Path, names: Sequence[str], train_counts: Sequence[int]) -> None:
    """Writes the class names in label order, and the number of training images of each."""
    write_json(folder / CLASSES, {"names": list(names), "train counts": list(train_counts)})


def read_classes(folder: Path) -> tuple[list[str], list[int]]:
    """Names and training counts of the classes; both empty if the folder has none yet."""
    if not (folder / CLASSES).exists():
        return [], []
    classes = read_json(folder / CLASSES)
    try:
        names, counts = list(map(str, classes["names"])), list(map(int, classes["train counts"]))
    except (TypeError, KeyError, ValueError):
        names, counts = [], []
    if not names or len(names) != len(counts):
        raise UserError(f"{folder / CLASSES} does not hold a name and a count for every class")
    return names, counts


def write_predictions(folder: Path, predictions: Sequence[Sequence[int]]) -> None:
    """Writes the class ids of the validation set by epoch, in data set order."""
    write_json(folder / VALID_PREDICTIONS,
               {str(epoch): list(ids) for epoch, ids in enumerate(predictions)})


def read_predictions(folder: Path) -> list[list[int]]:
    if not (folder / VALID_PREDICTIONS).exists():
        return []
    return by_epoch(read_json(folder / VALID_PREDICTIONS), folder / VALID_PREDICTIONS)


def by_epoch(value: Any, path: Path) -> list[Any]:
    """The values of {"0": ..., "1": ...} in order."""
    if not isinstance(value, Mapping) or sorted(value, key=str) != sorted(
            str(epoch) for epoch in range(len(value))):
        raise UserError(f"{path} does not hold the epochs 0, 1, 2 and so on")
    return [value[str(epoch)] for epoch in range(len(value))]


def write_submission(folder: Path, ids: Sequence[str], predictions: Sequence[int]) -> None:
    """Writes `id,label` for every test image, in data set order."""
    with atomic_write(folder / SUBMISSION) as partial, \
            partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label"])
        writer.writerows(zip(ids, predictions, strict=True))


def write_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.save(file, array)
