"""The Python API: what it offers, what runs in which process, and what a notebook shows."""

import builtins
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flowerexp
from flowerexp.api import results, training
from flowerexp.runs import store
from tests import forked
from tests.folders import LABELS, PREDICTIONS, write_experiment, write_healthy, write_run
from tests.processes import same_results

ROOT = Path(__file__).parents[2]
IMPORTED = """
import sys, time
start = time.process_time()
import flowerexp
seconds = time.process_time() - start
names = dir(flowerexp)
loaded = [name for name in ("numpy", "hydra", "pandas", "tensorflow") if name in sys.modules]
flowerexp.compose("seed=3")
runs = flowerexp.load_runs(sys.argv[1])
repr(runs), runs[0]._repr_html_(), runs[0].history, runs[0].predictions(), runs[0].config
flowerexp.compare(*runs, pairs=["optimized_loop:original"]).differences
print(seconds < 0.1, loaded, set(flowerexp.__all__) <= set(names), "tensorflow" in sys.modules)
"""


def tiny_overrides(tiny, *overrides):
    """A run of 2 epochs of 10 updates on the tiny data set."""
    return ["dataset=tfrecords", f"dataset.root={tiny}", "loop.epochs=2",
            "loop.batch_size_per_replica=4", "callbacks=none", *overrides]


# The package

def test_importing_is_quick_and_reading_needs_no_tensorflow(tmp_path):
    write_healthy(tmp_path)
    done = subprocess.run([sys.executable, "-c", IMPORTED, tmp_path], capture_output=True,
                          text=True, check=True, cwd=ROOT, timeout=120)
    assert done.stdout.split("\n")[-2] == "True [] True False", done.stdout


