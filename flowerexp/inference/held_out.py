"""Keeps what a run predicted for labelled images in its folder, and on which it was trained."""

import hashlib
import json

from flowerexp.data import splits
from flowerexp.data.tables import Table
from flowerexp.inference.prediction import Evaluation
from flowerexp.inference.trained import TrainedRun
from flowerexp.metrics import Ids
from flowerexp.runs import evaluations, store
from flowerexp.runs.evaluations import Evaluated


def keep(run: TrainedRun, data: str, flip: str | None, table: Table, predictions: Ids,
         scores: Evaluation) -> Evaluated:
    """Writes the evaluation of a run to its folder; raises OSError if that cannot be written.

    Args:
        data: the path of the data, as given.
        flip: see `prediction.FLIPS`.
        table: ids, labels and digests of the images.
        predictions: the most probable classes, int [images].
        scores: their scores.
    """
    labels = table.labels.tolist()
    content = hashlib.sha256(json.dumps([run.names, table.ids, labels]).encode())
    content.update(table.digests.astype("<u8").tobytes())
    evaluated = Evaluated(data, content.hexdigest()[:16], run.weights, flip, run.names,
                          tuple(table.ids), tuple(labels), tuple(predictions.tolist()),
                          dict(scores), trained_on(run, table))
    evaluations.write(run.folder, evaluated)
    return evaluated


def trained_on(run: TrainedRun, table: Table) -> dict[str, int]:
    """How many `images` of a table the run was trained on, byte by byte, and how many images are in
    a group (`images of groups`) that it was trained on; empty for runs of the first versions.
    """
    trained = store.read_train_images(run.folder)
    if not trained:
        return {}
    groups = {group for _, group in trained} - {""}
    grouped = splits.with_groups({"test": table}, run.config.dataset)["test"] if groups else table
    digests = {digest for digest, _ in trained}
    return {"images": sum(digest in digests for digest in table.digests.tolist()),
            "images of groups": sum(group in groups for group in grouped.groups)}
