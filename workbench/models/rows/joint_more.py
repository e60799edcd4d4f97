"""Further image models in which text and image tokens attend to each other as one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Absent, Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

#: Packed by the pipeline.
_PACKED = Latents("BNC", grid="ids", source="img_ids")
#: Arguments with the tokens' places, which are those of all rows.
_PLACES = ("img_ids", "txt_ids")
_SIX = Modulation("per_block", "norm1.linear", SIX)
#: One shift, scale and gate, of attention and feed-forward together (and of the text tokens as well).
_THREE = Modulation("per_block", "norm.linear", SIX[:3])
#: Every term of the image is followed by the text's.
_ALTERNATING = tuple(name for term in SIX for name in (term, f"text_{term}"))

_NORMED = Guidance(
    batched=False,
    rows=("cond", "uncond"),
    linear=False,
    scale="true_cfg_scale",
    flag="do_true_cfg",
    named=True,
    why="every token of the result is brought to the conditional prediction's norm",
)

QWEN = Layout(
    family="qwen-image",
    title="Qwen-Image",
    transformer=f"{_MODELS}transformer_qwenimage.QwenImageTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=1),),
    latents=Latents("BNC", grid="shapes", source="img_shapes"),
    # With zero_cond_t the embeddings of timestep 0 follow, for the tokens of reference images.
    timestep=Timestep(scale=0.001, embedding="time_text_embed", clean_rows=True),
    modulation=Modulation("per_block", "img_mod", SIX),
    pipelines=(
        Pipeline("QwenImagePipeline", _NORMED, scale="guidance_scale"),
        Pipeline("QwenImageImg2ImgPipeline", _NORMED, scale="guidance_scale", condition="image"),
        Pipeline("QwenImageInpaintPipeline", _NORMED, scale="guidance_scale", condition="image and mask"),
    ),
    row_lists=("img_shapes",),
)

QWEN21 = Layout(
    family="qwen-image-2.1",
    title="Qwen-Image 2.1",
    transformer=f"{_MODELS}transformer_qwenimage21.QwenImage21Transformer2DModel",
    # Text, then image; the image alone in the calls for which the text's keys and values are remembered.
    stacks=(Stack("transformer_blocks", hidden_output=None, image="last"),),
    latents=Latents("BNC", grid="shapes", source="img_shapes"),
    # The last row is that of timestep 0, for the text.
    timestep=Timestep(scale=0.001, embedding="time_text_embed", clean_rows=True),
    # The gates go through tanh in the block.
    modulation=Modulation(
        "shared", "modulation", ("scale_msa", "gate_msa", "scale_mlp", "gate_mlp"), argument="modulation"
    ),
    pipelines=(
        Pipeline(
            "QwenImage21Pipeline",
            Guidance(batched=False, rows=("cond", "uncond"), scale="true_cfg_scale", flag="do_true_cfg", named=True),
            unit=32,
        ),
    ),
    row_lists=("img_shapes",),
)

COGVIEW4 = Layout(
    family="cogview4",
    title="CogView4",
    transformer=f"{_MODELS}transformer_cogview4.CogView4Transformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=0),),
    latents=Latents("BCHW", noisy="out_channels"),
    # Of the timestep and the sizes; SiLU follows.
    timestep=Timestep(embedding="time_condition_embed"),
    modulation=Modulation("per_block", "norm1.linear", _ALTERNATING),
    pipelines=(
        Pipeline("CogView4Pipeline", Guidance(batched=False, rows=("cond", "uncond"), named=True)),
        Pipeline(
            "CogView4ControlPipeline", Guidance(batched=False, rows=("cond", "uncond")), condition="control image"
        ),
    ),
)

COGVIEW3_PLUS = Layout(
    family="cogview3-plus",
    title="CogView3+",
    transformer=f"{_MODELS}transformer_cogview3plus.CogView3PlusTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=0),),
    latents=Latents("BCHW"),
    timestep=Timestep(embedding="time_condition_embed"),
    # The text's six follow.
    modulation=Modulation("per_block", "norm1.linear", SIX),
    pipelines=(Pipeline("CogView3PlusPipeline", Guidance(batched=True, rows=("uncond", "cond"))),),
)

GLM = Layout(
    family="glm-image",
    title="GLM-Image",
    transformer=f"{_MODELS}transformer_glm_image.GlmImageTransformer2DModel",
    stacks=(Stack("transformer_blocks", hidden_output=0),),
    latents=Latents("BCHW"),
    timestep=Timestep(offset=-1.0, embedding="time_condition_embed"),
    modulation=Modulation("per_block", "norm1.linear", _ALTERNATING),
    pipelines=(Pipeline("GlmImagePipeline", Guidance(batched=False, rows=("cond", "uncond"))),),
)

HIDREAM = Layout(
    family="hidream",
    title="HiDream-I1",
    transformer=f"{_MODELS}transformer_hidream_image.HiDreamImageTransformer2DModel",
    stacks=(
        # Tokens of an image that is not square are padded to a fixed number; in the single blocks the text comes after that.
        Stack("double_stream_blocks", hidden_output=0, image="first"),
        Stack("single_stream_blocks", hidden_output=None, image="first"),
    ),
    latents=Latents("BCHW"),
    # The pooled text is embedded beside it, and the sum is what the blocks are given.
    timestep=Timestep(argument="timesteps", embedding="t_embedder"),
    modulation=Modulation("per_block", "block.adaLN_modulation", SIX),
    pipelines=(Pipeline("HiDreamImagePipeline", Guidance(batched=True, rows=("uncond", "cond"))),),
    handed_on=False,
    rows_second=("encoder_hidden_states_llama3",),
)

HUNYUAN_IMAGE = Layout(
    family="hunyuan-image",
    title="HunyuanImage 2.1",
    transformer=f"{_MODELS}transformer_hunyuanimage.HunyuanImageTransformer2DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=0),
        Stack("single_transformer_blocks", hidden_output=0, modulation=_THREE),
    ),
    latents=Latents("BCHW", patch=("1", "patch_size.0", "patch_size.1")),
    timestep=Timestep(embedding="time_guidance_embed"),
    modulation=_SIX,
    pipelines=(
        Pipeline(
            "HunyuanImagePipeline",
            Guidance(
                batched=False,
                rows=("cond", "uncond"),
                linear=False,
                scale="",
                named=True,
                why="the pipeline's guider combines the predictions; the one it comes with projects them "
                "(AdaptiveProjectedMixGuidance); give the pipeline the guider `DetailGuidance.from_spec(spec)`",
                guider=True,
            ),
            scale="distilled_guidance_scale",
        ),
    ),
)

BRIA = Layout(
    family="bria",
    title="Bria 3",
    transformer=f"{_MODELS}transformer_bria.BriaTransformer2DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=1),
        Stack("single_transformer_blocks", hidden_output=1, modulation=_THREE),
    ),
    latents=_PACKED,
    timestep=Timestep(embedding="time_embed"),
    modulation=_SIX,
    pipelines=(Pipeline("BriaPipeline", Guidance(batched=True, rows=("uncond", "cond"))),),
    rowless=_PLACES,
)

BRIA_FIBO = Layout(
    family="bria-fibo",
    title="Bria FIBO",
    transformer=f"{_MODELS}transformer_bria_fibo.BriaFiboTransformer2DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=1),
        Stack("single_transformer_blocks", hidden_output=None, image="last", modulation=_THREE),
    ),
    latents=_PACKED,
    timestep=Timestep(embedding="time_embed"),
    modulation=_SIX,
    pipelines=(Pipeline("BriaFiboPipeline", Guidance(batched=True, rows=("uncond", "cond"), flag=""), unit=16),),
    # Before every block, half of the channels of the text tokens are taken from another layer of the text encoder.
    handed_on=False,
    rowless=_PLACES,
)

BRIA_FIBO2 = Layout(
    family="bria-fibo2",
    title="Bria FIBO 2",
    transformer=f"{_MODELS}transformer_bria_fibo2.BriaFibo2Transformer2DModel",
    stacks=(
        Stack("noise_refiner", hidden_output=None, argument="x"),
        # A gist of the text stands before the image.
        Stack("layers", hidden_output=None, image="last", argument="x"),
    ),
    latents=Latents("BCHW"),
    timestep=Timestep(scale=0.001),
    modulation=Modulation(
        "none",
        why="every block calls its projection twice, with the embedding for the image and with that of timestep 0 for the text",
    ),
    pipelines=(Pipeline("BriaFibo2Pipeline", Guidance(batched=False, rows=("cond", "uncond"))),),
    # Some layers attend to further features of the text.
    handed_on=False,
    width=("dim",),
    absent=(
        Absent(
            "encoder_attention_mask",
            "with prompts of different length in one batch the image may stand before the gist of the text, not after it; "
            "run prompt by prompt",
        ),
        Absent("context_latents", "the tokens of reference images follow the image's"),
    ),
)

ROWS: tuple[Layout, ...] = (
    QWEN,
    QWEN21,
    COGVIEW4,
    COGVIEW3_PLUS,
    GLM,
    HIDREAM,
    HUNYUAN_IMAGE,
    BRIA,
    BRIA_FIBO,
    BRIA_FIBO2,
)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
