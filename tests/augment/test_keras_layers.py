"""Preprocessing layers of Keras as transforms: keyed like the others, whatever their state."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from flowerexp.augment import base
from flowerexp.errors import UserError
from tests.transforms import apply, random_images

LAYERS = {"zoom": lambda: keras.layers.RandomZoom(0.3), "flip": keras.layers.RandomFlip,
          # Its seed generators are those of the layers inside it.
          "jitter": lambda: keras.layers.RandomColorJitter(brightness_factor=0.3,
                                                           contrast_factor=0.3)}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_keras_is_keyed_by_the_position(name):
    images, labels = random_images(12, 16, 16), np.arange(12)
    layer = LAYERS[name]()
    whole = apply({name: layer}, (images, labels))["image"]
    again = apply({name: layer}, (images, labels))["image"]
    part = apply({name: LAYERS[name]()}, (images[4:], labels[4:]),
                 positions=np.arange(4, 12))["image"]
    other = apply({name: layer}, (images, labels), epoch=1)["image"]
    assert whole.dtype == np.uint8
    assert (whole == again).all()
    assert (whole[4:] == part).all()
    assert (whole != images).any()
    assert (whole != other).any()


def test_a_layer_of_keras_works_in_the_pipeline_and_draws_for_every_image():
    augment = base.build({"zoom": LAYERS["zoom"]()}, 0, 4)
    augment.check(8, 16)
    images = np.repeat(random_images(1, 16, 16), 8, 0)
    data = tf.data.Dataset.from_tensors((images, np.arange(8, dtype=np.int32), np.arange(8))).map(
        lambda image, label, positions: augment({"image": image, "label": label},
                                                tf.constant(0, tf.int64), positions))
    found = next(iter(data))["image"].numpy()
    assert (found == apply({"zoom": LAYERS["zoom"]()}, (images, np.arange(8)))["image"]).all()
    assert len({image.tobytes() for image in found}) == 8
    assert augment.sentence == "augmentation: RandomZoom of Keras"


def test_the_layers_own_generator_is_given_back():
    layer = LAYERS["zoom"]()
    apply({"zoom": layer}, (random_images(2, 16, 16), np.arange(2)))
    before = layer.generator.state.numpy()
    layer.generator.next()
    assert (layer.generator.state.numpy() != before).any()


@pytest.mark.parametrize("make", [lambda: keras.layers.Rescaling(1 / 255),
                                  lambda: tf_keras.layers.RandomZoom(0.1)])
def test_a_layer_without_seeds_of_keras_3_is_refused(make):
    layer = make()
    assert base.is_keras_layer(layer)
    with pytest.raises(UserError, match=r"draws no random numbers from a seed generator of Keras"):
        base.build({"mine": layer}, 0, 4).check(8, 16)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        pass  # TensorFlow refuses it after an error inside its map_fn
