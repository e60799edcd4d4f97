"""What conditions change, sample by sample from the same noise: paired effects with intervals over prompts.

One core for the sweep of Detail Guidance and for its baselines. Input is the table of `workbench.sampling.measured`:
`value(condition, sample, measure)` and `baseline(condition)`.

Legend: S samples, P prompts, K conditions, M measures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.visits import version
from workbench.errors import AnalysisError

Floats = NDArray[np.float64]


def effects(
    measured: xr.Dataset, *, confidence: float = 0.95, resamples: int = 2000, flips: int = 9999, seed: int = 0
) -> xr.Dataset:
    """Mean of every measure under every condition, and its paired difference to the condition's baseline.

    Parameters
    ----------
    measured : xr.Dataset
        `value(condition, sample, measure)`, coordinates `baseline(condition)` (the name of a condition) and `prompt(sample)`;
        optionally `seconds(condition, sample)`.
    confidence : float
        Of the intervals.
    resamples, flips, seed : int
        Of the bootstrap and of the sign flips.

    Returns
    -------
    xarray.Dataset
        `mean`, `effect` (condition − baseline, in the measure's unit; `low_pass_similarity`: its difference to 1), each with
        `_low` and `_high`; `p_value` (two-sided sign flips over prompts) and `p_corrected` (family-wise over the conditions
        of a measure); `n(condition, measure)` prompts; `seconds_per_step(condition)` with `_low`, `_high` (quartiles over
        samples). Bounds are NaN with fewer than `inference.MINIMUM_SAMPLES` prompts; a prompt with a value that is not finite
        is left out of that number.

    Raises
    ------
    AnalysisError
        If the table lacks a part, or a baseline is not among the conditions.
    """
    values_KSM, prompts = values(measured), [str(p) for p in measured["prompt"].values]
    change_KSM = values_KSM - values_KSM[baselines(measured)]
    result = measured.coords.to_dataset().drop_dims("sample")
    dims = ("condition", "measure")
    for name, array in (("mean", values_KSM), ("effect", change_KSM)):
        by_PKM = replicates(array, prompts)
        found = interval(by_PKM, confidence=confidence, resamples=resamples, seed=seed)
        result[name] = (dims, found.mean)
        result[f"{name}_low"], result[f"{name}_high"] = (dims, found.low), (dims, found.high)
    result["n"] = (dims, np.isfinite(by_PKM).sum(axis=0))
    p, corrected = np.full(result["effect"].shape, np.nan), np.full(result["effect"].shape, np.nan)
    steered = baselines(measured) != np.arange(len(values_KSM))
    for m in range(by_PKM.shape[2] if steered.any() else 0):
        # A value that is missing counts as no difference: the p-value of its column is the same, the correction more careful.
        flipped = inference.sign_flip(np.nan_to_num(by_PKM[:, steered, m]), resamples=flips, seed=seed)
        enough = result["n"].values[steered, m] >= inference.MINIMUM_SAMPLES
        p[steered, m] = np.where(enough, flipped.p_value, np.nan)
        corrected[steered, m] = np.where(enough, flipped.p_corrected, np.nan)
    result["p_value"], result["p_corrected"] = (dims, p), (dims, corrected)
    if "seconds" in measured:
        for name, quantile in (("", 0.5), ("_low", 0.25), ("_high", 0.75)):
            taken = measured["seconds"].quantile(quantile, "sample").drop_vars("quantile")
            result[f"seconds_per_step{name}"] = taken / steps(measured)
    result.attrs = attributes(measured, prompts, "effects") | {
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    return result


def contrasts(
    measured: xr.Dataset,
    pairs: Sequence[tuple[str, str]],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Paired differences between any two conditions, one row a pair and measure.

    Returns
    -------
    DataFrame
        Columns condition, against, measure, n, difference, low, high, p_value, p_corrected (family-wise over the pairs of
        a measure).
    """
    names, measures = [str(c) for c in measured["condition"].values], [str(m) for m in measured["measure"].values]
    unknown = [name for pair in pairs for name in pair if name not in names]
    if unknown or not pairs:
        raise AnalysisError(f"there is no condition {unknown[:1] or '(no pairs)'}; there are {', '.join(names)}.")
    values_KSM, prompts = values(measured), [str(p) for p in measured["prompt"].values]
    one, other = ([names.index(pair[i]) for pair in pairs] for i in (0, 1))
    by_PKM = replicates(values_KSM[one] - values_KSM[other], prompts)
    found = interval(by_PKM, confidence=confidence, resamples=resamples, seed=seed)
    n = np.isfinite(by_PKM).sum(axis=0)
    rows = []
    for m, measure in enumerate(measures):
        flipped = inference.sign_flip(np.nan_to_num(by_PKM[..., m]), seed=seed)
        for k, (a, b) in enumerate(pairs):
            enough = n[k, m] >= inference.MINIMUM_SAMPLES
            rows.append(
                {"condition": a, "against": b, "measure": measure, "n": int(n[k, m])}
                | {"difference": found.mean[k, m], "low": found.low[k, m], "high": found.high[k, m]}
                | {
                    "p_value": flipped.p_value[k] if enough else np.nan,
                    "p_corrected": flipped.p_corrected[k] if enough else np.nan,
                }
            )
    return pd.DataFrame(rows)


def values(measured: xr.Dataset) -> Floats:
    """The table's values as (K, S, M).

    Raises
    ------
    AnalysisError
        If a part is missing.
    """
    lacking = [name for name in ("value", "baseline", "prompt") if name not in measured]
    if lacking:
        raise AnalysisError(
            f"the table lacks {', '.join(lacking)}; pass what `workbench.sampling.measured.measured` (or `sweep`) returned."
        )
    return np.asarray(measured["value"].transpose("condition", "sample", "measure").values, dtype=np.float64)


def baselines(measured: xr.Dataset) -> NDArray[np.int64]:
    """Position of each condition's baseline.

    Raises
    ------
    AnalysisError
        If one is not there.
    """
    names = [str(name) for name in measured["condition"].values]
    wanted = [str(name) for name in measured["baseline"].values]
    if lost := [name for name in wanted if name not in names]:
        raise AnalysisError(
            f"the baseline {lost[0]!r} is not among the conditions; keep it when selecting some of them."
        )
    return np.array([names.index(name) for name in wanted])


def replicates(values_KSM: Floats, prompts: Sequence[str]) -> Floats:
    """Mean over the samples of each prompt (see `inference.by_prompt`), prompts first: (P, K, M)."""
    return np.asarray(inference.by_prompt(np.moveaxis(values_KSM, 1, 0), prompts)[0], dtype=np.float64)


def interval(
    values_PX: Floats, *, confidence: float, resamples: int, seed: int, method: inference.Method = "expanded"
) -> inference.Interval:
    """`inference.bootstrap_mean` of each column over the replicates for which it has a number."""
    rest = values_PX.shape[1:]
    flat = values_PX.reshape(len(values_PX), -1)
    mean, low, high = (np.full(flat.shape[1], np.nan) for _ in range(3))
    known = np.isfinite(flat)
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for i, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(which.reshape(-1) == i)
        if pattern.any():
            part = inference.bootstrap_mean(
                flat[np.ix_(pattern, columns)], confidence=confidence, resamples=resamples, seed=seed, method=method
            )
            mean[columns], low[columns], high[columns] = part.mean, part.low, part.high
    return inference.Interval(mean.reshape(rest), low.reshape(rest), high.reshape(rest))


def steps(measured: xr.Dataset) -> int:
    """Denoising steps of the run, from the settings the table carries; 1 if it does not say."""
    settings = measured.attrs.get("settings", {})
    settings = json.loads(settings) if isinstance(settings, str) else settings
    return int(settings.get("steps") or 1)


def attributes(measured: xr.Dataset, prompts: Sequence[str], analysis: str) -> dict[str, Any]:
    """What the result rests on: replicates, samples, where from."""
    distinct, samples = len(set(prompts)), len(prompts)
    replicate = "prompt" if distinct > 1 else "seed"
    n = distinct if distinct > 1 else samples
    seeds = samples // max(distinct, 1)
    kept = ("settings", "left_out", "model_name", "factors", "spec", "over")
    return {key: measured.attrs[key] for key in kept if key in measured.attrs} | {
        "analysis": analysis,
        "n_samples": samples,
        "n_replicates": n,
        "replicate": replicate,
        "replication": f"{distinct} prompts × {seeds} seed{'s' if seeds != 1 else ''}"
        if distinct > 1
        else f"{samples} seed{'s' if samples != 1 else ''} of one prompt",
        "version": version(),
    }
