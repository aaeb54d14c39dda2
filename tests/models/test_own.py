"""Parts of one's own: layers that are saved and loaded, and the sentences for wrong parts."""

import csv
import sys

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import composition, parts
from flowerexp.augment import base
from flowerexp.config import Model
from flowerexp.data import sampling, sources
from flowerexp.errors import UserError
from flowerexp.models import build, layers, losses, optimizers, schedules
from flowerexp.models.backbones import SmallCNN
from flowerexp.models.heads import Pooled
from flowerexp.train.callbacks import Callbacks
from tests.processes import command_here, read, train

SOURCES = '''
import numpy as np
import tensorflow as tf

class Table(tf.keras.layers.Layer):
    """Its array is not in its config."""
    def __init__(self, values, **options):
        super().__init__(**options)
        self.values = values
    def call(self, inputs):
        return inputs * tf.constant(self.values, inputs.dtype)

class Scale(tf.keras.layers.Layer):
    """Its factor is lost in its config, without an error."""
    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor
    def call(self, inputs):
        return inputs * self.factor
    def get_config(self):
        return tf.keras.layers.Layer.get_config(tf.keras.layers.Layer(name=self.name))

class Inside(tf.keras.layers.Layer):
    """A layer inside it draws."""
    def __init__(self, **options):
        super().__init__(**options)
        self.drop = tf.keras.layers.Dropout(0.5, name="hidden")
    def call(self, inputs):
        return self.drop(inputs)

LAYERS = {"table": lambda: Table(np.ones(1), name="table"),
          "scale": lambda: Scale(3.0, name="scale"), "inside": Inside,
          "plain": lambda: Scale(1.0, name="scale")}

class Part:
    def __init__(self, **keys): self.__dict__.update(keys)
class Backbone(Part):
    def __call__(self, image_size):
        inputs = tf.keras.Input((image_size, image_size, 3))
        return tf.keras.Model(inputs, LAYERS[self.kind]()(inputs))
class Head(Part):
    def __call__(self, features, num_classes):
        pooled = tf.keras.layers.GlobalAveragePooling2D()(LAYERS[self.kind]()(features))
        return tf.keras.layers.Dense(num_classes, dtype="float32")(pooled)
class HalfHead(Part):
    def __call__(self, features, num_classes):
        return tf.keras.layers.Dense(num_classes, dtype="float16")(features[:, 0, 0])
class MapHead(Part):
    def __call__(self, features, num_classes):
        return tf.keras.layers.Dense(num_classes, dtype="float32")(features)
class NoHead(Part):
    def __call__(self, features, num_classes): return None
class Swallowed:
    def __init__(self, width=4, dropout=0.5): raise AssertionError("never constructed")
class Cached:
    def __init__(self, cache=True): raise AssertionError("never constructed")
class NoOptimizer(Part):
    def __call__(self, learning_rate): return lambda gradients: gradients
class NoSource(Part):
    def __call__(self): return {"train": np.zeros(3)}
class OneArgument(Part):
    def __call__(self, only): return only
class NoCall(Part):
    pass
class NaNLoss(Part):
    def __call__(self, labels, logits, class_counts):
        return tf.reduce_sum(logits, -1) * np.nan
'''
OWN_LAYERS = '''
import tensorflow as tf

class Shift(tf.keras.layers.Layer):
    def __init__(self, amount, **options):
        super().__init__(**options)
        self.amount = amount
    def call(self, inputs):
        return inputs + self.amount
    def get_config(self):
        return {**super().get_config(), "amount": self.amount}

@tf.keras.utils.register_keras_serializable(package="own")
class Gain(tf.keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")
    def call(self, inputs):
        return inputs * self.gain

class Backbone:
    def __init__(self, **keys): pass
    def __call__(self, image_size):
        inputs = tf.keras.Input((image_size, image_size, 3))
        features = Gain()(tf.keras.layers.Conv2D(8, 3, 4)(Shift(-0.5)(inputs)))
        return tf.keras.Model(inputs, features)
'''


pytestmark = pytest.mark.usefixtures("wrong_parts")


@pytest.fixture
def path(monkeypatch):
    """The path of imports, which is put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield sys.path
    for name in ("wrong_parts", "own_layers"):
        sys.modules.pop(name, None)


@pytest.fixture
def wrong_parts(tmp_path_factory, path):
    """The module `wrong_parts`, which can be imported."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "wrong_parts.py").write_text(SOURCES)
    path.append(str(folder))


def part(group, name, **keys):
    return parts.check(group, {parts.TARGET: f"wrong_parts.{name}", **keys})


def sentence(function, *arguments):
    """What a wrong part ends with: one line."""
    with pytest.raises(UserError) as mistake:
        function(*arguments)
    assert "\n" not in str(mistake.value)
    return str(mistake.value)


def built_with(backbone=None, head=None):
    return build.build(Model(backbone or SmallCNN(), head or Pooled(), "raw"), 8, 3)


@pytest.mark.parametrize(("kind", "said"), [
    ("table", "its layer table (Table) cannot be saved: get_config() must return every argument of "
              "the constructor"),
    ("scale", "its layer scale (Scale) cannot be saved"),
    ("inside", "its layer hidden (Dropout) draws numbers that do not repeat")])
