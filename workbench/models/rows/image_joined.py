"""Image models of one sequence of text and image tokens: Lumina 2, Z-Image, Krea 2, ERNIE, OmniGen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Absent, Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SCALE_GATE, SIX

_MODELS = "diffusers.models.transformers."

_COND_FIRST = Guidance(batched=True, rows=("cond", "uncond"), gain="1 + s", linear_without=("_cfg_normalization",))

LUMINA2 = Layout(
    family="lumina2",
    title="Lumina 2",
    transformer=f"{_MODELS}transformer_lumina2.Lumina2Transformer2DModel",
    stacks=(
        Stack("noise_refiner", hidden_output=None),
        Stack("layers", hidden_output=None, image="after_text", marker="encoder_attention_mask"),
    ),
    latents=Latents("BCHW"),
    timestep=Timestep(scale=-0.001, offset=1.0, embedding="time_caption_embed", output=0),
    modulation=Modulation("per_block", "norm1.linear", SCALE_GATE),
    pipelines=(
        Pipeline(
            "Lumina2Pipeline",
            Guidance(
                batched=False,
                rows=("cond", "uncond"),
                linear=False,
                why="cfg_normalization, on by default, gives every row of the result the conditional prediction's norm",
            ),
        ),
    ),
    width=("hidden_size",),
)

ZIMAGE = Layout(
    family="zimage",
    title="Z-Image",
    transformer=f"{_MODELS}transformer_z_image.ZImageTransformer2DModel",
    stacks=(
        Stack("noise_refiner", hidden_output=None, image="first", argument="x"),
        # Image, tokens to fill up to a multiple of 32, text.
        Stack("layers", hidden_output=None, image="first", argument="x"),
    ),
    latents=Latents("[CFHW]", argument="x", patch=("all_f_patch_size.0", "all_patch_size.0", "all_patch_size.0")),
    timestep=Timestep(argument="t", scale=-0.001, offset=1.0, embedding="t_embedder"),
    modulation=Modulation("per_block", "adaLN_modulation.0", SCALE_GATE),
    pipelines=(
        Pipeline("ZImagePipeline", _COND_FIRST),
        Pipeline("ZImageImg2ImgPipeline", _COND_FIRST, condition="image"),
    ),
    # The tokens of all rows go through the embedders on one axis.
    handed_on=False,
    width=("dim",),
    row_lists=("x", "cap_feats"),
)

KREA2 = Layout(
    family="krea2",
    title="Krea 2",
    transformer=f"{_MODELS}transformer_krea2.Krea2Transformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None, image="last"),),
    latents=Latents("BNC", grid="ids", source="position_ids"),
    timestep=Timestep(scale=0.001, embedding="time_embed"),
    modulation=Modulation(
        "shared_table",
        "time_mod_proj",
        ("scale_msa", "shift_msa", "gate_msa", "scale_mlp", "shift_mlp", "gate_mlp"),
        argument="temb",
        table="scale_shift_table",
    ),
    pipelines=(Pipeline("Krea2Pipeline", Guidance(batched=False, rows=("cond", "uncond"), gain="1 + s")),),
)

ERNIE = Layout(
    family="ernie",
    title="ERNIE-Image",
    transformer=f"{_MODELS}transformer_ernie_image.ErnieImageTransformer2DModel",
    stacks=(Stack("layers", hidden_output=None, image="first", argument="x", axes="NBC"),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="time_embedding"),
    modulation=Modulation("shared", "adaLN_modulation.1", SIX, argument="temb", listed=True),
    pipelines=(Pipeline("ErnieImagePipeline", Guidance(batched=True, rows=("uncond", "cond"))),),
    handed_on=False,
    width=("hidden_size",),
)

OMNIGEN = Layout(
    family="omnigen",
    title="OmniGen",
    transformer=f"{_MODELS}transformer_omnigen.OmniGenTransformer2DModel",
    # The condition, one token of the timestep, the image.
    stacks=(Stack("layers", hidden_output=None, image="last"),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="time_token"),
    modulation=Modulation("none", why="the timestep is a token of the sequence"),
    absent=(Absent("input_img_latents", "images to start from make a third branch"),),
    # Two branches in every call, whatever the scale.
    pipelines=(Pipeline("OmniGenPipeline", Guidance(batched=True, rows=("cond", "uncond"), flag="num_cfg")),),
    width=("hidden_size",),
)

IDEOGRAM4 = Layout(
    family="ideogram4",
    title="Ideogram 4",
    transformer=f"{_MODELS}transformer_ideogram4.Ideogram4Transformer2DModel",
    # The latents have a token, of zeros, for every token of the text, which stands before the image.
    stacks=(Stack("layers", hidden_output=None, image="last"),),
    latents=Latents("BNC", grid="ids", source="position_ids", among=("indicator", 2)),
    timestep=Timestep(scale=-0.001, offset=1.0, embedding="adaln_proj"),
    modulation=Modulation("per_block", "adaln_modulation", SCALE_GATE),
    pipelines=(
        Pipeline(
            "Ideogram4Pipeline",
            # Its transformer makes the conditional prediction only.
            Guidance(
                batched=False,
                rows=("cond",),
                linear=False,
                flag="unconditional_transformer",
                why="a transformer of its own makes the unconditional prediction, and the scale may change from step to step",
            ),
            settings=(("guidance_schedule", None),),
        ),
    ),
)

ROWS: tuple[Layout, ...] = (LUMINA2, ZIMAGE, KREA2, ERNIE, OMNIGEN, IDEOGRAM4)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
