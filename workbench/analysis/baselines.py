"""Is Detail Guidance more than a higher CFG scale, and is it the massive channels? Paired with every other guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.effects import contrasts, effects
from workbench.analysis.gauge import (
    LEAST,
    RECOGNISED,
    SIMILARITY,
    content,
    gains,
    gauge_of,
    lost_samples,
    needed_prompts,
    smallest_gain,
)
from workbench.errors import AnalysisError

GUIDED, ALONE = "cfg+dg", "dg"
"""Names of the conditions of `workbench.sampling.baselines` that are Detail Guidance, with and without CFG."""

CLOSER, FARTHER, EQUAL, AT_MOST, OPEN = "closer", "farther", "equal", "not closer", "undecided"

RESAMPLES = 10_000
"""Fewest resamples of the corrected intervals, whose quantiles lie far out."""


def baselines(
    measured: xr.Dataset,
    *,
    gauge: str = "auto",
    least: float = LEAST,
    similarity: float = SIMILARITY,
    recognised: float = RECOGNISED,
    confidence: float = 0.95,
    resamples: int = 2000,
    flips: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """Effects of every guidance, and Detail Guidance against each of them.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.sampling.baselines.baselines`.
    gauge : str
        What decides, see `workbench.analysis.gauge`; ``auto``: the best that the table allows.
    least, similarity, recognised : float
        Smallest difference that counts, and what counts as content kept, as in `sweep`.
    confidence, resamples, flips, seed
        Of the intervals and p-values.

    Returns
    -------
    xarray.Dataset
        Of `effects`, and over (contrast, measure): `difference` (Detail Guidance − other) with `_low`, `_high`, `_p` (sign flips,
        corrected over the contrasts of a measure); `gain(contrast)` with bounds that hold for all contrasts together
        (Bonferroni); `finding(contrast)`: ``closer`` to the data by more than the smallest gain, ``farther``, ``equal`` within
        it, ``not closer`` (no closer, perhaps farther), or ``undecided``. ``attrs["verdict"]``, is it more than a higher CFG scale:
        ``supported`` if closer than **every** CFG scale and the content of CFG is kept; ``not supported`` if some CFG scale is shown
        to do as well or the content is shown to be lost.

    Raises
    ------
    AnalysisError
        If the table is not that of baselines.
    """
    names = [str(name) for name in measured["condition"].values]
    if "method" not in measured.coords or not {GUIDED, ALONE, "cfg", "plain"} <= set(names):
        raise AnalysisError(
            "the table is none of baselines; pass what `workbench.sampling.baselines.baselines` returned."
        )
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    result = effects(measured, flips=flips, **options)
    used = gauge_of(measured, gauge)
    pairs = _pairs(measured)
    rows = contrasts(measured, pairs, **options)
    labels = [f"{one} − {other}" for one, other in pairs]
    shape, dims = (measured.sizes["measure"], len(pairs)), ("contrast", "measure")
    for name, column in (("", "difference"), ("_low", "low"), ("_high", "high"), ("_p", "p_corrected")):
        result[f"difference{name}"] = (dims, rows[column].to_numpy(dtype=float).reshape(shape).T)
    margin = smallest_gain(measured, used, "cfg", least)
    gain = gains(
        measured, used, [(names.index(one), names.index(other)) for one, other in pairs],
        confidence=1.0 - (1.0 - confidence) / len(pairs), resamples=max(resamples, RESAMPLES), seed=seed,
    )  # fmt: skip
    for name, side in zip(("", "_low", "_high"), gain, strict=True):
        result[f"gain{name}"] = ("contrast", side)
    found = [_finding(float(low), float(high), margin) for low, high in zip(gain.low, gain.high, strict=True)]
    result = result.assign_coords(
        contrast=("contrast", np.array(labels, dtype=str)),
        contrast_one=("contrast", np.array([one for one, _ in pairs], dtype=str)),
        contrast_other=("contrast", np.array([other for _, other in pairs], dtype=str)),
        finding=("contrast", np.array(found, dtype=str)),
    )
    left = content(measured, similarity=similarity, recognised=recognised, **options)
    gone = lost_samples(measured).sum(axis=1)
    result["content_kept"], result["content_lost"] = ("condition", left.kept), ("condition", left.shown_lost)
    result["lost_samples"] = ("condition", gone)
    at = names.index(GUIDED)
    kept = bool(left.kept[at]) and not gone[at]
    against_cfg = {f for (one, other), f in zip(pairs, found, strict=True) if one == GUIDED and _is_cfg(other)}
    result.attrs |= {
        "analysis": "baselines", "gauge": used.name, "gauge_words": used.words, "gauge_unit": used.unit,
        "warning": used.warning, "least": least, "margin": margin,
    }  # fmt: skip
    result.attrs["verdict"] = (
        "supported"
        if against_cfg == {CLOSER} and kept
        else "not supported"
        if {FARTHER, EQUAL, AT_MOST} & against_cfg or left.shown_lost[at]
        else "undecided"
    )
    said = "; ".join(
        f"{one} is {words}" for one in (GUIDED, ALONE) if (words := _said(one, pairs, found, used.sign > 0))
    )
    judged = int(left.judged[at])
    state = (
        "kept" if kept
        else "lost" if left.shown_lost[at]
        else f"not kept for certain ({gone[at]} pictures are not finite)" if gone[at]
        else f"not to be shown kept with {judged} prompts, of at least {needed_prompts(recognised)}"
        if 0 < judged < needed_prompts(recognised)
        else "not shown to be kept"
    )  # fmt: skip
    result.attrs["verdict_reason"] = (
        f"By {used.label} ({margin:.2g} counts), corrected for {len(pairs)} comparisons: {said}. Content of CFG under {GUIDED}: "
        f"{state} ({result.attrs['replication']})."
    )
    return result


def _is_cfg(name: str) -> bool:
    return name == "cfg" or name.startswith("cfg-")


def _pairs(measured: xr.Dataset) -> list[tuple[str, str]]:
    """Detail Guidance against all others of its kind: with CFG against those with, without against those without."""
    pairs = []
    for name, scale in zip(measured["condition"].values, measured["guidance_scale"].values, strict=True):
        one = GUIDED if float(scale) > 1 else ALONE
        if str(name) != one:
            pairs.append((one, str(name)))
    return pairs


def _finding(low: float, high: float, margin: float) -> str:
    """From the bounds of the gain; NaN, as with too few prompts, decides nothing."""
    if not np.isfinite([low, high]).all():
        return OPEN
    if low > margin:
        return CLOSER
    if high < -margin:
        return FARTHER
    if high < margin:
        return EQUAL if low > -margin else AT_MOST
    return OPEN


def _said(one: str, pairs: list[tuple[str, str]], found: list[str], edges: bool) -> str:
    """What one condition is against all others, by finding."""
    words = {CLOSER: "closer to the data than", FARTHER: "farther than", EQUAL: "equal to", AT_MOST: "not closer than"}
    if edges:
        words = {
            CLOSER: "of more edge energy than",
            FARTHER: "of less than",
            EQUAL: "equal to",
            AT_MOST: "of no more than",
        }
    words[OPEN] = "open against"
    parts = []
    for finding, text in words.items():
        others = [other for (a, other), f in zip(pairs, found, strict=True) if a == one and f == finding]
        parts += [f"{text} {', '.join(others)}"] if others else []
    return ", ".join(parts)
