"""Which conditions a disruption runs; nothing is generated here.

The design, if nothing else is asked: every layer in turn over the whole trajectory, and the layer nearest to half the depth
in three windows of the noise level; at each, the massive channels and the controls of `workbench.steering.control_channels`. Not
the full product of layers and windows, which would take several times as long; `product=True` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from workbench.analysis.locate import locate, located_channels
from workbench.analysis.matching import entering
from workbench.errors import AnalysisError, WorkbenchError
from workbench.sampling.conditions import Condition
from workbench.sampling.disruption_states import States
from workbench.steering.control_channels import DRAWN, KINDS, channel_sets
from workbench.steering.disruption import EVERYWHERE, MATCHED, Branches, Disruption
from workbench.steering.windows import THIRDS

PLAIN = "none"
"""Name of the condition that disrupts nothing."""

WHOLE = "whole"


class Plan(NamedTuple):
    """What is to be run.

    Attributes
    ----------
    conditions : list of Condition
        The undisturbed one first.
    omitted : list of str
        What was asked for and can't be, with the reason.
    channels : dict of str to list of int
        Massive channels at each layer.
    design : str
        In words.
    """

    conditions: list[Condition]
    omitted: list[str]
    channels: dict[str, list[int]]
    design: str


def disruption_conditions(recording: xr.Dataset, **options: Any) -> list[Condition]:
    """Return the conditions of `plan_disruption`."""
    return plan_disruption(recording, **options).conditions


def plan_disruption(
    recording: xr.Dataset,
    *,
    channels: Sequence[int] | None = None,
    criterion: str = "workbench",
    layers: Sequence[str] | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
    product: bool = False,
    kinds: Sequence[str] = KINDS,
    draws: int = 2,
    branches: Branches = "all",
    guidance_scale: float | None = None,
    seed: int = 0,
    **parameters: Any,
) -> Plan:
    """Plan the conditions of a disruption run; nothing is generated.

    Parameters
    ----------
    recording : xr.Dataset
        Of the model, with statistics of the layers *before* those that are disrupted (`input` before the first block).
    channels : sequence of int, optional
        Massive channels, at every layer. Default: at each layer those that `criterion` finds massive in the model and in
        the state that enters the layer.
    criterion, **parameters
        Of `workbench.analysis.locate`.
    layers : sequence of str, optional
        Full module paths of the blocks whose entering state is disrupted. Default: all that were recorded.
    windows : mapping, optional
        Name → (low, high) in sigma, at the layer nearest to half depth of those. Default: `THIRDS`; ``{}`` for none.
    product : bool
        All windows at all layers.
    kinds : sequence of str
        Of `KINDS`, or ``shift``; ``massive`` always.
    draws : int
        Of each random kind.
    branches : {"all", "cond", "uncond"}
        As in `Disruption`; also the branches whose statistics match the controls.
    guidance_scale : float, optional
        Default: the recording's.
    seed : int
        Of the draws.

    Returns
    -------
    Plan

    Raises
    ------
    WorkbenchError
        If a layer, kind, channel or window can't be had, no massive channel is left, or the guidance scale is not known.
    """
    scale = of_recording(recording, "guidance_scale", guidance_scale)
    states = States(recording, branches)
    chosen = states.blocks if layers is None else list(layers)
    _check_kinds(kinds)
    spans = dict(THIRDS if windows is None else windows)
    if WHOLE in spans or "" in spans:
        raise WorkbenchError(f"a window can't be called {WHOLE!r} or ''; give it another name.")
    massive, located, omitted = _massive(recording, states, chosen, channels, criterion, parameters)
    chosen = [layer for layer in chosen if layer in massive]
    middle = min(chosen, key=lambda layer: (abs(states.block(layer) - states.depth / 2), states.block(layer)))
    cells = [(layer, WHOLE, EVERYWHERE) for layer in chosen]
    cells += [(layer, name, span) for layer in (chosen if product else [middle]) for name, span in spans.items()]
    plain = Condition(PLAIN, {"kind": PLAIN}, scale, identity={"disruption": None})
    conditions = [plain]
    for layer, window, span in cells:
        square = states.mean_square(layer, window, span)
        for kind in dict.fromkeys(["massive", *kinds]):
            # One seed a layer: its windows share their draws, and other layers have others.
            sets = channel_sets(
                square,
                massive[layer],
                kind,
                excluded=located,
                draws=draws,
                seed=int(np.random.default_rng([seed, states.block(layer)]).integers(1 << 31)),
            )
            if kind in DRAWN and len(sets) < draws:
                omitted.append(f"{kind} at {layer}, {window}: one draw, as it takes all ordinary channels")
            for found in sets:
                norms = states.norms(layer, massive[layer]) if kind in MATCHED else ()
                what = Disruption(layer, kind, found.channels, found.into, span, branches, found.seed, norms)
                factors: dict[str, str | float | int] = {
                    "kind": kind,
                    "layer": layer,
                    "block": states.block(layer),
                    "window": window,
                    "sigma_low": span[0],
                    "sigma_high": span[1],
                    "draw": found.draw,
                    "channels": len(found.channels),
                    "coverage": round(found.coverage, 6),
                }
                conditions.append(
                    Condition(
                        f"{layer}-{window}-{kind}-{found.draw}",
                        factors,
                        scale,
                        steer=what.apply,
                        identity={"disruption": what.identity()},
                        reports=("removed_norm",),
                    )
                )
    design = (
        f"{len(chosen)} layers over the whole trajectory"
        + (f"; windows {', '.join(spans)} at {'every layer' if product else middle}" if spans else "")
        + f"; {len(conditions)} conditions"
    )
    return Plan(conditions, omitted, {layer: list(massive[layer]) for layer in chosen}, design)


def _massive(
    recording: xr.Dataset,
    states: States,
    layers: Sequence[str],
    channels: Sequence[int] | None,
    criterion: str,
    parameters: Mapping[str, Any],
) -> tuple[dict[str, list[int]], list[int], list[str]]:
    """Massive channels at each layer, those of the model, and what is left out."""
    at = {layer: entering(recording, layer) for layer in layers}
    if not at:
        raise WorkbenchError("there is no layer to disrupt; record blocks together with the layer before them.")
    labels = [int(channel) for channel in recording["channel"].values]
    if channels is not None:
        given = sorted({int(channel) for channel in channels})
        if not given or not set(given) <= set(labels):
            raise WorkbenchError(
                f"channels {list(channels)} can't be used; name at least one of {labels[0]} to {labels[-1]}."
            )
        return dict.fromkeys(at, given), given, []
    found = locate(recording, criterion=criterion, **parameters)
    located = located_channels(found)
    if not located:
        raise AnalysisError(
            f"nothing to disrupt: {found.attrs['verdict_reason']} Name `channels`, or choose another criterion."
        )
    here = found["massive"].sel(criterion=criterion, channel=located).values
    massive = {layer: [c for c, yes in zip(located, here[i], strict=True) if yes] for layer, i in at.items()}
    omitted = [f"{layer}: none of the channels {located} is massive there" for layer in layers if not massive[layer]]
    massive = {layer: picked for layer, picked in massive.items() if picked}
    if not massive:
        raise AnalysisError(
            f"of the massive channels {located}, none is massive in the state that enters any of the layers asked for. Name "
            "`channels`, or other layers."
        )
    return massive, located, omitted


def _check_kinds(kinds: Sequence[str]) -> None:
    known = (*KINDS, "shift")
    unknown = [kind for kind in kinds if kind not in known]
    if isinstance(kinds, str) or unknown:
        raise WorkbenchError(f"kinds {list(kinds)} can't be used; choose of {', '.join(known)}.")


def of_recording(recording: xr.Dataset, key: str, given: float | None) -> float:
    """A setting: what is given, else the recording's."""
    value = given if given is not None else recording.attrs.get("settings", {}).get(key)
    if value is None:
        raise WorkbenchError(f"the recording does not say its {key}; give {key}=…")
    return float(value)
