"""The learning rate of every update: golden vectors, cases by hand, and what always holds."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowerexp.models import schedules
from flowerexp.models.schedules import Constant, Cosine, Exponential, Linear, learning_rates

DECAYING = ("exponential", "linear", "cosine")
KINDS = ("constant", *DECAYING)


def schedule_of(kind, *keys):
    return getattr(schedules, kind.capitalize())(*keys)


def test_reference_schedules(shared):
    cases = json.loads((shared / "reference/schedule.json").read_text())
    assert len(cases) == 3
    for case in cases:
        share = case["warmup_steps"] / case["update_steps"]
        schedule = Constant(case["start_lr"], case["max_lr"], case["end_lr"], share)
        rates = learning_rates(schedule, case["update_steps"], case["lr_scaling"])
        np.testing.assert_allclose(rates, case["learning_rates"], rtol=1e-6)


def test_reference_decays(shared):
    cases = json.loads((shared / "reference/decay.json").read_text())
    assert {case["kind"] for case in cases} >= {"exponential", "linear", "constant"}
    for case in cases:
        schedule = schedule_of(case["kind"], case["start_lr"], case["max_lr"], case["end_lr"],
                            case["warmup"])
        rates = learning_rates(schedule, case["update_steps"], case["lr_scaling"])
        np.testing.assert_allclose(rates, case["learning_rates"], rtol=1e-6)


def test_cosine_by_hand():
    # Two updates of warm-up, then x = 0, 1/4, 1/2 and 3/4 of half a cosine from 1 to 0.2.
    rates = learning_rates(Cosine(0.0, 1.0, 0.2, 1 / 3), 6)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(
        rates, [0, 0.5, 1, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half)], rtol=1e-12)


def test_linear_and_exponential_by_hand():
    np.testing.assert_allclose(learning_rates(Linear(0.1, 1.0, 0.0, 0.0), 4),
                               [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(learning_rates(Exponential(0.1, 1.0, 1e-4, 0.0), 4),
                               [1, 0.1, 0.01, 0.001])


def test_constant_by_hand():
    np.testing.assert_allclose(learning_rates(Constant(0.2, 1.0, None, 0.5), 8),
                               [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_start_is_a_hundredth_of_the_greatest_unless_told():
    assert learning_rates(Constant(None, 1e-3), 10)[0] == pytest.approx(1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_end_is_the_greatest_unless_told(kind):
    rates = learning_rates(schedule_of(kind, 0.0, 0.3, None, 0.2), 20)
    np.testing.assert_allclose(rates[4:], 0.3, rtol=1e-12)


def test_warmup_takes_the_whole_part_of_its_share():
    rates = learning_rates(Constant(0.0, 1.0, None, 0.39), 10)  # int(3.9) = 3
    np.testing.assert_allclose(rates, [0, 1 / 3, 2 / 3, *[1] * 7])


@pytest.mark.parametrize("kind", KINDS)
def test_without_warmup_the_first_update_has_the_greatest_rate(kind):
    end = None if kind == "constant" else 0.1
    assert learning_rates(schedule_of(kind, 0.0, 0.5, end, 0.0), 7)[0] == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_of_the_whole_run_never_decays(kind):
    end = None if kind == "constant" else 0.1
    np.testing.assert_allclose(learning_rates(schedule_of(kind, 0.0, 1.0, end, 1.0), 4),
                               [0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(("warmup", "rate"), [(0.0, 1.0), (0.99, 1.0), (1.0, 0.25)])
@pytest.mark.parametrize("kind", KINDS)
def test_run_of_one_update(kind, warmup, rate):
    end = None if kind == "constant" else 0.1
    assert learning_rates(schedule_of(kind, 0.25, 1.0, end, warmup), 1).tolist() == [rate]


rates_of = st.floats(1e-7, 1.0)
shares = st.floats(0, 1)
lengths = st.integers(1, 300)


@settings(deadline=None)
@given(st.sampled_from(DECAYING), rates_of, rates_of, rates_of, shares, lengths)
def test_rises_to_the_greatest_and_then_falls_towards_the_end(kind, one, two, three, warmup,
                                                              updates):
    start, end, greatest = *sorted((one, two)), max(one, two, three)
    rates = learning_rates(schedule_of(kind, start, greatest, end, warmup), updates)
    turn = int(updates * warmup)
    slack = 1e-12 * greatest
    assert rates.shape == (updates,)
    assert (np.diff(rates[:turn + 1]) >= -slack).all()
    assert (np.diff(rates[turn:]) <= slack).all()
    assert rates.max() <= greatest + slack
    assert rates.min() >= min(start, end) - slack
    if turn < updates:
        assert rates[turn] == pytest.approx(greatest, rel=1e-12)


@settings(deadline=None)
@given(st.sampled_from(DECAYING), rates_of, rates_of, shares, st.integers(2, 300))
def test_steps_are_small(kind, greatest, end, warmup, updates):
    # No jump: the warm-up rises evenly up to the greatest rate, and the update after the last one
    # would have the end itself.
    assume(end < greatest)
    rates = learning_rates(schedule_of(kind, 0.0, greatest, end, warmup), updates)
    turn = int(updates * warmup)
    if turn:
        rising = np.append(rates[:turn], greatest)
        np.testing.assert_allclose(np.diff(rising), greatest / turn, rtol=1e-9)
    falling = np.append(rates[turn:], end)
    steepest = {"linear": 1, "cosine": math.pi / 2, "exponential": math.log(greatest / end)}[kind]
    bound = steepest * (greatest if kind == "exponential" else greatest - end)
    assert (np.abs(np.diff(falling)) <= bound / max(updates - turn, 1) + 1e-9 * greatest).all()


@settings(deadline=None)
@given(st.sampled_from(KINDS), shares, lengths, st.floats(0.01, 64))
def test_scaling_is_a_factor_of_every_rate(kind, warmup, updates, factor):
    schedule = schedule_of(kind, 1e-5, 1e-3, None if kind == "constant" else 1e-4, warmup)
    np.testing.assert_allclose(learning_rates(schedule, updates, factor),
                               factor * learning_rates(schedule, updates), rtol=1e-12)


def test_decay_may_end_at_zero():
    for kind in ("linear", "cosine"):
        rates = learning_rates(schedule_of(kind, 0.0, 1.0, 0.0, 0.0), 100)
        assert np.isfinite(rates).all()
        assert 0 < rates[-1] < 0.02
