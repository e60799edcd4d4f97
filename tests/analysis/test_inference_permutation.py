"""Permutation tests: the same p-values as scipy's where exact, uniform under the null, corrected over columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from workbench.analysis import inference
from workbench.errors import AnalysisError


def exact_p(values, alternative):
    return stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf, vectorized=True
    ).pvalue


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_exact_flips_agree_with_scipy(alternative):
    values = np.random.default_rng(0).normal(0.4, 1.0, (9, 4))
    found = inference.sign_flip(values, alternative=alternative)
    assert found.exact
    assert found.permutations == 2**9
    np.testing.assert_allclose(found.p_value, [exact_p(values[:, i], alternative) for i in range(4)], rtol=1e-12)


def test_random_flips_come_close_to_all_flips_and_are_never_zero():
    values = np.random.default_rng(1).normal(0.5, 1.0, (14, 2))
    found = inference.sign_flip(values, resamples=9999)
    assert not found.exact
    np.testing.assert_allclose(found.p_value, [exact_p(values[:, i], "two-sided") for i in range(2)], atol=0.015)
    sure = inference.sign_flip(np.ones((40, 1)) + 0.01 * np.arange(40)[:, None], resamples=99)
    assert sure.p_value == pytest.approx(1 / 100)


def test_labels_inside_replicates_agree_with_scipy():
    values = np.random.default_rng(2).standard_normal((4, 3))
    values[:, 0] += 1.0

    def spread(*labels, axis=-1):
        return np.var([np.mean(one, axis=axis) for one in labels], axis=0)

    theirs = stats.permutation_test(
        tuple(values.T), spread, permutation_type="samples", alternative="greater", n_resamples=np.inf, vectorized=True
    ).pvalue
    found = inference.permute_within(values)
    assert found.exact
    assert found.p_value == pytest.approx(theirs)
    assert found.statistic == pytest.approx(values.mean(0).var() / values.var(1).mean())


def test_two_labels_are_flips_of_their_difference():
    values = np.random.default_rng(3).standard_normal((8, 2, 3)) + np.asarray([[[0.0], [0.8]]])
    labels, flips = inference.permute_within(values), inference.sign_flip(values[:, 1] - values[:, 0])
    np.testing.assert_allclose(labels.p_value, flips.p_value)
    np.testing.assert_allclose(labels.p_corrected, flips.p_corrected)


@pytest.mark.parametrize("n", [6, 15])
def test_p_values_are_uniform_under_the_null(n):
    # 400 columns without effect: at 5 % between 9 and 33 are called (four standard errors)
    rng = np.random.default_rng(n)
    for found in (
        inference.sign_flip(rng.standard_normal((n, 400)), resamples=999),
        inference.permute_within(rng.standard_normal((n, 4, 400)), resamples=999),
    ):
        assert found.p_value.min() > 0
        assert (found.p_value <= 0.05).sum() <= 33
        assert (found.p_value <= 0.5).mean() == pytest.approx(0.5, abs=0.1)


def test_largest_statistic_controls_the_family_and_wastes_less_than_holm():
    # 300 families of 10 columns that are nearly copies of each other, none with an effect
    rng = np.random.default_rng(4)
    any_called, sums = 0, np.zeros(2)
    for i in range(300):
        values = rng.standard_normal((8, 1)) + 0.1 * rng.standard_normal((8, 10))
        found = inference.sign_flip(values)
        any_called += bool((found.p_corrected <= 0.05).any())
        if i < 20:
            sums += found.p_corrected.min(), inference.adjust(found.p_value).min()
    assert any_called <= 28  # 15 expected, 28 at 3.5 standard errors
    assert sums[0] < 0.75 * sums[1]


def test_corrected_by_hand():
    observed, null = np.asarray([3.0, 1.0, np.nan]), np.asarray([[1.0, 2.0, 9.0], [0.0, 0.5, 9.0], [4.0, 0.0, 9.0]])
    np.testing.assert_allclose(inference.max_statistic(observed, null), [2 / 4, 3 / 4, np.nan])
    np.testing.assert_allclose(inference.max_statistic(observed, null, exact=True), [1 / 3, 2 / 3, np.nan])


def test_nothing_to_see_has_p_of_one_and_nan_stays_where_it_is():
    values = np.zeros((7, 3))
    values[:, 1], values[3, 2] = np.arange(1.0, 8.0), np.nan
    found = inference.sign_flip(values)
    np.testing.assert_allclose(found.p_value, [1.0, 2 / 128, np.nan])
    np.testing.assert_allclose(found.p_corrected, [1.0, 2 / 128, np.nan])
    same = np.repeat(np.arange(6.0)[:, None, None] + 0.1, 4, axis=1)  # levels differ, labels don't
    assert inference.permute_within(same).p_value.item() == 1.0
    same[0, 0] = np.nan
    assert np.isnan(inference.permute_within(same).p_value).all()


def test_a_function_of_label_means_can_be_tested():
    labels = np.arange(5) - 2.0
    values = 0.25 * labels + np.random.default_rng(6).standard_normal((8, 5))
    trend = inference.permute_within(
        values[..., None], function=lambda means: np.abs(np.einsum("mkx,k->mx", means, labels))
    )
    assert trend.p_value.item() < inference.permute_within(values[..., None]).p_value.item()


def test_flipped_vectors_of_one_part_are_flips():
    values = np.random.default_rng(7).normal(0.4, 1.0, (9, 1, 3))
    vectors, plain = inference.sign_flip_vectors(values), inference.sign_flip(values[:, 0])
    np.testing.assert_allclose(vectors.p_value, plain.p_value)
    np.testing.assert_allclose(vectors.p_corrected, plain.p_corrected)


def test_flipped_vectors_keep_their_level_where_labels_resemble_their_neighbours():
    # profiles that are random walks: labels are not exchangeable, but prompts have nothing in common
    walks = np.cumsum(np.random.default_rng(8).standard_normal((8, 6, 2000)), axis=1)
    flips = inference.sign_flip_vectors(walks - walks.mean(axis=1, keepdims=True))
    labels = inference.permute_within(walks, resamples=499)
    assert np.mean(flips.p_value <= 0.05) <= 0.065
    assert np.mean(labels.p_value <= 0.05) > 0.08


def test_bad_arguments_are_named():
    with pytest.raises(AnalysisError, match="alternative='bigger': choose two-sided"):
        inference.sign_flip(np.ones((5, 1)), alternative="bigger")  # type: ignore[arg-type]
    with pytest.raises(AnalysisError, match=r"shape \(5, 1\) have fewer than two labels"):
        inference.permute_within(np.ones((5, 1)))
    with pytest.raises(AnalysisError, match="no replicate"):
        inference.sign_flip(np.ones((0, 2)))
    with pytest.raises(AnalysisError, match="resamples=0"):
        inference.sign_flip(np.ones((5, 2)), resamples=0)


tables = arrays(
    np.float64,
    st.tuples(st.integers(2, 8), st.integers(1, 4)),
    elements=st.floats(-100, 100, allow_nan=False, width=32),
)


@settings(max_examples=60, deadline=None)
@given(values=tables, scale=st.sampled_from([0.5, 4.0, 1024.0]))
def test_p_is_a_probability_that_no_scale_changes(values, scale):
    found = inference.sign_flip(values)
    assert ((found.p_value >= 2.0 ** -len(values)) & (found.p_value <= 1)).all()
    assert (found.p_corrected >= found.p_value).all()
    scaled = inference.sign_flip(values * scale)
    np.testing.assert_array_equal(scaled.p_value, found.p_value)
    greater, less = (inference.sign_flip(values, alternative=side).p_value for side in ("greater", "less"))
    np.testing.assert_array_equal(less, inference.sign_flip(-values, alternative="greater").p_value)
    assert (greater + less >= 1).all()
