"""examples/own_parts end to end: every part one's own, trained, killed, resumed, swept, read."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from flowerexp import composition
from flowerexp.errors import UserError
from flowerexp.train import launch
from tests import forked
from tests.processes import RUN, read, same_results, wait_for

EXAMPLE = RUN.parent / "examples/own_parts"
EVERY = ["model=tiny_convnext", "model.width=4", "loss=class_balanced_focal",
         "sampling=square_root", "augmentation=[flip,noise]", "dataset=disks", "dataset.images=48",
         "callbacks=[tensorboard,early_stopping,figures,weight_norms]", "optimizer=nesterov",
         "schedule=steps", "metrics=[kappa,geometric_mean]", "loop.epochs=4",
         "loop.batch_size_per_replica=8", "loop.steps_per_execution=1"]


def command(*overrides, conf=EXAMPLE / "conf"):
    return [str(RUN), "--config-dir", str(conf), *EVERY, *overrides]


def run(place, *words):
    return forked.run(words, place)


def flowerexp(place, *words):
    return run(place, "-m", "flowerexp", *words)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A copy of the example, whose sources a test may change."""
    return shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("own") / "own parts",
                           ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, example):
    """A run of every part, in one go."""
    place = tmp_path_factory.mktemp("whole")
    done = run(place, *command("name=own", conf=example / "conf"))
    assert done.returncode == 0, done.stderr
    return place / "outputs/own"


def test_every_kind_of_part_has_one_in_the_example():
    from flowerexp import parts

    groups = {path.parent.name for path in (EXAMPLE / "conf").glob("*/*.yaml")}
    assert {*groups, "model.head"} == set(parts.OWN)  # the head is a key of its model


def test_each_part_took_its_place(whole):
    status, history = read(whole, "status.json"), read(whole, "history.json")
    assert status["state"] == "done"
    assert status["data"]["kind"] == "arrays"
    sources = [key for key in status["provenance"] if key.startswith("source of ")]
    assert len(sources) == 10  # head and backbone are two
    assert {"valid kappa", "valid geometric_mean"} < set(history["3"])
    norms = read(whole, "weight_norms.json")
    assert list(norms) == ["0", "1", "2", "3"]
    config = yaml.safe_load((whole / ".hydra/config.yaml").read_text())
    assert config["loss"]["_target_"] == "my_parts.training.ClassBalancedFocal"


def test_killed_and_resumed_it_ends_with_the_same_bits(whole, example, tmp_path):
    words = command("name=own", "loop.checkpoint_minutes=0.00001", conf=example / "conf")
    process = forked.Command(words, tmp_path)
    folder = tmp_path / "outputs/own"
    wait_for(lambda: process.poll() is not None or (
        len(list(folder.glob("checkpoints/update-*"))) > 1
        and (folder / "history.json").exists()))
    process.kill()
    process.wait()
    assert len(read(folder, "history.json")) < 4
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    same_results(folder, whole)
    assert read(folder, "weight_norms.json") == read(whole, "weight_norms.json")


def test_a_folder_is_read_without_its_code(whole, example, tmp_path):
    """predict and export need none of it; resume and a checkpoint's backbone ask for trust."""
    images = tmp_path / "images"
    images.mkdir()
    import tensorflow as tf

    tf.io.write_file(str(images / "one.png"), tf.io.encode_png(np.zeros((32, 32, 3), np.uint8)))
    predicted = flowerexp(tmp_path, "predict", whole, images, "--output", "found.csv")
    assert predicted.returncode == 0, predicted.stderr
    assert len(pd.read_csv(tmp_path / "found.csv")) == 1
    exported = flowerexp(tmp_path, "export", whole, "out")
    assert exported.returncode == 0, exported.stderr
    compared = flowerexp(tmp_path, "compare", whole, "--csv")
    assert compared.returncode == 0, compared.stderr
    refused = flowerexp(tmp_path, "resume", whole)
    assert refused.returncode == 1
    assert "dataset._target_=my_parts.data.Disks" in refused.stderr
    assert "--trust-code" in refused.stderr
    assert refused.stderr.count("\n") == 1
    trusted = flowerexp(tmp_path, "resume", whole, "--trust-code")
    assert trusted.returncode == 0, trusted.stderr
    assert "finished run" in trusted.stdout
    # Weights of another epoch are in a checkpoint, which needs the backbone; here the last but one.
    earlier = shutil.copytree(whole, tmp_path / "best is not last")
    scores = {epoch: row | {"valid f1": float(epoch == "2")}
              for epoch, row in read(earlier, "history.json").items()}
    (earlier / "history.json").write_text(json.dumps(scores))
    refused = flowerexp(tmp_path, "export", earlier, "best", "--weights", "best")
    assert refused.returncode == 1
    assert "--trust-code" in refused.stderr
    trusted = flowerexp(tmp_path, "export", earlier, "best", "--weights", "best", "--trust-code")
    assert trusted.returncode == 0, trusted.stderr


