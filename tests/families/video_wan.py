"""Wan 2.1 and 2.2: text, image and video to video, two experts, a timestep for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tests.families.base import Arguments, Call, Family
from tests.families.parts import picture, rows, seeded, wan_vae

TEXT = 20
SIZES = (
    Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
    Call({"height": 48, "width": 16, "num_frames": 9}, (3, 3, 1)),
)
_PATH = "diffusers.models.transformers.transformer_wan.WanTransformer3DModel"


def transformer_config(**config: Any) -> dict[str, Any]:
    """Arguments of `WanTransformer3DModel`, and of the classes that were made from it."""
    return {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": TEXT,
        "freq_dim": 32,
        "ffn_dim": 48,
        "num_layers": 3,
        "rope_max_seq_len": 32,
        **config,
    }


def encode(prompts: Sequence[str]) -> Arguments:
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "negative_prompt_embeds": rows([""] * len(prompts), 5, TEXT),
    }


def encode_with_image(prompts: Sequence[str]) -> Arguments:
    return {**encode(prompts), "image": picture(32, 48)}


def encode_with_video(prompts: Sequence[str]) -> Arguments:
    """Five frames at the size of the first call; the pipeline scales them to the size it is asked for."""
    return {**encode(prompts), "video": [picture(32, 48, seed=i) for i in range(5)]}


def encode_with_videos(prompts: Sequence[str]) -> Arguments:
    """The same, once for every prompt."""
    video = encode_with_video(prompts)["video"]
    return {**encode(prompts), "video": [video] * len(prompts)}


def whole(output: Any, arguments: Arguments) -> torch.Tensor:
    """The block returns the video tokens and nothing else."""
    tokens: torch.Tensor = output
    return tokens


def combine(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    return uncond + scale * (cond - uncond)


def image_encoder() -> dict[str, Any]:
    """The CLIP of the image that Wan 2.1 attends to: 16 + 1 tokens of width 16."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=2
    )
    size = {"height": 8, "width": 8}
    return {
        "image_encoder": CLIPVisionModel(config).eval(),
        "image_processor": CLIPImageProcessorPil(size=size, crop_size=size),
    }


def build(
    pipeline: str = "WanPipeline", *, experts: int = 1, clip: bool = False, in_channels: int = 16, **settings: Any
) -> Any:
    import diffusers

    images = pipeline == "WanImageToVideoPipeline"
    config = transformer_config(in_channels=in_channels)
    if images and not settings.get("expand_timesteps"):
        # Noise, then a mask of as many frames as a latent holds, then the image's latents.
        config["in_channels"] = 16 + 4 + 16
    if clip:
        config.update(image_dim=16, added_kv_proj_dim=24)
    names = ("transformer", "transformer_2")[:experts]
    pipe = getattr(diffusers, pipeline)(
        **{n: seeded(lambda: diffusers.WanTransformer3DModel(**config), seed).eval() for seed, n in enumerate(names)},
        **(seeded(image_encoder) if clip else {}),
        vae=seeded(wan_vae).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=None,
        tokenizer=None,
        **settings,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def family(name: str, builder: Any, encoder: Any = encode, calls: Any = SIZES, remark: str = "", **more: Any) -> Family:
    """All of Wan's pipelines: two calls a step, the conditional one first."""
    return Family(
        **{
            "name": name,
            "transformer": _PATH,
            "build": builder,
            "encode": encoder,
            "image": {"blocks": whole},
            "calls": calls,
            "guided": {"guidance_scale": 4.0},
            "plain": {"guidance_scale": 1.0},
            "calls_per_step": (2, 1),
            "rows": ("cond", "uncond"),
            "combine": combine,
            "remark": remark,
            **more,
        }
    )


FAMILIES: tuple[Family, ...] = (
    family("wan", build),
    family(
        "wan-i2v",
        lambda: build("WanImageToVideoPipeline", clip=True),
        encode_with_image,
        remark="Wan 2.1: the transformer is given noise, mask and the image's latents (36 channels), and CLIP's tokens.",
    ),
    family(
        "wan-v2v",
        lambda: build("WanVideoToVideoPipeline"),
        encode_with_video,
        # The frames come with the video.
        calls=(Call({"height": 32, "width": 48}, (2, 2, 3)), Call({"height": 48, "width": 16}, (2, 3, 1))),
        guided={"guidance_scale": 4.0, "strength": 1.0},
        plain={"guidance_scale": 1.0, "strength": 1.0},
        remark="Opens no cache_context. At strength s it takes int(s · num_inference_steps) steps.",
    ),
    family(
        "wan-lucy",
        lambda: build("LucyEditPipeline", in_channels=32),
        encode_with_videos,
        remark="Channels: noise, then the video's latents.",
        # The video is not made longer or shorter.
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
            Call({"height": 48, "width": 16, "num_frames": 5}, (2, 3, 1)),
        ),
    ),
    family(
        "wan-two-experts",
        lambda: build(experts=2, boundary_ratio=0.875),
        guided={"guidance_scale": 4.0, "guidance_scale_2": 4.0},
        remark="Wan 2.2 A14B: step 0 of 2 (t = 1000) is transformer's, step 1 (t = 9) is transformer_2's.",
    ),
    family(
        "wan-i2v-two-experts",
        lambda: build("WanImageToVideoPipeline", experts=2, boundary_ratio=0.875),
        encode_with_image,
        remark="Wan 2.2 I2V-A14B: 36 channels, without CLIP.",
    ),
    family(
        "wan-ti2v",
        lambda: build(expand_timesteps=True),
        remark="Wan 2.2 TI2V: timestep (B, F·H·W), every token's the same without an image.",
    ),
    family(
        "wan-ti2v-image",
        lambda: build("WanImageToVideoPipeline", expand_timesteps=True),
        encode_with_image,
        remark="Wan 2.2 TI2V with an image: frame 0 is the image's latents, its tokens' timestep is 0.",
    ),
)
