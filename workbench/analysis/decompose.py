"""A balanced factorial: how much of the variance each factor and interaction carries. Arrays only.

Four factors, each level of one with each level of the others: prompt, seed, latent (whose step it comes from) and embedding
(whose step the timestep embedding comes from). The component of a set of factors is, by inclusion and exclusion of
marginal means, what they do together beyond what any subset does (Fisher's analysis of variance); components are
orthogonal, so the shares of their mean squares sum to 1. There is one value per cell and no error term: what is left
over is the highest interactions.

Legend: P replicates, S the other kind of sample, T latents, E embeddings, X columns, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from workbench.analysis import inference
from workbench.analysis.inference import Floats, Interval

INNER = ("other", "latent", "embedding")
"""The factors inside a replicate, in the order of the axes S, T, E."""

SETS = tuple(frozenset(s) for k in range(len(INNER) + 1) for s in combinations(INNER, k))
"""All sets of them; the empty one stands for the replicate's own mean."""

FACTORS: Mapping[str, tuple[frozenset[str], bool]] = {
    "embedding": (frozenset({"embedding"}), False),
    "latent": (frozenset({"latent"}), False),
    "embedding:latent": (frozenset({"embedding", "latent"}), False),
    "replicate": (frozenset(), True),
    "other": (frozenset({"other"}), False),
    "replicate:embedding": (frozenset({"embedding"}), True),
    "replicate:latent": (frozenset({"latent"}), True),
    "replicate:other": (frozenset({"other"}), True),
    "other:embedding": (frozenset({"other", "embedding"}), False),
    "other:latent": (frozenset({"other", "latent"}), False),
}
"""Factors by name: which axes inside a replicate, and whether it is the interaction with the replicate. The rest is
`rest`."""


def components(values: Floats, axes: tuple[int, int, int]) -> dict[frozenset[str], Floats]:
    """Component of each set in `SETS`, with length 1 along the axes it does not depend on.

    Parameters
    ----------
    values : array
        With an axis for each of `INNER`.
    axes : three int
        Which.
    """
    at = dict(zip(INNER, axes, strict=True))
    out: dict[frozenset[str], Floats] = {}
    for factors in SETS:  # smaller sets first
        mean = values.mean(axis=tuple(at[f] for f in INNER if f not in factors), keepdims=True)
        out[factors] = mean - sum(part for subset, part in out.items() if subset < factors)
    return out


def _squares(parts: Mapping[frozenset[str], Floats], axes: tuple[int, int, int]) -> Floats:
    """Mean square of each component over the cells, stacked in the order of `SETS` along a new first axis."""
    return np.stack([(part**2).mean(axis=axes) for part in parts.values()])


def shares(
    values_PSTEX: Floats,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: inference.Method = "bca_expanded",
) -> tuple[list[str], Interval, Interval]:
    """Share of the variance over all cells, and standard deviation, of each factor, with BCa intervals over replicates.

    Parameters
    ----------
    values_PSTEX : array, shape (P, S, T, E, X)
        One value per cell.
    confidence, resamples, seed, method
        Of the bootstrap, which resamples whole replicates and decomposes each resample.

    Returns
    -------
    list of str
        Names of the factors: `FACTORS`, and ``rest``.
    Interval, shape (factors, X)
        Shares in [0, 1], which sum to 1; NaN where nothing varies.
    Interval, shape (factors, X)
        Square roots of the mean squares, in the unit of the values.

    Notes
    -----
    A share is that of the cells recorded. The part of a factor that has no effect is not 0 but what the P replicates do
    not agree on: in the mean 1 / P of its interaction with the replicate.
    """
    n, columns = values_PSTEX.shape[0], values_PSTEX.shape[-1]
    cells = values_PSTEX.shape[1:-1]
    # Levels are taken out for precision; nothing but `replicate` and the total depends on them.
    centred = values_PSTEX - values_PSTEX.mean(axis=(0, 1, 2, 3))
    squares_PAX = np.moveaxis(_squares(components(centred, (1, 2, 3)), (1, 2, 3)), 0, 1)
    size = int(np.prod(cells))
    packed = np.concatenate([centred.reshape(n, size, columns), squares_PAX], axis=1)

    def decompose(means_RAX: Floats) -> Floats:
        rows = len(means_RAX)
        inside = components(means_RAX[:, :size].reshape(rows, *cells, columns), (1, 2, 3))
        common_ARX = _squares(inside, (1, 2, 3))
        own_ARX = np.moveaxis(means_RAX[:, size:], 1, 0) - common_ARX  # interactions with the replicate
        total = common_ARX[1:].sum(axis=0) + own_ARX.sum(axis=0)  # without the grand mean
        at = {factors: i for i, factors in enumerate(SETS)}
        named = [own_ARX[at[f]] if own else common_ARX[at[f]] for f, own in FACTORS.values()]
        parts = np.maximum(np.stack([*named, total - sum(named)], axis=1), 0.0)  # (R, factors, X)
        share = np.divide(parts, total[:, None], out=np.full_like(parts, np.nan), where=total[:, None] > _FLOOR)
        return np.stack([share, np.sqrt(parts)], axis=1)

    found = inference.bootstrap(packed, decompose, confidence=confidence, resamples=resamples, seed=seed, method=method)
    share, deviation = (Interval(*(part[i] for part in found)) for i in (0, 1))
    return [*FACTORS, "rest"], share, deviation


_FLOOR = 1e-20
"""Variance of logarithms of float32 numbers below which it is rounding: (1e-10)²."""
