"""Bootstrap and McNemar against plain implementations, SciPy, and cases by hand."""

import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerexp import metrics
from flowerexp.comparison import significance
from flowerexp.comparison.significance import bootstrap, mcnemar, recall_changes, resamples
from flowerexp.metrics import recalls


def sklearn_scores(labels, predictions):
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, average="macro", zero_division=0)
    return np.array([np.mean(labels == predictions), recall, precision, f1])


def plain_scores(labels, predictions):
    """The four scores by their definitions, class by class."""
    present = sorted({*labels.tolist(), *predictions.tolist()})
    recall, precision, f1 = [], [], []
    for label in present:
        right = np.sum((labels == label) & (predictions == label))
        of_label, as_label = np.sum(labels == label), np.sum(predictions == label)
        recall.append(right / of_label if of_label else 0)
        precision.append(right / as_label if as_label else 0)
        f1.append(2 * right / (of_label + as_label))
    return np.array([np.mean(labels == predictions), np.mean(recall), np.mean(precision),
                     np.mean(f1)])


def noisy(random, labels, accuracy, classes, seeds=1):
    shape = (seeds, len(labels))
    return np.where(random.random(shape) < accuracy, labels, random.integers(0, classes, shape))


def example(seeds=3, images=60, classes=6, seed=0):
    random = np.random.default_rng(seed)
    labels = random.choice(classes, images, p=np.arange(classes, 0, -1)
                           / (classes * (classes + 1) / 2))
    return (labels, noisy(random, labels, 0.6, classes, seeds),
            noisy(random, labels, 0.5, classes, seeds))


# The bootstrap against plain implementations

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_are_those_of_a_loop_over_the_same_draws(seeds):
    labels, candidate, baseline = example(seeds, images=40)
    draws = []
    for of_seeds, of_images in resamples(seeds, 40, 80, chunk=32):
        for chosen, images in zip(of_seeds, of_images, strict=True):
            draws.append(np.mean([sklearn_scores(labels[images], candidate[seed][images])
                                  - sklearn_scores(labels[images], baseline[seed][images])
                                  for seed in chosen], axis=0))
    found = bootstrap(labels, candidate, baseline, draws=80)
    assert tuple(found) == metrics.NAMES
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    np.testing.assert_allclose([found[name][1] for name in found], low, atol=1e-12)
    np.testing.assert_allclose([found[name][2] for name in found], high, atol=1e-12)


@pytest.mark.parametrize("seeds", [1, 4])
def test_intervals_are_those_of_other_draws(seeds):
    labels, candidate, baseline = example(seeds, images=80)
    random = np.random.default_rng(99)
    draws = []
    for _ in range(1500):
        images, chosen = random.integers(0, 80, 80), random.integers(0, seeds, seeds)
        draws.append(np.mean([plain_scores(labels[images], candidate[seed][images])
                              - plain_scores(labels[images], baseline[seed][images])
                              for seed in chosen], axis=0))
    found = bootstrap(labels, candidate, baseline)
    for index, name in enumerate(metrics.NAMES):
        low, high = np.percentile(np.array(draws)[:, index], [2.5, 97.5])
        width = high - low
        assert found[name][1] == pytest.approx(low, abs=0.08 * width)
        assert found[name][2] == pytest.approx(high, abs=0.08 * width)


def test_accuracy_of_one_seed_is_the_bootstrap_of_scipy():
    labels, candidate, baseline = example(1, images=200)
    gains = (candidate[0] == labels).astype(float) - (baseline[0] == labels)
    wanted = scipy.stats.bootstrap((gains,), np.mean, n_resamples=10_000, method="percentile",
                                   rng=np.random.default_rng(1)).confidence_interval
    value, low, high = bootstrap(labels, candidate, baseline)["acc"]
    assert value == pytest.approx(gains.mean(), abs=1e-15)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.01)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_difference_is_the_mean_difference_of_the_histories(seeds):
    labels, candidate, baseline = example(seeds)
    of_sides = [[metrics.scores(metrics.confusion_matrix(labels, row, 6)) for row in side]
                for side in (candidate, baseline)]
    found = bootstrap(labels, candidate, baseline, draws=10)
    for name in metrics.NAMES:
        wanted = np.mean([one[name] - other[name] for one, other in zip(*of_sides, strict=True)])
        assert found[name][0] == pytest.approx(wanted, abs=1e-12)


# What the intervals mean