def test_every_public_name_is_there_and_another_is_not():
    assert all(callable(getattr(flowerexp, name)) for name in flowerexp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flowerexp.nothing  # noqa: B018


# Configs

def test_a_composed_config_prints_as_yaml_and_knows_its_folder():
    config = flowerexp.compose("sampling=oversample_300", "loop.epochs=3")
    assert config.loop.epochs == 3
    assert config.folder == Path("outputs/loop.epochs=3+sampling=oversample_300+seed=0")
    assert "\n  epochs: 3\n" in str(config)
    assert repr(config) == "<ComposedConfig of sampling=oversample_300 loop.epochs=3>"
    assert config._repr_html_().startswith("<pre>seed: 0\n")
    with pytest.raises(flowerexp.UserError, match='compose again with "seed=1"'):
        config.seed = 1
    with pytest.raises(flowerexp.UserError, match=r'loop\.epochs of .* "loop\.epochs=4"'):
        config.loop.epochs = 4
    assert config.loop.epochs == 3
    assert "max_lr: 0.001" in str(config.schedule)
    assert config.compared_with == ()
    with pytest.raises(AttributeError, match=r"key loop\.epoch; did you mean 'loop\.epochs'"):
        config.loop.epoch  # noqa: B018


@pytest.mark.parametrize(("override", "message"), [
    ("model=nope", "model=nope does not exist"), ("loop.epochs=0", "must be at least 1"),
    ("loop.epoch=2", "did you mean 'loop.epochs'"), ("seed=1,2", "several values are a sweep"),
    ("sweep=notebook", "use flowerexp.sweep"), ("name=a/b", "without slashes")])
def test_mistakes_raise_one_exception_of_one_line(override, message):
    with pytest.raises(flowerexp.UserError, match=message) as mistake:
        flowerexp.compose(override)
    assert "\n" not in str(mistake.value)


def test_own_groups_are_found(tmp_path):
    (tmp_path / "loss").mkdir()
    shutil.copyfile(ROOT / "conf/loss/cross_entropy.yaml", tmp_path / "loss/mine.yaml")
    config = flowerexp.compose("loss=mine", config_dir=tmp_path)
    assert config.folder == Path("outputs/loss=mine+seed=0")
    with pytest.raises(flowerexp.UserError, match="loss=mine does not exist"):
        flowerexp.compose("loss=mine")


# Runs and sweeps

def test_a_run_is_interrupted_resumed_and_then_returned(tmp_path, tiny):
    """In processes of their own, so that a second run in this process is like the first."""
    printed = forked.call(interrupted_resumed_returned, tmp_path, tiny)
    assert printed.count("resuming from") == 1
    assert printed.count("finished run") == 1
    assert printed.index("resuming from") < printed.index("finished run")


def interrupted_resumed_returned(tiny):
    config = flowerexp.compose(*tiny_overrides(tiny))

    def interrupting(text="", **options):
        if text.startswith("hardware:"):  # long before the last epoch
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(builtins, "print", interrupting)
        with pytest.raises(KeyboardInterrupt):
            flowerexp.run(config)
    found = flowerexp.load_run(config.folder)
    assert found.status.state == "interrupted"
    assert len(found.history) < 2
    finished = flowerexp.run(config)
    assert finished.status.state == "done"
    assert finished.history.index.tolist() == [1, 2]
    again = flowerexp.run(config)
    assert again.folder == finished.folder == config.folder
    straight = flowerexp.run(config, folder=Path.cwd() / "it's another")
    same_results(straight.folder, finished.folder)


def test_a_run_that_fails_or_cannot_start_raises_its_sentence(tmp_path, tiny):
    forked.call(failing_runs, tmp_path, tiny)


def failing_runs(tiny):
    broken = flowerexp.compose(*tiny_overrides(tiny, "schedule.max_lr=1e30", "name=broken"))
    with pytest.raises(flowerexp.UserError, match="the loss is NaN or infinite"):
        flowerexp.run(broken)
    assert flowerexp.load_run("outputs/broken").status.state == "failed"
    assert ": failed, 0 of 2 epochs, the loss is NaN" in repr(flowerexp.load_run("outputs/broken"))
    other = flowerexp.compose("dataset=tfrecords", "dataset.root=nowhere")
    with pytest.raises(flowerexp.UserError, match="nowhere"):
        flowerexp.run(other)
    with pytest.raises(flowerexp.UserError, match="takes a config"):
        flowerexp.run("dataset=sample")
    with pytest.raises(flowerexp.UserError, match="dry_run=true trains nothing"):
        flowerexp.run(flowerexp.compose("dry_run=true"))


def test_a_sweep_returns_its_runs_and_names_those_that_fail(tmp_path, tiny):
    forked.call(sweep_with_a_failure, tmp_path, tiny)


def sweep_with_a_failure(tiny):
    overrides = tiny_overrides(tiny, "schedule.max_lr=0.001,1e30", "loop.epochs=1")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "_execute", lambda words, config_dir: (0, ""))
        assert flowerexp.sweep(*overrides, "dry_run=true") == []
    with pytest.raises(flowerexp.UserError) as failed:
        flowerexp.sweep(*overrides)
    assert "1 of 2 runs in outputs/schedule.max_lr did not finish" in str(failed.value)
    assert "the loss is NaN" in str(failed.value)
    runs = flowerexp.load_runs("outputs")
    assert sorted(run.status.state for run in runs) == ["done", "failed"]
    with pytest.raises(flowerexp.UserError, match="must be at least 1"):
        flowerexp.sweep("loop.epochs=1,0")


def test_what_a_child_leaves_without_a_sentence_of_its_own(monkeypatch):
    """As where the system kills it."""
    monkeypatch.setattr(training, "CHILD", "import os; print('line'); os.kill(os.getpid(), 9)")
    assert training._execute([], None) == (-9, "")


# A run folder as an object

def test_a_fresh_run_is_returned_from_the_folder_that_the_child_chose(tmp_path, monkeypatch):
    config = flowerexp.compose("experiment=original", "fresh=true")
    for name in ("a", "a.2", "a.2"):  # begun, a second one, which is then resumed
        def execute(words, config_dir, name=name):
            write_run(tmp_path / name, ["experiment=original"], [0, 1], [[0, 1]])
            return 0, ""

        monkeypatch.setattr(training, "_execute", execute)
        assert flowerexp.run(config, tmp_path / "a").folder == tmp_path / name


