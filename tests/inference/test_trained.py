"""The weights that are chosen, of model.keras or of a checkpoint, and files that hold code."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import flowerexp
from flowerexp.errors import UserError
from flowerexp.inference import trained
from flowerexp.runs import store
from tests.processes import command_here as command
from tests.processes import read


def test_the_weights_of_a_checkpoint_are_those_of_its_epoch(trained_run, tiny):
    """Of the best epoch, which model.keras of this run does not hold."""
    run = trained.find(trained_run, "best")
    assert not run.saved
    confusion = flowerexp.evaluate(trained_run, tiny, weights="best").confusion
    labels, predictions = (read(trained_run, "valid_labels.json"),
                           read(trained_run, "valid_preds.json")[str(run.epoch)])
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, predictions), 1)
    np.testing.assert_array_equal(confusion, expected)
    of_both = [trained.load(trained.find(trained_run, name))[0].get_weights()
               for name in ("best", "last")]
    assert any((one != other).any() for one, other in zip(*of_both, strict=True))


def test_inference_takes_the_memory_of_gpus_as_needed(trained_run, monkeypatch):
    """As training does; a process that has used them before keeps its own rule."""
    grown, find = [], tf.config.list_physical_devices
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: (
        ["a GPU"] if kind == "GPU" else find(kind)))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth",
                        lambda device, grows: grown.append((device, grows)))
    trained.load(trained.find(trained_run))
    assert grown == [("a GPU", True)]

    def refuse(device, grows):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    assert flowerexp.load_run(trained_run).model().output_shape == (None, 3)


def test_a_checkpoint_that_is_gone_or_of_another_run(copied, tiny):
    shutil.rmtree(copied / "checkpoints")
    code, said = command("evaluate", copied, tiny, "--weights", "best")
    assert code == 1
    assert "of the best epoch" in said
    assert "which --weights last takes" in said
    assert command("evaluate", copied, tiny)[0] == 0
    config = copied / store.CONFIG
    config.write_text(config.read_text().replace("use: last", "use: best"))
    assert trained.find(copied, "best").saved


def test_code_in_a_model_is_refused_and_does_not_run(copied, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = tf.keras.Input((16, 16, 3))
    attack = tf.keras.layers.Lambda(
        lambda x: (__import__("pathlib").Path("harmed").touch(), x)[1], output_shape=(16, 16, 3))
    pooled = tf.keras.layers.GlobalAveragePooling2D()(attack(inputs))
    hostile = tf.keras.Model(inputs, pooled)
    hostile.save(copied / "model.keras")
    (tmp_path / "harmed").unlink(missing_ok=True)
    code, said = command("predict", copied, tiny)
    assert code == 1
    assert "asks for code that is not of Keras (a Lambda layer), which is never run" in said
    assert not (tmp_path / "harmed").exists()
    tf.keras.models.load_model(copied / "model.keras", safe_mode=False)(np.zeros((1, 16, 16, 3)))
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("layer", [
    {"class_name": "function", "config": "system", "module": "os", "registered_name": "function"},
    {"class_name": "function", "config": "system", "module": "os",
     "registered_name": "flowerexp>KeyedDropout"},
    {"class_name": "Popen", "config": {"args": ["x"]}, "module": "subprocess"},
    {"class_name": "TFOpLambda", "config": {"function": "io.write_file"},
     "module": "keras.layers"}])
def test_what_a_model_names_of_other_modules_is_refused(copied, layer):
    """Legacy Keras would import it."""
    path = copied / "model.keras"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][1]["config"]["activation"] = layer
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="asks for code that is not of Keras"):
        trained.load_model(path)
