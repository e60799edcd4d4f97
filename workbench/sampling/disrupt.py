"""Run the disruptions of a model from paired seeds, and measure what each of them changes in the images.

The design, if nothing else is asked: every layer in turn over the whole trajectory, and the layer nearest to half the depth
in three windows of the noise level; at each, the massive channels and the controls of `workbench.steering.control_channels`. Not
the full product of layers and windows, which would take several times as long; `product=True` asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from workbench.analysis.locate import locate, located_channels
from workbench.analysis.matching import entering, mean_square
from workbench.analysis.same_model import same_model
from workbench.analysis.tables import write_table
from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError, WorkbenchError
from workbench.models import Encode, fingerprint, load_pipeline
from workbench.sampling.conditions import Condition, run_conditions
from workbench.sampling.measured import measured
from workbench.sampling.measures import image_measures
from workbench.sampling.sampler import check_images
from workbench.sampling.semantic import (
    judge_folder,
    load_clip,
    load_judge,
    load_reference,
    named_by_store,
    study_prompts,
)
from workbench.steering.control_channels import DRAWN, KINDS, channel_sets
from workbench.steering.disruption import EVERYWHERE, MATCHED, Branches, Disruption, Norms
from workbench.steering.windows import THIRDS

PLAIN = "none"
"""Name of the condition that disrupts nothing."""

WHOLE = "whole"

IMAGES = "images"


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
    scale = _of_recording(recording, "guidance_scale", guidance_scale)
    states = _States(recording, branches)
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


def disrupt(
    model: Any,
    recording: xr.Dataset,
    *,
    out: str | Path,
    prompts: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 8,
    height: int | None = None,
    width: int | None = None,
    encode: Encode | None = None,
    progress: bool = True,
    limit_s: float = 3600.0,
    yes: bool = False,
    **plan: Any,
) -> xr.Dataset:
    """Disrupt a model at each layer in turn, and measure the images.

    Parameters
    ----------
    model : str, Path or pipeline
        The model that was recorded.
    recording : xr.Dataset
        From `workbench.open`: says which channels are massive and how large all channels are.
    out : str or Path
        Folder: `IMAGES` in it holds the images (a kill loses at most one batch; the same call goes on), the table of
        `workbench.analysis.tables` lies beside it.
    prompts : sequence of str, optional
        Default: the model's study prompts where it ships some (64), else the recording's.
    seeds : int or sequence of int
        Each prompt with each seed, the same in every condition.
    steps, guidance_scale, height, width : optional
        Default: the recording's.
    batch_size, encode, progress, limit_s, yes
        As in `workbench.sampling.conditions.run_conditions`, which estimates the cost after the first batch.
    **plan
        Of `plan_disruption`.

    Returns
    -------
    xr.Dataset
        `value(condition, sample, measure)`, NaN where a measure can't be had; `other(sample, measure)`: the same measures of
        the undisturbed image of *another prompt* in this sample's place, which says how large a change is when nothing of
        the picture is left; `removed_norm(condition, sample)`: L2 norm over channels that was taken away or added, root mean
        square over tokens, mean over visits and branches; `finite(condition, sample)`. Coordinates say of a condition `kind`, `layer`, `block`,
        `window` with `sigma_low` and `sigma_high`, `draw`, number of `channels`, `coverage` (norm expected from the
        recording over that of the massive channels); of a measure `measure_kind`, `unit`, `label`; of a sample `prompt` and
        `seed`. What could not be had is named in the attribute `omitted`.

    Raises
    ------
    WorkbenchError
        See `plan_disruption` and `run_conditions`; also if the recording is of another model.
    """
    found = plan_disruption(recording, guidance_scale=guidance_scale, **plan)
    count = int(_of_recording(recording, "steps", steps))
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model)
    check_images(pipe)
    identity = fingerprint(pipe)
    same_model(recording, identity, "the recording", "the model that is disrupted")
    name = str(recording.attrs.get("model_name", ""))
    judged = str(model) if isinstance(model, (str, Path)) else named_by_store(name, identity)
    texts = _prompts(prompts, judged, recording)
    settings = recording.attrs.get("settings", {})
    size = {
        key: value if value is not None else settings.get(key) for key, value in (("height", height), ("width", width))
    }
    out = Path(out)
    run = run_conditions(
        pipe, found.conditions, prompts=texts, seeds=seeds, steps=count, out=out / IMAGES, batch_size=batch_size,
        **size, encode=encode, progress=progress, limit_s=limit_s, yes=yes,
    )  # fmt: skip
    result = measure(run, judged)
    result.attrs |= {
        "model_name": name,
        "settings": json.dumps(run.attrs["settings"], sort_keys=True),
        "recording_fingerprint": str(recording.attrs.get("settings_fingerprint", "")),
        "guidance_scale": found.conditions[0].guidance_scale,
        "steps": count,
        "design": found.design,
        "massive_channels": json.dumps(found.channels, sort_keys=True),
        "plan": json.dumps({key: _plain(value) for key, value in plan.items()}, sort_keys=True),
        "omitted": [*found.omitted, *result.attrs["omitted"]],
    }
    return write_table(result, out, "disruption")


def measure(run: xr.Dataset, model_name: str | None) -> xr.Dataset:
    """Measure all images of a run, as `disrupt` returns them; see there. `model_name`: whose judge, the user's word."""
    prompts = [str(prompt) for prompt in run["prompt"].values]
    parts: dict[str, Any] = {
        "judge": load_judge(model_name) if model_name else None,
        "reference": load_reference(model_name) if model_name else None,
        "clip": load_clip(),
    }
    # `measured` calls the kind of a measure `kind`; here that is a factor of the conditions.
    result = measured(run.rename(kind="disturbed"), model_name=model_name, baseline=PLAIN, **parts)
    result = result.rename(kind="measure_kind").rename(disturbed="kind")
    plain_SYX3 = run["image"].sel(condition=PLAIN).transpose("sample", "y", "x", "rgb").values
    usable_S, swap_S = result["finite"].sel(condition=PLAIN).values, _another(prompts)
    found = image_measures(plain_SYX3[swap_S], prompts, plain_SYX3=plain_SYX3, **parts)
    other_SM = np.stack([found[str(name)] for name in result["measure"].values], axis=1)
    result["other"] = (("sample", "measure"), np.where((usable_S & usable_S[swap_S])[:, None], other_SM, np.nan))
    result = result[["value", "other", "removed_norm", "finite"]]
    result.attrs["omitted"] = list(result.attrs.pop("left_out"))
    return result