def test_swept_and_compared(example, tmp_path):
    swept = run(tmp_path, *command("-m", "loop.epochs=1", "loss.gamma=0,2", "name=sweep",
                                   "callbacks=none", conf=example / "conf"))
    assert swept.returncode == 0, swept.stdout + swept.stderr
    table = pd.read_csv(tmp_path / "outputs/sweep/comparison.csv")
    assert sorted(table["loss.gamma"]) == [0, 2]
    assert "last geometric_mean" in table or any("geometric_mean" in key for key in table)


def test_changed_source_is_another_run(whole, example, tmp_path):
    """Refused in the old folder, by the name of the part; so is a change of what it imports."""
    file = example / "my_parts/training.py"
    before = file.read_text()
    folder = shutil.copytree(whole, tmp_path / "outputs/own")
    try:
        file.write_text(before.replace("self.gamma * losses", "self.gamma * losses * 1.0"))
        refused = run(tmp_path, *command("name=own", conf=example / "conf"))
    finally:
        file.write_text(before)
    assert refused.returncode == 1
    assert "source of loss (my_parts.training.ClassBalancedFocal)" in refused.stderr
    assert str(folder.name) in refused.stderr
    assert refused.stderr.count("\n") == 1


WRONG = {
    "import": ("loss._target_=my_parts.training.Nothing", "cannot be imported"),
    "module": ("loss._target_=no_such_module.Loss", "cannot be imported"),
    "key": ("+loss.delta=1", "delta"),
    "value": ("loss.gamma=-1", "gamma must be at least 0"),
    "infinite": ("loss.beta=inf", "loss.beta=inf cannot be recorded with the run"),
    "undefined": ("+metrics.kappa.weight=nan", "metrics.kappa.weight=nan cannot be recorded"),
    "deep": ("+callbacks.weight_norms.layers={first:[1,inf]}", "layers.first=[1, inf] cannot"),
    "shape": ("loss._target_=my_parts.wrong.Shape", "float32 [n]"),
    "dtype": ("augmentation.noise._target_=my_parts.wrong.Floats", "must return uint8 images"),
    "order": ("sampling._target_=my_parts.wrong.Order", "indices of the"),
    "rates": ("schedule._target_=my_parts.wrong.Rates", "finite rates"),
    "features": ("model._target_=my_parts.wrong.Vector", "feature maps"),
    "raises": ("callbacks.weight_norms._target_=my_parts.wrong.Raises", "KeyError: 'mine'"),
    "number": ("metrics.geometric_mean._target_=my_parts.wrong.Text", "must return a number"),
}
SOURCES = '''
import numpy as np
import tensorflow as tf
class Part:
    def __init__(self, **keys): pass
class Shape(Part):
    def __call__(self, labels, logits, class_counts): return tf.reduce_sum(logits)
class Floats(Part):
    def __call__(self, images, keys): return tf.cast(images, tf.float32)
class Order(Part):
    def __call__(self, labels, seed, epoch, draw=0): return np.array([len(labels)])
class Rates(Part):
    def __call__(self, updates): return np.full(updates, np.nan)
class Vector(Part):
    def __call__(self, image_size):
        inputs = tf.keras.Input((image_size, image_size, 3))
        return tf.keras.Model(inputs, tf.keras.layers.Flatten()(inputs))
class Raises(Part):
    def on_epoch_end(self, state): raise KeyError("mine")
class Text(Part):
    def __call__(self, confusion, labels, probabilities): return "high"
'''


@pytest.fixture
def execute_here(example, tmp_path, monkeypatch):
    """Executes a command of every part and an override in this process."""
    (example / "my_parts/wrong.py").write_text(SOURCES)
    monkeypatch.syspath_prepend(str(example))
    composition.register()

    def execute(*overrides):
        words = [*EVERY, "callbacks=[weight_norms]", "hardware=cpu", "loop.epochs=1", *overrides]
        composed = composition.compose(words, example / "conf")
        return launch.execute(tmp_path / "run", composed, words)

    yield execute
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_part_is_one_sentence_that_names_it(kind, execute_here, tmp_path):
    override, sentence = WRONG[kind]
    with pytest.raises(UserError) as mistake:
        execute_here(override)
    assert sentence in str(mistake.value)
    assert "\n" not in str(mistake.value)
    assert override.lstrip("+").partition(".")[0] in str(mistake.value)
    if kind == "raises":
        assert "Traceback" in (tmp_path / "run/run.log").read_text()
        assert "in on_epoch_end" in (tmp_path / "run/run.log").read_text()


def test_a_dry_run_finds_a_wrong_part(execute_here):
    with pytest.raises(UserError, match=r"schedule.*steps must be at least 1, not 0"):
        execute_here("dry_run=true", "schedule.steps=0")


@pytest.mark.parametrize("target", [
    "flowerexp.runs.store.write_text", "flowerexp.models.losses.bind",
    "flowerexp.models.losses.np.save", "flowerexp.nowhere.Loss", "flowerexp.config.Loop"])
def test_nothing_of_the_package_but_a_part_of_the_group_is_called(target, execute_here, tmp_path):
    with pytest.raises(UserError, match=f"loss._target_={target} does not exist"):
        execute_here(f"loss._target_={target}")
    assert not list(tmp_path.iterdir())
