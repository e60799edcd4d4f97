"""Sweep a Detail Guidance spec: every combination of layers, weights, channels, windows, from the same seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.tables import write_table
from workbench.errors import WorkbenchError
from workbench.sampling.conditions import Condition
from workbench.sampling.options import TrialOptions, prepare
from workbench.sampling.over import combinations, listed, short
from workbench.sampling.sampler import check_images
from workbench.steering.attach import apply
from workbench.steering.check import check
from workbench.steering.detail_guidance import METHOD_VERSION
from workbench.steering.spec import DetailGuidanceSpec, Spec

MODES = ("dg", "cfg+dg")


def sweep(
    spec: DetailGuidanceSpec | str | Path,
    model: Any,
    *,
    over: Mapping[str, Any],
    out: str | Path,
    modes: str | Sequence[str] = MODES,
    recording: xr.Dataset | None = None,
    **options: Any,
) -> xr.Dataset:
    """Generate and measure every combination, and always the same samples without Detail Guidance.

    Images are kept in `out`, also after a kill: the same call goes on, and another with other values of `over` makes only those
    that are not there yet. The table is of the last call alone, and takes the place of an earlier one.

    Parameters
    ----------
    spec : DetailGuidanceSpec or path
        What is varied; anything that `over` does not name stays.
    model : str, Path or pipeline
        As in `workbench.sample`.
    over : mapping
        Key of the spec → values. ``layer``: paths, or block numbers, or ``"auto"`` (a quarter, half, three quarters of
        the depth, and the spec's own). ``weight``: numbers. ``channels``: channels, or lists of them, ``"massive"`` (the spec's), ``"top1"``, ``"top2"``
        … (its strongest, by the evidence), ``"matched"`` (random ordinary channels that hold as much, a control
        that is never chosen; needs `recording`).
        ``window``: ``"early"``, ``"sigma:0.2-0.6"`` or another text of `workbench.steering.windows`, or as in a spec. Other
        keys of the spec as they stand there.
    out : str or Path
        Folder of the results.
    modes : str or sequence of str
        ``dg`` (compared with plain), ``cfg+dg`` (compared with CFG alone), or both.
    recording : xr.Dataset, optional
        Of the same model, for ``"matched"``.
    **options
        Prompts, seeds, steps and so on: the attributes of `workbench.sampling.options.TrialOptions`.

    Returns
    -------
    xarray.Dataset
        The table of `measured`; `workbench.analysis.sweep.sweep` says what it shows. It is also kept in `out`.

    Raises
    ------
    SpecError
        If a combination is no valid spec for this model, say a layer or channel that it does not have.
    WorkbenchError
        If `over` is empty or names what is not in a spec, a set of channels is empty, a guidance scale is none, the recording
        is of another model, or it would take too long.
    """
    wanted = (modes,) if isinstance(modes, str) else modes
    ready = prepare(
        spec, model, DetailGuidanceSpec, TrialOptions.of(options), modes=wanted, recording=recording, what="swept"
    )
    check_images(ready.pipe)
    chosen = sweep_conditions(
        ready.spec, ready.pipe, over=over, modes=modes, guidance_scale=ready.guidance_scale, recording=recording,
        strict=ready.options.strict,
    )  # fmt: skip
    table = ready.table(chosen, out, baselines_of(chosen))
    table = table.assign_coords(spec=("condition", [_spec_text(c) for c in chosen]))
    table.attrs["spec"] = json.dumps(
        settings_of(ready.spec) | {"content_hash": ready.spec.content_hash}, sort_keys=True
    )
    table.attrs["over"] = json.dumps({key: listed(values) for key, values in over.items()}, sort_keys=True, default=str)
    return write_table(table, out, "sweep")


def _spec_text(condition: Condition) -> str:
    """What a condition's spec does, as JSON; empty for a baseline."""
    return json.dumps(condition.identity["spec"], sort_keys=True) if "spec" in condition.identity else ""


def sweep_conditions(
    spec: DetailGuidanceSpec,
    pipe: Any,
    *,
    over: Mapping[str, Any],
    modes: str | Sequence[str] = MODES,
    guidance_scale: float = 4.0,
    recording: xr.Dataset | None = None,
    strict: bool = True,
) -> list[Condition]:
    """Return the conditions of a sweep: the baselines of the modes, then every combination in every mode."""
    wanted = (modes,) if isinstance(modes, str) else tuple(modes)
    if not wanted or set(wanted) - set(MODES) or len(set(wanted)) < len(wanted):
        raise WorkbenchError(f"modes {list(wanted)} can't be swept; give each at most once, of {', '.join(MODES)}.")
    conditions = [unsteered(mode.removesuffix("dg").removesuffix("+") or "plain", guidance_scale) for mode in wanted]
    known = {condition.name.lower(): condition for condition in conditions}
    for labels, changed in combinations(spec, pipe, over, recording):
        check(changed, pipe, strict=strict)
        role = "control" if labels.get("channels") == "matched" else "dg"
        for mode in wanted:
            condition = steered(changed, mode, labels, guidance_scale, strict=strict, role=role)
            there = known.get(condition.name.lower())
            if there is not None and there.whole_identity != condition.whole_identity:
                # Two settings may read the same; each is run, under a name of its own.
                condition = dataclasses.replace(condition, name=f"{condition.name}-{settings_hash(changed)}")
                there = known.get(condition.name.lower())
            if there is None:
                known[condition.name.lower()] = condition
                conditions.append(condition)
    return conditions


def unsteered(mode: str, guidance_scale: float, *, name: str | None = None) -> Condition:
    """Return the condition without Detail Guidance: ``plain`` or ``cfg``."""
    scale = guidance_scale if mode == "cfg" else 1.0
    return Condition(name or mode, {"mode": mode, "role": "baseline", "guidance_scale": scale}, scale)


def steered(
    spec: DetailGuidanceSpec,
    mode: str,
    labels: Mapping[str, Any],
    guidance_scale: float,
    *,
    strict: bool = True,
    role: str = "dg",
) -> Condition:
    """Return the condition with a spec applied; `labels` are its factors and make its name."""
    scale = guidance_scale if "cfg" in mode else 1.0
    name = ",".join([mode, *(f"{key}={short(value)}" for key, value in labels.items())])
    if len(name) > 110:
        name = f"{name[:93]}-{settings_hash(spec)}"
    factors = {"mode": mode, "role": role, "guidance_scale": scale, **labels, "n_channels": len(spec.channels)}
    return Condition(
        name,
        factors,
        scale,
        steer=lambda pipe: apply(spec, pipe, strict=strict),
        identity={"spec": settings_of(spec), "method_version": METHOD_VERSION},
        extra_passes=1.0,
    )


def baselines_of(conditions: Sequence[Condition]) -> dict[str, str]:
    """Return what each condition is compared with: the same mode without Detail Guidance, or itself."""
    plain = {c.factors["mode"]: c.name for c in conditions if c.factors["role"] == "baseline"}
    found = {}
    for condition in conditions:
        mode = str(condition.factors["mode"])
        found[condition.name] = plain["cfg" if mode.startswith("cfg") else "plain"]
    return found


def settings_of(spec: Spec) -> dict[str, Any]:
    """What a spec does, JSON-able: all of it but model, evidence and versions."""
    return spec.model_dump(mode="json", exclude={"evidence", "created_by", "content_hash", "recommended", "model"})


def settings_hash(spec: Spec) -> str:
    """Eight hex digits of what a spec does."""
    return hashlib.sha256(json.dumps(settings_of(spec), sort_keys=True).encode()).hexdigest()[:8]
