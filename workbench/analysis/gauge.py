"""What a sweep and baselines are judged by: nearness to the data, and whether the content is kept.

Nearness. A picture's distance to the *mean* spectrum of the data is no gauge: real pictures lie about 0.9 standard deviations
from it themselves, so that a smaller distance means a more average picture, not a better one. In this order:

``own_spectral_distance``
    Distance of each picture to the training picture of its own caption, 0 for that picture. Needs prompts that are captions of the data.
``band_distribution``
    Distance between the distribution of band powers over the pictures and that over the data's, both taken as independent
    normal distributions: √(mean over bands of ((m − m_data)² + (s − s_data)²) / s_data²), the 2-Wasserstein distance in the
    data's standard deviations. A function of moments over prompts, which are resampled.
``edge_energy``
    Amount of detail; more is called a gain, with a warning.

Content. A picture that is not finite is one that is lost: similarity 0, not recognised.

Legend: S samples, P prompts, K conditions, M measures, B bands, C comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.effects import Floats, baselines, interval, replicates, values
from workbench.errors import AnalysisError

OWN, DISTRIBUTION, EDGES = "own_spectral_distance", "band_distribution", "edge_energy"
GAUGES = (OWN, DISTRIBUTION, EDGES)

LEAST = 0.05
"""Smallest gain that counts: a share of the mean of the baseline, or for `DISTRIBUTION` standard deviations of the data."""

SIMILARITY = 0.95
"""Least mean low-pass similarity that counts as the same content."""

RECOGNISED = 0.1
"""Largest share of prompts that may lose a picture which the judge recognised without the change. 29 prompts without any
loss are the fewest that show less (0.95 confidence)."""

CONFIDENCE = 0.95
"""Of the one-sided exact bound of the share of prompts that lose a recognised picture."""


class Gauge(NamedTuple):
    """By what a gain is measured.

    Attributes
    ----------
    name : str
        One of `GAUGES`.
    label, unit : str
        For a figure.
    sign : float
        −1 where less is a gain.
    warning : str
        What the gauge can't tell; empty if nothing.
    mean, spread : ndarray of shape (B,)
        Of the data's ln band power, for `DISTRIBUTION`; else empty.
    """

    name: str
    label: str
    unit: str
    sign: float
    warning: str = ""
    mean: Floats = np.empty(0)
    spread: Floats = np.empty(0)

    @property
    def words(self) -> str:
        """The gain, in words."""
        return f"{'decrease' if self.sign < 0 else 'increase'} of {self.label}"


class Content(NamedTuple):
    """What is left of the content, of each condition against its baseline; all of shape (K,)."""

    similarity: Floats
    similarity_low: Floats
    similarity_high: Floats
    recognised: Floats
    lost: Floats
    lost_high: Floats
    judged: NDArray[np.int64]
    kept: NDArray[np.bool_]
    shown_lost: NDArray[np.bool_]


def gauge_of(measured: xr.Dataset, name: str = "auto") -> Gauge:
    """The best gauge that the table allows, or the one that is named.

    Raises
    ------
    AnalysisError
        If the table does not have it, or there is no such gauge.
    """
    there = [str(m) for m in measured["measure"].values]
    if name not in ("auto", *GAUGES):
        raise AnalysisError(f"gauge={name!r}: choose auto, {', '.join(GAUGES)}.")
    found = {
        OWN: OWN in there and _known(measured, OWN),
        DISTRIBUTION: bool(measured.attrs.get("reference")) and bool(_bands(there)),
        EDGES: EDGES in there,
    }
    usable = [one for one in GAUGES if found[one]]
    if not usable or (name != "auto" and name not in usable):
        wanted = "a gauge of nearness to the data or edge_energy" if name == "auto" else name
        raise AnalysisError(f"the table lacks {wanted}; it has {', '.join(there)}.")
    chosen = usable[0] if name == "auto" else name
    if chosen == OWN:
        return Gauge(OWN, "distance to the own training picture's spectrum", "ln luma²", -1.0)
    if chosen == DISTRIBUTION:
        data = json.loads(str(measured.attrs["reference"]))
        mean, spread = (np.asarray(data[key], dtype=np.float64) for key in ("mean", "spread"))
        if mean.shape != (len(_bands(there)),) or spread.shape != mean.shape:
            raise AnalysisError(f"the data's band powers have {len(mean)} bands, the table {len(_bands(there))}.")
        warning = "the prompts are taken as drawn at random from those of the data"
        return Gauge(DISTRIBUTION, "distance to the data's band powers", "sd", -1.0, warning, mean, spread)
    warning = "nothing here tells added detail from over-sharpening"
    return Gauge(EDGES, "edge energy", "luma/px", 1.0, warning)


def smallest_gain(measured: xr.Dataset, gauge: Gauge, baseline: str, least: float) -> float:
    """Smallest gain that counts, in the gauge's unit."""
    if gauge.name == DISTRIBUTION:
        return least
    return least * abs(float(np.nanmean(measured["value"].sel(condition=baseline, measure=gauge.name).values)))


