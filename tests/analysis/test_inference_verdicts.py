"""Equivalence and sample sizes agree with statsmodels; a verdict says what it rests on and what it lacks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from workbench.analysis import inference
from workbench.analysis.inference import Interval
from workbench.errors import AnalysisError

VALUES = np.random.default_rng(0).normal(0.2, 1.0, (12, 4))


def test_tost_agrees_with_statsmodels():
    found = inference.equivalence(VALUES, margin=0.8)
    np.testing.assert_allclose(found.p_value, [DescrStatsW(column).ttost_mean(-0.8, 0.8)[0] for column in VALUES.T])
    paired = inference.equivalence(VALUES[:, 0] - VALUES[:, 1], margin=0.8)
    assert paired.p_value == pytest.approx(ttost_paired(VALUES[:, 0], VALUES[:, 1], -0.8, 0.8)[0])


def test_tost_says_the_same_as_its_interval():
    found = inference.equivalence(np.random.default_rng(1).normal(0, 1, (10, 500)), margin=0.6)
    inside = (found.low > -0.6) & (found.high < 0.6)
    np.testing.assert_array_equal(inside, found.p_value < 0.05)


def test_without_spread_it_is_inside_or_it_is_not():
    found = inference.equivalence(np.repeat([[0.05, 0.3]], 6, axis=0), margin=0.1)
    np.testing.assert_allclose(found.p_value, [0.0, 1.0], atol=1e-12)
    assert np.isnan(inference.equivalence(np.ones((1, 2)), margin=0.1).p_value).all()


@pytest.mark.parametrize("effect", [0.3, -0.6, 3.0])
def test_number_needed_agrees_with_statsmodels(effect):
    found = inference.needed_n(VALUES, effect=effect)
    for column, n in zip(VALUES.T, found, strict=True):
        size = abs(effect) / column.std(ddof=1)
        power = TTestPower().power(size, n, 0.05)
        assert power >= 0.8
        if n > 2:
            assert TTestPower().power(size, n - 1, 0.05) < 0.8


def test_number_needed_for_equivalence_gives_the_power_it_says():
    spread = np.asarray([[-1.0], [1.0]])  # standard deviation √2
    n = int(inference.needed_n(spread, margin=1.0).item())
    rng = np.random.default_rng(2)
    shown = {}
    for size in (n, n - 3):
        found = inference.equivalence(np.sqrt(2.0) * rng.standard_normal((size, 20000)), margin=1.0)
        shown[size] = np.mean(found.p_value < 0.05)
    assert 0.79 < shown[n] < 0.85
    assert shown[n - 3] < 0.79


def test_number_needed_at_the_ends():
    found = inference.needed_n(np.asarray([[0.0, 0.0, np.nan], [0.0, 1e6, 1.0]]), effect=0.001)
    assert found[0] == 2
    assert np.isinf(found[1])
    assert np.isnan(found[2])
    with pytest.raises(AnalysisError, match="not both"):
        inference.needed_n(VALUES)
    with pytest.raises(AnalysisError, match="effect=0 must be"):
        inference.needed_n(VALUES, effect=0)


def test_corrections_agree_with_statsmodels():
    p = np.random.default_rng(3).uniform(size=(4, 5)) ** 3
    for method in ("holm", "fdr_bh"):
        expected = multipletests(p.ravel(), method=method)[1].reshape(p.shape)
        np.testing.assert_allclose(inference.adjust(p, method=method), expected)


def interval(mean, low, high):
    return Interval(np.float64(mean), np.float64(low), np.float64(high))


@pytest.mark.parametrize(
    ("given_interval", "n", "verdict", "words"),
    [
        (interval(0.5, 0.3, 0.7), 8, "supported", "0.50 (95% interval 0.30 to 0.70) lies beyond ±0.1"),
        (interval(-0.5, -0.7, -0.3), 8, "supported", "beyond ±0.1"),
        (interval(0.01, -0.05, 0.07), 8, "not supported", "within ±0.1"),
        (interval(0.3, -0.1, 0.7), 8, "undecided", "about 47 prompts would decide it"),
        (interval(0.0, -0.3, 0.3), 8, "undecided", "reaches across ±0.1"),
        (interval(0.1, 0.05, 0.15), 8, "undecided", "at the margin itself"),
        (interval(0.5, np.nan, np.nan), 3, "undecided", "3 prompts, of at least 5"),
        (interval(0.5, np.nan, np.nan), 8, "undecided", "not finite"),
    ],
)
def test_verdicts_and_their_words(given_interval, n, verdict, words):
    decision = inference.decide(given_interval, margin=0.1, n=n)
    assert decision.verdict == verdict
    assert words in decision.reason


def test_as_many_as_it_says_do_decide():
    # true effect 0.3, spread 0.5, margin 0.1: an interval of 8 says how many; so many then decide it in about 4 of 5
    rng = np.random.default_rng(4)
    found = inference.equivalence(
        np.asarray([0.3 + 0.5 * np.sqrt(7 / 8) * np.tile([-1.0, 1.0], 4)]).T, margin=0.1, alpha=0.025
    )
    n = inference.enough_for(Interval(found.mean[0], found.low[0], found.high[0]), margin=0.1, n=8)
    later = inference.equivalence(0.3 + 0.5 * rng.standard_normal((int(n), 4000)), margin=0.1, alpha=0.025)
    assert np.mean(later.low > 0.1) == pytest.approx(0.8, abs=0.03)


@given(mean=st.floats(-2, 2), width=st.floats(0, 2), margin=st.floats(0.01, 1.0), n=st.integers(0, 40))
def test_a_verdict_never_contradicts_its_interval(mean, width, margin, n):
    decision = inference.decide(interval(mean, mean - width, mean + width), margin=margin, n=n)
    if decision.verdict == "supported":
        assert abs(mean) - width > margin * (1 - 1e-9)
    if decision.verdict == "not supported":
        assert abs(mean) + width < margin * (1 + 1e-9)
    if n < inference.MINIMUM_SAMPLES:
        assert decision.verdict == "undecided"
    assert decision.reason


@pytest.mark.parametrize("margin", [0.0, -0.1, np.nan, np.inf])
def test_a_margin_that_is_none_is_refused(margin):
    for ask in (
        lambda: inference.decide(interval(0, 0, 0), margin=margin, n=8),
        lambda: inference.equivalence(VALUES, margin=margin),
        lambda: inference.needed_n(VALUES, margin=margin),
    ):
        with pytest.raises(AnalysisError, match="margin="):
            ask()


@pytest.mark.parametrize("along", [None, np.arange(5)])
@pytest.mark.parametrize("truth", [0.0, 0.1, 1.0])
def test_bounds_of_the_largest_difference_hold_it(truth, along):
    # 2000 experiments of 8 replicates with 5 labels; at most 5 % may miss, three standard errors are 1.5 %
    values = np.linspace(0, truth, 5)[:, None] + 0.2 * np.random.default_rng(5).standard_normal((8, 5, 2000))
    found = inference.largest_difference(values, along=along)
    assert np.mean((found.low > truth) | (found.high < truth)) <= 0.065
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()


def test_a_straight_line_is_found_with_fewer_replicates_and_a_bump_is_not_missed():
    noise = 0.1 * np.random.default_rng(6).standard_normal((8, 5, 1000))
    line, bump = np.linspace(0, 0.3, 5)[:, None] + noise, np.asarray([0, 0, 0.6, 0, 0])[:, None] + noise
    aware, unaware = (inference.largest_difference(line, along=a).low for a in (np.arange(5), None))
    assert np.mean(aware > 0.1) > np.mean(unaware > 0.1) + 0.2
    assert np.mean(inference.largest_difference(bump, along=np.arange(5)).low > 0.1) > 0.9


def test_largest_difference_of_too_few_has_no_bounds():
    found = inference.largest_difference(np.asarray([[0.0, 1.0], [0.0, 1.0]]))
    assert found.mean == 1
    assert np.isnan(found.low)
    with pytest.raises(AnalysisError, match="fewer than two labels"):
        inference.largest_difference(np.ones((6, 1)))
