"""LTX-2, Motif-Video, Sana-Video, Kandinsky 6, and the video models that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Absent, Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX
from workbench.models.rows.video_other import BATCHED, GUIDER, NINE, PATCHED, SINGLE

_MODELS = "diffusers.models.transformers."

#: Shift, scale and gate of the cross-attention with the text, which come last here.
_OF_TEXT = ("shift_mca", "scale_mca", "gate_mca")

_WITH_SOUND = Guidance(
    batched=True,
    rows=("uncond", "cond"),
    linear=False,
    why="unless told not to, it adds the differences to two further predictions and rescales the sum",
)

#: Two more a step otherwise: one without attention in some blocks, one with video and sound kept apart.
_NO_MORE_CALLS = (
    ("stg_scale", 0.0),
    ("audio_stg_scale", 0.0),
    ("modality_scale", 1.0),
    ("audio_modality_scale", 1.0),
)

LTX_2 = Layout(
    family="ltx2",
    title="LTX-2",
    transformer=f"{_MODELS}transformer_ltx2.LTX2VideoTransformer3DModel",
    # (video, sound); what the attention between the two is modulated with is not recorded.
    stacks=(Stack("transformer_blocks", hidden_output=0),),
    latents=Latents("BNC", grid="arguments", source="num_frames height width", patch=PATCHED),
    timestep=Timestep(embedding="time_embed", output=1),
    modulation=Modulation(
        "shared_table", "time_embed.linear", SIX, argument="temb", table="scale_shift_table", beyond=_OF_TEXT
    ),
    pipelines=(
        Pipeline("LTX2Pipeline", _WITH_SOUND, settings=_NO_MORE_CALLS),
        # Timestep 0 for the tokens of the first frame.
        Pipeline(
            "LTX2ImageToVideoPipeline", _WITH_SOUND, condition="image", token_timesteps=True, settings=_NO_MORE_CALLS
        ),
    ),
    causal_time=8,
)

MOTIF = Layout(
    family="motif-video",
    title="Motif-Video",
    transformer=f"{_MODELS}transformer_motif_video.MotifVideoTransformer3DModel",
    stacks=(
        Stack("transformer_blocks", hidden_output=0),
        # The last num_decoder_layers of them begin anew with the embedded latents, and what the ones before them left
        # stands where the text stood.
        Stack("single_transformer_blocks", hidden_output=0, modulation=SINGLE),
    ),
    latents=Latents("BCFHW", patch=PATCHED, noisy="out_channels"),
    timestep=Timestep(embedding="time_text_embed"),
    modulation=Modulation("per_block", "norm1.linear", SIX),
    pipelines=(
        Pipeline("MotifVideoPipeline", GUIDER),
        Pipeline("MotifVideoImage2VideoPipeline", GUIDER, condition="image"),
    ),
    handed_on=False,
    causal_time=4,
)

_OWN_SIZE = (("use_resolution_binning", False),)

SANA_VIDEO = Layout(
    family="sana-video",
    title="Sana-Video",
    transformer=f"{_MODELS}transformer_sana_video.SanaVideoTransformer3DModel",
    stacks=(Stack("transformer_blocks", hidden_output=None),),
    latents=Latents("BCFHW", patch=("patch_size.0", "patch_size.1", "patch_size.2")),
    timestep=Timestep(embedding="time_embed", output=1),
    modulation=Modulation("shared_table", "time_embed.linear", SIX, argument="timestep", table="scale_shift_table"),
    pipelines=(
        Pipeline("SanaVideoPipeline", BATCHED, frames="frames", settings=_OWN_SIZE),
        # Timestep 0 for the tokens of the first frame.
        Pipeline(
            "SanaImageToVideoPipeline",
            BATCHED,
            condition="image",
            frames="frames",
            token_timesteps=True,
            settings=_OWN_SIZE,
        ),
    ),
    absent=(Absent("controlnet_block_samples", "a ControlNet adds to the states between the blocks"),),
    causal_time=4,
)

KANDINSKY_6 = Layout(
    family="kandinsky6",
    title="Kandinsky 6",
    transformer=f"{_MODELS}transformer_kandinsky6.Kandinsky6Transformer3DModel",
    # (video, sound)
    stacks=(Stack("visual_transformer_blocks", hidden_output=0, argument="vis"),),
    latents=Latents("BFHWC", patch=("patch_size.0", "patch_size.1", "patch_size.2"), noisy="in_visual_dim"),
    # The embedding is the sum of two modules' outputs, of the timestep's and of the pooled text's.
    timestep=Timestep(),
    modulation=Modulation("per_block", "video_dec_block.visual_modulation.out_layer", NINE),
    pipelines=(Pipeline("Kandinsky6TI2VAPipeline", Guidance(batched=False, rows=("cond", "uncond"), named=True)),),
    width=("model_dim",),
    absent=(
        Absent(
            "visual_token_type_ids", "the image that the video is to begin with is appended as one more frame of tokens"
        ),
    ),
    causal_time=4,
)

SANA_WM = Layout(
    family="sana-wm",
    title="Sana-WM",
    transformer=f"{_MODELS}transformer_sana_wm.SanaWMTransformer3DModel",
    stacks=(Stack("blocks", hidden_output=None, argument="x"),),
    latents=Latents("BCFHW", patch=("patch_size.0", "patch_size.1", "patch_size.2")),
    timestep=Timestep(embedding="t_embedder"),
    modulation=Modulation("shared_table", "t_block.1", SIX, argument="t", table="scale_shift_table"),
    # One timestep a frame, (B, 1, F): that of the image, which is frame 0, is 0.
    pipelines=(Pipeline("SanaWMPipeline", BATCHED, condition="image", token_timesteps=True),),
    width=("hidden_size",),
    causal_time=8,
)

COSMOS_3 = Layout(
    family="cosmos3",
    title="Cosmos 3",
    transformer=f"{_MODELS}transformer_cosmos3.Cosmos3OmniTransformer",
    # (text, video and then sound and actions); the layers attend to both.
    stacks=(Stack("layers", hidden_output=1, image="first", argument="gen_seq", axes="NC"),),
    latents=Latents(
        "[1CFHW]",
        "vision_tokens",
        grid="shapes",
        source="vision_token_shapes",
        patch=("1", "latent_patch_size", "latent_patch_size"),
    ),
    timestep=Timestep("vision_timesteps"),
    modulation=Modulation("none", why="the embedding of the timestep is added to the noisy tokens"),
    pipelines=(Pipeline("Cosmos3OmniPipeline", Guidance(batched=False, rows=("cond", "uncond"), named=True)),),
    handed_on=False,
    width=("hidden_size",),
    causal_time=4,
)

ROWS: tuple[Layout, ...] = (LTX_2, MOTIF, SANA_VIDEO, KANDINSKY_6, SANA_WM, COSMOS_3)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        # Built and called: a change at frame 1, row 3, column 12 of a grid (2, 8, 16) shows at token 220 of the state, not 188.
        f"{_MODELS}transformer_kandinsky6_sr.Kandinsky6SRTransformer3DModel": (
            "its tokens are not in raster order but in squares of 8 by 8, and its pipeline enlarges a given video tile by tile, "
            "each with a denoising of its own"
        ),
        # Built; SanaWMLTX2Refiner takes the latents that Sana-WM made.
        f"{_MODELS}transformer_sana_wm_refiner.SanaWMLTX2RefinerTransformer3DModel": (
            "it refines a video that another model made, three latent frames after the other, each with a denoising of its own "
            "and with further calls that only fill a cache of keys and values"
        ),
        # Only MiniMaxH3ModularPipeline has it.
        f"{_MODELS}transformer_minimax_h3.MiniMaxH3Transformer3DModel": (
            "diffusers has no stock pipeline for it, only modular blocks"
        ),
    }
)