@pytest.mark.parametrize("group", ["model", "model.head"])
def test_a_layer_that_is_lost_when_it_is_saved_is_refused_when_it_is_built(group, kind, said):
    if group == "model":
        found = sentence(built_with, part("model", "Backbone", kind=kind))
    else:
        found = sentence(built_with, None, part("model.head", "Head", kind=kind))
    assert found.startswith(f"{group} (wrong_parts.{'Head' if '.' in group else 'Backbone'}): "
                            f"{said}")


def test_a_layer_of_ones_own_that_keeps_its_arguments_is_built():
    model = built_with(part("model", "Backbone", kind="plain"),
                       part("model.head", "Head", kind="plain"))
    assert layers.portable(model)(np.zeros((1, 8, 8, 3))).shape == (1, 3)


@pytest.mark.parametrize(("name", "said"), [
    ("HalfHead", "must return logits float32 [n, 3], not float16 [None, 3]"),
    ("MapHead", "must return logits float32 [n, 3], not float32 [None, 1, 1, 3]"),
    ("NoHead", "failed: "), ("OneArgument", "failed: TypeError"), ("NoCall", "failed: TypeError")])
def test_a_wrong_head(name, said):
    found = sentence(built_with, None, part("model.head", name))
    assert found.startswith(f"model.head (wrong_parts.{name}) {said}")


@pytest.mark.parametrize(("override", "said"), [
    ("model._target_=wrong_parts.Swallowed", "model (wrong_parts.Swallowed) takes dropout, but "
     "model.dropout is a key of the run and would not reach it: rename that argument"),
    ("dataset._target_=wrong_parts.Cached", "dataset (wrong_parts.Cached) takes cache, but ")])
def test_an_argument_named_like_a_key_of_the_run_is_refused(override, said):
    composition.register()
    config = composition.check(composition.compose([override]))
    own = config.model.backbone if override.startswith("model") else config.dataset.source
    assert sentence(parts.try_all, [own]).startswith(said)


def test_a_wrong_optimizer():
    def of(name):
        return sentence(optimizers.build, part("optimizer", name), np.ones(2), "float32")

    for name in ("NoOptimizer", "NoCall"):
        assert of(name).startswith(f"optimizer (wrong_parts.{name}) must give an optimizer of "
                                   "keras, not ")


def test_a_wrong_source():
    assert sentence(sources.find, part("dataset", "NoSource")) == (
        "dataset (wrong_parts.NoSource) must return a flowerexp.data.sources.Source, not dict")


WITHOUT_ARGUMENTS = {
    "model": lambda wrong: built_with(wrong),
    "dataset": sources.find,
    "sampling": lambda wrong: sampling.epoch_order(np.zeros(3, int), wrong, 0, 0),
    "schedule": lambda wrong: schedules.learning_rates(wrong, 3),
    "loss": lambda wrong: losses.bind(wrong, np.ones(3))(np.zeros(2, int), tf.zeros([2, 3])),
    "augmentation.mine": lambda wrong: base.build({"mine": wrong}, 0, 2),
    "callbacks.mine": lambda wrong: Callbacks({"mine": wrong}),
}


@pytest.mark.parametrize("group", WITHOUT_ARGUMENTS)
def test_a_part_without_its_method_is_named(group):
    assert group in sentence(WITHOUT_ARGUMENTS[group], part(group, "NoCall"))


@pytest.mark.parametrize("group", ["dataset", "sampling", "loss", "augmentation.mine"])
def test_a_part_with_another_signature_is_named(group):
    found = sentence(WITHOUT_ARGUMENTS[group], part(group, "OneArgument"))
    expected = parts.CALLS[group.partition(".")[0]]
    assert found.startswith(f"{group} (")
    assert "OneArgument" in found
    assert expected[expected.index("("):] in found


def test_a_loss_that_is_nan_is_named(tiny, tmp_path):
    found = sentence(train, tmp_path / "run", tiny, "loss._target_=wrong_parts.NaNLoss")
    assert found.startswith("the loss is NaN or infinite from update 0 on")
    assert "correct loss (wrong_parts.NaNLoss), " in found


def test_layers_of_ones_own_in_a_saved_model_are_loaded_if_they_are_trusted(tiny, tmp_path, path):
    """Registered with Keras or not; the code is found where it was when the run was trained."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/own_layers.py").write_text(OWN_LAYERS)
    path.append(str(tmp_path / "code"))
    run = train(tmp_path / "run", tiny, "model._target_=own_layers.Backbone", "loop.epochs=1")
    path.remove(str(tmp_path / "code"))
    del sys.modules["own_layers"]
    for words in (["predict", run, tiny, "--output", tmp_path / "found.csv"],
                  ["export", run, tmp_path / "out"]):
        code, said = command_here(*words)
        assert code == 1
        assert "asks for code that is not of Keras (own_layers.Shift): look at it" in (
            said.splitlines()[-1])
        assert "own_layers" not in sys.modules
        assert command_here(*words, "--trust-code")[0] == 0
        assert sys.modules.pop("own_layers")
    with (tmp_path / "found.csv").open() as file:
        assert [int(row["class_id"]) for row in csv.DictReader(file)] == read(
            run, "test_preds.json")
