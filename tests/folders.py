"""Run folders made by hand for the tests of what reads them; the files are those of a real run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowerexp import composition, metrics, results


def write_run(folder: Path, overrides: Sequence[str], labels: Sequence[int],
              predictions: Sequence[Sequence[int]], seconds: Sequence[float] | None = None,
              names: Sequence[str] | None = None, counts: Sequence[int] | None = None,
              state: str = "done", error: str | None = None, epochs: int | None = None) -> Path:
    """A run of real overrides with these validation predictions; its scores follow from them.

    Args:
        overrides: as on the command line, for example `experiment=original`, `seed=1`.
        labels: [images] of the validation set.
        predictions: [epochs][images].
        seconds: of every epoch; 10, 8, 8, ... unless given.
        names, counts: of the classes; `class 0` and so on, 100 over (1 + class) unless given.
        epochs: planned; as many as there are predictions unless given.
    """
    composition.register()
    names = names or [f"class {label}" for label in range(max(labels) + 1)]
    counts = counts or [100 // (1 + label) for label in range(len(names))]
    seconds = seconds or [10.0, *[8.0] * len(predictions)]
    results.write_config(folder, composition.compose(overrides), overrides)
    results.write_classes(folder, names, counts)
    results.write_json(folder / results.VALID_LABELS, list(labels))
    results.write_predictions(folder, predictions)
    history = []
    for epoch, ids in enumerate(predictions):
        matrix = metrics.confusion_matrix(np.array(labels), np.array(ids), len(names))
        loss = 2.0 / (1 + epoch)
        history.append(metrics.epoch_scores("train", loss, matrix)
                       | metrics.epoch_scores("valid", loss + 0.1, matrix)
                       | {"train timing": seconds[epoch]})
    results.write_history(folder, history)
    status = {"state": state, "error": error, "epochs_done": len(predictions),
              "epochs": epochs or len(predictions),
              "beginning": {"replicas": 1, "epochs": epochs or len(predictions),
                            "data": "0123456789abcdef"}}
    results.write_json(folder / results.STATUS,
                       {key: value for key, value in status.items() if value is not None})
    return folder
