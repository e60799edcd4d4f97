"""What Detail Guidance has to be better than, from the same seeds: no guidance, more CFG, other channels, other guidances.

``plain``, ``cfg`` and CFG at higher scales (is Detail Guidance more than that?); the spec with and without CFG; the same with
random ordinary channels that hold as much (is it the massive ones?); skip-layer guidance, as Stable Diffusion 3.5 ships it in
diffusers; perturbed attention guidance (arXiv 2403.17377) where diffusers has it for the pipeline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.matching import matched_channels
from workbench.analysis.tables import write_table
from workbench.errors import AnalysisError
from workbench.models import layout_for
from workbench.sampling.conditions import Condition
from workbench.sampling.options import TrialOptions, prepare
from workbench.sampling.over import located
from workbench.sampling.sampler import check_images
from workbench.sampling.sweep import settings_of, steered, unsteered
from workbench.steering.check import check
from workbench.steering.spec import DetailGuidanceSpec

CFG_FACTORS = (1.5, 2.0)
"""CFG scales besides the default, as factors of it."""

SKIP_SCALE, SKIP_START, SKIP_STOP = 2.8, 0.01, 0.2
"""diffusers' own defaults of skip-layer guidance, which are those of Stable Diffusion 3.5 Medium's card."""

SKIP_BLOCKS = (7, 8, 9)
"""Blocks that Stable Diffusion 3.5 Medium's card skips, of its 24; other depths take the blocks at the same depth."""

PAG_SCALE = 3.0
"""diffusers' default of perturbed attention guidance for Stable Diffusion 3."""

PAG_BLOCK = 13
"""Block of diffusers' own example of it for Stable Diffusion 3 (24 blocks)."""

_DEPTH = 24


def baselines(
    spec: DetailGuidanceSpec | str | Path,
    model: Any,
    *,
    recording: xr.Dataset | None = None,
    out: str | Path,
    draws: int = 2,
    **options: Any,
) -> xr.Dataset:
    """Generate and measure the baselines and Detail Guidance from the same seeds.

    Parameters
    ----------
    recording : xr.Dataset, optional
        Of the same model, for matched random channels; without it they are left out, by name.
    draws : int
        Sets of matched channels.
    spec, model, out, **options
        As in `workbench.sampling.sweep.sweep`.

    Returns
    -------
    xarray.Dataset
        The table of `measured`, in the order of `baseline_conditions`; `workbench.analysis.effects.effects` says what it
        shows. ``attrs["left_out"]`` names the baselines that this pipeline can't have, and why.

    Raises
    ------
    WorkbenchError
        As `sweep`.
    """
    ready = prepare(
        spec, model, DetailGuidanceSpec, TrialOptions.of(options), modes=("cfg",), recording=recording, what="compared"
    )
    check_images(ready.pipe)
    chosen, lacking = baseline_conditions(
        ready.spec, ready.pipe, guidance_scale=ready.guidance_scale, recording=recording, draws=draws,
        strict=ready.options.strict,
    )  # fmt: skip
    table = ready.table(chosen, out, {c.name: "cfg" if c.guidance_scale > 1 else "plain" for c in chosen})
    table.attrs["left_out"] = lacking + list(table.attrs["left_out"])
    table.attrs["spec"] = json.dumps(
        settings_of(ready.spec) | {"content_hash": ready.spec.content_hash}, sort_keys=True
    )
    return write_table(table, out, "baselines")


def baseline_conditions(
    spec: DetailGuidanceSpec,
    pipe: Any,
    *,
    guidance_scale: float = 4.0,
    recording: xr.Dataset | None = None,
    draws: int = 2,
    strict: bool = True,
) -> tuple[list[Condition], list[str]]:
    """Return the conditions, and in words the baselines that can't be had here.

    Factors: `method` (plain, cfg, dg, dg matched, slg, pag), `mode` (with or without CFG), `guidance_scale`, `draw`.
    """
    check(spec, pipe, strict=strict)
    lacking: list[str] = []
    conditions = [_relabelled(unsteered(mode, guidance_scale), mode) for mode in ("plain", "cfg")]
    for factor in CFG_FACTORS:
        scale = factor * guidance_scale
        name = f"cfg-{factor:g}x"
        factors: dict[str, Any] = {"mode": "cfg", "role": "cfg", "guidance_scale": scale, "method": f"CFG {factor:g}×"}
        conditions.append(Condition(name, factors, scale))
    for mode in ("dg", "cfg+dg"):
        conditions.append(_relabelled(steered(spec, mode, {}, guidance_scale, strict=strict), "DG"))
    for draw, channels in enumerate(_matched(spec, recording, draws, lacking)):
        changed = spec.replace(channels=channels)
        for mode in ("dg", "cfg+dg"):
            one = steered(
                changed, mode, {"channels": "matched", "draw": draw}, guidance_scale, strict=strict, role="matched"
            )
            conditions.append(_relabelled(one, f"DG, matched channels {draw + 1}"))
    conditions += skip_layer(pipe, guidance_scale, lacking)
    conditions += perturbed_attention(pipe, guidance_scale, lacking)
    return conditions, lacking


