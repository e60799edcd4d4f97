"""Bootstrap intervals over replicates: of means, and of anything that is a function of means.

Whole replicates are resampled, so that all that was measured inside one stays together (a cluster bootstrap). Four kinds
of interval, all from the same resamples:

``percentile``
    quantiles of the bootstrap distribution; too narrow with few replicates;
``expanded``
    the same with quantiles widened to the width of Student's t (Hesterberg 2015, *The American Statistician* 69(4),
    section 5.3): a bootstrap distribution is too narrow by sqrt((n-1)/n) and ignores that the spread is itself estimated;
``bca``
    bias-corrected and accelerated (Efron 1987, *JASA* 82(397), equations 6.8 and 7.3), right for biased and skewed
    statistics as n grows; as narrow as `percentile` with few replicates;
``bca_expanded``
    bias-corrected and accelerated from the widened quantiles.

How often each covers the truth stands in `docs/methods.md`.

Legend: S or P replicates, X anything else, R resamples, Y values of a statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from workbench.analysis.inference.replicates import MINIMUM_SAMPLES, Floats, check_confidence, check_resamples
from workbench.errors import AnalysisError

Method = Literal["expanded", "percentile", "bca", "bca_expanded"]

_BLOCK = 4096
"""Columns resampled at a time, so that R × X never has to fit into memory at once."""

_ELEMENTS = 1 << 22
"""Numbers in one block of resampled means: 32 MiB."""


class Interval(NamedTuple):
    """A statistic (most often a mean over replicates) with its confidence bounds, all of one shape.

    The bounds are NaN with too few replicates.
    """

    mean: Floats
    low: Floats
    high: Floats


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
    method : {"expanded", "percentile", "bca", "bca_expanded"}
        See the module.

    Returns
    -------
    Interval
        Mean and bounds, shape X. Bounds are NaN when S < `MINIMUM_SAMPLES`. NaN in a column gives NaN.

    Raises
    ------
    AnalysisError
        If `confidence` is not in (0, 1), `resamples` below 1, or there is no such method.
    """
    _check(confidence, resamples, method)
    values = np.asarray(values_SX, dtype=np.float64)
    n, rest = values.shape[0], values.shape[1:]
    flat_SX = values.reshape(n, math.prod(rest))
    mean = flat_SX.mean(axis=0) if n else np.full(flat_SX.shape[1], np.nan)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    if n >= MINIMUM_SAMPLES:
        weights_RS = resampling_weights(n, resamples, seed)
        for start in range(0, flat_SX.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            # Centred first: columns without spread then give exactly [mean, mean], not mean plus rounding
            # noise.
            centred_SX = np.where(np.ptp(flat_SX[:, block], axis=0) == 0, 0.0, flat_SX[:, block] - mean[block])
            left_out_SX = -centred_SX / (n - 1)  # mean of the others, as the jackknife wants it
            low[block], high[block] = mean[block] + _bounds(
                np.zeros(centred_SX.shape[1]), weights_RS @ centred_SX, left_out_SX, n, confidence, method
            )
    return Interval(mean.reshape(rest), low.reshape(rest), high.reshape(rest))


def bootstrap(
    values_PX: NDArray[Any],
    function: Callable[[Floats], Floats],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: Method = "bca",
) -> Interval:
    """A function of means over replicates (a ratio, a share of variance) with a bootstrap interval.

    Parameters
    ----------
    values_PX : array, shape (P, ...)
        What is averaged over replicates, one row each. A variance over replicates is a function of means too: pass the
        values and their squares.
    function : callable
        Takes means of shape (R, ...), one row per resample, and returns (R, ...) of another shape. Rows must not mix.
    confidence, resamples, seed, method
        As in `bootstrap_mean`. All outputs share the same resamples.

    Returns
    -------
    Interval
        The function of the means of all replicates, and its bounds. Bounds are NaN with fewer than `MINIMUM_SAMPLES`
        replicates, and where the function is not finite in some resample.

    Raises
    ------
    AnalysisError
        As `bootstrap_mean`.
    """
    _check(confidence, resamples, method)
    values = np.asarray(values_PX, dtype=np.float64)
    n, rest = values.shape[0], values.shape[1:]
    if not n:
        raise AnalysisError("there is no replicate to resample; at least one complete sample is needed.")
    flat_PX = values.reshape(n, math.prod(rest))

    def of(weights_RP: Floats) -> Floats:
        rows = max(1, _ELEMENTS // max(flat_PX.shape[1], 1))
        parts = [
            function((weights_RP[i : i + rows] @ flat_PX).reshape(-1, *rest)) for i in range(0, len(weights_RP), rows)
        ]
        return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])

    value = of(np.full((1, n), 1.0 / n))[0]
    low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    if n >= MINIMUM_SAMPLES:
        drawn_RY = of(resampling_weights(n, resamples, seed)).reshape(resamples, value.size)
        left_out_PY = of((1.0 - np.eye(n)) / (n - 1)).reshape(n, value.size)
        bounds = _bounds(value.reshape(-1), drawn_RY, left_out_PY, n, confidence, method)
        low, high = bounds[0].reshape(value.shape), bounds[1].reshape(value.shape)
    return Interval(value, low, high)


