"""Corrections for many tests, and exact bounds of a share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from workbench.analysis.inference.replicates import Floats, check_confidence


def adjust(p_values: NDArray[Any], *, method: Literal["holm", "fdr_bh"] = "holm") -> Floats:
    """p-values corrected for multiplicity: Holm (family-wise error) or Benjamini-Hochberg (false discovery rate).

    Where permutations are shared between tests, `permutation.Permuted.p_corrected` wastes less.

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
        # Not statsmodels' Holm, which collects garbage at every call: most of a second in a large process.
        corrected[made] = _holm(p[made]) if method == "holm" else multipletests(p[made], method=method)[1]
    return corrected


def _holm(p_values: Floats) -> Floats:
    """Holm (1979, *Scand. J. Stat.* 6, 65-70): step-down, each p times the number of tests that are left."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(stepped, 1.0)
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
    check_confidence(confidence)
    counts = np.asarray(successes, dtype=np.int64)
    low = proportion_confint(counts, n, alpha=2.0 * (1.0 - confidence), method="beta")[0]
    return np.where(counts == 0, 0.0, np.asarray(low, dtype=np.float64))


def proportion_high(successes: NDArray[Any], n: int, *, confidence: float = 0.95) -> Floats:
    """One-sided upper bound for a share of replicates (Clopper-Pearson, exact).

    Parameters
    ----------
    successes : array
        Number of replicates, of `n`, in which something held.
    n : int
        Replicates looked at, at least 1.
    confidence : float
        Coverage of the bound.

    Returns
    -------
    array
        Upper bounds of the share, in [0, 1]; with none of n it is 1 - (1 - confidence)^(1/n).
    """
    check_confidence(confidence)
    counts = np.asarray(successes, dtype=np.int64)
    high = proportion_confint(counts, n, alpha=2.0 * (1.0 - confidence), method="beta")[1]
    return np.where(counts == n, 1.0, np.asarray(high, dtype=np.float64))