def gains(
    measured: xr.Dataset,
    gauge: Gauge,
    comparisons: Sequence[tuple[int, int]],
    *,
    rows: NDArray[np.bool_] | None = None,
    confidence: float,
    resamples: int,
    seed: int,
) -> inference.Interval:
    """Gain of one condition over another from the same noise, with intervals over prompts.

    Parameters
    ----------
    comparisons : sequence of (int, int)
        Positions of the condition and of what it is compared with.
    rows : ndarray of bool, shape (S,), optional
        Samples that are used.

    Returns
    -------
    Interval
        Of shape (C,), in the gauge's unit; above 0 is better. A prompt with a value that is not finite is left out of its comparison.
    """
    value_KSM, prompts = values(measured), np.array([str(p) for p in measured["prompt"].values])
    used = np.ones(len(prompts), dtype=bool) if rows is None else rows
    value_KSM, texts = value_KSM[:, used], prompts[used].tolist()
    there = [str(m) for m in measured["measure"].values]
    one, other = (np.array([pair[i] for pair in comparisons]) for i in (0, 1))
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    if gauge.name != DISTRIBUTION:
        value_KS = gauge.sign * value_KSM[..., there.index(gauge.name)]
        return interval(replicates((value_KS[one] - value_KS[other])[..., None], texts)[..., 0], **options)
    band_KSB = value_KSM[..., _bands(there)]
    moments_PKBX = replicates(np.stack([band_KSB, band_KSB**2], axis=-1).reshape(*band_KSB.shape[:2], -1), texts)
    moments_PKBX = moments_PKBX.reshape(*moments_PKBX.shape[:2], -1, 2)
    known_PK = np.asarray(np.isfinite(moments_PKBX).all(axis=(2, 3)), dtype=bool)
    out = inference.Interval(*(np.full(len(one), np.nan) for _ in range(3)))
    patterns, which = np.unique(known_PK[:, one] & known_PK[:, other], axis=1, return_inverse=True)
    for i, pattern in enumerate(patterns.T):
        at = np.flatnonzero(which.reshape(-1) == i)
        if pattern.any():
            pairs_PCXX = np.stack([moments_PKBX[:, other[at]], moments_PKBX[:, one[at]]], axis=1)[pattern]
            part = inference.bootstrap(pairs_PCXX, lambda m: _apart(m[:, 0], gauge) - _apart(m[:, 1], gauge), **options)
            for side, found in zip(out, part, strict=True):
                side[at] = found
    return out


