"""HunyuanVideo: text to video, image to video of both kinds, and SkyReels' image to video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import hunyuan_vae, picture, rows, seeded

TEXT, POOLED, CHANNELS = 12, 8, 4


def transformer(kind: str | None) -> HunyuanVideoTransformer3DModel:
    """Two double and two single blocks; `kind` is the image_condition_type of image-to-video, or ``skyreels``."""
    return HunyuanVideoTransformer3DModel(
        # Noisy latents, latents of the image, and (latent_concat) a mask that says which frames are the image's.
        in_channels={"latent_concat": 2 * CHANNELS + 1, "skyreels": 2 * CHANNELS}.get(kind or "", CHANNELS),
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        # The model of this kind has none.
        guidance_embeds=kind != "latent_concat",
        text_embed_dim=TEXT,
        pooled_projection_dim=POOLED,
        rope_axes_dim=(2, 4, 4),
        image_condition_type=None if kind == "skyreels" else kind,
    ).eval()


def build(kind: str | None) -> Any:
    """The pipeline without its text encoders."""
    parts = {
        "transformer": seeded(lambda: transformer(kind)),
        "vae": seeded(hunyuan_vae).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    }
    if kind is None:
        pipe: Any = HunyuanVideoPipeline(**parts)
    elif kind == "skyreels":
        pipe = HunyuanSkyreelsImageToVideoPipeline(**parts)
    else:
        pipe = HunyuanVideoImageToVideoPipeline(**parts, image_processor=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str], *, image: bool = False) -> Arguments:
    """Embeddings of a Llama and of a CLIP, with all positions valid, for the prompts and for the empty prompt."""
    arguments: Arguments = {}
    for name, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        arguments[f"{name}prompt_embeds"] = rows(texts, 5, TEXT)
        arguments[f"{name}pooled_prompt_embeds"] = rows(texts, POOLED, seed=8)
        arguments[f"{name}prompt_attention_mask"] = torch.ones(len(texts), 5)
    if image:
        # One image a prompt: the pipeline joins their latents with the noise along the channels.
        arguments["image"] = [picture(32, 32) for _ in prompts]
    return arguments


def video(output: Any, _: Arguments) -> torch.Tensor:
    """The video of (video, text)."""
    return output[0]


def _family(name: str, kind: str | None, calls: Sequence[Call], remark: str = "") -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_hunyuan_video.HunyuanVideoTransformer3DModel",
        build=partial(build, kind),
        encode=partial(encode, image=kind is not None),
        image={"transformer_blocks": video, "single_transformer_blocks": video},
        calls=calls,
        guided={"true_cfg_scale": 3.0, "guidance_scale": 6.0},
        plain={"true_cfg_scale": 1.0, "guidance_scale": 6.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        remark=remark,
    )


CALLS = (
    Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
    Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
)

FAMILIES: tuple[Family, ...] = (
    _family("hunyuanvideo", None, CALLS, "guidance_scale is embedded; true_cfg_scale > 1 makes the second call"),
    _family("hunyuanvideo-i2v", "token_replace", CALLS, "frame 0 is the image's, modulated as of timestep 0"),
    _family("hunyuanvideo-i2v-concat", "latent_concat", CALLS, "frame 0 is the image's and is cut off in the end"),
    _family("hunyuanvideo-skyreels", "skyreels", CALLS, "the image's latents come after the noisy ones, in frame 0"),
)
