"""A run folder as an object of the Python API: its status, history, predictions and model."""

import base64
import csv
import html
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flowerexp import metrics
from flowerexp.config import Config, one_of
from flowerexp.errors import UserError
from flowerexp.runs import reader, store
from flowerexp.runs.status import RunStatus


class Run:
    """A run folder, in any state; its files are read on access. A run is also its folder's path.

    Args:
        folder: the run folder.
        trust_code: whether its model may import your own code that the folder names.

    Raises:
        UserError: for a folder that holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str], trust_code: bool = False) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise UserError(f"{folder!r} is not the path of a run folder: flowerexp.load_runs "
                            "takes several")
        self.folder = Path(folder)
        self.trust_code: bool = trust_code or getattr(folder, "trust_code", False)
        if not (self.folder / store.CONFIG).is_file():
            raise UserError(f"{folder} is not a run folder (it has no {store.CONFIG}): "
                            "flowerexp.load_runs finds the runs below a folder")

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def config(self) -> Config:
        """The checked config."""
        return store.read_config(self.folder)

    @property
    def status(self) -> RunStatus:
        """The current state, times, error, versions, hardware and data."""
        status = RunStatus.load(self.folder)
        return replace(status, state=reader.state_of(self.folder, status))

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch, counted from 1: `train loss`, ... `valid f1`, `train timing` (seconds).

        Undefined values are NaN.
        """
        rows = store.read_history(self.folder)
        return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="epoch"), dtype=float)

    def predictions(self, split: str = "valid") -> pd.DataFrame:
        """The run's own predictions, a row per image in the order of the data set.

        The columns are `id`, `label` and `prediction` (names of classes), then the probability of
        each class under its name. The epoch is that of `results.use`, chosen among the epochs so
        far if the run is not finished. Ids are missing in folders of earlier versions, labels in
        the test set, and the columns of probabilities in a folder without them.

        Args:
            split: valid | test.

        Raises:
            UserError: if the folder has no predictions of the split, or they cannot be read.
        """
        one_of("split", split, ("valid", "test"))
        ids, labels, predictions = self._valid() if split == "valid" else self._test()
        names = store.read_classes(self.folder)[0]

        def named(classes: list[Any]) -> list[str | None]:
            known = dict(enumerate(names))
            return [None if each is None else known.get(each, str(each)) for each in classes]

        found = pd.DataFrame({"id": [each or None for each in ids], "label": named(labels),
                              "prediction": named(predictions)}, dtype="string")
        path = self.folder / (store.VALID_PROBABILITIES if split == "valid"
                              else store.TEST_PROBABILITIES)
        if not path.exists():
            return found
        try:
            probabilities = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} cannot be read ({error}): restore it, or remove it") from error
        if probabilities.shape != (len(found), len(names)):
            raise UserError(f"{path} does not hold a probability for every image and class: "
                            "restore it, or remove it")
        columns = pd.DataFrame(probabilities.astype(np.float64), columns=names)
        return pd.concat([found, columns], axis=1)

    def _valid(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Ids, labels and predictions of the validation set."""
        read = reader.read_run(self.folder)
        if read.state == "unreadable":
            raise UserError(str(read.error))
        epoch = reader.chosen_epoch(read, read.keys.get("results.use", "last"))
        if read.history and metrics.best_epoch(read.history) is None:
            raise UserError(f"{self.folder} was trained on all images: it has no validation set")
        if epoch is None or not len(read.predictions):
            raise UserError(f"{self.folder} has no predictions on the validation set yet")
        ids: list[Any] = list(read.ids) or [None] * len(read.labels)
        return ids, read.labels.tolist(), read.predictions[epoch].tolist()

    def _test(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Ids, missing labels and predictions of the test set."""
        path = self.folder / store.SUBMISSION
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))[1:]
            return [row[0] for row in rows], [None] * len(rows), [int(row[1]) for row in rows]
        except FileNotFoundError:
            raise UserError(f"{self.folder} has no predictions on the test set: the run is not "
                            "finished, or its data set has no test split") from None
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} cannot be read ({error}): restore it") from error

    def model(self, weights: str | None = None) -> Any:
        """Loads the Keras model, images [n, size, size, 3] (0 to 255) to logits [n, classes].

        Args:
            weights: best or last epoch; by default the run's `results.use`.

        Raises:
            UserError: for a run that is not finished, or whose model cannot be read.
        """
        from flowerexp.inference import trained

        return trained.load(trained.find(self.folder, weights, self.trust_code))[0]

    def __repr__(self) -> str:
        facts = self._facts(reader.read_run(self.folder))
        parts = [facts["state"], f"{facts['epochs']} epochs"]
        if "validation f1" in facts:
            parts.append(f"best validation F1 {facts['validation f1']}")
        parts += facts.get("error", "").splitlines()[:1]
        return f"<Run {self.folder}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        read = reader.read_run(self.folder)
        table = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
                        for name, value in self._facts(read).items())
        return f"<table>{table}</table>{self._picture(read)}"

    def _facts(self, read: reader.Run) -> dict[str, str]:
        """What a notebook shows of the run, with the scores of its best epoch."""
        facts = {"run": str(self.folder), "state": read.state,
                 "epochs": f"{len(read.history)} of {read.epochs or '?'}"}
        facts |= {"error": read.error} if read.error else {}
        if (best := metrics.best_epoch(read.history)) is not None:
            facts |= {"best epoch": str(best + 1)} | {
                f"validation {name}": f"{read.history[best][f'valid {name}'] or 0.0:.4f}"
                for name in metrics.NAMES}
        return facts

    def _picture(self, read: reader.Run) -> str:
        """The plot of the history as an img element; empty before the first epoch."""
        if not read.history:
            return ""
        path = self.folder / "history.png"
        if path.is_file():
            content = path.read_bytes()
        else:
            from flowerexp.plots import history, style

            content = style.png(history.draw([read.history]))
        encoded = base64.b64encode(content).decode()
        return f'<img alt="metrics by epoch" src="data:image/png;base64,{encoded}">'
