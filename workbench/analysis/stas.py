"""What STAS does to videos, against none and against the paper's controls: paired by prompt, corrected, in words.

Input is the table of `workbench.stas_trial`. Contrasts: STAS − plain; each control − plain; STAS − each control; each setting of
the grid − plain. A contrast is one question; its measures share the error (Holm, Bonferroni), and all settings of the grid
with all their measures are one family. That STAS is better than plain videos and *every* control needs no correction over these
(intersection-union, Berger 1982).

Legend: S samples, P prompts, K conditions, M measures, C contrasts.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.effects import attributes
from workbench.analysis.gauge import lost_samples
from workbench.analysis.stas_numbers import LEAST, contrasts, correct, summary, table_of
from workbench.analysis.stas_rule import (
    BETTER,
    CHANGE,
    MOTION,
    OPEN,
    RULE,
    RULE_VERSION,
    alone,
    finding,
    reason,
    verdict,
)
from workbench.errors import AnalysisError


def stas_effects(
    measured: xr.Dataset,
    *,
    least: float = LEAST,
    confidence: float = 0.95,
    resamples: int = 2000,
    flips: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """Paired differences of every contrast in every measure, with intervals, corrected p-values and words.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.stas_trial`.
    least : float
        Smallest difference that counts, see `LEAST`.
    confidence, resamples, flips, seed
        Of intervals and p-values; 1 − `confidence` is the level of every decision.

    Returns
    -------
    xarray.Dataset
        Over (condition, measure): `mean` with `_low`, `_high`; `n`. Over (contrast, measure): `difference` (one − other, in the
        measure's unit) with `low`, `high` (BCa, widened to Student's t) and `low_all`, `high_all` (which hold for all judged measures
        of the contrast together); `p_value` (two-sided sign flips over prompts), `p_corrected` (Holm), `p_equivalent` (two one-sided
        tests, Holm); `needed` (prompts that would decide it, four times in five); `finding`, see `stas_rule.RULE`. `margin(measure)`.
        Coordinates `contrast_one`, `contrast_other`, `question` (stas, control, selective, grid), `verdict`, `reason` of a contrast;
        `better`, `label`, `unit`, `kind`, `judged` of a measure. `lost(condition)`: videos not finite though the plain ones are.
        ``attrs["verdict"]``, ``["verdict_reason"]``: of STAS − plain; ``["selective"]``: whether it is better than every control;
        ``["grid"]``: JSON, settings found better by measure. Bounds are NaN with fewer than `inference.MINIMUM_SAMPLES` prompts.

    Raises
    ------
    AnalysisError
        If the table is not that of a trial of STAS.
    """
    roles = roles_of(measured)
    if not (math.isfinite(least) and least > 0):
        raise AnalysisError(f"least={least!r} must be above 0: it is the smallest difference that counts.")
    names, prompts = [str(name) for name in measured["condition"].values], [str(p) for p in measured["prompt"].values]
    table, result = table_of(measured, roles["baseline"][0], least, prompts)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    for key, side in summary(table, **options).items():
        result[key] = (("condition", "measure"), side)
    result["lost"] = ("condition", lost_samples(measured).sum(axis=1))
    pairs = _pairs(roles)
    at = [(names.index(one), names.index(other)) for one, other, _ in pairs]
    for key, numbers in contrasts(table, at, flips=flips, **options).items():
        result[key] = (("contrast", "measure"), numbers)
    result = result.assign_coords(
        contrast=("contrast", np.array([f"{one} − {other}" for one, other, _ in pairs], dtype=str)),
        contrast_one=("contrast", np.array([pair[0] for pair in pairs], dtype=str)),
        contrast_other=("contrast", np.array([pair[1] for pair in pairs], dtype=str)),
        question=("contrast", np.array([pair[2] for pair in pairs], dtype=str)),
    )
    correct(result, pairs)
    result = _in_words(result, pairs, 1.0 - confidence, attributes(measured, prompts, "stas")["replicate"])
    result.attrs = attributes(measured, prompts, "stas") | options | _overall(result, least, 1.0 - confidence)
    return result


def roles_of(measured: xr.Dataset) -> dict[str, list[str]]:
    """Role → its conditions."""
    lacking = [name for name in ("role", "better", "kind", "label", "unit") if name not in measured.coords]
    if lacking:
        raise AnalysisError(f"the table has no `{lacking[0]}`; pass what `workbench.stas_trial` returned.")
    found: dict[str, list[str]] = {"baseline": [], "stas": [], "control": [], "grid": []}
    for name, role in zip(measured["condition"].values, measured["role"].values, strict=True):
        found.setdefault(str(role), []).append(str(name))
    if len(found["baseline"]) != 1 or len(found["stas"]) != 1:
        raise AnalysisError(
            f"a trial of STAS has one plain condition and one of STAS, not {len(found['baseline'])} and {len(found['stas'])}; keep both "
            "when selecting some of them."
        )
    return found


def _pairs(roles: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    plain, stas = roles["baseline"][0], roles["stas"][0]
    pairs = [(stas, plain, "stas")]
    pairs += [(control, plain, "control") for control in roles["control"]]
    pairs += [(stas, control, "selective") for control in roles["control"]]
    return pairs + [(setting, plain, "grid") for setting in roles["grid"]]


def _in_words(result: xr.Dataset, pairs: list[tuple[str, str, str]], alpha: float, replicate: str) -> xr.Dataset:
    names = [str(m) for m in result["measure"].values]
    labels = dict(zip(names, map(str, result["label"].values), strict=True))
    words = np.full((len(pairs), len(names)), OPEN, dtype=object)
    verdicts, reasons = [], []
    lost = dict(zip(map(str, result["condition"].values), result["lost"].values.tolist(), strict=True))
    low, high, p, equivalent, difference, wanted = (
        result[key].values for key in ("low_all", "high_all", "p_corrected", "p_equivalent", "difference", "needed")
    )
    margin, better = result["margin"].values.tolist(), result["better"].values.tolist()
    sharp = {name for name, kind in zip(names, result["kind"].values, strict=True) if kind == "detail"}
    for c, (one, other, _) in enumerate(pairs):
        for m in range(len(names)):
            words[c, m] = finding(
                float(low[c, m]), float(high[c, m]), margin[m], better=better[m], p_corrected=float(p[c, m]),
                p_equivalent=float(equivalent[c, m]), alpha=alpha,
            )  # fmt: skip
        judged = {name: str(words[c, m]) for m, name in enumerate(names) if better[m]}
        # A measure without a number in this table decides nothing.
        judged = {n: w for n, w in judged.items() if np.isfinite(difference[c, names.index(n)])}
        moves, changes = (_alone(result.isel(contrast=c), name, alpha) for name in (MOTION, CHANGE))
        gone = max(lost[one] - lost[other], 0)
        needed = dict(zip(names, wanted[c].tolist(), strict=True))
        verdicts.append(verdict(judged, moves=moves, lost=gone))
        reasons.append(
            reason(
                judged, labels, moves=moves, lost=gone, needed=needed, replicate=replicate, sharpness=sharp,
                changes=changes or OPEN,
            )
        )  # fmt: skip
    result["finding"] = (("contrast", "measure"), words.astype(str))
    return result.assign_coords(
        verdict=("contrast", np.array(verdicts, dtype=str)), reason=("contrast", np.array(reasons, dtype=str))
    )


def _alone(contrast: xr.Dataset, measure: str, alpha: float) -> str | None:
    """Finding of one contrast in a measure of its own (`stas_rule.alone`); None where that was not measured."""
    if measure not in contrast["measure"].values:
        return None
    at = contrast.sel(measure=measure)
    return alone({key: float(at[key]) for key in ("low", "high", "margin", "p_value", "p_equivalent")}, alpha)


def _overall(result: xr.Dataset, least: float, alpha: float) -> dict[str, Any]:
    question = result["question"].values
    judged = [str(m) for m in result["measure"].values[result["judged"].values]]
    part = result.sel(contrast=result["contrast"].values[question == "grid"], measure=judged)
    grid = {
        name: [
            str(one)
            for one, word in zip(part["contrast_one"].values, part["finding"].sel(measure=name).values, strict=True)
            if word == BETTER
        ]
        for name in judged
    }
    return {
        "rule": RULE.format(alpha=alpha, least=least),
        "rule_version": RULE_VERSION,
        "least": least,
        "verdict": str(result["verdict"].values[0]),
        "verdict_reason": str(result["reason"].values[0]),
        "selective": _selective(result),
        "grid": json.dumps(grid if (question == "grid").any() else {}, sort_keys=True),
    }


def _selective(result: xr.Dataset) -> str:
    """Whether STAS is better than plain videos *and* than every control, in one measure that is the same throughout.

    Plain videos are among them: controls that only do harm are beaten by doing nothing.
    """
    question = result["question"].values
    if not (question == "selective").any():
        return "not tried"
    part = result.isel(contrast=np.flatnonzero(np.isin(question, ("stas", "selective"))))
    said = {str(v) for v in part["verdict"].values}
    shared = (part["finding"].values == BETTER).all(axis=0).any()
    if said == {"supported"} and shared:
        return "supported"
    return "not supported" if "not supported" in said else "undecided"


__all__ = ["LEAST", "roles_of", "stas_effects"]