def content(
    measured: xr.Dataset,
    *,
    rows: NDArray[np.bool_] | None = None,
    similarity: float = SIMILARITY,
    recognised: float = RECOGNISED,
    confidence: float,
    resamples: int,
    seed: int,
) -> Content:
    """Say whether the content of each condition's baseline is kept, shown to be lost, or neither.

    Kept: the lower bound of the mean low-pass similarity is at least `similarity`, and (with a judge) the exact upper bound of the
    share of prompts that lose a picture which was recognised is at most `recognised`. A bound that resamples would call a loss
    that happened to no prompt impossible. Shown lost: the upper bound of the similarity is below `similarity`, or the share
    recognised is down by more than `recognised` at the upper bound.

    Raises
    ------
    AnalysisError
        If the table has no `low_pass_similarity`.
    """
    there = [str(m) for m in measured["measure"].values]
    if "low_pass_similarity" not in there:
        raise AnalysisError(f"the table lacks low_pass_similarity; it has {', '.join(there)}.")
    prompts = np.array([str(p) for p in measured["prompt"].values])
    used = np.ones(len(prompts), dtype=bool) if rows is None else rows
    texts = prompts[used].tolist()
    gone_KS = lost_samples(measured)[:, used]
    value_KSM = values(measured)[:, used]
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    alike_KS = np.where(gone_KS, 0.0, value_KSM[..., there.index("low_pass_similarity")])
    count, judge = len(value_KSM), "recognised" in there
    right_KS = value_KSM[..., there.index("recognised")] if judge else np.full(alike_KS.shape, np.nan)
    before_KS = right_KS[baselines(measured)]
    after_KS = np.where(gone_KS & np.isfinite(before_KS), 0.0, right_KS)
    both = interval(replicates(np.stack([alike_KS, after_KS - before_KS], axis=-1), texts), **options)
    alike, change = (inference.Interval(*(side[:, i] for side in both)) for i in (0, 1))
    kept, shown = alike.low >= similarity, alike.high < similarity
    drop, share, share_high = (np.full(count, np.nan) for _ in range(3))
    judged = np.zeros(count, dtype=np.int64)
    if judge:
        unknown_KS = ~np.isfinite(before_KS) | ~np.isfinite(after_KS)
        lost_KS = np.where(unknown_KS, np.nan, (after_KS < before_KS).astype(np.float64))
        losing_PK = replicates(lost_KS[..., None], texts)[..., 0]
        judged = np.isfinite(losing_PK).sum(axis=0)
        times = (np.nan_to_num(losing_PK) > 0).sum(axis=0)
        for k in np.flatnonzero(judged):
            share[k] = times[k] / judged[k]
            share_high[k] = float(inference.proportion_high(times[k], int(judged[k]), confidence=CONFIDENCE))
        drop = change.mean
        # Where no prompt is one of the judge's classes, layout alone decides.
        kept = kept & ((judged == 0) | (share_high <= recognised))
        shown = shown | (change.high < -recognised)
    return Content(*alike, drop, share, share_high, judged, kept, shown)


def lost_samples(measured: xr.Dataset) -> NDArray[np.bool_]:
    """Samples (K, S) that are not finite though their baseline's are: pictures that are lost."""
    gone_KS = np.asarray(np.isnan(values(measured)).all(axis=2), dtype=bool)
    if "finite" in measured:
        gone_KS = gone_KS | ~np.asarray(measured["finite"].transpose("condition", "sample").values, dtype=bool)
    return np.asarray(gone_KS & ~gone_KS[baselines(measured)], dtype=bool)


def needed_prompts(recognised: float = RECOGNISED) -> int:
    """Fewest prompts that, without a single loss, show that the share of prompts that lose is at most `recognised`."""
    n = 1
    while 1.0 - (1.0 - CONFIDENCE) ** (1.0 / n) > recognised:
        n += 1
    return n


def rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-able numbers with six digits; None for what is not finite."""
    return {
        key: value if isinstance(value, (bool, int, str)) else float(f"{value:.6g}") if np.isfinite(value) else None
        for key, value in numbers.items()
    }


def _apart(moments_RBX: Floats, gauge: Gauge) -> Floats:
    """Distance of the normal distributions with these first and second moments to the data's, shape (R,)."""
    mean_RB = moments_RBX[..., 0]
    spread_RB = np.sqrt(np.maximum(moments_RBX[..., 1] - mean_RB**2, 0.0))
    square_RB = ((mean_RB - gauge.mean) ** 2 + (spread_RB - gauge.spread) ** 2) / gauge.spread**2
    return np.asarray(np.sqrt(square_RB.mean(axis=-1)))


def _bands(there: list[str]) -> list[int]:
    names = sorted((name for name in there if name.startswith("band_power_")), key=lambda name: int(name[11:]))
    return [there.index(name) for name in names]


def _known(measured: xr.Dataset, measure: str) -> bool:
    """Whether every sample that is finite has this measure, in the baselines: prompts that are no captions have none."""
    value_KSM = values(measured)[np.unique(baselines(measured))]
    column = [str(m) for m in measured["measure"].values].index(measure)
    drawn_KS = ~np.isnan(value_KSM).all(axis=2)
    return bool(drawn_KS.any() and np.isfinite(value_KSM[..., column][drawn_KS]).all())
