"""The order of an epoch: exact repeats, exact lengths, a pure function of its arguments."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from flowerexp import parts
from flowerexp.data import sampling
from flowerexp.data.sampling import ClassWeight, Original, Oversample
from flowerexp.errors import UserError

ORIGINAL = Original()
CLASS_WEIGHT = ClassWeight()

labels_of = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)
targets = st.integers(1, 50)
seeds = st.integers(0, 2**31 - 1)
epochs = st.integers(0, 1000)


def upto(target):
    return Oversample(target)


def test_repeats_and_examples_are_the_reference(shared):
    reference = json.loads((shared / "reference/sampling.json").read_text())
    counts = np.array([reference["class_counts"][str(label)]
                       for label in range(len(reference["class_counts"]))])
    assert len(reference["targets"]) == 5
    for target, wanted in reference["targets"].items():
        policy = upto(int(target))
        repeats = [wanted["repeats"][str(label)] for label in range(len(counts))]
        np.testing.assert_allclose(sampling.class_repeats(counts, policy), repeats, rtol=0,
                                   atol=1e-6)
        assert sampling.examples_per_epoch(counts, policy) == wanted["examples"]


def test_repeats_by_hand():
    counts = np.array([2, 8, 10, 0, 25])
    assert sampling.class_repeats(counts, upto(10)).tolist() == [5.0, 1.25, 1.0, 1.0, 1.0]
    assert sampling.examples_per_epoch(counts, upto(10)) == 10 + 10 + 10 + 0 + 25
    assert sampling.examples_per_epoch(counts, ORIGINAL) == 45
    assert sampling.examples_per_epoch(counts, CLASS_WEIGHT) == 45


@settings(deadline=None)
@given(labels_of, seeds, epochs, st.sampled_from([ORIGINAL, CLASS_WEIGHT]))
def test_without_oversampling_every_image_stands_once(labels, seed, epoch, policy):
    order = sampling.epoch_order(labels, policy, seed, epoch)
    assert sorted(order.tolist()) == list(range(len(labels)))


@settings(deadline=None)
@given(labels_of, targets, seeds, epochs)
def test_an_image_repeats_by_the_floor_or_the_ceiling_of_its_class(labels, target, seed, epoch):
    order = sampling.epoch_order(labels, upto(target), seed, epoch)
    seen = np.bincount(order, minlength=len(labels))
    for image, label in enumerate(labels):
        count = int((labels == label).sum())
        if count >= target:
            assert seen[image] == 1
        else:
            assert seen[image] in (target // count, -(-target // count))
    assert len(order) == seen.sum()
    assert (seen == sampling.example_repeats(labels, upto(target), seed, epoch)).all()


@settings(deadline=None)
@given(labels_of, targets, seeds, epochs)
def test_same_arguments_same_order(labels, target, seed, epoch):
    one, other = (sampling.epoch_order(labels.copy(), upto(target), seed, epoch) for _ in range(2))
    assert one.tolist() == other.tolist()


def test_another_epoch_seed_or_draw_is_another_order():
    labels = np.repeat([0, 1, 2], [40, 7, 3])
    orders = {tuple(sampling.epoch_order(labels, policy, seed, epoch, draw).tolist())
              for policy in (ORIGINAL, upto(20)) for seed in (0, 1) for epoch in (0, 1)
              for draw in (0, 1)}
    assert len(orders) == 16


def test_fractions_are_drawn_anew_every_epoch():
    labels = np.zeros(40, int)
    drawn = [sampling.example_repeats(labels, upto(60), 0, epoch) for epoch in range(4)]
    assert all(set(repeats.tolist()) == {1, 2} for repeats in drawn)
    assert len({tuple(repeats.tolist()) for repeats in drawn}) == 4


def test_global_random_state_is_neither_used_nor_changed():
    labels = np.repeat([0, 1], [9, 4])
    np.random.seed(1)
    one = sampling.epoch_order(labels, upto(8), 3, 2)
    following = np.random.random()
    np.random.seed(1)
    assert np.random.random() == following
    assert sampling.epoch_order(labels, upto(8), 3, 2).tolist() == one.tolist()


@settings(deadline=None)
@given(labels_of, targets, seeds, epochs, st.integers(0, 300), st.integers(0, 300))
def test_indices_have_exactly_the_length_asked_for(labels, target, seed, epoch, one, other):
    shorter, longer = sorted((one, other))
    policy = upto(target)
    indices = sampling.epoch_indices(labels, policy, seed, epoch, longer)
    assert len(indices) == longer
    assert indices.tolist()[:shorter] == sampling.epoch_indices(
        labels, policy, seed, epoch, shorter).tolist()
    order = sampling.epoch_order(labels, policy, seed, epoch)
    both = np.concatenate([order, sampling.epoch_order(labels, policy, seed, epoch, 1)])
    length = min(longer, len(both))
    assert indices.tolist()[:length] == both.tolist()[:length]


def test_short_draw_is_filled_from_a_further_draw_of_the_same_epoch():
    labels = np.zeros(10, int)
    first, second, third = (sampling.epoch_order(labels, ORIGINAL, 0, 4, draw).tolist()
                            for draw in range(3))
    assert sampling.epoch_indices(labels, ORIGINAL, 0, 4, 25).tolist() == (
        first + second + third[:5])


def test_class_without_images_is_allowed():
    labels = np.array([0, 0, 0, 4])  # 1, 2 and 3 have none
    counts = np.bincount(labels)
    assert np.isfinite(sampling.class_repeats(counts, upto(6))).all()
    assert sampling.examples_per_epoch(counts, upto(6)) == 12
    assert sorted(sampling.epoch_order(labels, upto(6), 0, 0).tolist()) == [
        0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert sampling.class_weights(np.append(counts, 0), CLASS_WEIGHT)[[1, 2, 3, 5]].tolist() == [
        0, 0, 0, 0]


def test_mean_of_many_epochs_is_the_target():
    target, draws = 50, 400
    counts = np.array([7, 13, 33, 49, 80])
    labels = np.repeat(np.arange(5), counts)
    seen = np.array([np.bincount(labels[sampling.epoch_order(labels, upto(target), 0, epoch)])
                     for epoch in range(draws)])
    fraction = target / counts % 1
    error = np.sqrt(counts * fraction * (1 - fraction) / draws)  # of a mean of Bernoulli sums
    assert (np.abs(seen.mean(0) - [50, 50, 50, 50, 80]) <= 4 * error).all()
    assert seen[:, 4].tolist() == [80] * draws
    # The images of a class share the chance: none is seen more often than it should be.
    images = np.array([sampling.example_repeats(labels, upto(target), 1, epoch)
                       for epoch in range(draws)]).mean(0)
    wanted = sampling.class_repeats(counts, upto(target))[labels]
    chance = wanted % 1
    assert (np.abs(images - wanted) <= 5 * np.sqrt(chance * (1 - chance) / draws)).all()


def test_length_of_a_draw_varies_about_the_planned_examples():
    labels = np.repeat([0, 1, 2], [30, 9, 4])
    planned = sampling.examples_per_epoch(np.bincount(labels), upto(20))
    lengths = [len(sampling.epoch_order(labels, upto(20), 0, epoch)) for epoch in range(200)]
    assert planned == 70
    assert min(lengths) < planned < max(lengths)
    assert abs(np.mean(lengths) - planned) < 0.6


def test_positions_are_uniform():
    labels = np.zeros(5, int)
    firsts = np.bincount([sampling.epoch_order(labels, ORIGINAL, 0, epoch)[0]
                          for epoch in range(2000)], minlength=5)
    assert (np.abs(firsts - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8)).all()


# Class weights

def test_class_weights_by_hand():
    weights = sampling.class_weights(np.array([6, 3, 0, 1]), CLASS_WEIGHT)
    np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 0, 10 / 3], rtol=1e-6)
    assert weights.dtype == np.float32


def test_class_weights_are_one_for_the_other_policies():
    for policy in (ORIGINAL, upto(5)):
        assert sampling.class_weights(np.array([6, 3, 1]), policy).tolist() == [1, 1, 1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 800), min_size=1, max_size=104).filter(any).map(np.array))
def test_class_weights_are_balanced_with_mean_one(counts):
    weights = sampling.class_weights(counts, CLASS_WEIGHT)
    labels = np.repeat(np.arange(len(counts)), counts)
    assert weights[labels].mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    present = np.flatnonzero(counts)
    np.testing.assert_allclose(
        weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)


# Samplers of one's own

class Own:
    """Every method of a sampler returns `value`, or raises it."""

    def __init__(self, value):
        self.value = value

    def __call__(self, labels, seed, epoch, draw=0):
        return self.result()

    def result(self, *_):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    examples_per_epoch = class_repeats = class_weights = result


CALLS = {
    "examples_per_epoch": lambda sampler: sampling.examples_per_epoch(np.array([2, 1]), sampler),
    "class_repeats": lambda sampler: sampling.class_repeats(np.array([2, 1]), sampler),
    "class_weights": lambda sampler: sampling.class_weights(np.array([2, 1]), sampler),
    "__call__": lambda sampler: sampling.epoch_order(np.array([0, 1]), sampler, 0, 0)}
WRONG = [KeyError("mine"), UserError("beta is missing"), "many", None, -1, 2.5,
         np.array([1.0, np.nan]), np.ones(3)]


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: f"{type(value).__name__}")
def test_what_an_own_sampler_does_wrong_is_one_sentence_that_names_it(method, value):
    sampler = parts.Part("sampling", f"{__name__}.Own", {"value": value})
    with pytest.raises(UserError, match=f"^{re.escape(str(sampler))}") as mistake:
        CALLS[method](sampler)
    assert "\n" not in str(mistake.value)


def test_an_own_sampler_may_plan():
    assert CALLS["examples_per_epoch"](Own(np.int64(7))) == 7
    assert CALLS["class_repeats"](Own([1, 3])).tolist() == [1.0, 3.0]
    assert CALLS["class_weights"](Own([1, 3])).dtype == np.float32
