"""An export against predict: in a process that has TensorFlow alone, and in either Keras."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.errors import UserError
from flowerexp.inference import export, inputs, prediction, trained
from flowerexp.runs import store

FRESH = """
import json, sys
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
jpeg = tf.constant([open(path, "rb").read() for path in sys.argv[2:]])
found = {name: value.numpy().tolist() for name, value
         in loaded.signatures["serving_default"](jpeg=jpeg).items()}
for key in ("class_name",):
    found[key] = [text.decode() for text in found[key]]
found["class_names"] = [text.decode() for text in
                        loaded.signatures["class_names"]()["class_names"].numpy().tolist()]
found["modules"] = [name for name in sys.modules if name.startswith("flowerexp")]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """Pictures of several sizes."""
    folder = tmp_path_factory.mktemp("jpegs")
    random = np.random.default_rng(3)
    for index, shape in enumerate([(16, 16), (90, 41), (33, 70), (9, 12), (16, 200)]):
        small = random.integers(0, 256, (4, 4, 3)).astype(np.float32)
        image = tf.cast(tf.clip_by_value(tf.image.resize(small, shape, "bicubic"), 0, 255),
                        tf.uint8)
        (folder / f"{index}.jpg").write_bytes(tf.io.encode_jpeg(image).numpy())
    return folder


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "new" / "the export"
    export.write(trained.find(trained_run), out)
    return out


def probabilities(run, folder):
    """float64 [pictures, classes], as predict has them."""
    ensemble = prediction.Ensemble([run])
    parts = ensemble.predict(inputs.find([folder], [16]), None)
    return np.concatenate([part.probabilities for part in parts])


def test_a_fresh_process_with_tensorflow_alone_predicts_the_same(exported, trained_run, jpegs):
    paths = sorted(jpegs.iterdir())
    done = subprocess.run([sys.executable, "-I", "-c", FRESH, exported / "saved_model", *paths],
                          cwd=jpegs, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["modules"] == []
    expected = probabilities(trained.find(trained_run), jpegs)
    assert np.ptp(expected.argmax(1)) > 0
    assert np.abs(np.array(found["probabilities"]) - expected).max() < 1e-5
    assert found["class_id"] == expected.argmax(1).tolist()
    names = ["red", "green", "blue"]
    assert found["class_name"] == [names[label] for label in found["class_id"]]
    np.testing.assert_allclose(found["probability"], expected.max(1), atol=1e-5)
    assert found["class_names"] == names


def test_the_keras_file_is_the_model_and_names_lie_beside_it(exported, trained_run):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    one, other = (tf.keras.models.load_model(folder / "model.keras", compile=False, safe_mode=True)
                  for folder in (trained_run, exported))
    np.testing.assert_array_equal(one(images), other(images))
    assert store.read_classes(exported)[0] == ["red", "green", "blue"]


def test_the_signature_tells_what_it_takes_and_gives(exported):
    signature = tf.saved_model.load(str(exported / "saved_model")).signatures["serving_default"]
    assert signature.structured_input_signature[1]["jpeg"] == tf.TensorSpec(
        [None], tf.string, name="jpeg")
    assert {name: (tuple(spec.shape), spec.dtype) for name, spec
            in signature.structured_outputs.items()} == {
        "class_id": ((None,), tf.int64), "class_name": ((None,), tf.string),
        "probability": ((None,), tf.float32), "probabilities": ((None, 3), tf.float32)}


def test_the_weights_of_the_best_epoch_replace_an_earlier_export(exported, trained_run, jpegs,
                                                                 tmp_path):
    out = shutil.copytree(exported, tmp_path / "out")
    best = trained.find(trained_run, "best")
    assert not best.saved
    export.write(best, out)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in out.iterdir()} == export.CONTENTS
    loaded = tf.saved_model.load(str(out / "saved_model"))
    jpeg = tf.constant([path.read_bytes() for path in sorted(jpegs.iterdir())])
    found = loaded.signatures["serving_default"](jpeg=jpeg)["probabilities"].numpy()
    expected = probabilities(best, jpegs)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(expected - probabilities(trained.find(trained_run), jpegs)).max() > 1e-3
    model = trained.load_model(out / "model.keras")
    for one, other in zip(model.get_weights(), trained.load(best)[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_of_something_else_stays_as_it_is(trained_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out holds photo\.jpg, which is not part of an export"):
        export.write(trained.find(trained_run), tmp_path / "out")
    assert (tmp_path / "out/photo.jpg").read_bytes() == b"mine"
    with pytest.raises(UserError, match="is a file: give a folder"):
        export.write(trained.find(trained_run), tmp_path / "out/photo.jpg")


def test_a_damaged_model_leaves_an_earlier_export_as_it_is(trained_run, exported, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "model.keras").write_bytes(b"damaged")
    out = shutil.copytree(exported, tmp_path / "out")
    with pytest.raises(UserError, match="is not a model saved by Keras"):
        export.write(trained.find(run), out)
    assert (out / "saved_model/saved_model.pb").read_bytes() == (
        exported / "saved_model/saved_model.pb").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


LEGACY = """
import pathlib, sys
import numpy as np
import tensorflow as tf
from flowerexp.inference import export, inputs, prediction, trained
from flowerexp.errors import UserError
from tests.processes import train
place, tiny, jpegs, of_keras_3 = map(pathlib.Path, sys.argv[1:])
run = train(place / "run", tiny, "callbacks=none")
for weights in ("last", "best"):
    found = trained.find(run, weights)
    export.write(found, place / weights)
    loaded = tf.saved_model.load(str(place / weights / "saved_model"))
    jpeg = tf.constant([path.read_bytes() for path in sorted(jpegs.iterdir())])
    exported = loaded.signatures["serving_default"](jpeg=jpeg)
    batches = prediction.Ensemble([found]).predict(inputs.find([jpegs], [16]), None)
    expected = np.concatenate([batch.probabilities for batch in batches])
    assert np.abs(exported["probabilities"].numpy() - expected).max() < 1e-5
    assert (exported["class_id"].numpy() == expected.argmax(1)).all()
try:
    trained.load_model(of_keras_3 / "model.keras")
except UserError as error:
    print(error)
"""


def test_legacy_keras_exports_too_and_refuses_what_keras_3_saved(tiny, jpegs, exported, tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", LEGACY, tmp_path, tiny, jpegs, exported],
                          env={**os.environ, "TF_USE_LEGACY_KERAS": "1"}, cwd=root,
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("leave TF_USE_LEGACY_KERAS out of the environment")
    with pytest.raises(UserError, match="set TF_USE_LEGACY_KERAS=1, with the package tf_keras"):
        trained.load_model(tmp_path / "run" / "model.keras")
