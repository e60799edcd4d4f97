"""Which setting of Detail Guidance is best, if any is: a named rule, chosen on half of the prompts, reported on the other.

The best of many settings looks better than it is, because noise helped it to be the best (the winner's curse). So the choice
is made on a random half of the prompts and its effect is measured on the half that had no say in it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.effects import baselines, effects, interval, replicates, values
from workbench.errors import AnalysisError

RULE = (
    "Of the settings that keep the content on the choosing half of the prompts (lower bound of the mean low-pass similarity to "
    "the same sample without Detail Guidance at least {similarity:g}{recognised}), the one with the largest lower bound of the "
    "gain, where that is above 0. Gain: {gain}. Reported on the other half: supported if the gain's interval lies above 0 and the "
    "content is kept there too."
)
RULE_VERSION = 1

SIMILARITY = 0.95
"""Least mean low-pass similarity that counts as the same content."""

RECOGNISED = 0.05
"""Largest drop in the share of pictures that the judge recognises that counts as none."""

LEAST = 0.05
"""Smallest gain that counts, as a share of the baseline's mean distance: what is shown to be smaller is no gain."""

DISTANCE = "spectral_distance"
FALLBACK = "edge_energy"

NONE = "none"
CONTROL = "control"
"""Role of a condition that is shown and never chosen: other channels than the massive ones."""


class Setting(NamedTuple):
    """How one setting does on some prompts; bounds of intervals over these."""

    name: str
    gain: float
    gain_low: float
    gain_high: float
    similarity: float
    similarity_low: float
    recognised: float
    recognised_low: float
    keeps: bool


