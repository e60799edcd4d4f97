"""When "no effect" is supported, how many replicates it takes, and the three verdicts.

Not finding an effect is no evidence that there is none. Two one-sided tests (TOST; Schuirmann 1987, *J. Pharmacokinet.
Biopharm.* 15, 657-680) ask whether the mean lies inside a margin that is named beforehand.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from workbench.analysis.inference.intervals import Interval
from workbench.analysis.inference.replicates import MINIMUM_SAMPLES, Floats, check_confidence
from workbench.errors import AnalysisError

Verdict = Literal["supported", "not supported", "undecided"]

MOST = 100_000
"""More replicates than anyone records; a search for a number ends here."""


class Equivalence(NamedTuple):
    """Mean, its 1 - 2 alpha interval, and the p-value of TOST; all of shape X, NaN with fewer than two replicates."""

    mean: Floats
    low: Floats
    high: Floats
    p_value: Floats


class Decision(NamedTuple):
    """A verdict with the sentence that says why."""

    verdict: Verdict
    reason: str


def equivalence(values_RX: NDArray[Any], *, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of whether the mean over replicates lies between -margin and +margin.

    Parameters
    ----------
    values_RX : array, shape (R, ...)
        One value per replicate, say a difference between two conditions.
    margin : float
        Largest mean that counts as no effect, above 0, in the unit of the values; chosen before looking.
    alpha : float
        Level; sets the interval, whose lying inside the margin is the same as p < alpha.

    Returns
    -------
    Equivalence
        Small p says: equivalent. A column without spread has p 0 or 1.

    Raises
    ------
    AnalysisError
        If the margin is not above 0 or alpha not in (0, 0.5).
    """
    _check_margin(margin)
    if not 0.0 < alpha < 0.5:
        raise AnalysisError(f"alpha={alpha!r} must lie between 0 and 0.5, as 0.05 does.")
    values = np.asarray(values_RX, dtype=np.float64)
    n, rest = values.shape[0], values.shape[1:]
    mean = values.mean(axis=0) if n else np.full(rest, np.nan)
    if n < 2:
        nothing = np.full(rest, np.nan)
        return Equivalence(mean, nothing, nothing, nothing)
    error = values.std(axis=0, ddof=1) / math.sqrt(n)
    width = float(stats.t.isf(alpha, n - 1)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = (mean + margin) / error, (mean - margin) / error
    p = np.maximum(stats.t.sf(above, n - 1), stats.t.cdf(below, n - 1))
    return Equivalence(mean, mean - width, mean + width, np.asarray(p, dtype=np.float64))


def largest_difference(
    values_RKX: NDArray[Any], *, confidence: float = 0.95, along: NDArray[Any] | None = None
) -> Interval:
    """Largest difference between any two of K means over replicates, with bounds that know it was searched for.

    A range is never negative and grows with noise, so resampling it says nothing honest near 0. Here each of the
    K (K - 1) / 2 differences gets Student's t bounds over replicates. The upper bound of the range is the largest upper
    bound, which needs no correction (the pair that truly differs most is among them: intersection-union, Berger 1982);
    the lower bound is the largest lower bound, corrected for all pairs in both directions (Bonferroni). Where labels have
    positions, half of its error is spent on one contrast named beforehand, the straight line, since a contrast whose
    positive weights sum to 1 is never larger than the range; the other half on the pairs.

    Parameters
    ----------
    values_RKX : array, shape (R, K, ...)
        One value per replicate and label.
    confidence : float
        Coverage of the interval, half of what is left on either side.
    along : array, shape (K,), optional
        Positions of the labels.

    Returns
    -------
    Interval
        Of shape X, 0 or more. Bounds are NaN with fewer than `MINIMUM_SAMPLES` replicates; NaN in a column gives NaN.

    Raises
    ------
    AnalysisError
        If `confidence` is not in (0, 1), or there are fewer than two labels.
    """
    check_confidence(confidence)
    values = np.asarray(values_RKX, dtype=np.float64)
    if values.ndim < 2 or values.shape[1] < 2:
        raise AnalysisError(
            f"values of shape {values.shape} have fewer than two labels to compare; give (R, K, …), K ≥ 2."
        )
    n, k = values.shape[:2]
    one, other = np.triu_indices(k, 1)
    pairs_RDX = values[:, one] - values[:, other]
    size_DX = np.abs(pairs_RDX.mean(axis=0))
    mean = size_DX.max(axis=0)
    if n < MINIMUM_SAMPLES:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    error_DX = pairs_RDX.std(axis=0, ddof=1) / math.sqrt(n)
    tail = (1.0 - confidence) / 2.0
    spent = tail if along is None else tail / 2.0
    low = (size_DX - float(stats.t.isf(spent / (k * (k - 1)), n - 1)) * error_DX).max(axis=0)
    if along is not None:
        weights = np.asarray(along, dtype=np.float64) - np.mean(along)
        line_RX = np.tensordot(values, weights / np.maximum(weights, 0.0).sum(), axes=(1, 0))
        width = float(stats.t.isf(spent / 2.0, n - 1)) * line_RX.std(axis=0, ddof=1) / math.sqrt(n)
        low = np.maximum(low, np.abs(line_RX.mean(axis=0)) - width)
    high = (size_DX + float(stats.t.isf(tail, n - 1)) * error_DX).max(axis=0)
    return Interval(mean, np.maximum(low, 0.0), high)


def needed_n(
    values_RX: NDArray[Any],
    *,
    effect: float | None = None,
    margin: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> Floats:
    """How many replicates it takes, if they go on to spread as these do.

    Parameters
    ----------
    values_RX : array, shape (R, ...)
        Of which the standard deviation is taken; two replicates at least.
    effect : float, optional
        A mean that a two-sided t test shall tell from 0. Give this, or
    margin : float, optional
        the margin within which TOST shall find a mean that is 0.
    power, alpha : float
        With what probability, at what level.

    Returns
    -------
    array, shape X
        Whole numbers, at least 2; inf above `MOST`; NaN where the spread is not known.

    Raises
    ------
    AnalysisError
        Unless exactly one of `effect` and `margin` is given, and not 0.
    """
    if (effect is None) == (margin is None):
        raise AnalysisError("give either effect=… (to be told from 0) or margin=… (to be shown equivalent), not both.")
    values = np.asarray(values_RX, dtype=np.float64)
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    if effect is not None:
        if not (math.isfinite(effect) and effect != 0):
            raise AnalysisError(f"effect={effect!r} must be finite and not 0: no number of replicates tells 0 from 0.")
        return _search(values.std(axis=0, ddof=1), abs(effect), power, alpha, "difference")
    assert margin is not None
    _check_margin(margin)
    return _search(values.std(axis=0, ddof=1), margin, power, alpha, "equivalence")


def _power(n: Floats, size: Floats, alpha: float, what: str) -> Floats:
    """Power of a one-sample t test, or of TOST at a mean of 0; `size` is the effect in standard deviations."""
    freedom, shift = n - 1.0, size * np.sqrt(n)
    if what == "difference":
        critical = stats.t.isf(alpha / 2.0, freedom)
        found = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    else:  # each side fails with the same probability; they can't fail together
        found = 1.0 - 2.0 * stats.nct.cdf(stats.t.isf(alpha, freedom), freedom, shift)
    # Far out the noncentral t is not computed any more; the power is 1 there.
    return np.where(np.isfinite(found) & (shift < 35.0), found, 1.0)


def _search(spread: Floats, size: float, power: float, alpha: float, what: str) -> Floats:
    """Smallest n with that power, by bisection over whole numbers."""
    if not 0.0 < power < 1.0:
        raise AnalysisError(f"power={power!r} must lie between 0 and 1, as 0.8 does.")
    with np.errstate(divide="ignore"):
        relative = np.asarray(size / np.asarray(spread, dtype=np.float64))
    known = np.isfinite(relative)
    ratio = np.where(known, relative, 1.0)
    low, high = np.full(ratio.shape, 1.0), np.full(ratio.shape, float(MOST))
    enough = _power(high, ratio, alpha, what) >= power
    while np.any(high - low > 1):
        middle = np.maximum(np.floor((low + high) / 2.0), 2.0)
        works = _power(middle, ratio, alpha, what) >= power
        low, high = np.where(works, np.minimum(low, middle - 1), middle), np.where(works, middle, high)
    found = np.where(enough, high, np.inf)
    return np.where(known, found, np.where(np.isposinf(relative), 2.0, np.nan))


def decide(
    interval: Interval, *, margin: float, n: int, replicate: str = "prompt", confidence: float = 0.95, unit: str = ""
) -> Decision:
    """Verdict on one effect: beyond the margin, inside it, or not known.

    Parameters
    ----------
    interval : Interval
        Of one number. Its bounds may be of any kind.
    margin : float
        Smallest effect that counts, above 0, in the unit of the interval.
    n : int
        Replicates it rests on.
    replicate : str
        What they are, for the sentence.
    confidence : float
        Coverage of the interval, from which the number of replicates needed is reckoned.
    unit : str
        For the sentence, say " ln units".

    Returns
    -------
    Decision
        ``supported``: the whole interval lies beyond ±margin, on one side. ``not supported``: the whole interval lies
        inside ±margin (equivalence; with a 95 % interval TOST at 0.025). ``undecided``: anything else, with how many
        replicates would decide it four times in five.
    """
    _check_margin(margin)
    mean, low, high = (float(np.asarray(part)) for part in interval)
    if n < MINIMUM_SAMPLES:
        return Decision("undecided", f"{_counted(n, replicate)}, of at least {MINIMUM_SAMPLES}")
    if not (math.isfinite(low) and math.isfinite(high)):
        return Decision("undecided", "there is no interval, because some value is not finite")
    said = f"{mean:.2f}{unit} ({confidence:.0%} interval {low:.2f} to {high:.2f})"
    if low > margin or high < -margin:
        return Decision("supported", f"{said} lies beyond ±{margin:g}")
    if -margin < low and high < margin:
        return Decision("not supported", f"{said} lies within ±{margin:g}")
    needed = enough_for(interval, margin=margin, n=n, confidence=confidence)
    more = f"about {needed:.0f} {replicate}s would decide it" if needed < MOST else "it lies at the margin itself"
    return Decision("undecided", f"{said} reaches across ±{margin:g}; {more}")


def enough_for(interval: Interval, *, margin: float, n: int, confidence: float = 0.95) -> float:
    """Replicates that would decide, four times in five, on which side of ±margin an effect of this size lies.

    The spread is reckoned from the width of the interval as if it were Student's. inf where the effect lies at the
    margin itself, which no number decides.
    """
    mean, low, high = (float(np.asarray(part)) for part in interval)
    distance = abs(abs(mean) - margin)
    error = (high - low) / 2.0 / float(stats.t.isf((1.0 - confidence) / 2.0, n - 1))
    if distance == 0 or not math.isfinite(error):
        return math.inf
    found = _search(np.asarray(error * math.sqrt(n)), distance, 0.8, 1.0 - confidence, "difference")
    return max(float(found), n + 1.0)


def _counted(n: int, replicate: str) -> str:
    return f"{n} {replicate}{'s' if n != 1 else ''}"


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise AnalysisError(f"margin={margin!r} must be finite and above 0: it is the smallest effect that counts.")
