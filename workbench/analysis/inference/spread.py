"""A standard deviation over replicates with bounds that few replicates and long tails do not make too narrow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from workbench.analysis.inference.intervals import Interval
from workbench.analysis.inference.replicates import MINIMUM_SAMPLES, Floats, check_confidence


def standard_deviation(values_RX: NDArray[Any], *, confidence: float = 0.95) -> Interval:
    """Standard deviation (divisor R - 1) with the wider of two bounds on either side.

    The chi-squared bounds are exact for normal replicates; those of Bonett (2006, *Comput. Stat. Data Anal.* 50, 775-782,
    equation 3) allow for the kurtosis that is seen. How often the interval covers the truth stands in `docs/methods.md`:
    no interval of a variance from a handful of replicates covers it where tails are long.

    Parameters
    ----------
    values_RX : array, shape (R, ...)
        One value per replicate.
    confidence : float
        Coverage asked for, half of what is left on either side.

    Returns
    -------
    Interval
        Shape X. Bounds are NaN with fewer than `MINIMUM_SAMPLES` replicates.

    Raises
    ------
    AnalysisError
        If `confidence` is not in (0, 1).
    """
    check_confidence(confidence)
    values = np.asarray(values_RX, dtype=np.float64)
    n = len(values)
    if n < MINIMUM_SAMPLES:
        nothing = np.full(values.shape[1:], np.nan)
        return Interval(values.std(axis=0, ddof=1) if n > 1 else nothing, nothing, nothing)
    spread = values.std(axis=0, ddof=1)
    tail = (1.0 - confidence) / 2.0
    bounds = [np.sqrt((n - 1) / stats.chi2.isf(level, n - 1)) for level in (tail, 1.0 - tail)]
    z = float(stats.norm.isf(tail))
    error = np.sqrt(np.maximum(_kurtosis(values) - (n - 3) / n, 0.0) / (n - 1))
    factor = n / (n - z) if n > z else math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.nan_to_num(
            factor * error * z / 2.0, nan=math.inf, posinf=math.inf
        )  # of the logarithm of the deviation
        center = math.sqrt(factor) if math.isfinite(factor) else 1.0
        low = np.minimum(bounds[0], center * np.exp(-half))
        high = np.maximum(bounds[1], center * np.exp(half))
    return Interval(spread, np.asarray(spread * low), np.where(spread > 0, spread * high, 0.0))


def _kurtosis(values: Floats) -> Floats:
    """Kurtosis about a trimmed mean, which long tails pull less (Bonett 2006, equation 2); 3 for normal replicates."""
    n = len(values)
    middle = stats.trim_mean(values, min(0.5 / math.sqrt(n - 4), 0.49), axis=0)
    squares = ((values - values.mean(axis=0)) ** 2).sum(axis=0) ** 2
    fourth = n * ((values - middle) ** 4).sum(axis=0)
    return np.asarray(np.divide(fourth, squares, out=np.full_like(squares, 3.0), where=squares > 0))
