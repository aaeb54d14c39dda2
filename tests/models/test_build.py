"""Backbones: what is built, what is random, what is frozen."""

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.config import Model
from flowerexp.errors import UserError
from flowerexp.models import build, layers
from flowerexp.models.backbones import EfficientNet, KerasApplication, SmallCNN
from flowerexp.models.heads import Pooled


def model_of(backbone, **options):
    return Model(backbone, Pooled(), **options)


def mobilenet(weights=None, alpha=0.25, **options):
    return model_of(KerasApplication("MobileNet", weights, alpha),
                    **{"input_scaling": "symmetric", **options})


def images_of(count, size=64):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def weights_of(layer):
    return [variable.numpy() for variable in layer.weights]


def test_every_family_of_the_config_has_its_scaling():
    import yaml

    from flowerexp import composition

    expected = {"Xception": "symmetric", "Inception": "symmetric", "ResNet": "symmetric",
                "MobileNet": "symmetric", "DenseNet": "imagenet", "EfficientNet": "imagenet",
                "small": "unit"}
    for path in (composition.conf_folder() / "model").glob("*.yaml"):
        options = yaml.safe_load(path.read_text())
        for family, scaling in expected.items():
            if options["name"].startswith(family):
                assert options["input_scaling"] == scaling, path.name


def test_a_frozen_backbone_trains_its_head_only_and_keeps_its_statistics():
    model = build.build(mobilenet(trainable=False), 64, 5)
    assert [variable.path.rpartition("/")[2] if hasattr(variable, "path") else variable.name
            for variable in model.trainable_variables] == ["kernel", "bias"]
    everything, trained = build.parameter_counts(model)
    assert trained == 256 * 5 + 5
    assert everything == 218_544 + trained
    before = weights_of(model)
    with layers.dropout_key(0, tf.constant(0, tf.int64)):
        model(images_of(8), training=True)
    for one, other in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_seed_alone_decides_the_initial_weights():
    small = model_of(SmallCNN())
    one, same, other = (weights_of(build.build(small, 32, 3, seed=seed)) for seed in (1, 1, 2))
    for left, right in zip(one, same, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any((left != right).any() for left, right in zip(one, other, strict=True))


def test_real_weights_are_loaded(shared):
    path = str(shared / "weights/mobilenet_2_5_224_tf_no_top.h5")
    model = build.build(mobilenet(weights=path), 96, 5)
    reference = tf.keras.applications.MobileNet(alpha=0.25, include_top=False, weights=path,
                                                input_shape=(96, 96, 3))
    pixels = images_of(2, 96)
    backbone = next(layer for layer in model.layers if isinstance(layer, tf.keras.Model))
    np.testing.assert_allclose(backbone(pixels / np.float32(127.5) - 1),
                               reference(pixels / np.float32(127.5) - 1), atol=1e-5)


@pytest.mark.parametrize(("model", "size", "message"), [
    (model_of(KerasApplication("ResNet51")), 64,
     "ResNet51 is not a model of keras.*did you mean 'ResNet50'"),
    (model_of(EfficientNet("EfficientNetB9")), 64, "EfficientNetB9 is not a model of efficientnet"),
    (model_of(KerasApplication("Xception", "/nowhere/weights.h5")), 96,
     "/nowhere/weights.h5 does not exist"),
    (model_of(KerasApplication("InceptionV3")), 40,
     "InceptionV3 cannot be built at dataset.image_size=40")])
def test_mistakes_are_named(model, size, message):
    with pytest.raises(UserError, match=message):
        build.build(model, size, 5)


def test_weights_of_another_width_do_not_fit(shared):
    path = str(shared / "weights/mobilenet_2_5_224_tf_no_top.h5")
    with pytest.raises(UserError, match=r"does not fit MobileNet without its top at alpha 0\.5"):
        build.build(mobilenet(path, 0.5), 96, 5)


def test_a_failed_download_says_how_to_pass_a_path(monkeypatch, tmp_path):
    """A real attempt at an address where nothing listens."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be downloaded.*model\.weights=PATH"):
        build.build(mobilenet("imagenet", 0.5), 128, 5)
