"""Permutation tests with whole replicates, exact where that is few enough, and corrected for multiplicity.

p = (b + 1) / (m + 1) for b of m random permutations at least as extreme as what was seen (Phipson & Smyth 2010, *Stat.
Appl. Genet. Mol. Biol.* 9(1), article 39), which is never 0; where all permutations are enumerated, the identity is one
of them and p = b / m. All columns share the permutations, so that the largest statistic over columns has a null
distribution that knows how they depend on each other (Westfall & Young 1993; Nichols & Holmes 2002, *Human Brain
Mapping* 15, 1-25).

Legend: R replicates, K labels in each replicate, X columns, M permutations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.inference.replicates import Floats, check_resamples
from workbench.errors import AnalysisError

Alternative = Literal["two-sided", "greater", "less"]

EXACT = 4096
"""Up to so many permutations all are enumerated: 2**12, the flips of twelve replicates."""

_TIE = 1e-10
"""Statistics that differ by less (of 1, their largest value) count as equal: sums in another order round differently."""

_ELEMENTS = 1 << 22


class Permuted(NamedTuple):
    """What a permutation test found.

    Attributes
    ----------
    statistic : array, shape X
        As the test says; in [-1, 1] or [0, 1].
    p_value : array, shape X
        Of each column on its own.
    p_corrected : array, shape X
        Family-wise over all columns, from the largest statistic of each permutation.
    permutations : int
        How many were looked at (with the identity, where exact).
    exact : bool
        Whether these are all there are.
    """

    statistic: Floats
    p_value: Floats
    p_corrected: Floats
    permutations: int
    exact: bool


def sign_flip(
    values_RX: NDArray[Any], *, alternative: Alternative = "two-sided", resamples: int = 9999, seed: int = 0
) -> Permuted:
    """Test whether the mean over replicates is 0, by flipping the signs of whole replicates.

    The null hypothesis: the values of a replicate are distributed symmetrically around 0. Nothing is assumed about
    how columns depend on each other, nor that replicates are alike.

    Parameters
    ----------
    values_RX : array, shape (R, ...)
        One value per replicate, say a difference between two conditions.
    alternative : {"two-sided", "greater", "less"}
        Side of the alternative for the mean.
    resamples : int
        Random flips, where there are more than `EXACT` in all.
    seed : int
        Seed of the flips.

    Returns
    -------
    Permuted
        `statistic` is the mean over the root mean square, in [-1, 1]: for a given column a monotone function of Student's
        t, and comparable between columns. 0 for a column of zeros, NaN where a value is.

    Raises
    ------
    AnalysisError
        If the alternative does not exist, there is no replicate, or `resamples` is below 1.
    """
    if alternative not in ("two-sided", "greater", "less"):
        raise AnalysisError(f"alternative={alternative!r}: choose two-sided, greater or less.")
    flat_RX, rest = _flat(values_RX, resamples)
    n = len(flat_RX)
    signs_MR, exact = _signs(n, resamples, seed)
    size = np.sqrt(n * (flat_RX**2).sum(axis=0))
    unit_RX = np.divide(flat_RX, size, out=np.zeros_like(flat_RX), where=(size > 0) | np.isnan(size))

    def extreme(signs: Floats) -> Floats:
        sums = signs @ unit_RX
        return np.asarray(np.abs(sums) if alternative == "two-sided" else sums if alternative == "greater" else -sums)

    blocks = (extreme(signs_MR[i : i + s]) for s in [_rows(flat_RX.shape[1])] for i in range(0, len(signs_MR), s))
    p, corrected = _p_values(extreme(np.ones((1, n)))[0], blocks, len(signs_MR), exact)
    statistic = unit_RX.sum(axis=0)
    return Permuted(statistic.reshape(rest), p.reshape(rest), corrected.reshape(rest), len(signs_MR), exact)


def sign_flip_vectors(values_RKX: NDArray[Any], *, resamples: int = 9999, seed: int = 0) -> Permuted:
    """Test whether a vector of K means over replicates is 0, by flipping the signs of whole replicates.

    The null hypothesis: the vector of a replicate is distributed symmetrically around 0, whatever the dependence of its
    K parts. A vector and its opposite are equally extreme, so the smallest p of R replicates is 2 / 2**R.

    Parameters
    ----------
    values_RKX : array, shape (R, K, ...)
        One vector per replicate and column.
    resamples, seed
        As in `sign_flip`.

    Returns
    -------
    Permuted
        `statistic` is the squared length of the mean vector over the mean squared length, in [0, 1].

    Raises
    ------
    AnalysisError
        If there is no replicate, or `resamples` is below 1.
    """
    values = np.asarray(values_RKX, dtype=np.float64)
    flat, _ = _flat(values, resamples)
    n, k, rest = len(values), values.shape[1], values.shape[2:]
    flat_RKX = flat.reshape(n, k, math.prod(rest))
    signs_MR, exact = _signs(n, resamples, seed)
    inside = (flat_RKX**2).sum(axis=1).mean(axis=0)

    def statistic(signs: Floats) -> Floats:
        top = ((signs @ flat_RKX.reshape(n, -1) / n).reshape(len(signs), k, -1) ** 2).sum(axis=1)
        return np.asarray(np.divide(top, inside, out=np.zeros_like(top), where=(inside > 0) | np.isnan(inside)))

    observed, step = statistic(np.ones((1, n)))[0], _rows(k * flat_RKX.shape[2])
    blocks = (statistic(signs_MR[i : i + step]) for i in range(0, len(signs_MR), step))
    p, corrected = _p_values(observed, blocks, len(signs_MR), exact)
    return Permuted(observed.reshape(rest), p.reshape(rest), corrected.reshape(rest), len(signs_MR), exact)


def permute_within(
    values_RKX: NDArray[Any],
    *,
    function: Callable[[Floats], Floats] | None = None,
    resamples: int = 1999,
    seed: int = 0,
) -> Permuted:
    """Test whether labels matter, by permuting them inside each replicate.

    The null hypothesis: the K values of a replicate are exchangeable, the labels are arbitrary. Replicates may
    differ in level and in spread. All columns of a replicate are permuted together.

    Parameters
    ----------
    values_RKX : array, shape (R, K, ...)
        One value per replicate and label (average first what else was measured under a label).
    function : callable, optional
        From the label means over replicates, shape (M, K, X), to the statistic, shape (M, X), large when labels
        matter. Default: the variance of the label means over labels.
    resamples : int
        Random permutations, where there are more than `EXACT` in all.
    seed : int
        Seed of the permutations.

    Returns
    -------
    Permuted
        `statistic` is divided by the mean over replicates of the variance over labels, which no permutation changes. By
        default it then is the share of the variance inside replicates that all replicates have in common, in [0, 1].

    Raises
    ------
    AnalysisError
        If there are fewer than two labels, no replicate, or `resamples` is below 1.
    """
    values = np.asarray(values_RKX, dtype=np.float64)
    if values.ndim < 2 or values.shape[1] < 2:
        raise AnalysisError(
            f"values of shape {values.shape} have fewer than two labels to exchange; give (R, K, …), K ≥ 2."
        )
    (n, k), rest = values.shape[:2], values.shape[2:]
    flat_RKX = _flat(values, resamples)[0].reshape(n, k, math.prod(rest))
    # Levels of replicates cancel in the variance over labels; without them, sums round less.
    flat_RKX = flat_RKX - flat_RKX.mean(axis=1, keepdims=True)
    inside = flat_RKX.var(axis=1).mean(axis=0)
    spread = function if function is not None else lambda means_MKX: means_MKX.var(axis=1)
    exact = math.factorial(k) ** n <= EXACT
    orders_MRK = (
        np.asarray(list(itertools.product(itertools.permutations(range(k)), repeat=n)))
        if exact
        else np.random.default_rng(seed).permuted(np.broadcast_to(np.arange(k), (resamples, n, k)), axis=2)
    )
    varies = inside > (np.finfo(np.float64).eps * np.abs(values).max(initial=0.0)) ** 2

    def statistic(orders: NDArray[np.int64]) -> Floats:
        means_MKX = flat_RKX[np.arange(n)[:, None], orders].mean(axis=1)
        top = np.asarray(spread(means_MKX), dtype=np.float64)
        return np.asarray(np.divide(top, inside, out=np.zeros_like(top), where=varies | np.isnan(inside)))

    observed = statistic(np.broadcast_to(np.arange(k), (1, n, k)))[0]
    step = _rows(n * k * flat_RKX.shape[2])
    blocks = (statistic(orders_MRK[i : i + step]) for i in range(0, len(orders_MRK), step))
    p, corrected = _p_values(observed, blocks, len(orders_MRK), exact)
    return Permuted(observed.reshape(rest), p.reshape(rest), corrected.reshape(rest), len(orders_MRK), exact)


def max_statistic(observed_X: NDArray[Any], null_MX: NDArray[Any], *, exact: bool = False) -> Floats:
    """p-values corrected family-wise by the largest statistic over columns in each permutation.

    Parameters
    ----------
    observed_X : array, shape (X,)
        Statistics that are comparable between columns, large when extreme. NaN is a test that was not made.
    null_MX : array, shape (M, X)
        The same under each permutation, shared by all columns.
    exact : bool
        Whether these are all permutations, the identity among them.

    Returns
    -------
    array, shape (X,)
        Corrected p-values, NaN where `observed_X` is.
    """
    null = np.asarray(null_MX, dtype=np.float64)
    return _p_values(np.asarray(observed_X, dtype=np.float64), iter([null]), len(null), exact)[1]


def _p_values(observed_X: Floats, blocks: Iterable[Floats], count: int, exact: bool) -> tuple[Floats, Floats]:
    """Of each column, and corrected; `blocks` are the statistics under some of the `count` permutations each."""
    made = np.isfinite(observed_X)
    own, largest = np.zeros(observed_X.shape), np.zeros(observed_X.shape)
    for null_MX in blocks:
        own += (null_MX >= observed_X - _TIE).sum(axis=0)
        if made.any():
            top_M = null_MX[:, made].max(axis=1)
            largest += (top_M[:, None] >= observed_X - _TIE).sum(axis=0)
    extra = 0 if exact else 1
    p, corrected = (np.where(made, (hits + extra) / (count + extra), np.nan) for hits in (own, largest))
    return p, corrected


def _signs(n: int, resamples: int, seed: int) -> tuple[Floats, bool]:
    """Signs of n replicates, shape (M, n): all there are, or random ones; and whether these are all."""
    if 2**n <= EXACT:
        return np.asarray(list(itertools.product((1.0, -1.0), repeat=n))), True
    return np.random.default_rng(seed).choice((1.0, -1.0), size=(resamples, n)), False


def _flat(values: NDArray[Any], resamples: int) -> tuple[Floats, tuple[int, ...]]:
    check_resamples(resamples)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 1 or not len(array):
        raise AnalysisError("there is no replicate to permute; at least one complete sample is needed.")
    return array.reshape(len(array), math.prod(array.shape[1:])), array.shape[1:]


def _rows(elements: int) -> int:
    return max(1, _ELEMENTS // max(elements, 1))
