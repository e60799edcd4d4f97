"""Which setting of Detail Guidance is best, if any is: a named rule, chosen on half of the prompts, reported on the other.

The best of many settings looks better than it is, because noise helped it to be the best (the winner's curse). So the choice
is made on a random half of the prompts and its effect is measured on the half that had no say in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.effects import baselines, effects, replicates, values
from workbench.analysis.gauge import (
    DISTRIBUTION,
    LEAST,
    RECOGNISED,
    SIMILARITY,
    Gauge,
    content,
    gains,
    gauge_of,
    lost_samples,
    needed_prompts,
    rounded,
    smallest_gain,
)
from workbench.errors import AnalysisError

RULE = (
    "Gain: {gain}. Of the settings without a lost picture that keep the content on the choosing half of the prompts (lower bound of "
    "the mean low-pass similarity to the same sample without Detail Guidance at least {similarity:g}{recognised}), the one with "
    "the largest lower bound of the gain, where that is above 0. Supported: on the other half its gain's lower bound, corrected for "
    "{modes}, is above the smallest gain that counts ({least}), and the content is kept there too. Not supported: every setting is "
    "shown, on all prompts, to gain less than that or to lose the content."
)
RULE_VERSION = 2

NONE = "none"
CONTROL = "control"
"""Role of a condition that is shown and never chosen: other channels than the massive ones."""


class Setting(NamedTuple):
    """How one setting does on some prompts; bounds of intervals over these."""

    gain: float
    gain_low: float
    gain_high: float
    similarity: float
    similarity_low: float
    similarity_high: float
    recognised: float
    lost: float
    lost_high: float
    n: int
    keeps: bool
    loses: bool


class _Mode(NamedTuple):
    """What decides for one mode."""

    settings: list[str]
    smallest: float
    broken: Mapping[str, int]
    halves: tuple[int, int]
    wanted: int
    """Prompts a half without which the content can't be shown to be kept."""


