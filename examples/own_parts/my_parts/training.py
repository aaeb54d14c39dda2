"""A loss, a sampler, a transform, an optimizer, a schedule, a metric and a callback."""

import json
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from flowerexp import rng
from flowerexp.config import Checked, key
from flowerexp.runs import store


@dataclass(frozen=True)
class ClassBalancedFocal(Checked):
    """Focal loss weighted by the effective number of images of a class (Cui et al. 2019).

    The weight of a class with n images is (1 - beta) / (1 - beta^n), with mean 1 over the classes.
    """

    beta: float = key(0.999, least=0, below=1)
    gamma: float = key(2.0, least=0)

    def __call__(self, labels, logits, class_counts):
        weights = (1 - self.beta) / (1 - self.beta ** np.maximum(class_counts, 1))
        weights = tf.constant(weights / weights.mean(), tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        missing = tf.maximum(-tf.math.expm1(-losses), 1e-7)
        return tf.gather(weights, labels) * missing**self.gamma * losses


@dataclass(frozen=True)
class SquareRoot:
    """An epoch as long as the training set, classes drawn in proportion to sqrt(n).

    Mahajan et al. 2018, section 2.2.
    """

    def __call__(self, labels, seed, epoch, draw=0):
        counts = np.bincount(labels)
        chances = (np.sqrt(counts) / np.maximum(counts, 1))[labels]
        random = np.random.default_rng((seed, epoch, draw))
        return random.choice(len(labels), len(labels), p=chances / chances.sum())


@dataclass(frozen=True)
class Noise(Checked):
    """Uniform noise of up to `amount` gray levels on every value."""

    amount: int = key(8, least=0)

    def __str__(self):
        return f"noise of up to {self.amount} gray levels"

    def __call__(self, images, keys):
        drawn = rng.uniform(keys, math.prod(images.shape[1:]))
        noise = self.amount * (2 * tf.reshape(drawn, tf.shape(images)) - 1)
        noisy = tf.cast(images, tf.float64) + noise
        return tf.cast(tf.clip_by_value(tf.round(noisy), 0, 255), tf.uint8)


@dataclass(frozen=True)
class NesterovSGD:
    """Keras' SGD with Nesterov momentum; a class of keras.optimizers could be named directly."""

    momentum: float = 0.9

    def __call__(self, learning_rate):
        return tf.keras.optimizers.SGD(learning_rate, momentum=self.momentum, nesterov=True)


@dataclass(frozen=True)
class Steps(Checked):
    """max_lr, divided by `factor` after each of `steps` equal parts of the run."""

    max_lr: float = key(1e-3, above=0)
    steps: int = key(3, least=1)
    factor: float = key(10.0, above=0)

    def __call__(self, updates):
        return self.max_lr / self.factor ** (np.arange(updates) * self.steps // max(updates, 1))


@dataclass(frozen=True)
class GeometricMean:
    """The geometric mean of the recalls of the classes that have images."""

    def __call__(self, confusion, labels, probabilities):
        present = confusion.sum(1) > 0
        recalls = np.diag(confusion)[present] / confusion.sum(1)[present]
        return float(np.exp(np.log(np.maximum(recalls, 1e-3)).mean()))


@dataclass(frozen=True)
class WeightNorms:
    """Writes the norm of every trained weight after each epoch to weight_norms.json."""

    file: str = "weight_norms.json"

    def on_epoch_end(self, state):
        if not state.is_chief:
            return
        path = state.folder / self.file
        # A resumed run goes on with what stands there, epoch by epoch.
        before = json.loads(path.read_text()) if path.exists() else {}
        kept = {key: value for key, value in before.items() if int(key) < len(state.history) - 1}
        norms = {getattr(weight, "path", weight.name): float(tf.norm(tf.cast(weight, tf.float64)))
                 for weight in state.model.trainable_variables}
        store.write_json(path, kept | {str(len(state.history) - 1): norms}, indent=1)
