"""Which setting of STAS is best, if any is better than none: a named rule, chosen on half of the prompts, reported on the other.

As in `workbench.analysis.sweep`: the best of many settings looks better than it is, so what is chosen is measured on prompts that
had no say in the choice. Input is the table of `workbench.stas_trial`, with ``over=…`` or without.

Legend: P prompts (seeds of one prompt, if there is one), K conditions, M measures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.clip_distance import DISTRIBUTION
from workbench.analysis.effects import attributes
from workbench.analysis.gauge import rounded
from workbench.analysis.stas import roles_of
from workbench.analysis.stas_halves import JUDGED, OWN, Parts, Scores, parts_of, scores
from workbench.analysis.stas_numbers import LEAST
from workbench.analysis.stas_rule import AT_MOST, BETTER, EQUAL, WORSE
from workbench.analysis.sweep import NONE, fingerprint
from workbench.errors import AnalysisError

GAUGES = {
    OWN: "decrease of the distance to the own training clip",
    DISTRIBUTION: "decrease of the distance of the videos' features, as a distribution, to the training clips'",
    JUDGED: "mean gain over the judged measures, each in standard deviations over prompts of the unsteered videos",
}
"""What a gain is measured by, in the order of preference; decided by what the table has, never by what comes out."""

RULE = (
    "Gain: {gain}. Of the STAS condition and the settings of the grid, those that on the choosing half of the prompts lose no video, are in "
    "no judged measure shown to be worse (corrected for all of them) and don't move less (`temporal_power_0`, the slow change, by that alone), the one with the largest lower bound "
    "({level:.0%} interval) of the gain, where that is above 0. Supported: on the other half, which had no say, its gain is better (lower "
    "bound above 0, p < {alpha:g}, not within what counts, {margin:.3g}), and the same holds of videos, judged measures and motion. Not "
    "supported: every setting is shown, on all prompts, to gain less than what counts, or to lose something of these. Else undecided."
)
RULE_VERSION = 2

SHOWN_NO_GAIN = (EQUAL, AT_MOST, WORSE)


class _Case(NamedTuple):
    """What decides: numbers of every candidate on the choosing half and on all prompts."""

    settings: list[str]
    choosing: Mapping[str, Scores]
    whole: Mapping[str, Scores]
    halves: tuple[int, int]
    replicate: str


def stas_choice(
    measured: xr.Dataset,
    *,
    gauge: str = "auto",
    least: float = LEAST,
    confidence: float = 0.95,
    resamples: int = 2000,
    flips: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """The best setting of a trial of STAS by `RULE`, and what it is worth on prompts that had no say.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.stas_trial`.
    gauge : str
        ``own_clip_distance``, ``clip_distribution``, ``judged`` (see `GAUGES`); ``auto``: the first of these that the table has.
    least : float
        Smallest gain that counts, see `stas_numbers.LEAST`.
    confidence, resamples, flips, seed
        Of intervals and p-values; `seed` also splits the prompts.

    Returns
    -------
    xarray.Dataset
        Over `condition`, of all prompts: `gain` with `gain_low`, `gain_high` (above 0 is better; of each alone, in the gauge's unit; NaN of
        what is no candidate), `said` (finding in the gauge), `harm` (judged measures shown worse, less motion, lost videos; in words). Attributes: `rule`,
        `rule_version`, `gauge`, `gauge_words`, `smallest`, `choice` (a condition, or ``none``), `verdict`, `verdict_reason`,
        `best` (JSON: all of it, with the numbers on both halves), `fingerprint` of the table. A setting that does not beat plain videos
        is not chosen: that none is better is a result.

    Raises
    ------
    AnalysisError
        If the table is not that of a trial of STAS, or does not have the gauge.
    """
    roles = roles_of(measured)
    if not (math.isfinite(least) and least > 0):
        raise AnalysisError(f"least={least!r} must be above 0: it is the smallest gain that counts.")
    prompts = [str(p) for p in measured["prompt"].values]
    settings = [*roles["stas"], *roles["grid"]]
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "flips": flips, "seed": seed}
    parts = parts_of(measured, roles["baseline"][0], settings, least, prompts)
    used = _gauge(parts, gauge)
    about = attributes(measured, prompts, "stas_choice")
    chooses = _choosing(parts.n, seed)
    halves = (int(chooses.sum()), int((~chooses).sum()))
    margin = parts.margin(used)
    whole = scores(parts, used, settings, np.ones(parts.n, dtype=bool), **options)
    choosing = scores(parts, used, settings, chooses, **options)
    case = _Case(settings, choosing, whole, halves, about["replicate"])
    best = _best(case, lambda name: scores(parts, used, [name], ~chooses, **options)[name])
    best |= {"settings": len(settings), "n_choosing": halves[0], "n_reporting": halves[1]}
    result = measured.coords.to_dataset().drop_dims(["sample", "measure"])
    for field in ("gain", "low", "high", "said", "harm"):
        row = [_field(whole.get(str(name)), field) for name in measured["condition"].values]
        result[f"gain_{field}" if field in ("low", "high") else field] = ("condition", np.array(row))
    result.attrs = about | {
        "rule": RULE.format(gain=GAUGES[used], level=confidence, alpha=1.0 - confidence, margin=margin),
        "rule_version": RULE_VERSION,
        "gauge": used,
        "gauge_words": GAUGES[used],
        "smallest": margin,
        "least": least,
        "confidence": confidence,
        "seed": seed,
        "choice": best["choice"],
        "verdict": best["verdict"],
        "verdict_reason": f"{best['reason']} ({about['replication']}; gain: {GAUGES[used]}).",
        "best": json.dumps(best, sort_keys=True),
        "fingerprint": fingerprint(measured),
    }
    return result


def _gauge(parts: Parts, asked: str) -> str:
    """The gauge that is asked for, or the first that the table has for enough prompts."""
    there = [name for name in GAUGES if parts.known(name) >= 2 * inference.MINIMUM_SAMPLES]
    if asked == "auto":
        return next(iter(there), JUDGED)
    if asked not in GAUGES:
        raise AnalysisError(f"there is no gauge {asked!r}; choose of auto, {', '.join(GAUGES)}.")
    if not parts.known(asked):
        raise AnalysisError(f"the table can't be judged by {asked!r}; it has {', '.join(there) or 'none'}.")
    return asked


def _choosing(count: int, seed: int) -> NDArray[np.bool_]:
    """Replicates of the choosing half."""
    order = np.random.default_rng([seed, 1]).permutation(count)
    return np.isin(np.arange(count), order[: count // 2])


def _best(case: _Case, report: Any) -> dict[str, Any]:
    """The choice on one half, and how it does on the other."""
    if case.halves[0] < inference.MINIMUM_SAMPLES:
        many, least = sum(case.halves), 2 * inference.MINIMUM_SAMPLES
        reason = f"{many} {case.replicate}s can't be halved; at least {least} are needed, 64 are recommended"
        return {"choice": NONE, "verdict": "undecided", "reason": reason}
    eligible = [name for name in case.settings if case.choosing[name].low > 0 and not case.choosing[name].harm]
    if not eligible:
        return {"choice": NONE, **_none(case)}
    winner = max(eligible, key=lambda name: case.choosing[name].low)
    found: Scores = report(winner)
    numbers = {"choosing": _numbers(case.choosing[winner]), "reporting": _numbers(found)}
    if found.said in SHOWN_NO_GAIN or found.harm:
        # What was chosen is not good enough; whether any other is, all prompts together say.
        return {"choice": NONE, **_none(case), "refuted": winner, **numbers}
    said = f"{winner} chosen; on the other half its gain is {found.gain:.3g} ({found.low:.3g} to {found.high:.3g}), {found.kept}"
    if found.said == BETTER:
        return {"choice": winner, "verdict": "supported", "reason": said, **numbers}
    needed = _needed([found.needed], sum(case.halves))
    reason = f"{said}; {_more(needed, case.replicate)}"
    return {"choice": winner, "verdict": "undecided", "reason": reason, "needed": needed, **numbers}


def _none(case: _Case) -> dict[str, Any]:
    """Is no gain shown, or shown that there is none? From all prompts, as nothing was chosen."""
    harmed = [name for name in case.settings if case.whole[name].harm]
    small = [name for name in case.settings if name not in harmed and case.whole[name].said in SHOWN_NO_GAIN]
    still = [name for name in case.settings if name not in (*harmed, *small)]
    parts = [f"{len(small)} gain less than what counts"] if small else []
    parts += [f"{len(harmed)} lose something ({case.whole[harmed[0]].harm})"] if harmed else []
    of = f"none is better than plain videos: of {len(case.settings)} settings "
    if not still:
        return {"verdict": "not supported", "reason": of + ", ".join(parts)}
    top = max(still, key=lambda name: np.nan_to_num(case.whole[name].high, nan=math.inf))
    at = case.whole[top]
    needed = _needed([case.whole[name].needed for name in still], sum(case.halves))
    parts += [
        f"{len(still)} open ({top}: {at.gain:.3g}, {at.low:.3g} to {at.high:.3g}); {_more(needed, case.replicate)}"
    ]
    return {"verdict": "undecided", "reason": of.replace("is better", "is shown to be better") + ", ".join(parts), "needed": needed}  # fmt: skip


def _needed(each: list[float], there: int) -> float | None:
    """Replicates in all that would decide the last of these, four times in five; twice what one half needs. None if unknown."""
    finite = [n for n in each if math.isfinite(n)]
    return float(max(2.0 * max(finite), there + 2.0)) if len(finite) == len(each) and finite else None


def _more(needed: float | None, replicate: str) -> str:
    if needed is None:
        return "how many prompts would decide it can't be told"
    return f"about {needed:.0f} {replicate}s, half of which report, would decide it"


def _numbers(found: Scores) -> dict[str, Any]:
    return rounded({key: value for key, value in found._asdict().items() if key != "needed"})


def _field(found: Scores | None, field: str) -> Any:
    if field in ("said", "harm"):
        return getattr(found, field) if found else ""
    return getattr(found, field) if found else math.nan


__all__ = ["GAUGES", "NONE", "RULE", "RULE_VERSION", "stas_choice"]