def test_history_and_predictions_are_those_of_the_files(trained_run):
    run = flowerexp.load_run(trained_run)
    rows = store.read_history(trained_run)
    assert run.history["valid f1"].tolist() == [row["valid f1"] for row in rows]
    assert run.history.index.name == "epoch"
    names = store.read_classes(trained_run)[0]
    found = run.predictions()
    assert found.columns.tolist() == ["id", "label", "prediction", *names]
    assert found["id"].str.startswith("val").all()
    labels = json.loads((trained_run / "valid_labels.json").read_text())
    assert found["label"].tolist() == [names[label] for label in labels]
    last = store.read_predictions(trained_run, len(labels))[-1]
    assert found["prediction"].tolist() == [names[label] for label in last]
    assert (found["label"] == found["prediction"]).mean() == pytest.approx(rows[-1]["valid acc"])
    np.testing.assert_array_equal(found[names], np.load(trained_run / "valid_probs.npy"))


def test_predictions_on_the_test_set(trained_run):
    found = flowerexp.load_run(trained_run).predictions("test")
    names = store.read_classes(trained_run)[0]
    assert found["label"].isna().all()
    submission = pd.read_csv(trained_run / "submission.csv", dtype=str)
    assert found["id"].tolist() == submission["id"].tolist()
    assert found["prediction"].tolist() == [
        names[label] for label in json.loads((trained_run / "test_preds.json").read_text())]


def test_a_folder_of_an_earlier_version_has_no_ids_and_no_probabilities(tmp_path):
    run = flowerexp.load_run(write_experiment(tmp_path, "original", ids=[]))
    found = run.predictions()
    assert found.columns.tolist() == ["id", "label", "prediction"]
    assert found["id"].isna().all()
    assert found["prediction"].tolist() == [f"class {label}" for label in PREDICTIONS[-1]]
    assert found["label"].tolist() == [f"class {label}" for label in LABELS]
    with pytest.raises(flowerexp.UserError, match="no predictions on the test set"):
        run.predictions("test")
    with pytest.raises(flowerexp.UserError, match="split must be one of"):
        run.predictions("train")


@pytest.mark.parametrize(("name", "content"), [
    (store.VALID_IDS, b"[1]"), (store.VALID_PROBABILITIES, b"no array"), (store.HISTORY, b"{")])
def test_a_damaged_file_is_one_sentence_and_repr_still_works(tmp_path, name, content):
    folder = write_experiment(tmp_path, "original")
    (folder / name).write_bytes(content)
    run = flowerexp.load_run(folder)
    with pytest.raises(flowerexp.UserError, match=name):
        run.predictions()
    assert str(folder) in repr(run)
    assert "<table>" in run._repr_html_()


def test_a_run_shows_itself_in_a_line_and_in_a_notebook(tmp_path):
    folder = write_experiment(tmp_path, "original", state="failed", error="no <space>\nleft")
    run = flowerexp.load_run(folder)
    best = run.history["valid f1"].max()
    assert repr(run) == (f"<Run {folder}: failed, 3 of 3 epochs, best validation F1 {best:.4f}, "
                         "no <space>>")
    page = run._repr_html_()
    assert "no &lt;space&gt;" in page
    assert "data:image/png;base64,iVBOR" in page


def test_what_is_no_text_is_refused(tmp_path):
    write_healthy(tmp_path)
    for call in (flowerexp.compose, flowerexp.sweep):
        for wrong in (3, ["loop.epochs=3"]):
            with pytest.raises(flowerexp.UserError, match="is not an override: give texts"):
                call(wrong)
    for wrong in (3, [3], [("a", "b")]):
        with pytest.raises(flowerexp.UserError, match="is not a list of texts"):
            flowerexp.compare(tmp_path, pairs=wrong)


def test_what_is_no_run_folder_is_refused(tmp_path):
    write_healthy(tmp_path)
    with pytest.raises(flowerexp.UserError, match=r"is not a run folder.*load_runs"):
        flowerexp.load_run(tmp_path)
    with pytest.raises(flowerexp.UserError, match="does not exist"):
        flowerexp.load_runs(tmp_path / "nothing")
    for wrong in (None, 3, b"original+seed=0", [None], [tmp_path, 3]):
        for load in (flowerexp.load_run, flowerexp.load_runs, flowerexp.compare):
            with pytest.raises(flowerexp.UserError, match=r"is (neither a run|not the path)"):
                load(wrong)


