"""Optimizers against their updates by hand, at the rates of the table."""

import numpy as np
import pytest
import tensorflow as tf

from flowerexp.models import optimizers
from flowerexp.models.optimizers import SGD, Adam, AdamW

RATES = np.array([0.1, 0.2, 0.0, 0.4])
GRADIENTS = (3.0, -1.0, 2.0, 0.5)


def path_of(optimizer, rates=RATES):
    """The weight, from 1, after each gradient."""
    built = optimizers.build(optimizer, rates, "float32")
    weight = tf.Variable(1.0)
    built.build([weight])
    path = []
    for gradient in GRADIENTS:
        built.apply_gradients([(tf.constant(gradient), weight)])
        path.append(float(weight))
    return path


def test_sgd_follows_the_table():
    assert path_of(SGD()) == pytest.approx([0.7, 0.9, 0.9, 0.7])


def test_momentum():
    velocity, weight, expected = 0.0, 1.0, []
    for rate, gradient in zip(RATES, GRADIENTS, strict=True):
        velocity = 0.9 * velocity - rate * gradient
        weight += velocity
        expected.append(weight)
    assert path_of(SGD(momentum=0.9)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "decay"), [(Adam, None), (Adam, 0.1), (AdamW, 0.1)])
def test_adam_with_and_without_decoupled_decay(kind, decay):
    """Kingma and Ba, algorithm 1; Loshchilov and Hutter, algorithm 2: w -= rate * decay * w."""
    first = second = 0.0
    weight, expected = 1.0, []
    for step, (rate, gradient) in enumerate(zip(RATES, GRADIENTS, strict=True), start=1):
        weight -= rate * (decay or 0) * weight
        first = 0.8 * first + 0.2 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        weight -= rate * (first / (1 - 0.8**step)) / (np.sqrt(second / (1 - 0.95**step)) + 1e-7)
        expected.append(weight)
    optimizer = kind(beta_1=0.8, beta_2=0.95, epsilon=1e-7, weight_decay=decay)
    assert path_of(optimizer) == pytest.approx(expected, rel=1e-4)


def test_mixed_float16_scales_the_loss():
    built = optimizers.build(Adam(), RATES, "mixed_float16")
    assert isinstance(built, tf.keras.mixed_precision.LossScaleOptimizer)