def test_seeds_are_drawn_in_pairs():
    # Every image says the same, so only the seeds vary: 0, 1/2 and 1 with 1/4, 1/2 and 1/4.
    labels = np.zeros(20, int)
    right, wrong = np.zeros(20, int), np.ones(20, int)
    found = bootstrap(labels, np.array([right, right]), np.array([right, wrong]))
    assert found["acc"] == (0.5, 0, 1)
    # Both sides fail with the same seed: paired, there is no difference at all.
    same = np.array([right, wrong])
    assert bootstrap(labels, same, same)["acc"] == (0, 0, 0)


def test_images_are_the_same_for_every_seed():
    # Three equal seeds know no more about the images than one.
    labels, candidate, baseline = example(1, images=200)
    one = bootstrap(labels, candidate, baseline)
    three = bootstrap(labels, np.repeat(candidate, 3, axis=0), np.repeat(baseline, 3, axis=0))
    for name in metrics.NAMES:
        np.testing.assert_allclose(three[name], one[name], atol=1e-12)


def test_where_nothing_differs_about_95_per_cent_of_intervals_span_zero():
    random = np.random.default_rng(3)
    spans = dict.fromkeys(metrics.NAMES, 0)
    for _ in range(200):
        labels = random.integers(0, 4, 150)
        found = bootstrap(labels, noisy(random, labels, 0.6, 4), noisy(random, labels, 0.6, 4),
                          draws=400)
        for name, (_, low, high) in found.items():
            spans[name] += low <= 0 <= high
    # Four standard errors of 200 draws around 95 %, and a little for 400 draws.
    assert all(0.88 <= count / 200 <= 0.995 for count in spans.values()), spans


def test_intervals_know_the_chance_of_the_seeds():
    # A run is lucky or not as a whole; with ten seeds the interval covers no difference.
    random = np.random.default_rng(4)
    spans, spans_of_images = 0, 0
    for _ in range(100):
        labels = random.integers(0, 4, 150)
        sides = [np.concatenate([noisy(random, labels, luck, 4)
                                 for luck in random.normal(0.6, 0.08, 10)]) for _ in range(2)]
        _, low, high = bootstrap(labels, *sides, draws=400)["acc"]
        spans += low <= 0 <= high
        flat = [side.reshape(1, -1) for side in sides]
        _, low, high = bootstrap(np.tile(labels, 10), *flat, draws=400)["acc"]
        spans_of_images += low <= 0 <= high
    assert spans >= 85
    assert spans_of_images <= 75


def test_great_difference_is_clear():
    random = np.random.default_rng(5)
    labels = random.integers(0, 4, 300)
    found = bootstrap(labels, noisy(random, labels, 0.9, 4), noisy(random, labels, 0.5, 4))
    assert all(low > 0.2 for _, low, _ in found.values())


# The bootstrap as a function

cases = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        st.lists(st.integers(0, shape[2]), min_size=shape[1], max_size=shape[1]),
        *[st.lists(st.lists(st.integers(0, shape[2]), min_size=shape[1], max_size=shape[1]),
                   min_size=shape[0], max_size=shape[0])] * 2))


@settings(deadline=None, max_examples=60)
@given(cases)
def test_sides_exchanged_negate_everything(case):
    labels, candidate, baseline = map(np.array, case)
    found = bootstrap(labels, candidate, baseline, draws=60)
    other = bootstrap(labels, baseline, candidate, draws=60)
    for name, (value, low, high) in found.items():
        assert (value, low, high) == pytest.approx(
            (-other[name][0], -other[name][2], -other[name][1]), abs=1e-12)
        assert -1 <= low <= high <= 1
    same = bootstrap(labels, candidate, candidate, draws=60)
    assert set(same.values()) == {(0.0, 0.0, 0.0)}
    assert (recall_changes(labels, candidate, baseline)[np.unique(labels)]
            == -recall_changes(labels, baseline, candidate)[np.unique(labels)]).all()
    assert mcnemar(labels, candidate[0], baseline[0]) == mcnemar(labels, baseline[0], candidate[0])


@settings(deadline=None, max_examples=60)
@given(cases)
def test_differences_are_those_of_plain_scores(case):
    labels, candidate, baseline = map(np.array, case)
    found = bootstrap(labels, candidate, baseline, draws=3)
    wanted = np.mean([plain_scores(labels, one) - plain_scores(labels, other)
                      for one, other in zip(candidate, baseline, strict=True)], axis=0)
    np.testing.assert_allclose([value for value, _, _ in found.values()], wanted, atol=1e-12)


