"""Figures of merit against answers known otherwise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hitfinder.models import metrics
from hitfinder.models.errors import ModelError

GRID = (0.003, 0.01, 0.03, 0.1, 1.0)
points = arrays(np.float64, st.tuples(st.integers(0, 12), st.just(2)), elements=st.floats(0, 20))
rates = arrays(np.float64, 5, elements=st.floats(0, 1))


def test_wilson_gives_the_published_interval():
    rate = metrics.wilson(5, 6000)
    assert (rate.low, rate.high) == pytest.approx((0.000356, 0.001949), abs=2e-6)
    assert metrics.wilson(0, 3000).high == pytest.approx(0.00128, abs=1e-5)
    assert metrics.wilson(0, 3000).low == 0
    assert metrics.wilson(7, 7).high == 1
    assert math.isnan(metrics.wilson(0, 0).value)
    with pytest.raises(ModelError, match="3 of 2"):
        metrics.wilson(3, 2)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_holds_the_rate_and_narrows(n: int, share: float):
    rate, more = metrics.wilson(int(share * n), n), metrics.wilson(int(share * n) * 9, n * 9)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert more.high - more.low < rate.high - rate.low


def test_a_threshold_lets_the_allowed_number_of_blanks_pass():
    blanks = np.random.default_rng(1).permutation(9999).astype(np.float64)
    cut = metrics.threshold_for(blanks, 1e-3)
    assert cut.rate == 1e-3
    assert metrics.rate_above(blanks, cut.value).k == 9  # the tenth is the cut itself
    few = metrics.threshold_for(blanks[:99], 1e-3)
    assert (few.rate, few.value) == (0.01, blanks[:99].max())
    for blank, rate in ((blanks[:0], 0.1), (blanks, 0.0)):
        with pytest.raises(ModelError, match="blanks"):
            metrics.threshold_for(blank, rate)


@given(arrays(np.float64, st.integers(1, 60), elements=st.integers(0, 5)), st.floats(1e-3, 1))
def test_no_threshold_lets_more_pass_than_its_rate(blanks: np.ndarray, rate: float):
    cut = metrics.threshold_for(blanks, rate)
    assert metrics.rate_above(blanks, cut.value).k < cut.rate * (len(blanks) + 1)


def test_s90_lies_between_the_points_around_it():
    assert metrics.s90(GRID, np.array([0.2, 0.8, 1, 1, 1])) == pytest.approx(
        math.exp((math.log(0.01) + math.log(0.03)) / 2)
    )
    assert metrics.s90(GRID, np.array([0.95, 0.8, 1, 1, 1])) > 0.01  # it must stay
    assert metrics.s90(GRID, np.ones(5)) == GRID[0]
    assert math.isinf(metrics.s90(GRID, np.array([1, 1, 1, 1, 0.89])))
    assert math.isinf(metrics.s90(GRID, np.full(5, np.nan)))


@given(rates, rates)
def test_s90_never_grows_with_the_tpr(a: np.ndarray, b: np.ndarray):
    assert metrics.s90(GRID, np.maximum(a, b)) <= metrics.s90(GRID, a) * (1 + 1e-9)


def test_means_over_sets_and_their_spread():
    assert metrics.geometric_mean([0.01, 0.04]) == pytest.approx(0.02)
    assert math.isinf(metrics.geometric_mean([0.01, math.inf]))
    alike = np.tile([0.5, 0.85, 1, 1, 1], (8, 1))
    spread = metrics.bootstrap_s90(GRID, [alike, alike], n_rounds=20)
    assert spread.low == spread.high == pytest.approx(metrics.s90(GRID, alike[0]))
    mixed = np.where(np.arange(8)[:, None] < 4, alike, [0.0, 0, 0, 1, 1])
    spread = metrics.bootstrap_s90(GRID, [mixed], n_rounds=200)
    assert spread.low < spread.high
    assert spread == metrics.bootstrap_s90(GRID, [mixed], n_rounds=200)


def test_reliability_of_honest_and_of_boastful_probabilities():
    rng = np.random.default_rng(2)
    p = rng.random(100_000)
    honest = metrics.reliability(p, rng.random(len(p)) < p)
    assert honest.expected_calibration_error < 0.01
    np.testing.assert_allclose(honest.true, honest.stated, atol=0.02)
    assert honest.n.sum() == len(p)
    boast = metrics.reliability(np.full(1000, 0.9), np.arange(1000) < 500)
    assert boast.expected_calibration_error == pytest.approx(0.4)
    assert np.isnan(boast.stated[0])
    assert metrics.reliability(np.ones(3), np.ones(3, bool)).n[-1] == 3


def test_positions_pair_with_their_nearest_once():
    truth = np.array([[10.0, 10], [13, 10], [50, 50]])
    reported = np.array([[11.4, 10], [12.4, 10], [90, 90], [49, 50]])
    assert metrics.match(reported, truth, 2.0).tolist() == [0, 1, -1, 2]
    assert metrics.match(reported[:1], truth[:0], 2.0).tolist() == [-1]
    assert metrics.distance_to_nearest(reported, truth)[3] == 1
    assert np.isinf(metrics.distance_to_nearest(reported, truth[:0])).all()


@given(points, points, st.floats(0.1, 9))
def test_pairs_are_within_reach_and_one_to_one(a: np.ndarray, b: np.ndarray, reach: float):
    partner = metrics.match(a, b, reach)
    paired = partner >= 0
    assert len(set(partner[paired])) == paired.sum()
    assert (np.hypot(*(a[paired] - b[partner[paired]]).T) <= reach).all()
    unpaired = np.setdiff1d(np.arange(len(b)), partner)
    # Nothing within reach is left over on both sides.
    assert (metrics.distance_to_nearest(a[~paired], b[unpaired]) > reach).all()
