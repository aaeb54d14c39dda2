"""The files of a run folder, written whole or not at all, and read back. No TensorFlow here."""

import contextlib
import csv
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import yaml
from omegaconf import DictConfig, OmegaConf

from flowerexp import composition, identity, metrics
from flowerexp.config import Config
from flowerexp.errors import UserError, first_line

CONFIG = Path(".hydra/config.yaml")
OVERRIDES = Path(".hydra/overrides.yaml")
STATUS = "status.json"
HISTORY = "history.json"
CLASSES = "classes.json"
ROUNDING = 1e-6
"""The most by which an accuracy may differ from that of the predictions."""
VALID_LABELS = "valid_labels.json"
TRAIN_IMAGES = "train_images.json"
VALID_IDS = "valid_ids.json"
VALID_PREDICTIONS = "valid_preds.json"
TEST_PREDICTIONS = "test_preds.json"
SUBMISSION = "submission.csv"
TOP_CLASSES = "predictions.csv"
VALID_PROBABILITIES = "valid_probs.npy"
TEST_PROBABILITIES = "test_probs.npy"
MODEL = "model.keras"
LOG = "run.log"
LOCK = ".lock"

Scores = dict[str, float | None]
"""One epoch of the history: `train loss`, `train acc`, ... `valid f1`, `train timing`."""
VALIDATED = frozenset({"valid loss", "valid acc", "valid recall", "valid precision", "valid f1"})
"""The scores of validation that every epoch has, or none of a run with train_on=all."""
MOST_CLASSES = 2**20
"""The most classes if classes.json does not tell how many, so that counts fit in memory."""
DEEPEST = 50
"""The most levels of a YAML file; libyaml ends the process where there are too many."""
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


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
            sys.stdout.flush()
            own = own_descriptor(path)
            # A duplicate shares the position in the file, so that nothing is overwritten.
            with path.open("ab") if own is None else os.fdopen(os.dup(own), "wb") as stream:
                stream.write(partial.read_bytes())
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


def read_yaml(path: Path) -> Any:
    """The file as plain values; None if it does not exist.

    Raises:
        UserError: for a file that is not YAML, or holds aliases or too many levels, which Hydra
            does not write and which can make a small file endless.
    """
    depth = 0
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, composition.YAML_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("it has aliases or too many levels")
        return yaml.load(text, composition.YAML_LOADER)  # a safe loader
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


def write_config(folder: Path, composed: DictConfig, overrides: Sequence[str]) -> None:
    """Writes the composed config, its interpolations resolved, and the overrides."""
    write_text(folder / CONFIG, OmegaConf.to_yaml(composed, resolve=True))
    write_text(folder / OVERRIDES, OmegaConf.to_yaml(list(overrides)))


def read_config(folder: Path) -> Config:
    """The checked config of a run folder; raises UserError if there is none."""
    return composition.check(OmegaConf.create(read_plain(folder)))


def read_plain(folder: Path) -> dict[str, Any]:
    """The config of a run folder as nested dicts, of any version.

    A reference to another key is resolved, as earlier versions wrote it. No other interpolation
    is: ${oc.env:NAME} would tell who shared the folder what this machine's environment holds.

    Raises:
        UserError: for a folder without a config, or a file that holds none.
    """
    path = folder / CONFIG
    plain = read_yaml(path)
    if plain is None and not path.exists():
        raise UserError(f"{path} does not exist: {folder} is not a run folder")
    if (not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain)
            or type(plain.get("seed")) is not int):
        raise UserError(f"{path} holds no config of a run")
    leaves = identity.flatten(plain)

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [resolve(value) for value in node]
        for _ in range(DEEPEST):  # a reference can lead to another, or in a ring
            reference = REFERENCE.fullmatch(node) if isinstance(node, str) else None
            if reference is None:
                break
            node = leaves.get(reference[1], node)
        if not (node is None or isinstance(node, str | int | float)) or "${" in str(node):
            raise UserError(f"{path} holds {node}, which is neither a plain value nor refers to "
                            "one: write its value")
        return node

    return {key: resolve(value) for key, value in plain.items()}


