"""Is Detail Guidance more than a higher CFG scale, and is it the massive channels? Paired with every other guidance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.effects import contrasts, effects
from workbench.analysis.sweep import DISTANCE, FALLBACK, LEAST
from workbench.errors import AnalysisError

GUIDED, ALONE = "cfg+dg", "dg"
"""Names of the conditions of `workbench.sampling.baselines` that are Detail Guidance, with and without CFG."""

LEVEL = 0.05

CLOSER, FARTHER, EQUAL, OPEN = "closer", "farther", "equal", "undecided"


def baselines(
    measured: xr.Dataset,
    *,
    distance: str = DISTANCE,
    least: float = LEAST,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Effects of every guidance, and Detail Guidance against each of them.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.sampling.baselines.baselines`.
    distance : str
        The measure that decides, lower is better; `edge_energy` (higher is better) where the table has none of it.
    least : float
        Smallest difference that counts, as a share of the mean of plain CFG.
    confidence, resamples, seed
        Of the intervals.

    Returns
    -------
    xarray.Dataset
        Of `effects`, and over (contrast, measure): `difference` (Detail Guidance − other) with `_low`, `_high`, `_p` (sign flips,
        corrected over the contrasts of a measure); `finding(contrast)`: ``closer`` to the data, ``farther``, ``equal`` within
        ±`least`, or ``undecided``. ``attrs["verdict"]``: is it more than a higher CFG scale; ``attrs["verdict_reason"]`` says it
        for all.

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
    result = effects(measured, confidence=confidence, resamples=resamples, seed=seed)
    measures = [str(m) for m in measured["measure"].values]
    gauge = distance if distance in measures else FALLBACK
    pairs = _pairs(measured)
    rows = contrasts(measured, pairs, confidence=confidence, resamples=resamples, seed=seed)
    labels = [f"{one} − {other}" for one, other in pairs]
    shape, dims = (len(measures), len(pairs)), ("contrast", "measure")
    for name, column in (("", "difference"), ("_low", "low"), ("_high", "high"), ("_p", "p_corrected")):
        result[f"difference{name}"] = (dims, rows[column].to_numpy(dtype=float).reshape(shape).T)
    base = float(result["mean"].sel(condition="cfg", measure=gauge))
    sign = -1.0 if gauge == FALLBACK else 1.0  # detail is the better the more of it
    found = [_finding(rows, pair, gauge, sign, abs(least * base)) for pair in pairs]
    result = result.assign_coords(
        contrast=("contrast", np.array(labels, dtype=str)),
        contrast_one=("contrast", np.array([one for one, _ in pairs], dtype=str)),
        contrast_other=("contrast", np.array([other for _, other in pairs], dtype=str)),
        finding=("contrast", np.array(found, dtype=str)),
    )
    against_cfg = [f for (one, other), f in zip(pairs, found, strict=True) if one == GUIDED and _is_cfg(other)]
    result.attrs |= {"analysis": "baselines", "gauge": gauge, "least": least, "margin": abs(least * base)}
    result.attrs["verdict"] = (
        "supported"
        if set(against_cfg) == {CLOSER}
        else "not supported"
        if {FARTHER, EQUAL} & set(against_cfg)
        else "undecided"
    )
    said = "; ".join(f"{label}: {_words(f, gauge)}" for label, f in zip(labels, found, strict=True))
    result.attrs["verdict_reason"] = (
        f"Whether Detail Guidance is more than a higher CFG scale, by {gauge} (at least ±{least:.0%} of CFG's mean counts): {said} "
        f"({result.attrs['replication']})."
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


def _finding(rows: pd.DataFrame, pair: tuple[str, str], gauge: str, sign: float, margin: float) -> str:
    row = rows[(rows["condition"] == pair[0]) & (rows["against"] == pair[1]) & (rows["measure"] == gauge)].iloc[0]
    if row["n"] < inference.MINIMUM_SAMPLES:
        return OPEN
    low, high = sorted((sign * row["low"], sign * row["high"]))
    if -margin < low and high < margin:
        return EQUAL
    if row["p_corrected"] < LEVEL and high < 0:
        return CLOSER
    if row["p_corrected"] < LEVEL and low > 0:
        return FARTHER
    return OPEN


def _words(finding: str, gauge: str) -> str:
    if gauge == FALLBACK:
        return {CLOSER: "more edge energy", FARTHER: "less edge energy"}.get(finding, finding)
    return {CLOSER: "closer to the data", FARTHER: "farther from the data"}.get(finding, finding)
