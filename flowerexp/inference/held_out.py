"""Keeps what a run predicted for labelled images in its folder, and on which it was trained."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowerexp.data import splits
from flowerexp.data.tables import Table
from flowerexp.errors import UserError
from flowerexp.inference.prediction import Evaluation
from flowerexp.inference.trained import TrainedRun
from flowerexp.metrics import Ids
from flowerexp.runs import evaluations, store
from flowerexp.runs.evaluations import Evaluated


class Judged(NamedTuple):
    """The labelled images that a run predicted, in order.

    labels, predictions: class ids, int [images].
    digests: uint64 [images], see `tables.image_digest`.
    """

    ids: Sequence[str]
    labels: Ids
    digests: npt.NDArray[np.uint64]
    predictions: Ids


def keep(run: TrainedRun, data: str, flip: str | None, judged: Judged, scores: Evaluation
         ) -> Evaluated:
    """Writes the evaluation of a run to its folder; raises OSError if that cannot be written.

    Args:
        data: the path of the data, as given.
        flip: see `prediction.FLIPS`.
        judged: the images and their predictions.
        scores: their scores.
    """
    evaluated = Evaluated(data, content(run.names, judged), run.weights, flip, run.names,
                          tuple(judged.ids), tuple(judged.labels.tolist()),
                          tuple(judged.predictions.tolist()),
                          dict(scores), trained_on(run, judged))
    evaluations.write(run.folder, evaluated)
    return evaluated


def content(names: Sequence[str], judged: Judged) -> str:
    """A hash of ids, images and the names of their classes, whatever the order of the classes."""
    named = [names[label] for label in judged.labels.tolist()]
    found = hashlib.sha256(json.dumps([list(judged.ids), named]).encode())
    found.update(judged.digests.astype("<u8").tobytes())
    return found.hexdigest()[:16]


def trained_on(run: TrainedRun, judged: Judged) -> dict[str, int]:
    """How many of the `images` the run was trained on, byte by byte, and how many images are in
    a group (`images of groups`) that it was trained on; empty for runs of the first versions, and
    without the groups if the run's file of groups is gone or names none of these images.
    """
    trained = store.read_train_images(run.folder)
    if not trained:
        return {}
    digests, groups = {digest for digest, _ in trained}, {group for _, group in trained} - {""}
    found = {"images": sum(digest in digests for digest in judged.digests.tolist())}
    table = Table(None, judged.labels.astype(np.int32), list(judged.ids), judged.digests)
    with contextlib.suppress(UserError):  # of the file of groups
        grouped = splits.with_groups({"test": table}, run.config.dataset)["test"].groups
        found["images of groups"] = sum(group in groups for group in grouped)
    return found
