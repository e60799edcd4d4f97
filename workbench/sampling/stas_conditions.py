"""STAS and what it has to be better than, as conditions: the paper's controls (arXiv 2603.17825), one change each.

``low`` and ``matched``: other channels than the massive ones; ``all tokens``; ``zero``; ``late``: other steps. Each differs from the
spec in that one thing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.errors import SpecError, UnsupportedModelError, WorkbenchError
from workbench.sampling.conditions import Condition
from workbench.sampling.over import located, short
from workbench.sampling.sweep import settings_hash, settings_of
from workbench.steering.attach import apply
from workbench.steering.check import check
from workbench.steering.control_channels import channel_sets
from workbench.steering.schedule import places
from workbench.steering.spec import StasSpec
from workbench.steering.stas import METHOD_VERSION

PLAIN, STAS = "plain", "stas"
"""Names of the conditions without and with the spec."""

CONTROLS = ("low", "matched", "all-tokens", "zero", "zero-all-tokens", "late")
"""Controls, in the order in which they are run; see `control_specs`."""


def stas_conditions(
    spec: StasSpec,
    pipe: Any,
    *,
    guidance_scale: float,
    steps: int,
    recording: xr.Dataset | None = None,
    controls: str | Sequence[str] = CONTROLS,
    draws: int = 1,
    strict: bool = True,
) -> tuple[list[Condition], list[str]]:
    """Return the conditions, the plain one first, and in words the controls that can't be had.

    Factors: `role` (baseline, stas, control, grid), `control` (which; empty for none), `guidance_scale`.

    Raises
    ------
    SpecError
        If the spec does nothing, also for want of an uncond pass, or is not for this model.
    WorkbenchError
        If a control is unknown.
    """
    check(spec, pipe, strict=strict)
    if spec.idle:
        raise SpecError("the spec does nothing (no role has an alpha), so there is nothing to try; give it one.")
    if guidance_scale <= 1 and "cond" not in spec.branches:
        raise SpecError(
            f"the spec changes the uncond pass alone, and at guidance_scale = {guidance_scale:g} there is none; give a scale "
            "above 1, or `spec.replace(branches=['cond'])`."
        )
    plain: dict[str, Any] = {"role": "baseline", "control": "", "guidance_scale": guidance_scale}
    conditions = [Condition(PLAIN, plain, guidance_scale)]
    conditions.append(steered(STAS, spec, guidance_scale, {"role": "stas", "control": ""}, strict=strict))
    made, lacking = control_specs(spec, pipe, steps=steps, recording=recording, controls=controls, draws=draws)
    for name, (control, changed) in made.items():
        check(changed, pipe, strict=strict)
        factors = {"role": "control", "control": control}
        conditions.append(steered(name, changed, guidance_scale, factors, strict=strict))
    return conditions, lacking


def steered(
    name: str, spec: StasSpec, guidance_scale: float, factors: Mapping[str, Any], *, strict: bool = True
) -> Condition:
    """Return the condition with a spec of STAS applied."""
    return Condition(
        name,
        {**factors, "guidance_scale": guidance_scale, "n_channels": len(spec.channels)},
        guidance_scale,
        steer=lambda pipe: apply(spec, pipe, strict=strict),
        identity={"spec": settings_of(spec), "method_version": METHOD_VERSION},
        reports=("changed_norm",),
    )


def control_specs(
    spec: StasSpec,
    pipe: Any,
    *,
    steps: int,
    recording: xr.Dataset | None = None,
    controls: str | Sequence[str] = CONTROLS,
    draws: int = 1,
) -> tuple[dict[str, tuple[str, StasSpec]], list[str]]:
    """Return name → (control, spec), and in words what can't be had.

    ``low``: as many channels of the lowest mean square in the states that leave the spec's blocks. ``matched``: random ordinary
    channels that together hold as much there as the massive ones, `draws` times (both need a recording). ``all-tokens``: every role is
    steered; a role without an alpha gets that of the boundary, or else of the first frame. ``zero``: the massive channels of the
    same tokens are set to 0; ``zero-all-tokens``: of all tokens. ``late``: as many steps, mirrored in the trajectory.

    Raises
    ------
    WorkbenchError
        If a control is unknown.
    """
    wanted = (controls,) if isinstance(controls, str) else tuple(controls)
    if unknown := [name for name in wanted if name not in CONTROLS]:
        raise WorkbenchError(f"controls {unknown} are unknown; choose of {', '.join(CONTROLS)}.")
    made: dict[str, tuple[str, StasSpec]] = {}
    lacking: list[str] = []
    for kind in (name for name in CONTROLS if name in wanted):
        if kind in ("low", "matched"):
            sets = _channels(spec, recording, kind, draws, lacking)
            many = len(sets) > 1
            made |= {
                f"{kind}-{i}" if many else kind: (kind, spec.replace(channels=chosen)) for i, chosen in enumerate(sets)
            }
        elif kind == "late":
            late = mirrored(spec, pipe, steps, lacking)
            made |= {} if late is None else {kind: (kind, late)}
        else:
            changed = _tokens(spec, kind)
            if settings_of(changed) == settings_of(spec):
                lacking.append(f"{kind}: the spec does that itself")
            else:
                made[kind] = (kind, changed)
    return made, lacking


def _tokens(spec: StasSpec, kind: str) -> StasSpec:
    """The spec with every role steered, or with its roles (or all) zeroed."""
    alphas = {f"alpha_{role}": alpha for role, alpha in spec.alphas.items()}
    if kind == "all-tokens":
        given = [alphas[f"alpha_{role}"] for role in ("boundary", "first", "interior")]
        other = next(alpha for alpha in given if alpha is not None)
        return spec.replace(**{key: other if alpha is None else alpha for key, alpha in alphas.items()})
    every = kind == "zero-all-tokens"
    return spec.replace(action="zero", **{key: 0.0 if every or a is not None else None for key, a in alphas.items()})


def _channels(
    spec: StasSpec, recording: xr.Dataset | None, kind: str, draws: int, lacking: list[str]
) -> list[list[int]]:
    if recording is None:
        lacking.append(f"{kind} channels: no recording was given to choose them by")
        return []
    try:
        found = channel_sets(
            leaving_mean_square(recording, spec), spec.channels, "low" if kind == "low" else "matched_random",
            excluded=located(spec), draws=draws,
        )  # fmt: skip
    except WorkbenchError as error:
        lacking.append(f"{kind} channels: {error}")
        return []
    if kind == "matched" and abs(found[0].coverage - 1) > 0.1:
        held, count = found[0].coverage, len(found[0].channels)
        lacking.append(f"matched channels hold {held:.0%} of what the massive ones do ({count} channels), not as much")
    return [list(one.channels) for one in found]


def leaving_mean_square(recording: xr.Dataset, spec: StasSpec) -> np.ndarray:
    """E[h²] of every channel in the states that leave the spec's blocks, over tokens, samples, its branches and its steps.

    Shape (C,). Exact from the recorded statistics: mean h² = (mean h)² + std².

    Raises
    ------
    WorkbenchError
        If a block, a branch, or every step of the window was not recorded.
    """
    names, branches = ([str(n) for n in np.atleast_1d(recording[key].values)] for key in ("layer", "branch"))
    if lost := [layer for layer in spec.layers if layer not in names]:
        raise WorkbenchError(f"the recording has no block {lost[0]!r}; record it, or choose another.")
    at = [i for i, name in enumerate(branches) if name in spec.branches]
    unit = spec.window.unit
    # Of the trajectory, of which a recording may hold some steps only.
    steps = recording.attrs.get("settings", {}).get("steps", recording.sizes["timestep"])
    value_T = recording["sigma"].values if unit == "sigma" else recording["step"].values / steps
    inside = [t for t, value in enumerate(value_T) if spec.window.contains(float(value))]
    if not at or not inside:
        raise WorkbenchError("the recording holds none of the spec's branches, or none of its steps.")
    part = recording[["h_mean", "h_std"]].isel(layer=[names.index(layer) for layer in spec.layers], timestep=inside)
    part = part.isel(branch=at) if "branch" in part.dims else part
    square = part["h_mean"].astype(np.float64) ** 2 + part["h_std"].astype(np.float64) ** 2
    return np.asarray(square.mean([dim for dim in square.dims if dim != "channel"]).values)


def mirrored(spec: StasSpec, pipe: Any, steps: int, lacking: list[str]) -> StasSpec | None:
    """The spec at as many steps, counted from the other end of the trajectory; None if these are no others."""
    scheduler = copy.deepcopy(pipe.scheduler)
    try:
        scheduler.set_timesteps(steps)
        inside = [i for i, here in enumerate(places(scheduler)) if spec.window.contains(here.in_unit(spec.window.unit))]
    except (UnsupportedModelError, ValueError, TypeError) as error:
        lacking.append(f"late steps: the scheduler does not say its steps beforehand ({error})")
        return None
    late = sorted(steps - 1 - step for step in inside)
    if not inside or late == inside:
        lacking.append(
            f"late steps: the window holds {'no' if not inside else 'the same'} steps counted from the other end"
        )
        return None
    window = {"unit": "step_fraction", "low": late[0] / steps, "high": late[-1] / steps}
    return spec.replace(window=window)


def spec_text(spec: StasSpec, **labels: Any) -> str:
    """Name of a condition that varies a spec: what is varied, fit to be a folder's name."""
    name = ",".join(f"{key}={short(value)}" for key, value in labels.items())
    return name if len(name) <= 110 else f"{name[:93]}-{settings_hash(spec)}"
