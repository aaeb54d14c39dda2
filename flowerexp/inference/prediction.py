"""Predictions of finished runs: averaged probabilities, the most probable classes, scores."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowerexp import metrics
from flowerexp.data import class_names, features, formats, images, records, tfrecord
from flowerexp.data.features import COMPETITION, Labels, ReadSpec
from flowerexp.data.headers import BROKEN_IMAGE
from flowerexp.data.photos import Photo
from flowerexp.data.tables import DataIssue, image_digest
from flowerexp.errors import UserError, counted, first_line, one_line
from flowerexp.hints import nearest
from flowerexp.inference import trained
from flowerexp.inference.inputs import Input
from flowerexp.inference.trained import TrainedRun
from flowerexp.lazy import tf

FLIPS: dict[str | None, tuple[tuple[int, ...], ...]] = {
    None: ((),), "horizontal": ((), (2,)), "vertical": ((), (1,)),
    "both": ((), (2,), (1,), (1, 2))}
"""The axes of [n, height, width, 3] that are reversed, a tuple for each view."""
SHOWN = 3
"""The number of class names in a sentence."""
Squares = list[npt.NDArray[np.uint8]]
"""One photo for each kind of input of the runs, [size, size, 3]."""


class Picture(NamedTuple):
    """A photo before it is decoded.

    label: the class id; -1 if there is none.
    data: its bytes, or the photo that has them; None if it is known to be bad.
    fault: its issue, or the one to report if its bytes cannot be decoded.
    """

    identifier: str
    label: int
    data: bytes | Photo | None
    fault: DataIssue


@dataclass(frozen=True)
class Classes:
    """The classes of labels in records.

    names: the runs' class names in label order.
    offset: the label of the first class, where no names tell the classes.
    numbers: class id by label; empty where labels count the runs' classes.
    common: whether images of other classes are left out; their class id is the number of names.
    sentence: how classes are matched; empty where they are the runs'.
    """

    names: Sequence[str]
    offset: int = 0
    numbers: Mapping[int, int] = field(default_factory=dict)
    common: bool = False
    sentence: str = ""

    @property
    def ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


class Batch(NamedTuple):
    """The prediction of an ensemble for some photos.

    names: the class names in label order.
    ids: the ids of the n photos that could be read.
    labels: int64 [n]; -1 if a photo has none.
    digests: uint64 [n], see `tables.image_digest`.
    probabilities: float64 [n, classes].
    faults: the issues of the photos that could not be read.
    """

    names: Sequence[str]
    ids: list[str]
    labels: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]
    probabilities: npt.NDArray[np.float64]
    faults: list[DataIssue]

    def top_classes(self) -> Any:
        """A row per photo, see `metrics.top_classes`."""
        return metrics.top_classes(self.ids, self.names, self.probabilities)

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """The most probable classes, int64 [n]."""
        found: npt.NDArray[np.int64] = self.probabilities.argmax(-1)
        return found

    def confusion_matrix(self) -> npt.NDArray[np.int64]:
        """int64 [classes, classes], rows are labels."""
        return metrics.confusion_matrix(self.labels, self.predictions, len(self.names))


class Evaluation(dict[str, float]):
    """Accuracy (`acc`) and macro `recall`, `precision` and `f1` on labelled images, a dict.

    Args:
        confusion: int64 [classes, classes], rows are labels.
        names: the class names in label order.
        skipped: a sentence for each image that could not be read.
    """

    def __init__(self, confusion: npt.NDArray[np.int64], names: Sequence[str],
                 skipped: Sequence[str] = ()) -> None:
        super().__init__(metrics.scores(confusion))
        self.confusion, self.names, self.skipped = confusion, names, skipped

    def report(self) -> str:
        """Accuracy, macro averages and scikit-learn's report of every class that occurs."""
        from sklearn.metrics import classification_report

        cells = np.nonzero(self.confusion)
        labels, predictions = (np.repeat(ids, self.confusion[cells]) for ids in cells)
        present = np.union1d(labels, predictions)
        by_class: str = classification_report(
            labels, predictions, labels=present, digits=4, zero_division=0,
            target_names=[one_line(self.names[label]) for label in present])
        absent = len(self.names) - len(present)
        others = (f"; {absent} others occur neither in labels nor in predictions" if absent else "")
        return (f"accuracy {self['acc']:.4f}, macro recall {self['recall']:.4f}, macro precision "
                f"{self['precision']:.4f}, macro F1 {self['f1']:.4f}\n"
                f"over {len(present)} classes{others}\n\n{by_class}")