def test_runs_are_loaded_from_runs_paths_and_lists_of_them(tmp_path):
    write_healthy(tmp_path)
    names = ["optimized_loop+seed=0", "optimized_loop+seed=1", "original+seed=0", "original+seed=1"]
    runs = flowerexp.load_runs(tmp_path, trust_code=True)
    for given in ([str(tmp_path)], [[tmp_path]], runs, [runs], [tmp_path, runs[0]]):
        assert [run.folder.name for run in flowerexp.load_runs(*given)] == names
    again = flowerexp.load_run(runs[2])
    assert (again.folder, again.trust_code) == (tmp_path / names[2], True)
    assert flowerexp.load_run(str(tmp_path / names[2])).folder == again.folder
    assert all(run.trust_code for run in flowerexp.load_runs(runs))
    assert not flowerexp.load_runs([runs[0], tmp_path])[0].trust_code
    assert (Path(again) / "history.json").is_file()


def test_runs_and_folders_are_compared_alike(tmp_path):
    write_healthy(tmp_path)
    by_folder = flowerexp.compare(tmp_path, pairs=["optimized_loop:original"])
    by_run = flowerexp.compare(flowerexp.load_runs(tmp_path), pairs=["optimized_loop:original"])
    pd.testing.assert_frame_equal(by_folder.differences, by_run.differences)
    assert by_folder.differences["metric"].tolist()[:4] == ["acc", "recall", "precision", "f1"]


# Inference

def test_the_model_predicts_what_the_run_predicted(trained_run, tiny, tmp_path):
    run = flowerexp.load_run(trained_run)
    assert run.model().output_shape == (None, 3)
    own = run.predictions()
    found = flowerexp.predict(run, tiny / "val")
    assert found["id"].tolist() == own["id"].tolist()
    assert found["class_name"].tolist() == own["prediction"].tolist()
    scores = flowerexp.evaluate([run, trained_run], tiny)
    assert scores["acc"] == pytest.approx(run.history["valid acc"].iloc[-1])
    assert list(scores) == ["acc", "recall", "precision", "f1"]
    assert scores.confusion.sum() == len(own)
    assert f"accuracy {scores['acc']:.4f}, macro recall" in scores.report()
    assert found.attrs["skipped"] == scores.skipped == []
    (tmp_path / "link").symlink_to("exported")
    (tmp_path / "exported").mkdir()
    assert flowerexp.export(run, tmp_path / "link") == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "exported/saved_model").is_dir()


def test_photos_that_cannot_be_read_are_a_warning(trained_run, tiny, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    with pytest.raises(flowerexp.UserError, match="no image can be used"):
        flowerexp.predict(trained_run, tmp_path)
    shutil.copyfile(ROOT / "docs/comparison.png", tmp_path / "good.png")
    with pytest.warns(UserWarning, match=r"1 photo left out.*bad\.jpg"):
        found = flowerexp.predict(trained_run, tmp_path)
    assert found["id"].tolist() == ["good.png"]
    (skipped,) = found.attrs["skipped"]
    assert skipped.startswith(f"{tmp_path / 'bad.jpg'} is not a photo that can be read")


@pytest.mark.parametrize("options", [{"weights": "first"}, {"flip": "diagonal"}])
def test_an_unknown_option_of_inference_is_a_sentence(trained_run, tiny, options):
    with pytest.raises(flowerexp.UserError, match="must be one of"):
        flowerexp.predict(trained_run, tiny / "test", **options)


def test_trust_is_asked_of_the_call_or_of_every_run(trained_run, monkeypatch):
    asked = []
    monkeypatch.setattr(results.trained, "find_all", lambda *given: asked.append(given[2]) or 1 / 0)
    plain, trusted = (flowerexp.load_run(trained_run, trust_code=trust) for trust in (False, True))
    for runs, trust_code in ((plain, False), (plain, True), (trusted, False),
                             ([trusted, trusted], False), ([trusted, plain], False),
                             ([trusted, trained_run], False)):
        with pytest.raises(ZeroDivisionError):
            flowerexp.predict(runs, "photos", trust_code=trust_code)
    assert asked == [False, True, True, True, False, False]


def test_the_callers_process_keeps_its_error_stream(trained_run, tiny, capfd):
    flowerexp.predict(trained_run, tiny / "test", flip="horizontal")
    os.write(2, b"still here")
    assert "still here" in capfd.readouterr().err
