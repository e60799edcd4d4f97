"""Image models whose blocks hold image tokens alone (DiT, PixArt and their kin), and Latte, which is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Limit, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SCALE_GATE, SIX

_MODELS = "diffusers.models.transformers."

_UNCOND_FIRST = Guidance(batched=True, rows=("uncond", "cond"))

#: Otherwise the pipeline takes the nearest of its own sizes, and brings the image back to the size that was asked for.
_EXACT = (("use_resolution_binning", False),)

#: One projection of the embedding, to which every block adds its table. The module hands over both.
_SINGLE = Modulation("shared_table", "adaln_single.linear", SIX, argument="timestep", table="scale_shift_table")

PIXART = Layout(
    family="pixart",
    title="PixArt-α / PixArt-Σ",
    transformer=f"{_MODELS}pixart_transformer_2d.PixArtTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="adaln_single", output=1),
    modulation=_SINGLE,
    pipelines=(
        Pipeline("PixArtSigmaPipeline", _UNCOND_FIRST, settings=_EXACT),
        Pipeline("PixArtAlphaPipeline", _UNCOND_FIRST, settings=_EXACT),
    ),
)

DIT = Layout(
    family="dit",
    title="DiT",
    transformer=f"{_MODELS}dit_transformer_2d.DiTTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BCHW"),
    # Every block embeds timestep and class by itself.
    timestep=Timestep(),
    modulation=Modulation("per_block", "norm1.linear", SIX),
    pipelines=(
        # Only the noise is combined, not the variance; it alone is used.
        Pipeline("DiTPipeline", Guidance(batched=True, rows=("cond", "uncond"), flag=""), condition="class label"),
    ),
)

SANA = Layout(
    family="sana",
    title="Sana",
    transformer=f"{_MODELS}sana_transformer.SanaTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="time_embed", output=1),
    modulation=Modulation("shared_table", "time_embed.linear", SIX, argument="timestep", table="scale_shift_table"),
    pipelines=(Pipeline("SanaPipeline", _UNCOND_FIRST, settings=_EXACT),),
    limits=(Limit("guidance_embeds", True, "Sana-Sprint's timesteps, of trigonometric noise, have not been checked"),),
)

HUNYUAN_DIT = Layout(
    family="hunyuan-dit",
    title="HunyuanDiT",
    transformer=f"{_MODELS}hunyuan_transformer_2d.HunyuanDiT2DModel",
    stacks=(Stack("blocks", hidden_output=None),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="time_extra_emb"),
    modulation=Modulation("per_block", "norm1.linear", ("shift_msa",)),
    pipelines=(
        Pipeline(
            "HunyuanDiTPipeline",
            Guidance(batched=True, rows=("uncond", "cond"), linear_without=("guidance_rescale",)),
            settings=_EXACT,
        ),
    ),
    # The second half of the blocks takes up what the first left.
    handed_on=False,
)

PRX = Layout(
    family="prx",
    title="PRX",
    transformer=f"{_MODELS}transformer_prx.PRXTransformer2DModel",
    stacks=(Stack("blocks", hidden_output=None),),
    latents=Latents("BCHW"),
    timestep=Timestep(scale=0.001, embedding="time_in"),
    modulation=Modulation("per_block", "modulation.lin", SIX),
    # With guidance diffusers 0.42 hands over two timesteps however many rows there are: one image at a time.
    pipelines=(
        Pipeline("PRXPipeline", _UNCOND_FIRST, settings=_EXACT),
        # Predicts the image itself; the latents are its pixels.
        Pipeline("PRXPixelPipeline", _UNCOND_FIRST, settings=_EXACT),
    ),
    width=("hidden_size",),
    limits=(
        Limit("resolution_embeds", True, "the modulation is then of the sum of two embeddings, and no module gives it"),
    ),
)

LUMINA = Layout(
    family="lumina",
    title="Lumina-Next",
    transformer=f"{_MODELS}lumina_nextdit2d.LuminaNextDiT2DModel",
    stacks=(Stack("layers", hidden_output=None),),
    latents=Latents("BCHW"),
    timestep=Timestep(scale=-0.001, offset=1.0, embedding="time_caption_embed"),
    modulation=Modulation("per_block", "norm1.linear", SCALE_GATE),
    pipelines=(
        Pipeline(
            "LuminaPipeline",
            Guidance(
                batched=True,
                rows=("cond", "uncond"),
                linear=False,
                why="the first three channels of the latents are combined, the others are the conditional prediction's",
            ),
        ),
    ),
    width=("hidden_size",),
)

NUCLEUS = Layout(
    family="nucleus",
    title="Nucleus-Image",
    transformer=f"{_MODELS}transformer_nucleusmoe_image.NucleusMoEImageTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BNC", grid="shapes", source="img_shapes"),
    timestep=Timestep(scale=0.001, embedding="time_text_embed"),
    modulation=Modulation("per_block", "img_mod.1", SCALE_GATE),
    pipelines=(
        Pipeline(
            "NucleusMoEImagePipeline",
            Guidance(
                batched=False,
                rows=("cond", "uncond"),
                linear=False,
                flag="do_cfg",
                why="every token of the result is brought to the conditional prediction's norm",
            ),
        ),
    ),
    row_lists=("img_shapes",),
)

LATTE = Layout(
    family="latte",
    title="Latte",
    transformer=f"{_MODELS}latte_transformer_3d.LatteTransformer3DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=None, axes="(BF)NC"),
        Stack("temporal_transformer_blocks", hidden_output=None, axes="(BN)FC"),
    ),
    latents=Latents("BCFHW"),
    timestep=Timestep(embedding="adaln_single", output=1),
    modulation=_SINGLE,
    pipelines=(Pipeline("LattePipeline", _UNCOND_FIRST),),
    alternating=True,
    handed_on=False,
    causal_time=1,
)

ROWS: tuple[Layout, ...] = (PIXART, DIT, SANA, HUNYUAN_DIT, PRX, LUMINA, NUCLEUS, LATTE)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
