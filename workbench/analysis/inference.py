"""What may be said about prompts not seen: intervals over prompts, corrections for multiplicity, a minimum n.

A *prompt* is the unit of replication: samples of one prompt resemble each other (most of the spread of a
massive channel is between prompts), and seeds are shared by all prompts. Tokens, layers and steps are therefore averaged inside a sample, samples inside
their prompt (`by_prompt`), and only then is anything inferred. Where there is one prompt only, its seeds
are the replicates, and what is said holds for this prompt. Every function here takes arrays whose first
axis is the replicates and nothing else that could be mistaken for replication.

Legend: S samples, P prompts, X anything else, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped, unused-ignore]
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from workbench.errors import AnalysisError

Floats = NDArray[np.float64]
Method = Literal["expanded", "percentile"]

MINIMUM_SAMPLES = 5
"""Fewest replicates for a verdict or an interval: five that agree is where an exact one-sided sign test first
falls below 0.05 (2**-5 = 0.031), and below it the bootstrap has too few distinct resamples to say anything."""

_BLOCK = 4096
"""Columns resampled at a time, so that R × X never has to fit into memory at once."""


class Interval(NamedTuple):
    """A mean over replicates with its confidence bounds, all of shape X; the bounds are NaN with too few of them."""

    mean: Floats
    low: Floats
    high: Floats


def by_prompt(values_SX: NDArray[Any], prompts: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
    """Mean over the samples of each prompt: what is resampled and counted as n.

    Parameters
    ----------
    values_SX : array, shape (S, ...)
        One value per sample.
    prompts : sequence of str
        Prompt of each sample.

    Returns
    -------
    array, shape (P, ...)
        Means in the order in which the prompts are first seen. With one distinct prompt the values are
        returned unchanged: the seeds are the replicates then, and what is inferred holds for this prompt.
    list of str
        The distinct prompts.
    """
    values, names = np.asarray(values_SX), [str(prompt) for prompt in prompts]
    if len(names) != len(values):
        raise ValueError(f"{len(values)} samples, but {len(names)} prompts")
    distinct = list(dict.fromkeys(names))
    if len(distinct) <= 1:
        return values, distinct
    at_S = np.asarray([distinct.index(name) for name in names])
    return np.stack([values[at_S == i].mean(axis=0) for i in range(len(distinct))]), distinct


def _tails(n: int, confidence: float, method: Method) -> tuple[float, float]:
    """Quantiles of the bootstrap distribution that bound the interval.

    `expanded` widens the percentile interval so that it has the width of Student's t for normal data: a
    bootstrap distribution is too narrow by sqrt((n-1)/n) and ignores that the spread is itself estimated
    (Hesterberg 2015, *The American Statistician* 69(4), section 5.3).
    """
    tail = (1.0 - confidence) / 2.0
    if method == "expanded":
        tail = float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1)))
    return tail, 1.0 - tail


def bootstrap_mean(
    values_SX: NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: Method = "expanded",
) -> Interval:
    """Mean over replicates with a bootstrap interval that resamples whole replicates.

    Parameters
    ----------
    values_SX : array, shape (S, ...)
        One value per replicate (and per whatever else); the unit is kept. See `by_prompt`.
    confidence : float
        Coverage asked for, in (0, 1). What is really covered at small S stands in `docs/methods.md`.
    resamples : int
        Bootstrap resamples R.
    seed : int
        Seed of the resampling. All columns share the same resamples, so columns stay comparable and the
        result does not depend on their order.
    method : {"expanded", "percentile"}
        See `_tails`.

    Returns
    -------
    Interval
        Mean and bounds, shape X. Bounds are NaN when S < `MINIMUM_SAMPLES`. NaN in a column gives NaN.

    Raises
    ------
    AnalysisError
        If `confidence` is not in (0, 1) or `resamples` below 1.
    """
    _check(confidence)
    if not resamples >= 1:
        raise AnalysisError(f"resamples={resamples!r} must be at least 1.")
    values = np.asarray(values_SX, dtype=np.float64)
    n, rest = values.shape[0], values.shape[1:]
    flat_SX = values.reshape(n, math.prod(rest))
    mean = flat_SX.mean(axis=0) if n else np.full(flat_SX.shape[1], np.nan)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    if n >= MINIMUM_SAMPLES:
        generator = np.random.default_rng(seed)
        # Counts of each sample in each resample: the mean of a resample is then one matrix product.
        weights_RS = generator.multinomial(n, np.full(n, 1.0 / n), size=resamples) / n
        tails = _tails(n, confidence, method)
        for start in range(0, flat_SX.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            # Centred first: columns without spread then give exactly [mean, mean], not mean plus rounding
            # noise.
            centred_SX = np.where(np.ptp(flat_SX[:, block], axis=0) == 0, 0.0, flat_SX[:, block] - mean[block])
            low[block], high[block] = mean[block] + np.quantile(weights_RS @ centred_SX, tails, axis=0)
    return Interval(mean.reshape(rest), low.reshape(rest), high.reshape(rest))


def adjust(p_values: NDArray[Any], *, method: Literal["holm", "fdr_bh"] = "holm") -> Floats:
    """p-values corrected for multiplicity: Holm (family-wise error) or Benjamini-Hochberg (false discovery rate).

    Parameters
    ----------
    p_values : array, any shape
        NaN is a test that was not made: it stays NaN and does not count.
    method : {"holm", "fdr_bh"}
        Correction.

    Returns
    -------
    array
        Corrected p-values of the same shape.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    made = np.isfinite(p)
    if made.any():
        corrected[made] = multipletests(p[made], method=method)[1]
    return corrected


def proportion_low(successes: NDArray[Any], n: int, *, confidence: float = 0.95) -> Floats:
    """One-sided lower bound for a share of replicates (Clopper-Pearson, exact).

    Parameters
    ----------
    successes : array
        Number of replicates, of `n`, in which something held.
    n : int
        Replicates looked at.
    confidence : float
        Coverage of the bound.

    Returns
    -------
    array
        Lower bounds of the share, in [0, 1].
    """
    _check(confidence)
    counts = np.asarray(successes, dtype=np.int64)
    low = proportion_confint(counts, n, alpha=2.0 * (1.0 - confidence), method="beta")[0]
    return np.where(counts == 0, 0.0, np.asarray(low, dtype=np.float64))


def _check(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise AnalysisError(f"confidence={confidence!r} must lie between 0 and 1, as 0.95 does.")
