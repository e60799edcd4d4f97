"""CogVideoX and its kin: video and text tokens attend to each other as one sequence, blocks return (video, text)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

#: One call a step, the unconditional rows first, in cache_context("cond_uncond") or in none.
_BATCHED = Guidance(batched=True, rows=("uncond", "cond"))

_STACKS = (Stack("transformer_blocks", hidden_output=0),)

_TEXT = tuple(f"text_{term}" for term in SIX)
#: With use_dynamic_cfg the scale differs from step to step, and is not `guidance_scale`.
_SAME_SCALE = replace(_BATCHED, linear_without=("use_dynamic_cfg",))

#: LayerNormZero before attention and again before the feed-forward, each for video and text tokens.
_TWO_NORMS = Modulation("per_block", "norm1.linear norm2.linear", (*SIX[:3], *_TEXT[:3], *SIX[3:], *_TEXT[3:]))

# CogVideoX 1.5 makes a token of two latent frames (patch_size_t): where their number is odd, the pipeline puts one more in
# front, and cuts it off afterwards, so half of token frame 0 is padding.
COGVIDEOX = Layout(
    family="cogvideox",
    title="CogVideoX 1.0 / 1.5",
    transformer=f"{_MODELS}cogvideox_transformer_3d.CogVideoXTransformer3DModel",
    stacks=_STACKS,
    latents=Latents("BFCHW", patch=("patch_size_t", "patch_size", "patch_size"), noisy="out_channels"),
    timestep=Timestep(embedding="time_embedding"),
    modulation=_TWO_NORMS,
    pipelines=(
        Pipeline("CogVideoXPipeline", _SAME_SCALE),
        Pipeline("CogVideoXImageToVideoPipeline", _SAME_SCALE, condition="image"),
        Pipeline("CogVideoXVideoToVideoPipeline", _SAME_SCALE, condition="video"),
        Pipeline("CogVideoXFunControlPipeline", _SAME_SCALE, condition="control video"),
    ),
    causal_time=4,
)

CONSISID = Layout(
    family="consisid",
    title="ConsisID",
    transformer=f"{_MODELS}consisid_transformer_3d.ConsisIDTransformer3DModel",
    stacks=_STACKS,
    latents=Latents("BFCHW", noisy="out_channels"),
    timestep=Timestep(embedding="time_embedding"),
    modulation=_TWO_NORMS,
    pipelines=(Pipeline("ConsisIDPipeline", _SAME_SCALE, condition="image and face"),),
    # After every cross_attn_interval-th block the face is attended to, outside the block.
    handed_on=False,
    causal_time=4,
)

EASYANIMATE = Layout(
    family="easyanimate",
    title="EasyAnimate 5.1",
    transformer=f"{_MODELS}transformer_easyanimate.EasyAnimateTransformer3DModel",
    stacks=_STACKS,
    latents=Latents("BCFHW"),
    timestep=Timestep(embedding="time_embedding"),
    modulation=_TWO_NORMS,
    pipelines=(Pipeline("EasyAnimatePipeline", replace(_BATCHED, linear_without=("guidance_rescale",))),),
    causal_time=4,
)

MOCHI = Layout(
    family="mochi",
    title="Mochi 1",
    transformer=f"{_MODELS}transformer_mochi.MochiTransformer3DModel",
    stacks=_STACKS,
    latents=Latents("BCFHW"),
    # The scheduler's timesteps rise from 0, which is noise.
    timestep=Timestep(embedding="time_embed", output=0),
    # No shift; of a gate the block takes the hyperbolic tangent.
    modulation=Modulation("per_block", "norm1.linear", ("scale_msa", "gate_msa", "scale_mlp", "gate_mlp")),
    pipelines=(Pipeline("MochiPipeline", _BATCHED),),
    causal_time=6,
)

ROWS: tuple[Layout, ...] = (COGVIDEOX, CONSISID, EASYANIMATE, MOCHI)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