@lru_cache(maxsize=4)
def resampling_weights(n: int, resamples: int, seed: int) -> Floats:
    """Share of each replicate in each resample, shape (R, n): the mean of a resample is then one matrix product."""
    generator = np.random.default_rng(seed)
    weights = np.asarray(generator.multinomial(n, np.full(n, 1.0 / n), size=resamples) / n, dtype=np.float64)
    weights.setflags(write=False)  # shared between calls
    return weights


def _tails(n: int, confidence: float, method: Method) -> tuple[float, float]:
    """Quantiles of the bootstrap distribution that bound the interval, before any correction for bias."""
    tail = (1.0 - confidence) / 2.0
    if method.endswith("expanded"):
        tail = float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1)))
    return tail, 1.0 - tail


def _bounds(
    value_Y: Floats, drawn_RY: Floats, left_out_PY: Floats, n: int, confidence: float, method: Method
) -> tuple[Floats, Floats]:
    """Lower and upper bounds of each column; `left_out_PY` is the statistic without each replicate in turn."""
    tails = _tails(n, confidence, method)
    if not method.startswith("bca"):
        low, high = np.quantile(drawn_RY, tails, axis=0)
        return np.asarray(low), np.asarray(high)
    count = len(drawn_RY)
    # Resamples that are the sample itself differ from it by rounding only: they count as half below.
    tie_Y = 1e-10 * np.ptp(drawn_RY, axis=0)
    below = ((drawn_RY < value_Y - tie_Y).mean(axis=0) + (drawn_RY <= value_Y + tie_Y).mean(axis=0)) / 2.0
    bias = stats.norm.ppf(np.clip(below, 0.5 / count, 1.0 - 0.5 / count))
    away = left_out_PY.mean(axis=0) - left_out_PY
    scale = (away**2).sum(axis=0) ** 1.5
    acceleration = np.divide((away**3).sum(axis=0), 6.0 * scale, out=np.zeros_like(scale), where=scale > 0)
    ordered_RY = np.sort(drawn_RY, axis=0)
    out = []
    for tail in tails:
        shifted = bias + stats.norm.ppf(tail)
        # Beyond this the correction turns round: the bound is then the extreme of the resamples.
        room = np.maximum(1.0 - acceleration * shifted, np.finfo(np.float64).tiny)
        out.append(_quantile(ordered_RY, stats.norm.cdf(bias + shifted / room)))
    return out[0], out[1]


def _quantile(ordered_RY: Floats, level_Y: Floats) -> Floats:
    """Quantile of each column at its own level, interpolated linearly; NaN where the column holds one."""
    place = level_Y * (len(ordered_RY) - 1)
    known = np.isfinite(place) & np.isfinite(ordered_RY).all(axis=0)
    under = np.where(known, np.floor(np.where(known, place, 0.0)), 0).astype(np.int64)
    over = np.minimum(under + 1, len(ordered_RY) - 1)
    columns = np.arange(ordered_RY.shape[1])
    low, high = ordered_RY[under, columns], ordered_RY[over, columns]
    with np.errstate(invalid="ignore"):
        return np.where(known, low + (high - low) * (place - under), np.nan)


def _check(confidence: float, resamples: int, method: str) -> None:
    check_confidence(confidence)
    check_resamples(resamples)
    if method not in get_args(Method):
        raise AnalysisError(f"method={method!r}: choose one of {', '.join(get_args(Method))}.")
