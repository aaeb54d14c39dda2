"""Layers: input scaling, keyed dropout, and saved models that load with Keras alone."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.errors import UserError
from flowerexp.models import build, layers
from flowerexp.models.backbones import EfficientNet, KerasApplication, SmallCNN
from tests import forked
from tests.compose import ROOT
from tests.models.test_build import images_of, mobilenet, model_of

LOADER = """
import json, sys
sys.modules["flowerexp"] = sys.modules["efficientnet"] = None  # importing them now fails
import numpy as np, tensorflow as tf
images = np.load("images.npy")
for name in json.loads(sys.argv[1]):
    model = tf.keras.models.load_model(name + ".keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(model(images), np.load(name + ".npy"), name)
    print(name)
"""
"""Loads models and compares their logits, in a process that cannot import this package."""


@pytest.mark.parametrize(("scaling", "library"), [
    ("symmetric", "xception"), ("symmetric", "inception_v3"), ("symmetric", "inception_resnet_v2"),
    ("symmetric", "resnet_v2"), ("symmetric", "mobilenet"), ("imagenet", "densenet"),
    ("raw", "efficientnet")])
def test_scaling_is_that_of_the_family(scaling, library):
    pixels = images_of(2).astype(np.float32)
    preprocess = getattr(tf.keras.applications, library).preprocess_input
    inputs = tf.keras.Input((64, 64, 3))
    scaled = layers.scale_inputs(mobilenet(input_scaling=scaling), inputs)
    np.testing.assert_allclose(tf.keras.Model(inputs, scaled)(pixels), preprocess(pixels.copy()),
                               atol=1e-5)


def test_scaling_of_the_efficientnet_package_and_of_unit():
    import efficientnet.tfkeras as efficientnet

    pixels = images_of(1).astype(np.float32)
    inputs = tf.keras.Input((64, 64, 3))
    for scaling, expected in (("imagenet", efficientnet.preprocess_input(pixels.copy())),
                              ("unit", pixels / 255)):
        scaled = layers.scale_inputs(mobilenet(input_scaling=scaling), inputs)
        np.testing.assert_allclose(tf.keras.Model(inputs, scaled)(pixels), expected, atol=1e-5)


def applications_checked():
    """How many modules of keras.applications have the `preprocess_input` that is inferred."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    modules = {}
    for name in dir(tf.keras.applications):
        factory = getattr(tf.keras.applications, name)
        if name[0].isupper() and callable(factory):
            modules.setdefault(factory.__module__, name)
    for module, name in modules.items():
        expected = sys.modules[module].preprocess_input(pixels.copy())
        np.testing.assert_allclose(scaling_alone(name)(pixels), expected, rtol=0, atol=1e-6,
                                   err_msg=name)
    return len(modules)


def scaling_alone(name):
    inputs = tf.keras.Input((32, 32, 3))
    return tf.keras.Model(inputs, layers.preprocess_input(name, inputs), name=name)


def test_preprocess_input_of_every_application():
    assert applications_checked() >= 15


def test_preprocess_input_of_every_application_of_legacy_keras():
    program = ("from tests.models.test_layers import applications_checked, tf; "
               "print(applications_checked(), tf.keras.__name__)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "TF_USE_LEGACY_KERAS": "1"}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    modules, name = done.stdout.split()
    assert int(modules) >= 17
    assert name.startswith("tf_keras")


def masks_of(layer, shape=(64, 32), seed=3, number=0):
    with layers.dropout_key(seed, tf.constant(number, tf.int64)):
        return layer(tf.ones(shape), training=True).numpy()


def test_dropout_is_a_function_of_seed_micro_batch_and_layer():
    layer = layers.KeyedDropout(0.25, 1)
    first = masks_of(layer)
    np.testing.assert_array_equal(first, masks_of(layers.KeyedDropout(0.25, 1)))
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / first.size)
    for other in (masks_of(layer, seed=4), masks_of(layer, number=1),
                  masks_of(layers.KeyedDropout(0.25, 2))):
        assert 0.25 < ((other == 0) != (first == 0)).mean() < 0.5  # 2 * 0.25 * 0.75 = 0.375


def test_dropout_draws_the_same_bits_under_xla():
    layer = layers.KeyedDropout(0.5, 1)
    compiled = tf.function(lambda number: masks(number), jit_compile=True)

    def masks(number):
        with layers.dropout_key(3, number):
            return layer(tf.ones([64, 32]), training=True)

    np.testing.assert_array_equal(compiled(tf.constant(9, tf.int64)), masks_of(layer, number=9))


def test_dropout_rests_in_inference_and_refuses_to_train_without_a_key():
    layer = layers.KeyedDropout(0.5, 1)
    np.testing.assert_array_equal(layer(tf.ones([4, 4]), training=False), np.ones([4, 4]))
    with pytest.raises(AssertionError, match="outside dropout_key"):
        layer(tf.ones([4, 4]), training=True)


def test_noise_shape_drops_whole_examples():
    layer = layers.KeyedDropout(0.5, 1, (None, 1, 1, 1))
    kept = masks_of(layer, (200, 3, 3, 2)).reshape(200, -1)
    assert (kept == kept[:, :1]).all()
    assert 60 < (kept[:, 0] > 0).sum() < 140


def test_every_dropout_of_a_backbone_is_keyed_and_inference_stays_the_same():
    import efficientnet.tfkeras as efficientnet

    tf.keras.utils.set_random_seed(0)
    plain = efficientnet.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    keyed = layers.with_keyed_dropout(plain)
    dropped = [layer for layer in plain.layers if isinstance(layer, tf.keras.layers.Dropout)]
    replaced = [layer for layer in keyed.layers if isinstance(layer, layers.KeyedDropout)]
    assert len(dropped) == len(replaced) == 9
    assert len({layer.number for layer in replaced}) == 9
    assert [layer.rate for layer in dropped] == [layer.rate for layer in replaced]
    assert not any(isinstance(layer, tf.keras.layers.Dropout) for layer in keyed.layers)
    pixels = images_of(2).astype(np.float32)
    np.testing.assert_array_equal(plain(pixels, training=False), keyed(pixels, training=False))


@dataclass(frozen=True)
class Beginning:
    """The first layers of a backbone, which are saved and loaded in a fraction of the time."""

    whole: Any
    layers: int
    name: str

    def __call__(self, image_size):
        model = self.whole(image_size)
        return tf.keras.Model(model.input, model.layers[self.layers].output)


def test_saved_models_load_with_keras_alone(tmp_path):
    """One of each source, scaling and kind of preprocess_input, and what `export` writes.

    tests/proofs/backbones.py does it for whole backbones.
    """
    from flowerexp.inference import trained

    images = images_of(2, 32)
    np.save(tmp_path / "images.npy", images)
    models = [build.build(model, 32, 5) for model in (
        model_of(SmallCNN(), input_scaling="unit"), mobilenet(),
        model_of(SmallCNN("raw_cnn"), input_scaling="raw"),
        model_of(Beginning(EfficientNet("EfficientNetB0"), 54, "EfficientNetB0"),
                 input_scaling="imagenet"),
        model_of(Beginning(KerasApplication("MobileNetV3Small"), 49, "MobileNetV3Small"),
                 input_scaling="preprocess_input"))]
    models += [scaling_alone(name) for name in ("ResNet50", "ResNet50V2", "DenseNet121")]
    names = []
    for model in models:
        layers.portable(model).save(tmp_path / f"{model.name}.keras")
        np.save(tmp_path / f"{model.name}.npy", model(images))
        names.append(model.name)
    for name in ("EfficientNetB0", "ResNet50"):
        trained.load_model(tmp_path / f"{name}.keras").save(tmp_path / f"{name} exported.keras")
        shutil.copy(tmp_path / f"{name}.npy", tmp_path / f"{name} exported.npy")
        names.append(f"{name} exported")
    done = forked.run(["-c", LOADER, json.dumps(names)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == names


def network_of(layer):
    inputs = tf.keras.Input((8, 8, 3))
    return tf.keras.Model(inputs, layer(inputs))


def test_spatial_dropout_drops_whole_channels():
    keyed = layers.with_keyed_dropout(network_of(tf.keras.layers.SpatialDropout2D(0.5)))
    with layers.dropout_key(0, tf.constant(0, tf.int64)):
        dropped = keyed(np.ones((64, 8, 8, 3), np.float32), training=True).numpy()
    channels = dropped.reshape(64, 64, 3)
    assert (channels == channels[:, :1]).all()
    assert {*np.unique(channels)} == {0, 2}


def test_a_layer_whose_numbers_do_not_repeat_is_refused():
    with pytest.raises(UserError, match=r"noise \(GaussianNoise\) draws numbers"):
        layers.with_keyed_dropout(network_of(tf.keras.layers.GaussianNoise(0.1, name="noise")))
