"""Images for tests of transforms, and how one is applied to them."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from omegaconf import OmegaConf

from flowerexp import parts
from flowerexp.augment import base

CONF = Path(__file__).parents[1] / "conf" / "augmentation"
BUILT_IN = {path.stem: parts.built_in("augmentation", OmegaConf.load(path)[path.stem]._target_)
            for path in sorted(CONF.glob("*.yaml")) if path.stem != "none"}
"""Option of the config group -> its class: all of them, so that tests see every new one."""


def numbered(count, height, width, dtype=np.float32):
    """Images whose pixels all differ, and differ from black."""
    pixels = np.arange(1, height * width + 1, dtype=dtype).reshape(height, width, 1)
    return np.broadcast_to(pixels, (count, height, width, 1)).copy()


def random_images(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def apply(transforms, batch, *, micro_batch=8, seed=0, epoch=0, positions=None):
    images, labels = batch
    augment = base.build(transforms, seed, micro_batch)
    positions = np.arange(len(images)) if positions is None else positions
    result = augment({"image": tf.constant(images), "label": tf.constant(labels, tf.int32)},
                     tf.constant(epoch, tf.int64), tf.constant(positions, tf.int64))
    return {key: value.numpy() for key, value in result.items()}
