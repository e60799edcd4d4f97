"""Image models in which text and image tokens attend to each other as one sequence: SD3, and FLUX and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

_BATCHED = Guidance(batched=True, rows=("uncond", "cond"))
_TWO = Guidance(batched=False, rows=("cond", "uncond"))
_TWO_NAMED = Guidance(batched=False, rows=("cond", "uncond"), named=True)

#: 2 × 2 latents a token, packed by the pipeline.
_PACKED = Latents("BNC", grid="ids", source="img_ids")
#: Arguments with the tokens' places, which are those of all rows.
_PLACES = ("img_ids", "txt_ids")
_SIX = Modulation("per_block", "norm1.linear", SIX)
#: One shift, scale and gate, of attention and feed-forward together (and of the text tokens as well).
_THREE = Modulation("per_block", "norm.linear", SIX[:3])
#: Text and image as one sequence inside, taken apart again before the block returns.
_DOUBLE_THEN_SINGLE = (
    Stack("transformer_blocks", hidden_output=1),
    Stack("single_transformer_blocks", hidden_output=1, modulation=_THREE),
)

SD3 = Layout(
    family="sd3",
    title="SD3 / SD3.5",
    transformer=f"{_MODELS}transformer_sd3.SD3Transformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=1),),
    latents=Latents("BCHW", noisy="out_channels"),
    timestep=Timestep(embedding="time_text_embed"),
    modulation=Modulation("per_block", "norm1.linear", SIX, beyond=("shift_msa2", "scale_msa2", "gate_msa2")),
    pipelines=(
        Pipeline("StableDiffusion3Pipeline", _BATCHED),
        Pipeline("StableDiffusion3Img2ImgPipeline", _BATCHED, condition="image"),
        Pipeline("StableDiffusion3InpaintPipeline", _BATCHED, condition="image and mask"),
    ),
)

#: A second call, if a negative prompt is given as well, on top of the scale that goes in as an embedding.
_TRUE = Guidance(batched=False, rows=("cond", "uncond"), scale="true_cfg_scale", flag="do_true_cfg")
_TRUE_NAMED = replace(_TRUE, named=True)

FLUX = Layout(
    family="flux",
    title="FLUX.1",
    transformer=f"{_MODELS}transformer_flux.FluxTransformer2DModel",
    stacks=_DOUBLE_THEN_SINGLE,
    latents=Latents("BNC", grid="ids", source="img_ids", noisy="out_channels"),
    timestep=Timestep(scale=0.001, embedding="time_text_embed"),
    modulation=_SIX,
    pipelines=(
        Pipeline("FluxPipeline", _TRUE_NAMED, scale="guidance_scale"),
        Pipeline("FluxImg2ImgPipeline", _TRUE, scale="guidance_scale", condition="image"),
        Pipeline("FluxInpaintPipeline", _TRUE, scale="guidance_scale", condition="image and mask"),
        Pipeline("FluxFillPipeline", None, scale="guidance_scale", condition="image and mask"),
        Pipeline("FluxControlPipeline", None, scale="guidance_scale", condition="control image"),
    ),
    rowless=_PLACES,
)

FLUX2 = Layout(
    family="flux2",
    title="FLUX.2 / Klein",
    transformer=f"{_MODELS}transformer_flux2.Flux2Transformer2DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=1),
        Stack(
            "single_transformer_blocks",
            hidden_output=None,
            image="last",
            # One shift, scale and gate, of attention and feed-forward together (and of the text tokens as well).
            modulation=Modulation("shared", "single_stream_modulation", SIX[:3], argument="temb_mod"),
        ),
    ),
    latents=Latents("BNC", grid="ids", source="img_ids", columns=(0, 1, 2)),
    timestep=Timestep(scale=0.001, embedding="time_guidance_embed"),
    modulation=Modulation("shared", "double_stream_modulation_img", SIX, argument="temb_mod_img"),
    pipelines=(
        Pipeline("Flux2Pipeline", None, scale="guidance_scale"),
        Pipeline("Flux2KleinPipeline", _TWO_NAMED),
    ),
)

AURAFLOW = Layout(
    family="auraflow",
    title="AuraFlow",
    transformer=f"{_MODELS}auraflow_transformer_2d.AuraFlowTransformer2DModel",
    stacks=(
        Stack("joint_transformer_blocks", hidden_output=1),
        # Eight register tokens and the text stand before the image.
        Stack("single_transformer_blocks", hidden_output=None, image="last"),
    ),
    latents=Latents("BCHW"),
    timestep=Timestep(scale=0.001, embedding="time_step_proj"),
    modulation=_SIX,
    pipelines=(Pipeline("AuraFlowPipeline", Guidance(True, ("uncond", "cond"), flag="do_classifier_free_guidance")),),
)

CHROMA = Layout(
    family="chroma",
    title="Chroma",
    transformer=f"{_MODELS}transformer_chroma.ChromaTransformer2DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=1),
        Stack(
            "single_transformer_blocks",
            hidden_output=None,
            image="last",
            modulation=Modulation("shared", "distilled_guidance_layer", SIX[:3], argument="temb"),
        ),
    ),
    latents=_PACKED,
    # What is embedded is the timestep with the number of each term of each block: there is no one embedding.
    timestep=Timestep(scale=0.001),
    # A network gives every block terms of its own: (B, 12, C), six of the image before six of the text.
    modulation=Modulation("shared", "distilled_guidance_layer", SIX, argument="temb"),
    pipelines=(
        Pipeline("ChromaPipeline", _TWO),
        Pipeline("ChromaImg2ImgPipeline", _TWO, condition="image"),
    ),
    rowless=_PLACES,
)

LONGCAT = Layout(
    family="longcat-image",
    title="LongCat-Image",
    transformer=f"{_MODELS}transformer_longcat_image.LongCatImageTransformer2DModel",
    stacks=_DOUBLE_THEN_SINGLE,
    latents=_PACKED,
    timestep=Timestep(scale=0.001, embedding="time_embed"),
    modulation=_SIX,
    pipelines=(
        Pipeline(
            "LongCatImagePipeline",
            Guidance(
                batched=False,
                rows=("cond", "uncond"),
                linear=False,
                named=True,
                why="every token of the result is scaled down to the conditional prediction's norm (enable_cfg_renorm)",
            ),
        ),
    ),
    rowless=_PLACES,
)

OVIS = Layout(
    family="ovis-image",
    title="Ovis-Image",
    transformer=f"{_MODELS}transformer_ovis_image.OvisImageTransformer2DModel",
    stacks=_DOUBLE_THEN_SINGLE,
    latents=_PACKED,
    timestep=Timestep(scale=0.001, embedding="timestep_embedder"),
    modulation=_SIX,
    pipelines=(Pipeline("OvisImagePipeline", _TWO_NAMED),),
    rowless=_PLACES,
)

ROWS: tuple[Layout, ...] = (SD3, FLUX, FLUX2, AURAFLOW, CHROMA, LONGCAT, OVIS)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        f"{_MODELS}transformer_flux3.Flux3Transformer2DModel": "only modular pipelines run it (Flux3ModularPipeline), and the "
        "workbench records stock ones"
    }
)
