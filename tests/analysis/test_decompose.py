"""The decomposition of a balanced factorial is the analysis of variance, and its shares sum to one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from workbench.analysis.decompose import components, shares


def test_sums_of_squares_agree_with_statsmodels():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 2, 3, 4))
    values += (
        rng.standard_normal((5, 1, 1, 4)) + 2 * rng.standard_normal((1, 1, 3, 1)) + rng.standard_normal((5, 1, 1, 1))
    )
    table = pd.DataFrame(
        [(f"p{p}", f"s{s}", f"t{t}", f"e{e}", values[p, s, t, e]) for p, s, t, e in np.ndindex(*values.shape)],
        columns=["p", "s", "t", "e", "y"],
    )
    # all two-way interactions: what is left is the rest
    theirs = anova_lm(ols("y ~ (p + s + t + e) ** 2", table).fit(), typ=1)["sum_sq"]
    names, share, deviation = shares(values[..., None], resamples=10)
    ours = dict(zip(names, share.mean[:, 0], strict=True))
    expected = {
        "embedding": "e",
        "latent": "t",
        "embedding:latent": "t:e",
        "replicate": "p",
        "other": "s",
        "replicate:embedding": "p:e",
        "replicate:latent": "p:t",
        "replicate:other": "p:s",
        "other:embedding": "s:e",
        "other:latent": "s:t",
        "rest": "Residual",
    }
    for name, term in expected.items():
        assert ours[name] == pytest.approx(theirs[term] / theirs.sum(), rel=1e-8), name
    np.testing.assert_allclose(deviation.mean[:, 0] ** 2, share.mean[:, 0] * values.var())


@settings(max_examples=30, deadline=None)
@given(
    values=arrays(np.float64, (5, 2, 2, 3, 2), elements=st.floats(-50, 50, width=32)),
    level=st.floats(-100, 100),
)
def test_shares_sum_to_one_and_no_level_changes_them(values, level):
    share = shares(values, resamples=5)[1]
    assert ((share.mean >= 0) | np.isnan(share.mean)).all()
    sums = share.mean.sum(axis=0)
    varies = values.reshape(-1, 2).var(axis=0) > 1e-6
    np.testing.assert_allclose(sums[varies], 1.0)
    moved = shares(values + level, resamples=5)[1]
    np.testing.assert_allclose(moved.mean[:, varies], share.mean[:, varies], atol=1e-6)


def test_components_add_up_to_the_values():
    values = np.random.default_rng(1).standard_normal((3, 2, 4, 5))
    np.testing.assert_allclose(sum(components(values, (1, 2, 3)).values()), values)


def test_what_does_not_vary_has_no_shares():
    share = shares(np.full((6, 1, 2, 2, 1), 3.7), resamples=20)[1]
    assert np.isnan(share.mean).all()
    assert np.isnan(share.low).all()


def test_intervals_know_that_prompts_disagree():
    # prompts with effects of opposite sign: the common share is small, and its interval wide
    slope = np.asarray([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.2, -0.8])
    values = (
        slope[:, None, None, None, None] * np.linspace(-1, 1, 5)[None, None, None, :, None] * np.ones((8, 1, 4, 5, 1))
    )
    names, share, _ = shares(values)
    assert share.mean[names.index("embedding"), 0] < 0.02
    assert share.mean[names.index("replicate:embedding"), 0] > 0.95
    agreed = np.abs(values) * np.sign(np.linspace(-1, 1, 5))[None, None, None, :, None]
    names, share, _ = shares(agreed)
    assert share.low[names.index("embedding"), 0] > 0.9
