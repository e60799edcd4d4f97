"""HunyuanVideo and its kin, and the video models that take after none."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Limit, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

_PATCHED = ("patch_size_t", "patch_size", "patch_size")

#: What Hunyuan calls true CFG: a second call, on top of the scale that goes in as an embedding.
_TRUE = Guidance(batched=False, rows=("cond", "uncond"), scale="true_cfg_scale")
_TRUE_NAMED = Guidance(batched=False, rows=("cond", "uncond"), scale="true_cfg_scale", named=True)

HUNYUAN = Layout(
    family="hunyuanvideo",
    title="HunyuanVideo",
    transformer=f"{_MODELS}transformer_hunyuan_video.HunyuanVideoTransformer3DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=0),
        # Text and video as one sequence inside, taken apart again before the block returns; one modulation for both.
        Stack("single_transformer_blocks", hidden_output=0, modulation=Modulation("per_block", "norm.linear", SIX[:3])),
    ),
    latents=Latents("BCFHW", patch=_PATCHED),
    timestep=Timestep(embedding="time_text_embed", output=0),
    modulation=Modulation("per_block", "norm1.linear", SIX),
    pipelines=(
        Pipeline("HunyuanVideoPipeline", _TRUE_NAMED, scale="guidance_scale"),
        Pipeline("HunyuanVideoImageToVideoPipeline", _TRUE, scale="guidance_scale", condition="image"),
    ),
    limits=(
        Limit(
            "image_condition_type",
            "token_replace",
            "its blocks modulate the first frame with a second embedding (of timestep 0), for which they call the same "
            "projection a second time, so no one modulation is that of all tokens",
        ),
    ),
    causal_time=4,
)

ROWS: tuple[Layout, ...] = (HUNYUAN,)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
