"""Random numbers that are a function of their key, and their distributions."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from flowerexp import rng


def test_mix_and_uniform_give_splitmix64_of_the_key():
    # The first three outputs of SplitMix64 with the state 0, as published with xoshiro.
    got = rng.fold(tf.zeros([3], tf.uint64), tf.range(3, dtype=tf.int64)).numpy()
    assert got.tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    high = rng.uniform(tf.zeros([1], tf.uint64), 3).numpy()[0] * 2**32
    assert high.tolist() == [0xE220A839, 0x6E789E6A, 0x06C45D18]


def test_draws_are_uniform_and_independent_of_their_neighbours():
    def sample(seed=0, purpose="one", epoch=0, start=0):
        return rng.uniform(rng.keys(seed, purpose, epoch, tf.range(start, start + 20000)),
                           2).numpy()

    reference = sample()
    for one in (reference, sample(seed=1), sample(epoch=1), sample(purpose="two")):
        for column in one.T:
            counts = np.histogram(column, 64, (0, 1))[0]
            assert stats.chisquare(counts).pvalue > 1e-4
    # 4.5 sigma of the correlation of independent draws.
    columns = [*reference.T, *(one[:, 0] for one in (
        sample(seed=1), sample(epoch=1), sample(purpose="two"), sample(start=1)))]
    assert abs(np.corrcoef(columns) - np.eye(6)).max() < 4.5 / math.sqrt(20000)


def test_integers_fill_their_range_evenly():
    uniform = rng.uniform(rng.keys(0, "test", 0, tf.range(30000)), 1)[:, 0]
    values = rng.integers(uniform, -3, 4).numpy()
    assert set(values) == set(range(-3, 4))
    assert stats.chisquare(np.bincount(values + 3)).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 4.0])
def test_symmetric_beta_has_the_distribution_of_scipy(alpha):
    uniform = rng.uniform(rng.keys(5, "test", 0, tf.range(20000)), 2)
    sample = rng.symmetric_beta(alpha, uniform).numpy()
    assert np.isfinite(sample).all()
    assert (sample >= 0).all()
    assert (sample <= 1).all()
    if alpha >= 0.2:  # below it, numbers next to 0 and 1 are rounded and KS sees the ties
        assert stats.kstest(sample, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert sample.var() == pytest.approx(stats.beta(alpha, alpha).var(), rel=0.05)
