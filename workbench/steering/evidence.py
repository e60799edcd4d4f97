"""What a sweep says about a spec: the best setting by its rule, and the evidence for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from workbench.analysis import sweep as analysis
from workbench.analysis.same_model import same_model
from workbench.analysis.tables import open_table
from workbench.errors import SpecError

CHOICES = ("layer", "channels", "action", "retention", "weight", "window")
"""Keys of a spec that a sweep decides."""


class Swept(NamedTuple):
    """What a sweep decided.

    Attributes
    ----------
    settings : dict
        `CHOICES` of the best setting as in a spec; empty if none is better than no Detail Guidance.
    recommended : dict
        ``guidance_scale`` and ``steps`` that the best setting was measured at; empty likewise.
    provenance : dict
        Of those that the sweep varied: ``measured``, or ``undecided`` where the other half of the prompts did not confirm it.
    notes : dict
        JSON-able: verdict and reason, rule, gauge, numbers on both halves of the prompts, fingerprint of the sweep.
    """

    settings: dict[str, Any]
    recommended: dict[str, Any]
    provenance: dict[str, str]
    notes: dict[str, Any]


def swept(
    sweep: xr.Dataset | str | Path, *, model: Mapping[str, Any], given: Mapping[str, Any], mode: str | None = None
) -> Swept:
    """Read the best setting out of a sweep.

    Parameters
    ----------
    sweep : xr.Dataset or path
        What `workbench.sweep` returned, or its folder.
    model : mapping
        Of the recording; the sweep must be of the same.
    given : mapping
        Choices that the user made; a sweep and those can't both decide.
    mode : str, optional
        ``dg`` or ``cfg+dg``; default: with CFG, if that was swept.

    Raises
    ------
    SpecError
        If a choice is given besides, or the sweep is of another model or does not say its settings.
    AnalysisError
        If it is no sweep, or has no such mode.
    """
    if given:
        raise SpecError(
            f"the sweep decides {', '.join(CHOICES)}, and {', '.join(given)} is given too; leave one of them out."
        )
    table = open_table(sweep, "sweep")
    result = table if "best" in table.attrs else analysis.sweep(table)
    settings = result.attrs.get("settings", {})
    settings = json.loads(settings) if isinstance(settings, str) else settings
    same_model(result, model, "the sweep", error=SpecError)
    best = analysis.best_of(result, mode)
    over = result.attrs.get("over", "{}")
    varied = [key for key in CHOICES if key in (json.loads(over) if isinstance(over, str) else over)]
    measured_at = {"guidance_scale": _scale(result, best["mode"]), "steps": settings.get("steps")}
    notes = {
        **best,
        "rule": result.attrs["rule"],
        "rule_version": int(result.attrs["rule_version"]),
        "fingerprint": result.attrs["fingerprint"],
        "replicates": result.attrs["replication"],
        "gauge": result.attrs["gauge"],
        "verdict_of_all_modes": result.attrs["verdict"],
        "over": varied,
        **measured_at,
    }
    if best["choice"] == analysis.NONE or best["verdict"] == "not supported":
        said = "measured: no gain" if best["verdict"] == "not supported" else "measured: no gain shown"
        return Swept({}, {}, {}, notes | {"conclusion": f"{said}; what is here are the defaults"})
    chosen = result.sel(condition=best["choice"])
    if "spec" not in result.coords or not str(chosen["spec"].values):
        raise SpecError("the sweep does not say which settings its conditions have; run `workbench sweep` again.")
    try:
        found = json.loads(str(chosen["spec"].values))
        decided = {key: found[key] for key in CHOICES}
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(
            f"the settings of {best['choice']!r} in the sweep can't be read ({error}); run `workbench sweep` again."
        ) from error
    analysed = "measured" if best["verdict"] == "supported" else "undecided"
    return Swept(decided, measured_at, dict.fromkeys(varied, analysed), notes)


def _scale(result: xr.Dataset, mode: str) -> float | None:
    """Guidance scale of a mode, which all its conditions share; None if the table does not say it."""
    if "guidance_scale" not in result.coords or "mode" not in result.coords:
        return None
    scales = result["guidance_scale"].values[result["mode"].values == mode]
    return float(scales[0]) if len(scales) else None