class Ensemble:
    """Runs that predict together: their probabilities are averaged over runs and flips.

    Args:
        runs: runs of the same classes.
        flip: a key of FLIPS.

    Raises:
        UserError: see `trained.load`.
    """

    def __init__(self, runs: Sequence[TrainedRun], flip: str | None = None) -> None:
        self.names, self.batch_size = runs[0].names, min(
            run.config.loop.eval_batch_size_per_replica for run in runs)
        loaded = [trained.load(run) for run in runs]
        given = [images.Squares(size, run.config.dataset.resize, run.config.dataset.exif)
                 for run, (_, size) in zip(runs, loaded, strict=True)]
        self.inputs = list(dict.fromkeys(given))
        self._members = [(each, logits_of(model, size, FLIPS[flip]))
                         for each, (model, size) in zip(given, loaded, strict=True)]

    def squares(self, picture: Picture) -> tuple[Squares, int] | DataIssue:
        """The squares of a photo and its `tables.image_digest`, or its issue."""
        if picture.data is None:
            return picture.fault
        try:
            # Read here and not earlier, so that only photos that are being decoded are in memory.
            data = picture.data.read() if isinstance(picture.data, Photo) else picture.data
            return [square(data)[0] for square in self.inputs], image_digest(data)
        except OSError as error:
            return replace(picture.fault, message=f"cannot be read: {error.strerror}")
        except (formats.UnreadablePhotoError, tf.errors.InvalidArgumentError) as error:
            if isinstance(picture.data, bytes):
                return picture.fault
            return replace(picture.fault, message=str(error) if isinstance(
                error, formats.UnreadablePhotoError) else formats.reason(data))

    def probabilities(self, pictures: Sequence[Squares]) -> npt.NDArray[np.float64]:
        """float64 [n, classes] of the squares of n photos."""
        from scipy.special import softmax

        if not pictures:
            return np.zeros((0, len(self.names)))
        squares = dict(zip(self.inputs, map(np.stack, zip(*pictures, strict=True)), strict=True))
        # In float64, so that different logits do not round to the same probability.
        by_member = [softmax(logits(squares[each]).numpy().astype(np.float64), axis=-1).mean(0)
                     for each, logits in self._members]
        mean: npt.NDArray[np.float64] = np.mean(by_member, axis=0)
        return mean

    def predict(self, given: Input, classes: Classes | None) -> Iterator[Batch]:
        """Yields the predictions for an input; at most two batches of photos are in memory.

        Args:
            given: the input.
            classes: the classes of labels, if every photo must have one.

        Raises:
            UserError: for a label that is not one of the classes.
        """
        size, ahead = self.batch_size, deque[tuple[Picture, Future[Any]]]()
        read = pictures(given, classes)
        with ThreadPoolExecutor(records.THREADS) as pool:
            while True:
                for picture in itertools.islice(read, 2 * size - len(ahead)):
                    ahead.append((picture, pool.submit(self.squares, picture)))
                if not ahead:
                    return
                found = [(picture, future.result()) for picture, future
                         in (ahead.popleft() for _ in range(min(size, len(ahead))))]
                good = [(picture, *seen) for picture, seen in found
                        if not isinstance(seen, DataIssue)]
                yield Batch(self.names, [picture.identifier for picture, *_ in good],
                            np.array([picture.label for picture, *_ in good], np.int64),
                            np.array([digest for *_, digest in good], np.uint64),
                            self.probabilities([squares for _, squares, _ in good]),
                            [fault for _, fault in found if isinstance(fault, DataIssue)])