def read_overrides(folder: Path) -> list[str]:
    """The overrides of the command line; empty if the folder has none."""
    path = folder / OVERRIDES
    overrides = read_yaml(path) or []
    if not isinstance(overrides, list):
        raise UserError(f"{path} holds no list of overrides")
    return list(map(str, overrides))


def write_history(folder: Path, history: Sequence[Scores]) -> None:
    write_by_epoch(folder / HISTORY, history, indent=1)


def read_history(folder: Path) -> list[Scores]:
    """The epochs of a run in order; empty before the end of the first one.

    Raises:
        UserError: for a file without a number, or null, for each of the scores of every epoch.
    """
    path = folder / HISTORY
    rows = read_by_epoch(path)
    if not all(isinstance(row, dict) and "train timing" in row and all(
            value is None or type(value) in (int, float) for value in row.values())
            for row in rows) or {VALIDATED.intersection(row) for row in rows} not in (
            set(), {VALIDATED}, {frozenset()}):
        raise UserError(f"{path} does not hold the scores of every epoch")
    return rows


def write_classes(folder: Path, names: Sequence[str], train_counts: Sequence[int]) -> None:
    """Writes the class names in label order, and the number of training images of each."""
    write_json(folder / CLASSES, {"names": list(names), "train counts": list(train_counts)})


def read_classes(folder: Path) -> tuple[list[str], list[int]]:
    """Names and training counts of the classes; both empty if the folder has none yet."""
    path = folder / CLASSES
    if not path.exists():
        return [], []
    classes = read_json(path)
    names, counts = (classes.get(key) if isinstance(classes, dict) else None
                     for key in ("names", "train counts"))
    if not (isinstance(names, list) and isinstance(counts, list) and len(names) == len(counts) > 0
            and all(isinstance(name, str) for name in names)
            and all(type(count) is int and 0 <= count < 2**63 for count in counts)):
        raise UserError(f"{path} does not hold a name and a count for every class")
    return names, counts


def valid_checksum(ids: Sequence[str], labels: Sequence[int]) -> str:
    """A checksum of the ids and labels of the validation images in their order."""
    return hashlib.sha256(orjson.dumps([list(ids), list(labels)])).hexdigest()[:16]


def write_valid(folder: Path, ids: Sequence[str], labels: Sequence[int]) -> str:
    """Writes the ids and labels of the validation images, and returns their `valid_checksum`."""
    write_json(folder / VALID_LABELS, list(labels))
    write_json(folder / VALID_IDS, list(ids))
    return valid_checksum(ids, labels)


