"""What a trial of STAS says about a spec: the best setting by its rule, and the evidence for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.same_model import same_model
from workbench.analysis.stas_choice import NONE, stas_choice
from workbench.analysis.tables import open_table
from workbench.errors import SpecError
from workbench.steering.evidence import Swept

CHOICES = (
    "layers", "channels", "alpha_first", "alpha_boundary", "boundary_width", "reference", "window", "branches",
)  # fmt: skip
"""Keys of a spec of STAS that a trial decides."""

_SIZE = ("height", "width", "num_frames")


def swept_stas(trial: xr.Dataset | str | Path, *, model: Mapping[str, Any], given: Mapping[str, Any]) -> Swept:
    """Read the best setting out of a trial of STAS.

    Parameters
    ----------
    trial : xr.Dataset or path
        What `workbench.stas_trial` returned, or its folder.
    model : mapping
        Of the recording; the trial must be of the same.
    given : mapping
        Choices that the user made; a trial and those can't both decide.

    Returns
    -------
    Swept
        Settings are those of the choice, all `CHOICES`; `provenance` only of what the trial varied. Empty where none is better than
        plain videos.

    Raises
    ------
    SpecError
        If a choice is given besides, the trial is of another model, does not say its settings, or its best one is none that a
        spec is derived with.
    AnalysisError
        If it is no trial of STAS.
    """
    if given:
        raise SpecError(
            f"the trial decides {', '.join(CHOICES)}, and {', '.join(given)} is given too; leave one of them out."
        )
    table = open_table(trial, "stas")
    same_model(table, model, "the trial", error=SpecError)
    result = stas_choice(table)
    best = json.loads(result.attrs["best"])
    specs = _specs(table)
    varied = [key for key in CHOICES if len({json.dumps(spec.get(key), sort_keys=True) for spec in specs.values()}) > 1]
    settings = _settings(table.attrs.get("settings"))
    measured_at = {"guidance_scale": _scale(table)} | {key: settings.get(key) for key in ("steps", *_SIZE)}
    notes = {
        **best,
        "rule": result.attrs["rule"],
        "rule_version": int(result.attrs["rule_version"]),
        "fingerprint": result.attrs["fingerprint"],
        "replicates": result.attrs["replication"],
        "gauge": result.attrs["gauge"],
        "smallest": float(f"{result.attrs['smallest']:.6g}"),
        "over": varied,
        **measured_at,
    }
    if best["choice"] == NONE:
        said = "measured: no gain" if best["verdict"] == "not supported" else "measured: no gain shown"
        return Swept({}, {}, {}, notes | {"conclusion": f"{said}; what is here are the defaults"})
    found = specs[best["choice"]]
    if found.get("action") != "steer" or found.get("alpha_interior") is not None:
        raise SpecError(
            f"the best setting of the trial, {best['choice']!r}, is one of the paper's comparisons (action {found.get('action')!r}, "
            f"alpha_interior {found.get('alpha_interior')}), and a spec of STAS is derived with none of them. Try it out without that in `over`."
        )
    analysed = "measured" if best["verdict"] == "supported" else "undecided"
    known = {key: value for key, value in measured_at.items() if value is not None}
    return Swept({key: found[key] for key in CHOICES}, known, dict.fromkeys(varied, analysed), notes)


def _specs(table: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Candidate → its spec's settings."""
    if "spec" not in table.coords:
        raise SpecError("the trial does not say which settings its conditions have; run `workbench stas-trial` again.")
    found = {}
    for name, role, text in zip(*(table[key].values for key in ("condition", "role", "spec")), strict=True):
        if str(role) not in ("stas", "grid"):
            continue
        try:
            found[str(name)] = dict(json.loads(str(text)))
        except (ValueError, TypeError) as error:
            raise SpecError(
                f"the settings of {str(name)!r} in the trial can't be read ({error}); run `workbench stas-trial` again."
            ) from error
        if lost := [key for key in CHOICES if key not in found[str(name)]]:
            raise SpecError(
                f"the settings of {str(name)!r} in the trial lack {lost[0]}; run `workbench stas-trial` again."
            )
    return found


def _settings(value: Any) -> Mapping[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, Mapping) else {}


def _scale(table: xr.Dataset) -> float | None:
    """The guidance scale, which all conditions share; None if the table does not say it."""
    return float(table["guidance_scale"].values[0]) if "guidance_scale" in table.coords else None
