"""Image models in which text and image tokens attend to each other as one sequence (MMDiT and its kin)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

SD3 = Layout(
    family="sd3",
    title="SD3 / SD3.5",
    transformer=f"{_MODELS}transformer_sd3.SD3Transformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=1),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="time_text_embed"),
    modulation=Modulation("per_block", "norm1.linear", SIX, beyond=("shift_msa2", "scale_msa2", "gate_msa2")),
    pipelines=(Pipeline("StableDiffusion3Pipeline", Guidance(batched=True, rows=("uncond", "cond"))),),
)

_KLEIN = Guidance(batched=False, rows=("cond", "uncond"), named=True)

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
        Pipeline("Flux2KleinPipeline", _KLEIN),
    ),
)

ROWS: tuple[Layout, ...] = (SD3, FLUX2)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
