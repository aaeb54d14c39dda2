"""Losses of single examples against NumPy in float64 and scikit-learn."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss

from flowerexp import parts
from flowerexp.models import losses
from flowerexp.models.losses import CrossEntropy, Focal, LogitAdjusted

COUNTS = np.array([50, 20, 5, 1, 0])
RANDOM = np.random.default_rng(0)
LOGITS = (3 * RANDOM.standard_normal((12, 5))).astype(np.float32)
LABELS = RANDOM.integers(0, 5, 12)


def computed(loss, labels=LABELS, logits=LOGITS, counts=COUNTS):
    return losses.bind(loss, counts)(tf.constant(labels), tf.constant(logits)).numpy()


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def of_labels(values, labels=LABELS):
    return values[np.arange(len(labels)), labels]


def test_cross_entropy_by_hand():
    # Probabilities 1/4, 1/4 and 1/2.
    logits = np.log(np.array([[1, 1, 2]], np.float32))
    assert computed(CrossEntropy(), [2], logits, np.ones(3)) == pytest.approx([np.log(2)])
    assert computed(CrossEntropy(), [0], logits, np.ones(3)) == pytest.approx([np.log(4)])


def test_cross_entropy_is_the_log_loss_of_sklearn():
    found = computed(CrossEntropy(label_smoothing=0.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, -of_labels(log_softmax(LOGITS)), rtol=1e-5)
    probabilities = np.exp(log_softmax(LOGITS))
    assert found.mean() == pytest.approx(log_loss(LABELS, probabilities, labels=range(5)),
                                         rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 0.9])
def test_smoothed_cross_entropy_is_that_of_the_mixed_label(smoothing):
    mixed = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    wanted = -(mixed * log_softmax(LOGITS)).sum(-1)
    np.testing.assert_allclose(
        computed(CrossEntropy(label_smoothing=smoothing)), wanted, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss(gamma):
    of_label = of_labels(log_softmax(LOGITS))
    wanted = -(1 - np.exp(of_label)) ** gamma * of_label
    np.testing.assert_allclose(computed(Focal(gamma=gamma)), wanted, rtol=1e-4, atol=1e-9)


def test_focal_loss_by_hand():
    logits = np.log(np.array([[1, 1, 2]], np.float32))
    assert computed(Focal(gamma=2.0), [0], logits, np.ones(3)) == pytest.approx(
        [(3 / 4) ** 2 * np.log(4)])


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_logit_adjusted_loss(tau):
    images = np.array([50, 20, 5, 1, 1])  # a class without images counts as one
    adjusted = LOGITS + tau * np.log(images / images.sum())
    np.testing.assert_allclose(computed(LogitAdjusted(tau=tau)),
                               -of_labels(log_softmax(adjusted)), rtol=1e-5)


def test_logit_adjusted_loss_asks_more_of_rare_classes():
    even = np.zeros((2, 5), np.float32)
    common, rare = computed(LogitAdjusted(tau=1.0), [0, 3], even)
    assert common == pytest.approx(np.log(77 / 50), rel=1e-5)
    assert rare == pytest.approx(np.log(77), rel=1e-5)


def test_logit_adjusted_loss_of_even_classes_is_plain():
    np.testing.assert_allclose(
        computed(LogitAdjusted(tau=1.5), counts=np.full(5, 9)), computed(CrossEntropy()),
        rtol=1e-5)


@pytest.mark.parametrize("loss", [Focal(gamma=0.0), LogitAdjusted(tau=0.0),
                                  CrossEntropy(label_smoothing=0.0)],
                         ids=lambda loss: parts.name(loss))
def test_parameter_zero_is_plain_cross_entropy(loss):
    np.testing.assert_array_equal(computed(loss), computed(CrossEntropy()))


EVERY = [CrossEntropy(), CrossEntropy(label_smoothing=0.1), Focal(gamma=2.0),
         Focal(gamma=0.5), Focal(gamma=0.0), LogitAdjusted(tau=1.0)]


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_extreme_logits_have_finite_losses_and_gradients(loss):
    extreme = np.array([[1e4, -1e4, 0, 0, 0], [-1e4, 1e4, 0, 0, 0], [0, 0, 0, 0, 0],
                        [100, 0, 0, 0, 0], [-100, 0, 0, 0, 0], [1e-7, 0, 0, 0, 0]], np.float32)
    logits = tf.Variable(extreme)
    with tf.GradientTape() as tape:
        found = losses.bind(loss, COUNTS)(tf.zeros(6, tf.int32), logits)
        total = tf.reduce_sum(found)
    gradient = tape.gradient(total, logits).numpy()
    assert np.isfinite(found.numpy()).all()
    assert (found.numpy() >= 0).all()
    assert np.isfinite(gradient).all()
    # The hopeless example still learns: its own logit is pushed up, the winner's down.
    assert gradient[1, 0] < 0 < gradient[1, 1]


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_gradient_is_that_of_finite_differences(loss):
    function = losses.bind(loss, COUNTS)
    labels = tf.constant(LABELS)
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(function(labels, logits))
    gradient = tape.gradient(total, logits).numpy()
    step = 1e-2
    for place in [(0, 0), (3, 2), (7, 4)]:
        moved = np.zeros_like(LOGITS)
        moved[place] = step
        up, down = (function(labels, LOGITS + sign * moved).numpy().sum(dtype=np.float64)
                    for sign in (1, -1))
        assert gradient[place] == pytest.approx((up - down) / (2 * step), abs=2e-3)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (4, 5), elements=st.floats(-30, 30, width=32)),
       st.sampled_from(EVERY), st.floats(-20, 20, width=32))
def test_adding_a_number_to_every_logit_changes_nothing(logits, loss, shift):
    labels = np.array([0, 1, 2, 3])
    np.testing.assert_allclose(computed(loss, labels, logits + np.float32(shift)),
                               computed(loss, labels, logits), rtol=1e-3, atol=1e-4)
