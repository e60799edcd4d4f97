"""Wan, its derivatives, and CogVideoX and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
    latents=Latents("BCFHW", patch=("patch_size.0", "patch_size.1", "patch_size.2"), noisy="out_channels"),
    timestep=Timestep(embedding="condition_embedder", output=0),
    modulation=Modulation(
        "shared_table", "condition_embedder.time_proj", SIX, argument="temb", table="scale_shift_table"
    ),
    pipelines=(
        Pipeline("WanPipeline", _TWO_NAMED),
        Pipeline("WanImageToVideoPipeline", _TWO_NAMED, condition="image"),
        Pipeline("WanVideoToVideoPipeline", _TWO, condition="video"),
        Pipeline("LucyEditPipeline", _TWO_NAMED, condition="video"),
    ),
    causal_time=4,
)


def _as_wan(family: str, title: str, transformer: str, *pipelines: Pipeline, handed_on: bool = True) -> Layout:
    """Transformers made from Wan's, with the same blocks."""
    return replace(
        WAN,
        family=family,
        title=title,
        transformer=_MODELS + transformer,
        pipelines=pipelines,
        handed_on=handed_on,
    )


# The control stream (vace_blocks, which run first) has no stack here: what it leaves is added to the video tokens outside
# the blocks, after those of vace_layers.
# Reference pictures (reference_images) are latent frames in front of the video's; token frame 0 is then the first of them.
VACE = _as_wan(
    "wan-vace",
    "Wan-VACE",
    "transformer_wan_vace.WanVACETransformer3DModel",
    Pipeline("WanVACEPipeline", _TWO_NAMED, condition="control video"),
    handed_on=False,
)

# After some blocks the face is attended to.
ANIMATE = _as_wan(
    "wan-animate",
    "Wan-Animate",
    "transformer_wan_animate.WanAnimateTransformer3DModel",
    Pipeline(
        "WanAnimatePipeline",
        _TWO_NAMED,
        condition="picture, poses and faces",
        frames="segment_frame_length",
        first="the picture of the character",
    ),
    handed_on=False,
)

# With temporal reasoning, the frames between the first and the last are dropped after some steps.
CHRONOEDIT = _as_wan(
    "chronoedit",
    "ChronoEdit",
    "transformer_chronoedit.ChronoEditTransformer3DModel",
    Pipeline("ChronoEditPipeline", _TWO, condition="image"),
)

SKYREELS = _as_wan(
    "skyreels-v2",
    "SkyReels-V2",
    "transformer_skyreels_v2.SkyReelsV2Transformer3DModel",
    Pipeline("SkyReelsV2Pipeline", _TWO_NAMED),
    Pipeline("SkyReelsV2ImageToVideoPipeline", _TWO_NAMED, condition="image"),
    # Not the diffusion-forcing pipelines: they give every frame a timestep and the blocks a modulation (B, 6, N, C).
)

# A timestep a frame, (B, F), and another one that the step ends at (r_timestep).
ANYFLOW = replace(
    WAN,
    family="anyflow",
    title="AnyFlow",
    transformer=f"{_MODELS}transformer_anyflow.AnyFlowTransformer3DModel",
    latents=replace(WAN.latents, axes="BFCHW"),
    pipelines=(Pipeline("AnyFlowPipeline", Guidance(batched=True, rows=("uncond", "cond"))),),
)

# Tokens of long, mid and short history stand before those of the section that is generated.
HELIOS = replace(
    WAN,
    family="helios",
    title="Helios",
    transformer=f"{_MODELS}transformer_helios.HeliosTransformer3DModel",
    stacks=(Stack("blocks", hidden_output=None, image="last"),),
    # Its embedder runs twice a call: for the history, at t = 0, and for the section.
    timestep=Timestep(),
    pipelines=(Pipeline("HeliosPipeline", _TWO_NAMED),),
)

ROWS: tuple[Layout, ...] = (WAN, VACE, ANIMATE, CHRONOEDIT, SKYREELS, ANYFLOW, HELIOS)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        f"{_MODELS}transformer_anyflow_far.AnyFlowFARTransformer3DModel": "it generates in sections, each with all steps, and "
        "between them makes calls that only fill an attention cache, with other frames and compressed tokens of those before",
        f"{_MODELS}transformer_wan_animate_2.WanAnimate2Transformer3DModel": "diffusers has modular pipelines for it only, which "
        "call it on the reference picture to fill an attention cache, and it leaves out block 9 in the unconditional branch",
    }
)
