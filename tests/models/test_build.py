"""Backbones, scaling and dropout: what is fed, what is random, what is frozen."""

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.config import Model
from flowerexp.errors import UserError
from flowerexp.models import build


def mobilenet(**options):
    return Model("MobileNet", **{"alpha": 0.25, "input_scaling": "symmetric", **options})


def images_of(count, size=64):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def weights_of(layer):
    return [variable.numpy() for variable in layer.weights]


@pytest.mark.parametrize(("scaling", "library"), [
    ("symmetric", "xception"), ("symmetric", "inception_v3"), ("symmetric", "inception_resnet_v2"),
    ("symmetric", "resnet_v2"), ("symmetric", "mobilenet"), ("imagenet", "densenet"),
    ("raw", "efficientnet")])
def test_scaling_is_that_of_the_family(scaling, library):
    pixels = images_of(2).astype(np.float32)
    preprocess = getattr(tf.keras.applications, library).preprocess_input
    inputs = tf.keras.Input((64, 64, 3))
    scaled = build.scale_inputs(mobilenet(input_scaling=scaling), inputs)
    np.testing.assert_allclose(tf.keras.Model(inputs, scaled)(pixels), preprocess(pixels.copy()),
                               atol=1e-5)


def test_scaling_of_the_efficientnet_package_and_of_unit():
    import efficientnet.tfkeras as efficientnet

    pixels = images_of(1).astype(np.float32)
    inputs = tf.keras.Input((64, 64, 3))
    for scaling, expected in (("imagenet", efficientnet.preprocess_input(pixels.copy())),
                              ("unit", pixels / 255)):
        scaled = build.scale_inputs(mobilenet(input_scaling=scaling), inputs)
        np.testing.assert_allclose(tf.keras.Model(inputs, scaled)(pixels), expected, atol=1e-5)


def test_preprocess_input_of_any_application():
    pixels = images_of(1).astype(np.float32)
    model = Model("ResNet50", input_scaling="preprocess_input")
    inputs = tf.keras.Input((64, 64, 3))
    scaled = tf.keras.Model(inputs, build.scale_inputs(model, inputs))(pixels)
    np.testing.assert_allclose(
        scaled, tf.keras.applications.resnet50.preprocess_input(pixels.copy()), atol=1e-4)


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


def masks_of(layer, shape=(64, 32), seed=3, number=0):
    with build.dropout_key(seed, tf.constant(number, tf.int64)):
        return layer(tf.ones(shape), training=True).numpy()


def test_dropout_is_a_function_of_seed_micro_batch_and_layer():
    layer = build.KeyedDropout(0.25, 1)
    first = masks_of(layer)
    np.testing.assert_array_equal(first, masks_of(build.KeyedDropout(0.25, 1)))
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / first.size)
    for other in (masks_of(layer, seed=4), masks_of(layer, number=1),
                  masks_of(build.KeyedDropout(0.25, 2))):
        assert 0.25 < ((other == 0) != (first == 0)).mean() < 0.5  # 2 * 0.25 * 0.75 = 0.375


def test_dropout_draws_the_same_bits_under_xla():
    layer = build.KeyedDropout(0.5, 1)
    compiled = tf.function(lambda number: masks(number), jit_compile=True)

    def masks(number):
        with build.dropout_key(3, number):
            return layer(tf.ones([64, 32]), training=True)

    np.testing.assert_array_equal(compiled(tf.constant(9, tf.int64)), masks_of(layer, number=9))


def test_dropout_rests_in_inference_and_refuses_to_train_without_a_key():
    layer = build.KeyedDropout(0.5, 1)
    np.testing.assert_array_equal(layer(tf.ones([4, 4]), training=False), np.ones([4, 4]))
    with pytest.raises(AssertionError, match="outside dropout_key"):
        layer(tf.ones([4, 4]), training=True)


