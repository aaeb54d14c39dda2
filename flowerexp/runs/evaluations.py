"""What `evaluate` found on labelled images, kept in the run folder: a file for each data set."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerexp.errors import UserError
from flowerexp.metrics import NAMES
from flowerexp.runs import store

FOLDER = "evaluations"


@dataclass(frozen=True)
class Evaluated:
    """The predictions of a run for a labelled data set, and their scores.

    data: the path that was given, and the split if one was.
    fingerprint: a hash of the data's content: ids, names of their classes, and images.
    weights: best | last, the epoch of the weights; flip: see `prediction.FLIPS`.
    names: the run's class names in label order.
    ids, labels, predictions: of the images, in order; labels and predictions are class ids.
    scores: accuracy and macro recall, precision and F1 by their names in the history.
    trained_on: how many of the images, and groups of images, the run was trained on.
    """

    data: str
    fingerprint: str
    weights: str
    flip: str | None
    names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    scores: dict[str, float]
    trained_on: dict[str, int]

    @property
    def file(self) -> str:
        """The file's name, which another evaluation of the same images replaces."""
        return "-".join(filter(None, (self.fingerprint, self.weights, self.flip))) + ".json"

    @property
    def caution(self) -> str | None:
        """That the run was trained on some of the images, in words."""
        found = [f"{number} of its {kind}" for kind, number in self.trained_on.items() if number]
        return (f"{' and '.join(found)} were trained on, so that its scores are too high"
                if found else None)


def write(folder: Path, evaluated: Evaluated) -> Path:
    """Writes an evaluation to a run folder, and returns its path."""
    path = folder / FOLDER / evaluated.file
    store.write_json(path, dataclasses.asdict(evaluated))
    return path


def read(folder: Path) -> tuple[Evaluated, ...]:
    """The evaluations of a run folder in the order of their files.

    Raises:
        UserError: for a file that holds no evaluation.
    """
    paths = sorted((folder / FOLDER).glob("*.json")) if (folder / FOLDER).is_dir() else []
    return tuple(checked(store.read_json(path), path) for path in paths)


def checked(values: Any, path: Path) -> Evaluated:
    """The evaluation in a file's values; raises UserError for anything else."""
    remedy = "remove it, and evaluate the run again"
    fields = {each.name for each in dataclasses.fields(Evaluated)}
    if not isinstance(values, dict) or values.keys() != fields:
        raise UserError(f"{path} holds no evaluation", remedy)
    texts, numbers = (("names", "ids"), ("labels", "predictions"))
    lists = {name: values[name] for name in (*texts, *numbers)}
    classes = len(values["names"]) if isinstance(values["names"], list) else 0
    if not (all(isinstance(each, list) for each in lists.values())
            and len({len(lists[name]) for name in ("ids", *numbers)}) == 1 <= len(lists["ids"])
            and all(isinstance(each, str) for name in texts for each in lists[name])
            and all(type(each) is int and 0 <= each < classes
                    for name in numbers for each in lists[name])
            and all(isinstance(values[name], str) for name in ("data", "fingerprint", "weights"))
            and isinstance(values["flip"], str | None)
            and is_numbers(values["scores"], float) and is_numbers(values["trained_on"], int)):
        raise UserError(f"{path} is damaged", remedy)
    right = sum(map(int.__eq__, lists["labels"], lists["predictions"])) / len(lists["ids"])
    if {*values["scores"]} != {*NAMES} or abs(values["scores"]["acc"] - right) > store.ROUNDING:
        raise UserError(f"{path}: its predictions and its scores differ", remedy)
    return Evaluated(**values | {name: tuple(each) for name, each in lists.items()})


def is_numbers(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(number, kind) for name, number in value.items())


def titles(found: Iterable[Evaluated]) -> Mapping[str, str]:
    """The title of each data set by its fingerprint: `test`, with its folder's name if several."""
    first = {each.fingerprint: each for each in reversed(list(found))}
    if len(first) < 2:
        return dict.fromkeys(first, "test")
    names = {fingerprint: f"test {Path(each.data).name or each.data}"
             for fingerprint, each in reversed(first.items())}
    shown = list(names.values())
    return {fingerprint: name if shown.count(name) == 1 else f"{name} {fingerprint[-8:]}"
            for fingerprint, name in names.items()}
