"""Intervals cover, corrections correct, and too few samples say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.analysis import inference


def test_expanded_interval_is_close_to_students_t_for_normal_data():
    values = np.random.default_rng(0).standard_normal((20, 1))
    interval = inference.bootstrap_mean(values, resamples=20000)
    low, high = stats.t.interval(0.95, 19, loc=values.mean(), scale=stats.sem(values[:, 0]))
    width = high - low
    assert interval.low[0] == pytest.approx(low, abs=0.05 * width)
    assert interval.high[0] == pytest.approx(high, abs=0.05 * width)


def test_percentile_method_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=(12, 3))
    ours = inference.bootstrap_mean(values, resamples=20000, method="percentile")
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        axis=0,
        n_resamples=20000,
        method="percentile",
        rng=np.random.default_rng(2),
        vectorized=True,
    ).confidence_interval
    np.testing.assert_allclose(ours.low, theirs.low, rtol=0.02)
    np.testing.assert_allclose(ours.high, theirs.high, rtol=0.02)


@pytest.mark.parametrize("n", [5, 8, 16])
def test_coverage_for_skewed_data_is_near_what_is_asked(n):
    # 400 experiments of exponential data, true mean 1; three standard errors of 400 trials at 0.9 are 0.045
    values = np.random.default_rng(n).exponential(size=(n, 400))
    interval = inference.bootstrap_mean(values, resamples=4000)
    covered = np.mean((interval.low <= 1.0) & (interval.high >= 1.0))
    assert covered >= 0.86
    plain = inference.bootstrap_mean(values, resamples=4000, method="percentile")
    assert covered >= np.mean((plain.low <= 1.0) & (plain.high >= 1.0))


def test_too_few_samples_have_a_mean_and_no_interval():
    interval = inference.bootstrap_mean(np.ones((inference.MINIMUM_SAMPLES - 1, 2)))
    assert (interval.mean == 1).all()
    assert np.isnan(interval.low).all()
    assert np.isnan(interval.high).all()


def test_a_column_without_spread_has_an_interval_without_width():
    interval = inference.bootstrap_mean(np.full((7, 2, 3), 0.1))
    assert interval.mean.shape == (2, 3)
    assert (interval.low == interval.mean).all()
    assert (interval.high == interval.mean).all()


def test_columns_share_their_resamples_so_their_order_and_number_do_not_matter():
    values = np.random.default_rng(3).standard_normal((6, 5000))
    whole = inference.bootstrap_mean(values, resamples=200)
    part = inference.bootstrap_mean(values[:, ::-1][:, :10], resamples=200)
    np.testing.assert_allclose(whole.low[::-1][:10], part.low, rtol=1e-12)
    same = inference.bootstrap_mean(values, resamples=200)
    assert (whole.low == same.low).all()
    assert (whole.low != inference.bootstrap_mean(values, resamples=200, seed=1).low).any()


def test_holm_and_benjamini_hochberg_by_hand():
    p = np.asarray([0.01, 0.04, np.nan, 0.03])
    np.testing.assert_allclose(inference.adjust(p), [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(inference.adjust(p, method="fdr_bh"), [0.03, 0.04, np.nan, 0.04])


def test_lower_bound_of_a_share_of_samples():
    # all of n: the exact one-sided bound is alpha ** (1 / n)
    np.testing.assert_allclose(inference.proportion_low(np.asarray([8, 0]), 8), [0.05 ** (1 / 8), 0.0])


def test_upper_bound_of_a_share_of_samples():
    high = inference.proportion_high(np.asarray([0, 3, 8]), 8)
    np.testing.assert_allclose(high[[0, 2]], [1 - 0.05 ** (1 / 8), 1.0])
    assert stats.binom.cdf(3, 8, high[1]) == pytest.approx(0.05)
    # 0 of 28 does not show that fewer than a tenth are hit, 0 of 29 does
    assert inference.proportion_high(np.asarray(0), 28) > 0.1 > inference.proportion_high(np.asarray(0), 29)


def test_samples_of_a_prompt_are_averaged_in_the_order_prompts_are_seen():
    values = np.arange(12.0).reshape(6, 2)
    means, names = inference.by_prompt(values, ["b", "a", "b", "c", "a", "b"])
    assert names == ["b", "a", "c"]
    np.testing.assert_allclose(means, [values[[0, 2, 5]].mean(0), values[[1, 4]].mean(0), values[3]])


def test_seeds_of_one_prompt_stay_replicates():
    values = np.arange(3.0)
    means, names = inference.by_prompt(values, ["a", "a", "a"])
    assert names == ["a"]
    np.testing.assert_array_equal(means, values)
    with pytest.raises(ValueError, match="3 samples, but 2 prompts"):
        inference.by_prompt(values, ["a", "b"])


def test_averaging_by_prompt_covers_where_resampling_samples_does_not():
    # 8 prompts x 2 seeds, four fifths of the variance between prompts; 1000 experiments, true mean 0
    rng = np.random.default_rng(0)
    values = (
        np.sqrt(0.8) * rng.standard_normal((8, 1, 1000)) + np.sqrt(0.2) * rng.standard_normal((8, 2, 1000))
    ).reshape(16, 1000)
    prompts = [str(i // 2) for i in range(16)]
    covered = []
    for used in (inference.by_prompt(values, prompts)[0], values):
        interval = inference.bootstrap_mean(used, resamples=2000)
        covered.append(np.mean((interval.low <= 0) & (interval.high >= 0)))
    assert covered[0] >= 0.92
    assert covered[1] <= 0.89