def test_noise_shape_drops_whole_examples():
    layer = build.KeyedDropout(0.5, 1, (None, 1, 1, 1))
    kept = masks_of(layer, (200, 3, 3, 2)).reshape(200, -1)
    assert (kept == kept[:, :1]).all()
    assert 60 < (kept[:, 0] > 0).sum() < 140


def test_every_dropout_of_a_backbone_is_keyed_and_inference_stays_the_same():
    import efficientnet.tfkeras as efficientnet

    tf.keras.utils.set_random_seed(0)
    plain = efficientnet.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    keyed = build.with_keyed_dropout(plain)
    dropped = [layer for layer in plain.layers if isinstance(layer, tf.keras.layers.Dropout)]
    replaced = [layer for layer in keyed.layers if isinstance(layer, build.KeyedDropout)]
    assert len(dropped) == len(replaced) == 9
    assert len({layer.number for layer in replaced}) == 9
    assert [layer.rate for layer in dropped] == [layer.rate for layer in replaced]
    assert not any(isinstance(layer, tf.keras.layers.Dropout) for layer in keyed.layers)
    pixels = images_of(2).astype(np.float32)
    np.testing.assert_array_equal(plain(pixels, training=False), keyed(pixels, training=False))


def test_a_frozen_backbone_trains_its_head_only_and_keeps_its_statistics():
    model = build.build(mobilenet(trainable=False), 64, 5)
    assert [variable.path.rpartition("/")[2] if hasattr(variable, "path") else variable.name
            for variable in model.trainable_variables] == ["kernel", "bias"]
    everything, trained = build.parameter_counts(model)
    assert trained == 256 * 5 + 5
    assert everything == 218_544 + trained
    before = weights_of(model)
    with build.dropout_key(0, tf.constant(0, tf.int64)):
        model(images_of(8), training=True)
    for one, other in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_seed_alone_decides_the_initial_weights():
    small = Model("small_cnn", "flowerexp")
    one, same, other = (weights_of(build.build(small, 32, 3, seed=seed)) for seed in (1, 1, 2))
    for left, right in zip(one, same, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any((left != right).any() for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("model", [
    Model("small_cnn", "flowerexp"), mobilenet(),
    Model("ResNet50", weights=None, input_scaling="preprocess_input"),
    Model("EfficientNetB0", "efficientnet", input_scaling="imagenet")],
    ids=lambda model: model.name)
def test_a_saved_model_gives_the_same_logits(model, tmp_path):
    built = build.build(model, 64, 5)
    build.portable(built).save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert not any(isinstance(layer, build.KeyedDropout) for layer in loaded._flatten_layers())
    np.testing.assert_array_equal(built(images_of(2)), loaded(images_of(2)))


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
    (Model("ResNet51"), 64, "ResNet51 is no model of keras.*did you mean 'ResNet50'"),
    (Model("EfficientNetB9", "efficientnet"), 64, "EfficientNetB9 is no model of efficientnet"),
    (Model("Xception", weights="/nowhere/weights.h5"), 96, "/nowhere/weights.h5 does not exist"),
    (Model("InceptionV3"), 40, "InceptionV3 cannot be built at dataset.image_size=40")])
def test_mistakes_are_named(model, size, message):
    with pytest.raises(UserError, match=message):
        build.build(model, size, 5)


def test_weights_of_another_width_do_not_fit(shared):
    path = str(shared / "weights/mobilenet_2_5_224_tf_no_top.h5")
    with pytest.raises(UserError, match=r"does not fit MobileNet without its top at alpha 0\.5"):
        build.build(Model("MobileNet", weights=path, alpha=0.5), 96, 5)


def test_a_failed_download_says_how_to_pass_a_path(monkeypatch, tmp_path):
    """A real attempt at an address where nothing listens."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be downloaded.*model\.weights=PATH"):
        build.build(Model("MobileNet", weights="imagenet", alpha=0.5), 128, 5)