def sweep(
    measured: xr.Dataset,
    *,
    distance: str = DISTANCE,
    similarity: float = SIMILARITY,
    recognised: float = RECOGNISED,
    least: float = LEAST,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Effects of every setting, and for each mode the best setting by `RULE`.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.sampling.sweep.sweep`.
    distance : str
        The measure whose decrease is the gain. Where the table has none of it, the gain is the increase of
        `edge_energy`, and the result says so.
    similarity, recognised : float
        What counts as content kept: see `SIMILARITY` and `RECOGNISED`.
    least : float
        Smallest gain that counts, see `LEAST`; decides between ``not supported`` and ``undecided`` where nothing is better.
    confidence, resamples, seed
        Of the intervals; `seed` also splits the prompts.

    Returns
    -------
    xarray.Dataset
        Of `effects`, with `gain(condition)` and bounds, `content_kept(condition)` (all prompts), and in the attributes `rule`,
        `best` (JSON: per mode the choice, its numbers on both halves, and a verdict), `verdict`, `verdict_reason`.

    Raises
    ------
    AnalysisError
        If the table is not that of a sweep, or holds no setting.
    """
    names = [str(name) for name in measured["condition"].values]
    if "mode" not in measured.coords:
        raise AnalysisError("the table has no `mode`; pass what `workbench.sampling.sweep.sweep` returned.")
    result = effects(measured, confidence=confidence, resamples=resamples, seed=seed)
    role = measured["role"].values if "role" in measured.coords else np.full(len(names), "")
    steered = np.flatnonzero((baselines(measured) != np.arange(len(names))) & (role != CONTROL))
    if not len(steered):
        raise AnalysisError("the sweep holds no setting besides the baselines; give at least one with over=….")
    there = [str(m) for m in measured["measure"].values]
    gauge = distance if distance in there else FALLBACK
    if gauge not in there or "low_pass_similarity" not in there:
        raise AnalysisError(f"the table lacks {gauge} or low_pass_similarity; it has {', '.join(there)}.")
    limits = {"similarity": similarity, "recognised": recognised, "gauge": gauge}
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    prompts = [str(p) for p in measured["prompt"].values]
    changes_PKM = replicates(values(measured) - values(measured)[baselines(measured)], prompts)
    table = {
        part: _settings(names, there, changes_PKM[rows], limits, options) for part, rows in _halves(changes_PKM, seed)
    }
    whole = table["all"]
    for field in ("gain", "gain_low", "gain_high"):
        result[field] = ("condition", [getattr(whole[name], field) for name in names])
    result["content_kept"] = ("condition", [whole[name].keeps for name in names])
    modes = list(dict.fromkeys(str(measured["mode"].values[k]) for k in steered))
    best: dict[str, Any] = {}
    for mode in modes:
        of_mode = [names[k] for k in steered if str(measured["mode"].values[k]) == mode]
        at = names.index(str(measured["baseline"].values[names.index(of_mode[0])]))
        smallest = least * float(np.abs(result["mean"].values[at, there.index(gauge)]))
        best[mode] = _best(of_mode, table, len(changes_PKM), smallest)
    result.attrs |= {
        "analysis": "sweep",
        "rule": _rule(limits, "recognised" in there),
        "rule_version": RULE_VERSION,
        "gauge": gauge,
        "similarity_margin": similarity,
        "recognised_margin": recognised,
        "least": least,
        "best": json.dumps(best, sort_keys=True),
        "fingerprint": fingerprint(measured),
    }
    result.attrs["verdict"], result.attrs["verdict_reason"] = _verdict(best, result.attrs)
    return result


def fingerprint(measured: xr.Dataset) -> str:
    """SHA-256 (16 hex digits) of the settings, conditions and every number of the table."""
    digest = hashlib.sha256(str(measured.attrs.get("settings", "")).encode())
    for name in ("condition", "measure", "baseline"):
        digest.update("\0".join(map(str, measured[name].values)).encode())
    digest.update(np.round(values(measured), 9).astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def best_of(result: xr.Dataset, mode: str | None = None) -> dict[str, Any]:
    """The choice for a mode: ``{"mode", "choice", "verdict", "reason", ...}``; default the mode with CFG, if there.

    Raises
    ------
    AnalysisError
        If the sweep did not run that mode.
    """
    if "best" not in result.attrs:
        raise AnalysisError("this is no result of a sweep; pass what `workbench.analysis.sweep.sweep` returned.")
    best = json.loads(result.attrs["best"])
    chosen = mode or ("cfg+dg" if "cfg+dg" in best else next(iter(best)))
    if chosen not in best:
        raise AnalysisError(f"the sweep has no mode {chosen!r}; it has {', '.join(best)}.")
    return {"mode": chosen, **best[chosen]}


def table(result: xr.Dataset, measures: list[str] | None = None) -> pd.DataFrame:
    """One row a condition and measure: its factors, mean and effect with intervals, p-values, seconds a step."""
    part = result if measures is None else result.sel(measure=[m for m in measures if m in result["measure"].values])
    keep = [name for name in part.data_vars if set(part[name].dims) <= {"condition", "measure"}]
    return part[keep].to_dataframe().reset_index()


def _halves(changes_PKM: np.ndarray, seed: int) -> list[tuple[str, np.ndarray]]:
    count = len(changes_PKM)
    order = np.random.default_rng([seed, 1]).permutation(count)
    choosing, reporting = np.sort(order[: count // 2]), np.sort(order[count // 2 :])
    return [("all", np.arange(count)), ("choosing", choosing), ("reporting", reporting)]


def _settings(
    names: list[str], there: list[str], changes_PKM: np.ndarray, limits: dict[str, Any], options: dict[str, Any]
) -> dict[str, Setting]:
    found = interval(changes_PKM, **options)
    gauge, alike = there.index(limits["gauge"]), there.index("low_pass_similarity")
    known = there.index("recognised") if "recognised" in there else None
    out = {}
    for k, name in enumerate(names):
        mean, low, high = (part[k, gauge] for part in found)
        # A distance shall fall, an amount of detail rise.
        gain = (mean, low, high) if limits["gauge"] == FALLBACK else (-mean, -high, -low)
        similar, similar_low = 1 + found.mean[k, alike], 1 + found.low[k, alike]
        drop, drop_low = (found.mean[k, known], found.low[k, known]) if known is not None else (np.nan, np.nan)
        keeps = bool(similar_low >= limits["similarity"])
        if known is not None and np.isfinite(drop):  # NaN where no prompt is one of the judge's classes
            keeps = keeps and bool(drop_low > -limits["recognised"])
        a, b, c, d, e, f, g = (float(x) for x in (*gain, similar, similar_low, drop, drop_low))
        out[name] = Setting(name, a, b, c, d, e, f, g, keeps)
    return out


def _best(of_mode: list[str], table: dict[str, dict[str, Setting]], count: int, smallest: float) -> dict[str, Any]:
    """The choice on one half, and how it does on the other."""
    choosing = [table["choosing"][name] for name in of_mode]
    base = {"settings": len(of_mode), "n_choosing": count // 2, "n_reporting": count - count // 2, "smallest": smallest}
    if count // 2 < inference.MINIMUM_SAMPLES:
        wanted = 2 * inference.MINIMUM_SAMPLES
        reason = f"{count} prompts or seeds can't be halved; at least {wanted} are needed, 64 are recommended"
        return {"choice": NONE, "verdict": "undecided", "reason": reason, **base}
    eligible = [s for s in choosing if s.keeps and s.gain_low > 0]
    if not eligible:
        return {"choice": NONE, **_no_better(of_mode, table["all"], smallest), **base}
    winner = max(eligible, key=lambda s: s.gain_low)
    report = table["reporting"][winner.name]
    if report.gain_low > 0 and report.keeps:
        verdict, said = "supported", "which the other half of the prompts confirms"
    elif report.gain_high < 0:
        verdict, said = "not supported", "but on the other half of the prompts it is worse than no Detail Guidance"
    elif report.gain_low > 0:
        verdict, said = "undecided", "but that the content is kept is not shown on the other half of the prompts"
    else:
        verdict, said = "undecided", "but the other half of the prompts does not confirm the gain"
    numbers = {"choosing": _rounded(winner), "reporting": _rounded(report)}
    return {"choice": winner.name, "verdict": verdict, "reason": f"{winner.name} was chosen, {said}", **base, **numbers}


def _no_better(of_mode: list[str], all_prompts: dict[str, Setting], smallest: float) -> dict[str, Any]:
    """Is no gain shown, or shown that there is none? From all prompts, as nothing was chosen."""
    keeping = [all_prompts[name] for name in of_mode if all_prompts[name].keeps]
    said = f"none of the {len(of_mode)} settings is better than no Detail Guidance: "
    if not keeping:
        return {"verdict": "not supported", "reason": f"{said}none is shown to keep the content"}
    top = max(keeping, key=lambda s: s.gain_high)
    if top.gain_high < smallest:
        shown = f"the {len(keeping)} that keep the content gain less than {smallest:.3g} (largest upper bound {top.gain_high:.3g})"
        return {"verdict": "not supported", "reason": said + shown}
    shown = (
        f"of the {len(keeping)} that keep the content none has a gain whose interval lies above 0 on the choosing half, but a gain "
        f"of {smallest:.3g} is not excluded ({top.name}: {top.gain:.3g}, interval {top.gain_low:.3g} to {top.gain_high:.3g})"
    )
    return {"verdict": "undecided", "reason": said.replace("is better", "is shown to be better") + shown}


def _rounded(setting: Setting) -> dict[str, Any]:
    fields = setting._asdict() | {"name": None}
    return {
        key: (value if isinstance(value, bool) else float(f"{value:.6g}") if np.isfinite(value) else None)
        for key, value in fields.items()
        if key != "name"
    }


def _rule(limits: dict[str, Any], judged: bool) -> str:
    gain = {
        FALLBACK: "increase of edge_energy; there is nothing here to tell added detail from over-sharpening",
    }.get(limits["gauge"], f"decrease of {limits['gauge']}, which over-sharpening does not lower")
    more = f", and the share that the judge recognises down by less than {limits['recognised']:g}" if judged else ""
    return RULE.format(similarity=limits["similarity"], recognised=more, gain=gain)


def _verdict(best: dict[str, Any], attrs: dict[str, Any]) -> tuple[str, str]:
    """Of all modes: supported if Detail Guidance helps in one of them."""
    found = [one["verdict"] for one in best.values()]
    verdict = next((v for v in ("supported", "undecided", "not supported") if v in found), "undecided")
    said = "; ".join(f"{mode}: {one['reason']}" for mode, one in best.items())
    return verdict, f"{said} ({attrs['replication']}, chosen on half of them and reported on the other)."