def skip_layer(pipe: Any, guidance_scale: float, lacking: list[str]) -> list[Condition]:
    """Skip-layer guidance by the pipeline's own arguments; it exists with CFG only."""
    if "skip_guidance_layers" not in inspect.signature(type(pipe).__call__).parameters:
        lacking.append(f"skip-layer guidance: {type(pipe).__name__} does not have it")
        return []
    blocks = at_depth(SKIP_BLOCKS, len(layout_for(pipe).block_paths(pipe.transformer)))
    call = {"skip_guidance_layers": blocks, "skip_layer_guidance_scale": SKIP_SCALE}
    call |= {"skip_layer_guidance_start": SKIP_START, "skip_layer_guidance_stop": SKIP_STOP}
    factors: dict[str, Any] = {"mode": "cfg", "role": "slg", "guidance_scale": guidance_scale, "method": "SLG"}
    factors |= {"blocks": " ".join(map(str, blocks))}
    return [Condition("cfg+slg", factors, guidance_scale, call=call, extra_passes=1.0)]


def perturbed_attention(pipe: Any, guidance_scale: float, lacking: list[str]) -> list[Condition]:
    """Perturbed attention guidance with and without CFG, by diffusers' own pipeline made of this pipeline's parts."""
    if type(pipe).__name__ != "StableDiffusion3Pipeline":
        lacking.append(f"perturbed attention guidance: diffusers has no such variant of {type(pipe).__name__}")
        return []
    config = pipe.transformer.config
    if config.get("qk_norm") or config.get("dual_attention_layers"):
        lacking.append(
            "perturbed attention guidance: diffusers' attention for it leaves out this model's normalisation of queries and keys "
            "(or its second attention), so that it would run another model"
        )
        return []
    block = at_depth((PAG_BLOCK,), len(layout_for(pipe).block_paths(pipe.transformer)))[0]
    found = []
    for mode, scale in (("pag", 1.0), ("cfg+pag", guidance_scale)):
        factors: dict[str, Any] = {
            "mode": "cfg" if scale > 1 else "plain",
            "role": "pag",
            "guidance_scale": scale,
            "method": "PAG",
        }
        condition = Condition(
            mode,
            factors | {"blocks": str(block)},
            scale,
            steer=_processors_kept,
            call={"pag_scale": PAG_SCALE},
            pipeline=lambda p: _pag(p, block),
            extra_passes=1.0,
        )
        found.append(condition)
    return found


@contextlib.contextmanager
def _processors_kept(pipe: Any) -> Iterator[None]:
    """The pipeline exchanges attention processors for a call, and would leave them so if that fails or is interrupted."""
    before = dict(pipe.transformer.attn_processors)
    try:
        yield
    finally:
        pipe.transformer.set_attn_processor(before)


def _pag(pipe: Any, block: int) -> Any:
    from diffusers import StableDiffusion3PAGPipeline

    # Its word for block i is `blocks.i`; the exact name, so that block 1 is not also block 10.
    parts = {name: part for name, part in pipe.components.items() if name not in ("image_encoder", "feature_extractor")}
    made = StableDiffusion3PAGPipeline(**parts, pag_applied_layers=[rf"transformer_blocks.{block}\."])
    own = pipe.__dict__.get("encode_prompt")  # of a pipeline whose texts are encoded in another way
    if own is not None:
        made.encode_prompt = own
    return made


def at_depth(blocks: Sequence[int], depth: int) -> list[int]:
    """Blocks of a model with `depth` blocks at the same relative depth as these of 24, each once."""
    return sorted({min(block * depth // _DEPTH, depth - 1) for block in blocks})


def _relabelled(condition: Condition, method: str) -> Condition:
    return dataclasses.replace(
        condition, factors={**condition.factors, "method": {"plain": "none", "cfg": "CFG"}.get(method, method)}
    )


def _matched(spec: DetailGuidanceSpec, recording: xr.Dataset | None, draws: int, lacking: list[str]) -> list[list[int]]:
    if recording is None:
        lacking.append("DG with matched random channels: no recording was given to match them by")
        return []
    sets: list[list[int]] = []
    try:
        for draw in range(draws):
            found = matched_channels(recording, spec.layer, spec.channels, seed=draw, excluded=located(spec))
            sets.append(list(found.channels))
            if found.everything:
                lacking.append(
                    f"matched random channels: all {len(found.channels)} ordinary channels together hold {found.coverage:.0%} of what "
                    "the massive ones do, so there is one such set and no more"
                )
                break
    except AnalysisError as error:
        lacking.append(f"DG with matched random channels: {error}")
    return sets
