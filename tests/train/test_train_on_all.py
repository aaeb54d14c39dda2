"""A run with train_on=all: no validation, and everything that reads its folder copes."""

import json
import shutil

import numpy as np
import pytest

import flowerexp
from flowerexp.comparison import comparison, tables
from flowerexp.errors import UserError
from flowerexp.runs import reader, store
from flowerexp.runs.status import RunStatus
from flowerexp.train import checkpoint, launch
from tests.compose import sentence
from tests.processes import command_here, history_of, read, train


@pytest.fixture(scope="module")
def everything(tiny, tmp_path_factory):
    return train(tmp_path_factory.mktemp("all") / "everything", tiny, "train_on=all",
                 "loop.epochs=2")


def test_it_trains_on_both_splits_and_says_that_it_has_no_validation(everything):
    log = (everything / "run.log").read_text()
    assert ("train_on=all: the 53 images of train and val are trained on and none is held out: "
            "this run has no validation scores") in log
    assert "last: epoch 2, train acc" in log
    assert "nothing was held out to validate with" in log
    history = history_of(everything)
    assert len(history) == 2
    assert not [key for row in history for key in row if key.startswith("valid")]
    assert read(everything, "valid_ids.json") == read(everything, "valid_labels.json") == []
    assert read(everything, "valid_preds.json") == {"0": [], "1": []}
    assert sum(read(everything, "classes.json")["train counts"]) == 53
    assert len(read(everything, "test_preds.json")) == 7
    assert np.load(everything / "valid_probs.npy").shape == (0, 3)
    assert (everything / "history.png").exists()


def test_it_resumes(everything, tmp_path):
    folder = shutil.copytree(everything, tmp_path / "stopped")
    checkpoint.remove(checkpoint.folder_of(folder, checkpoint.saved_updates(folder)[-1]))
    status = json.loads((folder / store.STATUS).read_text()) | {"state": "interrupted"}
    (folder / store.STATUS).write_text(json.dumps(status))
    assert launch.resume(folder) == 0
    assert "1 of 2 epochs" in (folder / "run.log").read_text()
    assert read(folder, "test_preds.json") == read(everything, "test_preds.json")
    assert RunStatus.load(folder).state == "done"


def test_a_comparison_has_it_beside_a_run_with_validation(everything, trained_run, tmp_path):
    found = comparison.compare([everything, trained_run],
                               [f"{everything}:{trained_run}"])
    rows = found.table.set_index("name")
    assert np.isnan(rows.loc["everything", "last f1"])
    assert rows.loc["everything", "last epoch"] == 2
    assert not found.pairs
    assert "has no predictions for the validation set" in found.notes[0]
    for text in tables.FORMATS.values():
        assert "everything" in text(found)
    assert found.to_html(tmp_path / "report.html").exists()
    assert reader.read_run(everything).state == "done"


def test_it_predicts_and_exports_its_last_epoch(everything, tiny, tmp_path):
    run = flowerexp.load_run(everything)
    assert "2 epochs" in repr(run)
    assert "<table>" in run._repr_html_()
    assert len(run.history) == 2
    assert len(run.predictions("test")) == 7
    assert len(flowerexp.predict(run, tiny)) == 7
    assert flowerexp.evaluate(run, tiny)["acc"] >= 0
    for call in (lambda: run.predictions("valid"),
                 lambda: flowerexp.export(run, tmp_path / "served", weights="best")):
        with pytest.raises(UserError, match="trained on all images"):
            call()
    assert not (tmp_path / "served").exists()


def test_eda_has_no_validation_set(tiny, tmp_path):
    code, output = command_here("eda", "dataset=tfrecords", f"dataset.root={tiny}", "hardware=cpu",
                                "train_on=all", "--output", tmp_path)
    assert code == 0, output
    assert "train: 53 images" in output
    assert not (tmp_path / "pictures" / "labels-validation.png").exists()


@pytest.mark.usefixtures("hydra_of_the_project")
@pytest.mark.parametrize(("override", "key"), [
    ("loop.patience=3", "loop.patience"), ("results.use=best", "results.use=best"),
    ("callbacks.early_stopping.patience=2", "loop.patience"),
    ("dataset.validation=0.2", "dataset.validation")])
def test_what_needs_validation_is_refused_with_it(override, key):
    assert sentence("train_on=all", override) == (
        f"flowerexp: train_on=all holds out no validation images, which {key} needs: leave one of "
        "them out")
