"""HunyuanVideo and its kin, LTX, Allegro, Cosmos, Kandinsky 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from workbench.models.layout import Absent, Guidance, Latents, Layout, Limit, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

PATCHED = ("patch_size_t", "patch_size", "patch_size")

#: What Hunyuan calls true CFG: a second call, on top of the scale that goes in as an embedding.
_TRUE = Guidance(batched=False, rows=("cond", "uncond"), scale="true_cfg_scale", flag="do_true_cfg")
_TRUE_NAMED = replace(_TRUE, named=True)

#: Two calls, in no context; the pipeline decides by the scale itself.
_TWO = Guidance(batched=False, rows=("cond", "uncond"), flag="")

#: One call of both.
BATCHED = Guidance(batched=True, rows=("uncond", "cond"))

_RESCALED = replace(BATCHED, linear_without=("guidance_rescale",))

#: The pipeline has a guider, a component that holds the scale and calls its branches ``pred_cond`` and ``pred_uncond``.
GUIDER = Guidance(
    batched=False,
    rows=("cond", "uncond"),
    linear=False,
    scale="",
    flag="guider._enabled",
    why="its guider combines them, as that guider says; give the pipeline the guider `DetailGuidance.from_spec(spec)`",
    guider=True,
)

#: Shift, scale and gate of self-attention, of cross-attention and of the feed-forward.
NINE = (*SIX[:3], "shift_mca", "scale_mca", "gate_mca", *SIX[3:])

#: Of a block that takes text and video as one sequence inside: one shift, scale and gate for all.
SINGLE = Modulation("per_block", "norm.linear", SIX[:3])

HUNYUAN = Layout(
    family="hunyuanvideo",
    title="HunyuanVideo",
    transformer=f"{_MODELS}transformer_hunyuan_video.HunyuanVideoTransformer3DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=0),
        # Text and video are taken apart again before the block returns.
        Stack("single_transformer_blocks", hidden_output=0, modulation=SINGLE),
    ),
    latents=Latents("BCFHW", patch=PATCHED, noisy="out_channels"),
    timestep=Timestep(embedding="time_text_embed", output=0),
    # With image_condition_type "token_replace", the blocks call it a second time, with the embedding of timestep 0, for the
    # tokens of the first frame. The first call's output is what is recorded: that of the tokens that are denoised.
    modulation=Modulation("per_block", "norm1.linear", SIX),
    pipelines=(
        Pipeline("HunyuanVideoPipeline", _TRUE_NAMED, scale="guidance_scale"),
        Pipeline("HunyuanVideoImageToVideoPipeline", _TRUE, scale="guidance_scale", condition="image"),
        Pipeline("HunyuanSkyreelsImageToVideoPipeline", _TRUE, scale="guidance_scale", condition="image"),
    ),
    causal_time=4,
)

FRAMEPACK = Layout(
    family="hunyuanvideo-framepack",
    title="HunyuanVideo Framepack",
    transformer=f"{_MODELS}transformer_hunyuan_video_framepack.HunyuanVideoFramepackTransformer3DModel",
    stacks=(
        # The frames of the section that is being made stand after those of the history, which are there in three sizes.
        Stack("transformer_blocks", hidden_output=0, image="last"),
        Stack("single_transformer_blocks", hidden_output=0, image="last", modulation=SINGLE),
    ),
    latents=Latents("BCFHW", patch=PATCHED),
    timestep=Timestep(embedding="time_text_embed", output=0),
    modulation=Modulation("per_block", "norm1.linear", SIX),
    # It makes a video section by section, the last first.
    pipelines=(
        Pipeline(
            "HunyuanVideoFramepackPipeline",
            _TRUE,
            scale="guidance_scale",
            condition="image",
            first="the first frame of a section",
        ),
    ),
    causal_time=4,
)

HUNYUAN_15 = Layout(
    family="hunyuanvideo15",
    title="HunyuanVideo 1.5",
    transformer=f"{_MODELS}transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",
    stacks=(Stack("transformer_blocks", hidden_output=0),),
    latents=Latents("BCFHW", patch=PATCHED, noisy="out_channels"),
    timestep=Timestep(embedding="time_embed"),
    modulation=Modulation("per_block", "norm1.linear", SIX),
    pipelines=(
        Pipeline("HunyuanVideo15Pipeline", GUIDER),
        Pipeline("HunyuanVideo15ImageToVideoPipeline", GUIDER, condition="image"),
    ),
    causal_time=4,
)

LTX = Layout(
    family="ltx",
    title="LTX-Video",
    transformer=f"{_MODELS}transformer_ltx.LTXVideoTransformer3DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BNC", grid="arguments", source="num_frames height width", patch=PATCHED),
    timestep=Timestep(embedding="time_embed", output=1),
    modulation=Modulation("shared_table", "time_embed.linear", SIX, argument="temb", table="scale_shift_table"),
    # Two calls in one, in cache_context("cond_uncond").
    pipelines=(
        Pipeline("LTXPipeline", _RESCALED),
        # Timestep 0 for the tokens of the first frame.
        Pipeline("LTXImageToVideoPipeline", _RESCALED, condition="image", token_timesteps=True),
    ),
    absent=(Absent("video_coords", "LTXConditionPipeline puts the tokens of its conditions in front of the video's"),),
    causal_time=8,
)

ALLEGRO = Layout(
    family="allegro",
    title="Allegro",
    transformer=f"{_MODELS}transformer_allegro.AllegroTransformer3DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BCFHW", patch=PATCHED),
    timestep=Timestep(embedding="adaln_single", output=1),
    modulation=Modulation("shared_table", "adaln_single.linear", SIX, argument="temb", table="scale_shift_table"),
    pipelines=(Pipeline("AllegroPipeline", BATCHED),),
    causal_time=4,
    first_alone=False,
)

COSMOS = Layout(
    family="cosmos",
    title="Cosmos 1",
    transformer=f"{_MODELS}transformer_cosmos.CosmosTransformer3DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BCFHW", patch=("patch_size.0", "patch_size.1", "patch_size.2")),
    timestep=Timestep(embedding="time_embed", output=1),
    modulation=Modulation(
        "none",
        why="each of a block's three norms adds a projection of its own, of low rank, to one that all blocks share",
    ),
    pipelines=(Pipeline("CosmosTextToWorldPipeline", Guidance(batched=False, rows=("cond", "uncond"), gain="1 + s")),),
    causal_time=8,
)

KANDINSKY_5 = Layout(
    family="kandinsky5",
    title="Kandinsky 5",
    transformer=f"{_MODELS}transformer_kandinsky.Kandinsky5Transformer3DModel",
    stacks=(Stack("visual_transformer_blocks", hidden_output=None, argument="visual_embed"),),
    latents=Latents("BFHWC", patch=("patch_size.0", "patch_size.1", "patch_size.2"), noisy="in_visual_dim"),
    # The embedding is the sum of two modules' outputs, of the timestep's and of the pooled text's.
    timestep=Timestep(),
    modulation=Modulation("per_block", "visual_modulation.out_layer", NINE),
    pipelines=(
        Pipeline("Kandinsky5T2VPipeline", _TWO),
        Pipeline("Kandinsky5I2VPipeline", _TWO, condition="image"),
        Pipeline("Kandinsky5T2IPipeline", _TWO, still=True),
    ),
    width=("model_dim",),
    limits=(Limit("attention_type", "nabla", "its tokens are not in raster order but in squares of 8 by 8"),),
    causal_time=4,
)

ROWS: tuple[Layout, ...] = (HUNYUAN, FRAMEPACK, HUNYUAN_15, LTX, ALLEGRO, COSMOS, KANDINSKY_5)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
