"""Keeps what a run predicted for labelled images in its folder, and on which it was trained."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowerexp.data import splits
from flowerexp.data.tables import Table
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
    ids, labels = list(judged.ids), judged.labels.tolist()
    content = hashlib.sha256(json.dumps([run.names, ids, labels]).encode())
    content.update(judged.digests.astype("<u8").tobytes())
    evaluated = Evaluated(data, content.hexdigest()[:16], run.weights, flip, run.names,
                          tuple(ids), tuple(labels), tuple(judged.predictions.tolist()),
                          dict(scores), trained_on(run, judged))
    evaluations.write(run.folder, evaluated)
    return evaluated


def trained_on(run: TrainedRun, judged: Judged) -> dict[str, int]:
    """How many of the `images` the run was trained on, byte by byte, and how many images are in
    a group (`images of groups`) that it was trained on; empty for runs of the first versions.
    """
    trained = store.read_train_images(run.folder)
    if not trained:
        return {}
    groups = {group for _, group in trained} - {""}
    table = Table(None, judged.labels.astype(np.int32), list(judged.ids), judged.digests)
    grouped = splits.with_groups({"test": table}, run.config.dataset)["test"] if groups else table
    digests = {digest for digest, _ in trained}
    return {"images": sum(digest in digests for digest in table.digests.tolist()),
            "images of groups": sum(group in groups for group in grouped.groups)}
