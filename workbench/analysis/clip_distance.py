"""Is a set of videos nearer to the training clips than another one? By the distribution of their features, not one by one.

Features (kind ``statistic`` in the table of measures) are taken as independent normal distributions; the distance is √(mean over
features of ((m − m_ref)² + (s − s_ref)²) / s_ref²), as `workbench.sampling.clip_statistics.distance` has it and as
`workbench.analysis.gauge` has it for pictures. It is a function of moments over prompts, which are resampled. s is here over prompts
(divisor P), so prompts are taken as drawn at random from the clips' captions.

Legend: P prompts, K features, M permutations.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.effects import Floats, replicates, values

DISTRIBUTION = "clip_distribution"
"""Name of this measure in the results."""

LABEL, UNIT = "distance to the training clips", "sd"


class Clips(NamedTuple):
    """Features of the real clips, and where they are in the table."""

    columns: tuple[int, ...]
    mean_K: Floats
    spread_K: Floats


def clips_of(measured: xr.Dataset) -> Clips | None:
    """The training clips' features that the table has; None without a reference."""
    try:
        reference = json.loads(str(measured.attrs.get("reference") or "null"))
    except ValueError:
        return None
    if not isinstance(reference, dict) or not isinstance(reference.get("mean"), dict):
        return None
    names, kinds = ([str(v) for v in measured[key].values] for key in ("measure", "kind"))
    mean, spread = reference["mean"], reference.get("spread", {})
    used = [i for i, n in enumerate(names) if kinds[i] == "statistic" and n in mean and float(spread.get(n) or 0) > 0]
    # A feature without a finite number anywhere can't be compared.
    used = [i for i in used if np.isfinite(measured["value"].isel(measure=i)).any()]
    if not used:
        return None
    return Clips(tuple(used), *(np.array([float(part[names[i]]) for i in used]) for part in (mean, spread)))


def apart(moments_RKX: Floats, clips: Clips) -> Floats:
    """Distance of the distributions with these first and second moments, shape (R,)."""
    mean_RK = moments_RKX[..., 0]
    spread_RK = np.sqrt(np.maximum(moments_RKX[..., 1] - mean_RK**2, 0.0))
    square_RK = ((mean_RK - clips.mean_K) ** 2 + (spread_RK - clips.spread_K) ** 2) / clips.spread_K**2
    return np.asarray(np.sqrt(square_RK.mean(axis=-1)))


def moments(measured: xr.Dataset, clips: Clips) -> Floats:
    """First and second moments of the features, (P, conditions, K, 2): means over the samples of each prompt."""
    value_CSK = values(measured)[..., list(clips.columns)]
    both = np.stack([value_CSK, value_CSK**2], axis=-1)
    flat = replicates(both.reshape(*both.shape[:2], -1), [str(p) for p in measured["prompt"].values])
    return flat.reshape(*flat.shape[:2], len(clips.columns), 2)


def change(
    one_PKX: Floats, other_PKX: Floats, clips: Clips, *, confidence: float, resamples: int, seed: int
) -> inference.Interval:
    """Distance of one set of videos − that of another, from the same prompts, with a bootstrap interval (BCa)."""
    known = _known(one_PKX, other_PKX)
    if not known.any():
        return inference.Interval(*(np.full((), np.nan) for _ in range(3)))
    return inference.bootstrap(
        np.stack([one_PKX, other_PKX], axis=1)[known], lambda m: apart(m[:, 0], clips) - apart(m[:, 1], clips),
        confidence=confidence, resamples=resamples, seed=seed, method="bca_expanded",
    )  # fmt: skip


def swapped(one_PKX: Floats, other_PKX: Floats, clips: Clips, *, permutations: int, seed: int) -> float:
    """Two-sided p-value of `change`: the two videos of a prompt change places, at random.

    The null hypothesis: of each prompt's two, it is chance which is which.
    """
    known = _known(one_PKX, other_PKX)
    count = int(known.sum())
    if count < inference.MINIMUM_SAMPLES:
        return float("nan")
    one, other = one_PKX[known].reshape(count, -1), other_PKX[known].reshape(count, -1)
    stays_MP = np.random.default_rng(seed).random((permutations, count)) < 0.5
    total, mine_MX = one.sum(axis=0) + other.sum(axis=0), stays_MP @ one + ~stays_MP @ other

    def gap(sums: NDArray[Any]) -> Floats:
        shape = (len(sums), *one_PKX.shape[1:])
        return apart((sums / count).reshape(shape), clips) - apart(((total - sums) / count).reshape(shape), clips)

    seen = abs(float(gap(one.sum(axis=0)[None])[0]))
    return float((1 + (np.abs(gap(mine_MX)) >= seen * (1 - 1e-10)).sum()) / (1 + permutations))


def _known(one_PKX: Floats, other_PKX: Floats) -> NDArray[np.bool_]:
    """Prompts of which every feature of both is there."""
    return np.asarray(np.isfinite(one_PKX).all(axis=(1, 2)) & np.isfinite(other_PKX).all(axis=(1, 2)))
