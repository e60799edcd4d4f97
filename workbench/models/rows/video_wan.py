"""Wan, its derivatives, and CogVideoX and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

#: Two calls a step.
_TWO = Guidance(batched=False, rows=("cond", "uncond"))
#: Two calls a step, which the pipeline puts into cache_context("cond") and cache_context("uncond").
_TWO_NAMED = Guidance(batched=False, rows=("cond", "uncond"), named=True)

WAN = Layout(
    family="wan",
    title="Wan 2.1 / 2.2",
    transformer=f"{_MODELS}transformer_wan.WanTransformer3DModel",
    stacks=(Stack("blocks", hidden_output=None),),
    latents=Latents("BCFHW", patch=("patch_size.0", "patch_size.1", "patch_size.2")),
    timestep=Timestep(embedding="condition_embedder", output=0),
    modulation=Modulation(
        "shared_table", "condition_embedder.time_proj", SIX, argument="temb", table="scale_shift_table"
    ),
    pipelines=(
        Pipeline("WanPipeline", _TWO_NAMED),
        Pipeline("WanImageToVideoPipeline", _TWO_NAMED, condition="image"),
        Pipeline("WanVideoToVideoPipeline", _TWO, condition="video"),
    ),
    causal_time=4,
)

ROWS: tuple[Layout, ...] = (WAN,)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
