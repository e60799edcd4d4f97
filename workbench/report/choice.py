"""Section of the choice from a trial of STAS: what was chosen on half of the prompts, and what it is worth on the other half."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from workbench.report.sections import Section

_HALVES = {"choosing": "the half that chose", "reporting": "the other half, which had no say"}


def choice_section(result: xr.Dataset) -> Section:
    """Which setting of STAS to take, if any.

    Parameters
    ----------
    result : xr.Dataset
        What `workbench.analysis.stas_choice.stas_choice` returned.
    """
    best = json.loads(result.attrs["best"])
    named = best.get("refuted", best["choice"])
    tables = [_halves(best, named, result.attrs)] if "reporting" in best else []
    return Section(
        "stas-choice",
        "Which setting of STAS?",
        f"Choice: {best['choice']}; {result.attrs['verdict']}. {result.attrs['verdict_reason']} Rule: {result.attrs['rule']}",
        [*tables, _settings(result, named)],
    )


def _halves(best: Mapping[str, Any], named: str, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen setting on both halves of the prompts."""
    said = "and not confirmed" if "refuted" in best else "by the rule"
    rows = [
        [words, best[half]["n"], interval(best[half]), best[half]["said"], best[half]["harm"] or best[half]["kept"]]
        for half, words in _HALVES.items()
    ]
    return {
        "caption": f"{named}, chosen {said}: its gain ({attrs['gauge_words']}; above 0 is better) with {attrs['confidence']:.0%} intervals "
        f"over {attrs['replicate']}s. The best of many looks better where it was chosen than it is, so the other half decides.",
        "head": [f"{attrs['replicate']}s", "n", "gain", "what is shown", "of the rest"],
        "rows": rows,
        "brief": [0, 1, 2, 3],
    }


def _settings(result: xr.Dataset, named: str) -> dict[str, Any]:
    """Every setting on all prompts."""
    rows = []
    for name in map(str, result["condition"].values):
        at = result.sel(condition=name)
        if str(at["said"].values):
            of = {"gain": at["gain"], "low": at["gain_low"], "high": at["gain_high"]}
            mark = f"{name} (chosen)" if name == named else name
            rows.append([mark, interval(of), str(at["said"].values), str(at["harm"].values)])
    return {
        "caption": f"Every setting, on all {result.attrs['replicate']}s ({result.attrs['replication']}): its gain, each interval of itself "
        f"alone, not corrected for their number. What counts: {result.attrs['smallest']:.3g}.",
        "head": ["setting", "gain", "what is shown", "what is lost"],
        "rows": rows,
    }


def interval(numbers: Mapping[str, Any]) -> str:
    """A gain with its interval; None and NaN are numbers that there are not."""
    middle, low, high = (float("nan" if numbers[key] is None else numbers[key]) for key in ("gain", "low", "high"))
    if not np.isfinite(middle):
        return "–"
    return f"{middle:+.2g} [{low:+.2g}, {high:+.2g}]" if np.isfinite(low + high) else f"{middle:+.2g} (n too small)"