def test_repeated_it_is_the_same_to_the_bit(monkeypatch):
    labels, candidate, baseline = example()
    first = bootstrap(labels, candidate, baseline)
    np.random.seed(1)  # global state has no part in it
    assert bootstrap(labels, candidate, baseline) == first
    monkeypatch.setattr(significance, "CHUNK", 7000)
    assert bootstrap(labels, candidate, baseline) == first


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_draws_do_not_depend_on_the_chunk(chunk):
    whole = next(resamples(3, 11, 64, chunk=64))
    parts = list(resamples(3, 11, 64, chunk=chunk))
    for level in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[level] for part in parts]),
                                      whole[level])
    assert whole[0].shape == (64, 3)
    assert whole[1].shape == (64, 11)


def test_seeds_and_images_are_drawn_apart():
    of_seeds, of_images = next(resamples(50, 50, 40, chunk=40))
    assert (of_seeds == of_images).mean() < 0.1
    assert set(of_seeds.ravel()) == set(of_images.ravel()) == set(range(50))


def test_one_image_and_one_class():
    one = np.zeros(1, int)
    assert set(bootstrap(one, one[None], one[None]).values()) == {(0, 0, 0)}
    found = bootstrap(one, one[None], one[None] + 9)
    assert found["acc"] == (1, 1, 1)
    assert found["recall"] == (1, 1, 1)


def test_class_ids_need_not_be_dense():
    labels, candidate, baseline = example()
    spread = [ids * 10**9 + 5 for ids in (labels, candidate, baseline)]
    assert bootstrap(*spread, draws=50) == bootstrap(labels, candidate, baseline, draws=50)


def test_memory_of_a_whole_pair():
    random = np.random.default_rng(0)
    labels = random.integers(0, 104, 3700)
    sides = [noisy(random, labels, 0.5, 104, seeds=3) for _ in range(2)]
    tracemalloc.start()
    bootstrap(labels, *sides)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20


# McNemar

def of_counts(both, candidate_alone, baseline_alone, none):
    total = both + candidate_alone + baseline_alone + none
    labels = np.arange(total) % 3
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]],
                      [both, candidate_alone, baseline_alone, none], axis=0).astype(bool)
    return (labels, *(np.where(column, labels, labels + 1) for column in right.T))


@pytest.mark.parametrize(("candidate_alone", "baseline_alone", "wanted"), [
    (1, 9, 0.021484375), (9, 1, 0.021484375), (0, 0, 1.0), (4, 4, 1.0), (0, 1, 1.0),
    (0, 6, 0.03125), (3, 5, 0.7265625)])
def test_mcnemar_by_hand(candidate_alone, baseline_alone, wanted):
    for both, none in ((0, 0), (50, 7)):
        if both + candidate_alone + baseline_alone + none:
            found = mcnemar(*of_counts(both, candidate_alone, baseline_alone, none))
            assert found == pytest.approx(wanted, rel=1e-12)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_a_sum_of_binomials(one, other):
    total = one + other
    tail = sum(math.comb(total, k) for k in range(min(one, other) + 1)) / 2**total
    assert mcnemar(*of_counts(3, one, other, 3)) == pytest.approx(min(1, 2 * tail))


# Recalls

def test_recalls_by_hand():
    found = recalls(np.array([0, 0, 1, 3]), np.array([0, 2, 1, 1]), 5)
    np.testing.assert_array_equal(found, [0.5, 1, np.nan, 0, np.nan])


def test_recalls_are_those_of_the_metrics():
    labels, candidate, _ = example(1)
    wanted = metrics.class_scores(metrics.confusion_matrix(labels, candidate[0], 6))["recall"]
    np.testing.assert_allclose(recalls(labels, candidate[0], 6), wanted)


def test_recall_changes_are_means_over_the_seeds():
    labels, candidate, baseline = example()
    wanted = np.mean([recalls(labels, one, 6) - recalls(labels, other, 6)
                      for one, other in zip(candidate, baseline, strict=True)], axis=0)
    np.testing.assert_allclose(recall_changes(labels, candidate, baseline), wanted, atol=1e-12)


def test_seeds_that_cancel_out_leave_exactly_nothing():
    labels = np.zeros(10, int)
    rows = [np.arange(10) >= count for count in (1, 3, 7)]
    candidate, baseline = np.array(rows, int), np.array(rows[::-1], int)
    assert recall_changes(labels, candidate, baseline).tolist() == [0]
    assert np.isnan(recall_changes(labels + 1, candidate, baseline)[0])
