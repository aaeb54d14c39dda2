"""The project's trainer, with the number of classes of the Kaggle flowers, for the benchmarks."""

import numpy as np
import tensorflow as tf

from flowerexp.config import Hardware, Model
from flowerexp.data.batching import Plan
from flowerexp.models import build, losses, optimizers
from flowerexp.models.backbones import EfficientNet, KerasApplication
from flowerexp.models.heads import Pooled
from flowerexp.strategy import factory
from flowerexp.train.trainer import Trainer

CLASSES = 104


def build_trainer(name: str, size: int, batch: int, updates: int) -> Trainer:
    """A trainer on one replica.

    Args:
        name: the name of a backbone, or `trivial` for pooling and a dense layer.
        size: height and width of the images, in pixels.
        batch: the number of images in an update.
        updates: the number of updates in an epoch.
    """
    strategy, _ = factory.build_strategy(Hardware("cpu"))
    counts = np.ones(CLASSES, np.int64)
    plan = Plan(1, 1, batch, 1, batch, batch * updates, updates, 1)
    with strategy.scope():
        if name == "trivial":
            inputs = tf.keras.Input((size, size, 3))
            pooled = tf.keras.layers.GlobalAveragePooling2D()(inputs)
            model = tf.keras.Model(inputs, tf.keras.layers.Dense(CLASSES)(pooled))
        else:
            backbone = (EfficientNet(name) if name.startswith("EfficientNet") else
                        KerasApplication(name, alpha=0.25 if name == "MobileNet" else None))
            model = build.build(Model(backbone, Pooled()), size, CLASSES)
        optimizer = optimizers.build(optimizers.Adam(), np.full(updates, 1e-3), "float32")
    return Trainer(strategy, model, optimizer, losses.bind(losses.CrossEntropy(), counts), plan,
                   np.ones(CLASSES, np.float32))