def sweep(
    measured: xr.Dataset,
    *,
    gauge: str = "auto",
    similarity: float = SIMILARITY,
    recognised: float = RECOGNISED,
    least: float = LEAST,
    confidence: float = 0.95,
    resamples: int = 2000,
    flips: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """Effects of every setting, and for each mode the best setting by `RULE`.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.sampling.sweep.sweep`.
    gauge : str
        What a gain is measured by, see `workbench.analysis.gauge`; ``auto``: the best that the table allows.
    similarity, recognised, least : float
        What counts as content kept and as a gain: see `gauge.SIMILARITY`, `gauge.RECOGNISED`, `gauge.LEAST`.
    confidence, resamples, flips, seed
        Of the intervals and p-values; `seed` also splits the prompts.

    Returns
    -------
    xarray.Dataset
        Of `effects`, with `gain(condition)` and bounds, `content_kept(condition)`, `content_lost(condition)` (shown; all
        prompts), `lost_samples(condition)` (pictures not finite), and in the attributes `rule`, `best` (JSON: per mode the choice,
        its numbers on both halves, and a verdict), `verdict`, `verdict_reason`.

    Raises
    ------
    AnalysisError
        If the table is not that of a sweep, or holds no setting.
    """
    names = [str(name) for name in measured["condition"].values]
    if "mode" not in measured.coords:
        raise AnalysisError("the table has no `mode`; pass what `workbench.sampling.sweep.sweep` returned.")
    result = effects(measured, confidence=confidence, resamples=resamples, flips=flips, seed=seed)
    role = measured["role"].values if "role" in measured.coords else np.full(len(names), "")
    steered = np.flatnonzero((baselines(measured) != np.arange(len(names))) & (role != CONTROL))
    if not len(steered):
        raise AnalysisError("the sweep holds no setting besides the baselines; give at least one with over=….")
    used = gauge_of(measured, gauge)
    of_mode: dict[str, list[str]] = {}
    for k in steered:
        of_mode.setdefault(str(measured["mode"].values[k]), []).append(names[k])
    limits: dict[str, Any] = {"similarity": similarity, "recognised": recognised}
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    chances = {**options, "confidence": 1.0 - (1.0 - confidence) / len(of_mode)}
    (halves, sizes), whole = _halves(measured, seed), np.ones(measured.sizes["sample"], dtype=bool)
    table = {
        "all": _settings(measured, used, whole, limits, options, options),
        "choosing": _settings(measured, used, halves[0], limits, options, options),
        "reporting": _settings(measured, used, halves[1], limits, options, chances),
    }
    for field in ("gain", "gain_low", "gain_high"):
        result[field] = ("condition", [getattr(table["all"][name], field) for name in names])
    result["content_kept"] = ("condition", [table["all"][name].keeps for name in names])
    result["content_lost"] = ("condition", [table["all"][name].loses for name in names])
    broken = dict(zip(names, lost_samples(measured).sum(axis=1).tolist(), strict=True))
    result["lost_samples"] = ("condition", [broken[name] for name in names])
    judged = (
        bool(np.isfinite(result["mean"].sel(measure="recognised")).any()) if _has(measured, "recognised") else False
    )
    best: dict[str, Any] = {}
    for mode, settings in of_mode.items():
        baseline = str(measured["baseline"].values[names.index(settings[0])])
        smallest = smallest_gain(measured, used, baseline, least)
        wanted = needed_prompts(recognised) if judged else inference.MINIMUM_SAMPLES
        best[mode] = _best(_Mode(settings, smallest, broken, sizes, wanted), table)
    result.attrs |= {
        "analysis": "sweep",
        "rule": _rule(used, limits, least, judged, len(of_mode)),
        "rule_version": RULE_VERSION,
        "gauge": used.name,
        "gauge_words": used.words,
        "gauge_unit": used.unit,
        "warning": used.warning,
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


def _has(measured: xr.Dataset, measure: str) -> bool:
    return measure in measured["measure"].values.tolist()


def _halves(measured: xr.Dataset, seed: int) -> tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], tuple[int, int]]:
    """Samples of the choosing and of the reporting half, and how many replicates each has."""
    prompts = [str(p) for p in measured["prompt"].values]
    distinct = list(dict.fromkeys(prompts))
    # As in `inference.by_prompt`: of one prompt the seeds are the replicates.
    each = [distinct.index(p) for p in prompts] if len(distinct) > 1 else list(range(len(prompts)))
    count = max(each) + 1
    order = np.random.default_rng([seed, 1]).permutation(count)
    choosing = np.isin(each, order[: count // 2])
    return (choosing, ~choosing), (count // 2, count - count // 2)


def _settings(
    measured: xr.Dataset,
    gauge: Gauge,
    rows: NDArray[np.bool_],
    limits: dict[str, Any],
    options: dict[str, Any],
    chances: dict[str, Any],
) -> dict[str, Setting]:
    """Numbers of every condition on these samples; `chances` are the options of the gain's interval."""
    pairs = list(enumerate(baselines(measured).tolist()))
    gain = gains(measured, gauge, pairs, rows=rows, **chances)
    left = content(measured, rows=rows, **limits, **options)
    # Prompts of which every picture is there, of the condition and of its baseline.
    gone_KS = np.asarray(np.isnan(values(measured)).all(axis=2), dtype=bool)
    there_KS = np.where(gone_KS | gone_KS[baselines(measured)], np.nan, 0.0)[:, rows]
    n: NDArray[np.int64] = np.isfinite(
        replicates(there_KS[..., None], [str(p) for p in measured["prompt"].values[rows]])
    ).sum(axis=(0, 2))
    return {
        str(name): Setting(
            float(gain.mean[k]), float(gain.low[k]), float(gain.high[k]), float(left.similarity[k]), float(left.similarity_low[k]),
            float(left.similarity_high[k]), float(left.recognised[k]), float(left.lost[k]), float(left.lost_high[k]), int(n[k]),
            bool(left.kept[k]), bool(left.shown_lost[k]),
        )
        for k, name in enumerate(measured["condition"].values)
    }  # fmt: skip


def _best(mode: _Mode, table: dict[str, dict[str, Setting]]) -> dict[str, Any]:
    """The choice on one half, and how it does on the other."""
    base: dict[str, Any] = {
        "settings": len(mode.settings), "n_choosing": mode.halves[0], "n_reporting": mode.halves[1],
        "smallest": float(f"{mode.smallest:.6g}") if np.isfinite(mode.smallest) else None,
        "with_lost_pictures": [name for name in mode.settings if mode.broken[name]],
    }  # fmt: skip
    if mode.halves[0] < inference.MINIMUM_SAMPLES:
        count, least = sum(mode.halves), 2 * inference.MINIMUM_SAMPLES
        reason = f"{count} prompts or seeds can't be halved; at least {least} are needed, 64 are recommended"
        return {"choice": NONE, "verdict": "undecided", "reason": reason, **base}
    choosing = table["choosing"]
    eligible = [n for n in mode.settings if choosing[n].keeps and choosing[n].gain_low > 0 and not mode.broken[n]]
    if not eligible:
        return {"choice": NONE, **_no_better(mode, table["all"]), **base}
    winner = max(eligible, key=lambda name: choosing[name].gain_low)
    report = table["reporting"][winner]
    numbers = {"choosing": rounded(choosing[winner]._asdict()), "reporting": rounded(report._asdict())}
    if report.loses or report.gain_high < mode.smallest:
        # What was chosen is not good enough; whether any other is, all prompts together say.
        return {"choice": NONE, **_no_better(mode, table["all"]), **base, "refuted": winner, **numbers}
    said = f"{report.gain:.3g} ({report.gain_low:.3g} to {report.gain_high:.3g}; {mode.smallest:.3g} counts)"
    confirmed = report.gain_low > mode.smallest
    verdict = "supported" if confirmed and report.keeps else "undecided"
    kept = "content kept" if report.keeps else "content not shown to be kept"
    reason = f"{winner} chosen; on the other half its gain is {said}, {kept}"
    return {"choice": winner, "verdict": verdict, "reason": reason, **base, **numbers}


def _no_better(mode: _Mode, everyone: dict[str, Setting]) -> dict[str, Any]:
    """Is no gain shown, or shown that there is none? From all prompts, as nothing was chosen."""
    loses = [name for name in mode.settings if everyone[name].loses]
    small = [name for name in mode.settings if name not in loses and everyone[name].gain_high < mode.smallest]
    still = [name for name in mode.settings if name not in (*loses, *small)]
    parts = [f"{len(small)} gain less than {mode.smallest:.3g}"] if small else []
    parts += [f"{len(loses)} lose the content"] if loses else []
    if not still:
        return {"verdict": "not supported", "reason": f"of {len(mode.settings)} settings " + ", ".join(parts)}
    top = max(still, key=lambda name: np.nan_to_num(everyone[name].gain_high, nan=np.inf))
    at = everyone[top]
    if min(mode.halves) < mode.wanted and not mode.broken[top]:
        why = f"content can't be shown to be kept with {min(mode.halves)} prompts a half, of at least {mode.wanted}"
    elif mode.broken[top]:
        why = f"{top} lost {mode.broken[top]} pictures that are not finite"
    elif not at.keeps:
        why = f"{top} neither keeps nor loses the content for certain"
    else:
        why = f"a gain of {mode.smallest:.3g} is not excluded ({top}: {at.gain:.3g}, {at.gain_low:.3g} to {at.gain_high:.3g})"
    parts += [f"{len(still)} open: {why}"]
    return {"verdict": "undecided", "reason": f"of {len(mode.settings)} settings " + ", ".join(parts)}


def _rule(gauge: Gauge, limits: dict[str, float], least: float, judged: bool, modes: int) -> str:
    more = (
        f", and at most {limits['recognised']:g} of prompts lose a recognised picture by an exact upper bound"
        if judged
        else ""
    )
    gain = gauge.words + (f"; {gauge.warning}" if gauge.warning else "")
    counts = f"{least:g} sd of the data" if gauge.name == DISTRIBUTION else f"{least:.0%} of the baseline's mean"
    return RULE.format(
        gain=gain, similarity=limits["similarity"], recognised=more, least=counts,
        modes=f"{modes} modes" if modes > 1 else "one mode",
    )  # fmt: skip


def _verdict(best: dict[str, Any], attrs: dict[str, Any]) -> tuple[str, str]:
    """Of all modes: supported if Detail Guidance helps in one of them (each with its share of the error), not if in none."""
    found = [one["verdict"] for one in best.values()]
    verdict = next((v for v in ("supported", "undecided", "not supported") if v in found), "undecided")
    said = "; ".join(f"{mode}: {one['reason']}" for mode, one in best.items())
    return verdict, f"{said} ({attrs['replication']}; gain: {attrs['gauge_words']})."
