"""CogVideoX 1.0 and 1.5, ConsisID: video and text tokens attend to each other as one sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.parts import picture, rows, seeded

TEXT, WORDS = 24, 5
#: Of ConsisID: width of the face embedding, of the ViT's states, and how many of them.
FACE, VIT, SCALES = 12, 16, 2


def encode(prompts: Sequence[str]) -> Arguments:
    return {
        "prompt_embeds": rows(prompts, WORDS, TEXT),
        "negative_prompt_embeds": rows([""] * len(prompts), WORDS, TEXT),
    }


def encode_images(prompts: Sequence[str]) -> Arguments:
    return {**encode(prompts), "image": [picture(32, 48)] * len(prompts)}


def encode_video(prompts: Sequence[str]) -> Arguments:
    """Five frames a prompt."""
    return {**encode(prompts), "video": [[picture(32, 48, seed=i) for i in range(5)]] * len(prompts)}


def encode_control(prompts: Sequence[str]) -> Arguments:
    return {**encode(prompts), "control_video": encode_video(prompts)["video"]}


def encode_face(prompts: Sequence[str]) -> Arguments:
    """An image a prompt, and what a face encoder would find in them."""
    return {
        **encode_images(prompts),
        "id_cond": rows(["face"] * 1, FACE),
        "id_vit_hidden": [rows(["face"] * 1, 4, VIT, seed=i) for i in range(SCALES)],
    }


def first_of_two(output: Any, arguments: Arguments) -> torch.Tensor:
    """The block returns (video, text)."""
    video, _ = output
    return video  # type: ignore[no-any-return]


def combine(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    return uncond + scale * (cond - uncond)


def cog_vae() -> Any:
    """×8 in space, ×4 in time, 4 channels; latent frame 0 is one frame of pixels."""
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )


def cog_transformer(**config: Any) -> Any:
    return diffusers.CogVideoXTransformer3DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 12,
            "text_embed_dim": TEXT,
            "num_layers": 3,
            "sample_width": 6,
            "sample_height": 6,
            "sample_frames": 5,
            "max_text_seq_length": WORDS,
            **config,
        }
    )


def finished(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_cog(pipeline: str = "CogVideoXPipeline", **config: Any) -> Any:
    return finished(
        getattr(diffusers, pipeline)(
            transformer=seeded(lambda: cog_transformer(**config)).eval(),
            vae=seeded(cog_vae).eval(),
            scheduler=diffusers.CogVideoXDDIMScheduler(),
            text_encoder=None,
            tokenizer=None,
        )
    )


def build_consisid() -> Any:
    # Not `diffusers.ConsisIDPipeline`: without OpenCV, which only drawing key points needs, that is a placeholder.
    from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline

    transformer = seeded(
        lambda: diffusers.ConsisIDTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=24,
            in_channels=8,
            out_channels=4,
            time_embed_dim=12,
            text_embed_dim=TEXT,
            num_layers=4,
            sample_width=6,
            sample_height=6,
            sample_frames=5,
            max_text_seq_length=WORDS,
            is_train_face=True,
            cross_attn_interval=2,
            cross_attn_dim_head=8,
            cross_attn_num_heads=2,
            LFE_id_dim=FACE,
            LFE_vit_dim=VIT,
            LFE_depth=SCALES,
            LFE_dim_head=8,
            LFE_num_heads=2,
            LFE_num_id_token=2,
            LFE_num_querie=3,
            LFE_output_dim=32,
            LFE_ff_mult=2,
            LFE_num_scale=SCALES,
        )
    )
    return finished(
        ConsisIDPipeline(
            transformer=transformer.eval(),
            vae=seeded(cog_vae).eval(),
            scheduler=diffusers.CogVideoXDDIMScheduler(),
            text_encoder=None,
            tokenizer=None,
        )
    )


SIZES = (
    Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
    Call({"height": 48, "width": 16, "num_frames": 9}, (3, 3, 1)),
)
#: The same with two latent frames a token.
_PAIRED = (
    Call({"height": 32, "width": 48, "num_frames": 5}, (1, 2, 3)),
    Call({"height": 48, "width": 16, "num_frames": 9}, (2, 3, 1)),
)
#: Where the frames come with a video.
_GIVEN = (Call({"height": 32, "width": 48}, (2, 2, 3)), Call({"height": 48, "width": 16}, (2, 3, 1)))
_MODELS = "diffusers.models.transformers."
_COG = f"{_MODELS}cogvideox_transformer_3d.CogVideoXTransformer3DModel"


def family(name: str, transformer: str, build: Callable[[], Any], remark: str = "", **more: Any) -> Family:
    """All of them: one call a step, the unconditional rows first."""
    return Family(
        **{
            "name": name,
            "transformer": transformer,
            "build": build,
            "encode": encode,
            "image": {"transformer_blocks": first_of_two},
            "calls": SIZES,
            "guided": {"guidance_scale": 4.0},
            "plain": {"guidance_scale": 1.0},
            "calls_per_step": (1, 1),
            "combine": combine,
            "remark": remark,
            **more,
        }
    )


FAMILIES: tuple[Family, ...] = (
    family("cogvideox", _COG, build_cog, "2B: places are added to the tokens (sine and cosine)."),
    family(
        "cogvideox-rotary",
        _COG,
        lambda: build_cog(use_rotary_positional_embeddings=True),
        "5B: rotary embedding, which the pipeline makes.",
    ),
    family(
        "cogvideox-1.5",
        _COG,
        lambda: build_cog(patch_size_t=2, use_rotary_positional_embeddings=True, patch_bias=False),
        "Two latent frames a token. 9 frames are 3 latent ones, which the pipeline makes 4 by one more in front: half of "
        "token frame 0 is padding that it cuts off afterwards.",
        calls=_PAIRED,
    ),
    family(
        "cogvideox-i2v",
        _COG,
        lambda: build_cog("CogVideoXImageToVideoPipeline", in_channels=8, use_rotary_positional_embeddings=True),
        "Channels: noise, then the image's latents (frame 0 only).",
        encode=encode_images,
    ),
    family(
        "cogvideox-1.5-i2v",
        _COG,
        lambda: build_cog(
            "CogVideoXImageToVideoPipeline",
            in_channels=8,
            patch_size_t=2,
            use_rotary_positional_embeddings=True,
            patch_bias=False,
            ofs_embed_dim=12,
        ),
        "temb is the timestep's embedding and a constant one (ofs).",
        encode=encode_images,
        calls=_PAIRED,
    ),
    family(
        "cogvideox-v2v",
        _COG,
        lambda: build_cog("CogVideoXVideoToVideoPipeline"),
        encode=encode_video,
        calls=_GIVEN,
        guided={"guidance_scale": 4.0, "strength": 1.0},
        plain={"guidance_scale": 1.0, "strength": 1.0},
    ),
    family(
        "cogvideox-control",
        _COG,
        lambda: build_cog("CogVideoXFunControlPipeline", in_channels=8),
        "Channels: noise, then the control video's latents.",
        encode=encode_control,
        calls=_GIVEN,
    ),
    family(
        "consisid",
        f"{_MODELS}consisid_transformer_3d.ConsisIDTransformer3DModel",
        build_consisid,
        "Channels: noise, then the image's latents (frame 0 only). After every second block the face is attended to.",
        encode=encode_face,
    ),
)
