"""Intervals of means and of functions of means: the same as scipy's BCa, whole replicates, any shape, any scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from workbench.analysis import inference
from workbench.errors import AnalysisError

METHODS = ("percentile", "expanded", "bca", "bca_expanded")


def scipy_bca(data, statistic, **options):
    return stats.bootstrap(
        data, statistic, n_resamples=20000, method="BCa", rng=np.random.default_rng(2), vectorized=True, **options
    ).confidence_interval


def test_bca_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=(15, 3))
    ours = inference.bootstrap_mean(values, resamples=20000, method="bca")
    theirs = scipy_bca((values,), np.mean, axis=0)
    width = theirs.high - theirs.low
    np.testing.assert_allclose(ours.low, theirs.low, atol=0.03 * width.min())
    np.testing.assert_allclose(ours.high, theirs.high, atol=0.05 * width.max())
    plain = inference.bootstrap_mean(values, resamples=20000, method="percentile")
    assert (np.abs(plain.high - theirs.high) > 2 * np.abs(ours.high - theirs.high)).any(), "the data must be skewed"


def test_bca_of_a_ratio_of_means_agrees_with_scipy():
    values = np.random.default_rng(3).exponential(size=(20, 2)) + 0.5
    ours = inference.bootstrap(values, lambda means: means[:, 0] / means[:, 1], resamples=20000)
    theirs = scipy_bca(
        (values[:, 0], values[:, 1]), lambda x, y, axis: x.mean(axis) / y.mean(axis), paired=True, axis=0
    )
    assert ours.mean == pytest.approx(values[:, 0].mean() / values[:, 1].mean())
    assert ours.low == pytest.approx(theirs.low, rel=0.02)
    assert ours.high == pytest.approx(theirs.high, rel=0.02)


def test_function_of_means_with_a_mean_is_the_interval_of_a_mean():
    values = np.random.default_rng(4).standard_normal((9, 2, 3))
    for method in METHODS:
        one = inference.bootstrap(values, lambda means: means, resamples=500, method=method)
        two = inference.bootstrap_mean(values, resamples=500, method=method)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_bca_covers_a_biased_and_skewed_statistic_better_than_percentiles_do():
    # variance over 20 replicates, 400 experiments of exponential data; the truth is 1
    values = np.random.default_rng(5).exponential(size=(20, 400))
    both = np.stack([values, values**2], axis=-1)
    covered = {}
    for method in ("percentile", "bca", "bca_expanded"):
        found = inference.bootstrap(both, lambda m: m[..., 1] - m[..., 0] ** 2, resamples=1000, method=method)
        covered[method] = np.mean((found.low <= 1) & (found.high >= 1))
    assert covered["percentile"] + 0.02 < covered["bca"] < covered["bca_expanded"] < 0.97


def test_too_few_replicates_have_a_value_and_no_interval():
    found = inference.bootstrap(np.ones((4, 2)), lambda means: means[:, :1])
    assert found.mean == 1
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    with pytest.raises(AnalysisError, match="no replicate"):
        inference.bootstrap(np.ones((0, 2)), lambda means: means)


@pytest.mark.parametrize("method", METHODS)
def test_not_finite_stays_in_its_column(method):
    values = np.random.default_rng(6).standard_normal((8, 3))
    values[2, 1] = np.nan
    for found in (
        inference.bootstrap_mean(values, resamples=200, method=method),
        inference.bootstrap(values, lambda means: means, resamples=200, method=method),
    ):
        assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [False, True, False]


def test_unknown_method_is_refused_by_name():
    with pytest.raises(AnalysisError, match=r"method='student': choose one of expanded, percentile, bca"):
        inference.bootstrap_mean(np.ones((6, 1)), method="student")  # type: ignore[arg-type]


numbers = st.floats(-1e3, 1e3, allow_nan=False, width=32).map(lambda x: round(x, 3))
tables = arrays(np.float64, st.tuples(st.integers(5, 12), st.integers(1, 3)), elements=numbers)


@settings(max_examples=60, deadline=None)
@given(values=tables, method=st.sampled_from(METHODS))
def test_bounds_enclose_nothing_outside_the_data_and_move_with_it(values, method):
    found = inference.bootstrap_mean(values, resamples=199, method=method)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert (found.low <= found.high + slack).all()
    assert (found.low >= values.min(axis=0) - slack).all()
    assert (found.high <= values.max(axis=0) + slack).all()
    moved = inference.bootstrap_mean(values + 7.0, resamples=199, method=method)
    np.testing.assert_allclose(moved.mean, found.mean + 7.0, atol=1e-6)
    if method in ("percentile", "expanded"):  # BCa counts ties with the value, which rounding can break
        np.testing.assert_allclose(moved.low, found.low + 7.0, atol=1e-6)


def test_bounds_of_a_standard_deviation_contain_those_of_chi_squared():
    rng = np.random.default_rng(4)
    values = rng.standard_normal((9, 50))
    found = inference.standard_deviation(values)
    np.testing.assert_allclose(found.mean, values.std(axis=0, ddof=1))
    low, high = (found.mean * np.sqrt(8 / stats.chi2.ppf(q, 8)) for q in (0.975, 0.025))
    assert (found.low <= low * (1 + 1e-12)).all()
    assert (found.high >= high * (1 - 1e-12)).all()
    np.testing.assert_allclose(inference.standard_deviation(3 * values + 7).high, 3 * found.high)


def test_a_standard_deviation_of_few_or_equal_values_does_not_fail():
    assert np.isnan(inference.standard_deviation(np.arange(4.0)).high)
    assert inference.standard_deviation(np.full(6, 2.5)) == (0.0, 0.0, 0.0)