def classes_of(given: Input, names: Sequence[str], offset: int, common: bool) -> Classes:
    """How the labels in the records of an input become class ids in `names`: by the class names in
    a file beside the records, if there is one.

    Args:
        offset: label of the first class where there is no such file.
        common: whether images of classes that are not in `names` are left out.

    Raises:
        UserError: without `common`, for records of other classes; with it, of no class in common.
    """
    own = Classes(names, offset)
    places = [str(place) for place in (given.path, *given.path.parents[:2]) if place.is_dir()]
    file = class_names.find(places, None) if given.records else None
    if file is None or (found := class_names.read(file)) is None:
        return own
    labels = dict(zip(found.labels or range(len(found.names)), found.names, strict=True))
    numbers = {label: own.ids.get(name, len(names)) for label, name in labels.items()}
    others = [name for name in found.names if name not in own.ids]
    told = ", ".join(map(one_line, others[:SHOWN])) + " and more" * (len(others) > SHOWN)
    if others and (not common or len(others) == len(labels)):
        raise UserError(f"{file} names {counted(len(others), 'class')} that the run does not know: "
                        f"{told}{nearest(others[0], names)}: "
                        + ("is this its data set?" if common else
                           "give --common (in Python common=True) to leave their images out"))
    if others:
        return Classes(names, offset, numbers, True, f"classes are those of {file}; images of "
                       f"{counted(len(others), 'class')} that the run does not know are left out: "
                       f"{told}")
    if all(label - offset == number for label, number in numbers.items()):
        return own
    return Classes(names, offset, numbers, sentence="the classes are in another order, or have "
                   f"other labels, in {file}: they are matched by name")


def logits_of(model: Any, size: int, views: Sequence[tuple[int, ...]]) -> Any:
    """A function of images uint8 [n, size, size, 3] -> logits float32 [views, n, classes]."""
    def of(images: tf.Tensor) -> tf.Tensor:
        return tf.stack([model(tf.reverse(images, axes) if axes else images, training=False)
                         for axes in views])

    return tf.function(of, input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])


def count(given: Input) -> int:
    """The number of photos in an input, as far as its files can be read."""
    return len(given.pictures) + sum(len(tfrecord.whole_spans(str(path)))
                                      for path in given.records)


def test_labels(file: Path, classes: Classes) -> dict[str, int]:
    """The class id of each test record by its id, of the CSV that an import writes."""
    try:
        rows = pd.read_csv(file, dtype={"id": str, "label": int}, keep_default_na=False)
        return {identifier: classes.numbers.get(label, label)
                for identifier, label in zip(rows["id"], rows["label"], strict=True)}
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{file} cannot be read as a CSV of id,label: {first_line(error)}"
                        ) from error


def pictures(given: Input, classes: Classes | None = None) -> Iterator[Picture]:
    """Yields the photos of an input in order, read one by one, with the issues of bad ones.

    Args:
        classes: the classes of labels, if every photo must have one; with None labels and ids are
            optional, and a record without an id is named by its position.
    """
    for photo, label in zip(given.pictures, given.labels, strict=True):
        place = str(photo.path) if photo.row is None else f"{photo.path}, row {photo.row},"
        yield Picture(photo.identifier, label, photo,
                      DataIssue(place, None, None, "cannot be read"))
    names = features.recognise([str(path) for path in given.records], {}, labelled=False)
    names = names or COMPETITION
    spec = ReadSpec(None, Labels.OPTIONAL, features=names)
    by_id = test_labels(given.test_labels, classes) if given.test_labels and classes else None
    if classes is not None and by_id is None:
        if names.text:  # names tell more than numbers
            names = replace(names, label=names.text, label_kind="text", text=None)
        # The number after the last class stands for those that are left out.
        spec = ReadSpec(None, Labels.REQUIRED, len(classes.names) + classes.common, features=names,
                        label_offset=classes.offset, names=classes.ids, numbers=classes.numbers)
    for path in given.records:
        read = records.inspect(str(path), replace(spec, folder=str(path.parent)))
        for number, record in enumerate(read):
            if by_id is not None and record.image is not None:
                record = record._replace(label=by_id.get(record.id or "", -1))
                if record.label < 0:
                    raise UserError(f"{given.test_labels} has no label of {record.id!r}, record "
                                    f"{number} of {path}")
            if (classes is not None and record.image is not None
                    and not 0 <= record.label < len(classes.names) + classes.common):
                raise UserError(f"{record.issues[0].sentence}: the run knows "
                                f"{counted(len(classes.names), 'class')}; is this its data set?")
            identifier = record.id or f"{path.name}:{number}"
            for fault in record.issues:
                yield Picture(identifier, -1, None, fault)
            if not record.issues and not (classes and record.label == len(classes.names)):
                broken = DataIssue(str(path), number, identifier, BROKEN_IMAGE)
                yield Picture(identifier, record.label, record.image, broken)