def read_valid(folder: Path, checksum: str | None = None, classes: int = MOST_CLASSES
               ) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The ids and labels, [images], of the validation images; empty if the folder has none yet.

    Folders of the first versions may have no ids, or no checksum.

    Raises:
        UserError: for files that do not belong together.
    """
    path, of_ids = folder / VALID_LABELS, folder / VALID_IDS
    labels = class_ids(read_json(path) if path.exists() else [], path, classes)
    ids = read_json(of_ids) if of_ids.exists() else []
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise UserError(f"{of_ids} does not hold a text for every image")
    if (ids and len(ids) != len(labels)) or (
            checksum is not None and checksum != valid_checksum(ids, labels.tolist())):
        raise UserError(f"{path} and {of_ids} are not those of this run's predictions",
                        "restore them: the scores of each image hang on their order")
    return tuple(ids), labels


def write_train_images(folder: Path, digests: Sequence[int], groups: Sequence[str]) -> None:
    """Writes the `tables.image_digest` of each training image and, if it has one, its group."""
    write_json(folder / TRAIN_IMAGES, {"digests": list(digests), "groups": list(groups)})


def read_train_images(folder: Path) -> list[tuple[int, str]]:
    """Digest and group (empty without one) of each training image; none in older folders."""
    path = folder / TRAIN_IMAGES
    values = read_json(path) if path.exists() else {"digests": [], "groups": []}
    digests, groups = (values.get(key) if isinstance(values, dict) else None
                       for key in ("digests", "groups"))
    if not (isinstance(digests, list) and all(type(each) is int for each in digests)
            and isinstance(groups, list) and all(isinstance(each, str) for each in groups)
            and len(groups) in (0, len(digests))):
        raise UserError(f"{path} does not hold a digest for every training image: remove it")
    return list(zip(digests, groups or [""] * len(digests), strict=True))


def write_predictions(folder: Path, predictions: Sequence[Sequence[int]],
                      checksum: str | None = None) -> None:
    """Writes the class ids of the validation set by epoch, in the order of its ids and labels.

    Raises:
        UserError: if these are not those of the checksum any more.
    """
    if checksum is not None:
        read_valid(folder, checksum)
    write_by_epoch(folder / VALID_PREDICTIONS, list(map(list, predictions)))


def read_predictions(folder: Path, images: int, classes: int = MOST_CLASSES
                     ) -> npt.NDArray[np.int64]:
    """The class ids of the validation images, [epochs, images]; zero epochs without the file.

    Raises:
        UserError: for a file without a class id below `classes` for every epoch and image.
    """
    path = folder / VALID_PREDICTIONS
    rows = [class_ids(row, path, classes) for row in read_by_epoch(path)]
    if any(len(row) != images for row in rows):
        raise UserError(f"{path} holds other images than {VALID_LABELS}")
    return np.reshape(rows, (len(rows), images)).astype(np.int64)


def class_ids(values: Any, path: Path, classes: int) -> npt.NDArray[np.int64]:
    """The ids of a list, [images]; raises UserError for anything but ids below `classes`."""
    with contextlib.suppress(ValueError, OverflowError):  # of lists of several lengths
        ids = np.array(values) if values != [] else np.zeros(0, np.int64)
        if ids.ndim == 1 and ids.dtype.kind == "i" and ((ids >= 0) & (ids < classes)).all():
            return ids.astype(np.int64, copy=False)
    raise UserError(f"{path} does not hold a class for every image")


def write_by_epoch(path: Path, rows: Sequence[Any], indent: int | None = None) -> None:
    """Writes {"0": ..., "1": ...}."""
    write_json(path, {str(epoch): row for epoch, row in enumerate(rows)}, indent)


def read_by_epoch(path: Path) -> list[Any]:
    """The values of {"0": ..., "1": ...} in order; empty if there is no file."""
    value = read_json(path) if path.exists() else {}
    if not isinstance(value, dict) or value.keys() != set(map(str, range(len(value)))):
        raise UserError(f"{path} does not hold the epochs 0, 1, 2 and so on")
    return [value[str(epoch)] for epoch in range(len(value))]


def write_submission(folder: Path, ids: Sequence[str], predictions: Sequence[int]) -> None:
    """Writes `id,label` for every test image, in data set order."""
    with atomic_write(folder / SUBMISSION) as partial, \
            partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label"])
        writer.writerows(zip(ids, predictions, strict=True))


def write_top_classes(folder: Path, names: Sequence[str],
                      of: Mapping[str, tuple[Sequence[str], npt.NDArray[np.floating[Any]]]]
                      ) -> None:
    """Writes the most probable classes of every image.

    of: ids and probabilities, float [images, classes], of the images of each split.
    """
    import pandas as pd  # slow, and few need it

    tables = []
    for split, (ids, probabilities) in of.items():
        tables.append(metrics.top_classes(ids, names, probabilities.astype(np.float64)))
        tables[-1].insert(0, "split", split)
    write_text(folder / TOP_CLASSES, pd.concat(tables).to_csv(
        index=False, lineterminator="\n", float_format="%.6g"))


def write_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.save(file, array)