class _States:
    """The states that enter the blocks of a recording."""

    def __init__(self, recording: xr.Dataset, branches: Branches) -> None:
        self.recording = recording
        there = [str(name) for name in np.atleast_1d(recording["branch"].values)]
        self.branches = there if branches == "all" else [branches]
        self.numbers = {
            str(n): int(b) for n, b in zip(recording["layer"].values, recording["block"].values, strict=True)
        }
        known = set(self.numbers.values())
        self.blocks = [name for name, number in self.numbers.items() if number >= 0 and number - 1 in known]
        layout = recording.attrs.get("layout")
        blocks = layout.get("blocks") if isinstance(layout, Mapping) else None
        self.depth = int(blocks) if blocks is not None else max(known) + 1
        self.sigma_T = np.asarray(recording["sigma"].values, dtype=float)
        self.read, self.part = "", recording
        labels = recording["channel"].values
        if not np.array_equal(labels, np.arange(len(labels))) or Visits(recording, self.branches[0]).channels_missing:
            raise AnalysisError("some channels were not recorded, so there are no fair controls; record all of them.")

    def block(self, layer: str) -> int:
        return self.numbers[layer]

    def _around(self, layer: str) -> xr.Dataset:
        """Statistics of a block and of the state that enters it, in memory: they are read once a layer, not once a step."""
        if self.read != layer:
            names = [str(name) for name in self.recording["layer"].values]
            at = [entering(self.recording, layer), names.index(layer)]
            self.part, self.read = self.recording[["h_mean", "h_std"]].isel(layer=at).load(), layer
        return self.part

    def mean_square(self, layer: str, name: str, span: tuple[float, float]) -> np.ndarray:
        """E[h²] per channel over tokens, the steps in the window, samples and branches; shape (C,)."""
        probe = Disruption(layer, "massive", (0,), window=span)
        inside = np.flatnonzero([probe.contains(sigma) for sigma in self.sigma_T])
        if not len(inside):
            raise WorkbenchError(
                f"the window {name!r} ({span[0]:g} to {span[1]:g}) holds none of the recorded steps, which are at sigma "
                f"{', '.join(f'{sigma:.3g}' for sigma in self.sigma_T)}. Widen it, or record and run more steps."
            )
        part = self._around(layer).isel(timestep=inside)
        return np.asarray(np.mean([mean_square(part, layer, branch=branch) for branch in self.branches], axis=0))

    def norms(self, layer: str, channels: Sequence[int]) -> Norms:
        """L2 norm of some channels at every recorded step, root mean square over tokens and samples, by branch."""
        order = np.argsort(self.sigma_T, kind="stable")
        found = []
        # Six digits: the norms decide whether a stored result is the same, and sums may round differently.
        for branch in self.branches:
            each = [mean_square(self._around(layer).isel(timestep=[t]), layer, branch=branch) for t in order]
            knots = [
                (float(self.sigma_T[t]), float(f"{np.sqrt(c[list(channels)].sum()):.6g}"))
                for t, c in zip(order, each, strict=True)
            ]
            found.append((branch, tuple(knots)))
        return tuple(found)


def _massive(
    recording: xr.Dataset,
    states: _States,
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


def _of_recording(recording: xr.Dataset, key: str, given: float | None) -> float:
    value = given if given is not None else recording.attrs.get("settings", {}).get(key)
    if value is None:
        raise WorkbenchError(f"the recording does not say its {key}; give {key}=…")
    return float(value)


def _prompts(prompts: str | Sequence[str] | None, name: str | None, recording: xr.Dataset) -> str | Sequence[str]:
    if prompts is not None:
        return prompts
    if name and judge_folder(name) is not None:
        return study_prompts(name)
    return list(dict.fromkeys(str(prompt) for prompt in recording["prompt"].values))


def _another(prompts: Sequence[str]) -> np.ndarray:
    """For each sample, one of another prompt (of another seed, where there is one prompt): the same place, one prompt on."""
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) == 1:
        return np.roll(np.arange(len(prompts)), -1)
    of = {prompt: [i for i, p in enumerate(prompts) if p == prompt] for prompt in distinct}
    following = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return np.array([of[following[p]][of[p].index(i) % len(of[following[p]])] for i, p in enumerate(prompts)])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


__all__ = ["disrupt", "disruption_conditions", "measure", "plan_disruption"]
