"""HunyuanVideo Framepack: a video in sections; history frames stand before the section's own in the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
)
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.families.base import Arguments, Call, Family
from tests.families.parts import hunyuan_vae, picture, seeded
from tests.families.video_hunyuan import CHANNELS, POOLED, TEXT
from tests.families.video_hunyuan import encode as encode_text

IMAGE = 8


def transformer() -> HunyuanVideoFramepackTransformer3DModel:
    """Two double and two single blocks of width 20."""
    return HunyuanVideoFramepackTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=TEXT,
        pooled_projection_dim=POOLED,
        rope_axes_dim=(2, 4, 4),
        has_image_proj=True,
        image_proj_dim=IMAGE,
        has_clean_x_embedder=True,
    ).eval()


def image_encoder() -> SiglipVisionModel:
    """One layer, four tokens an image."""
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=IMAGE,
            intermediate_size=IMAGE,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
    )


def build() -> Any:
    """The pipeline without its text encoders; it needs the image encoder."""
    pipe = HunyuanVideoFramepackPipeline(
        transformer=seeded(transformer),
        vae=seeded(hunyuan_vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        image_encoder=seeded(image_encoder).eval(),
        feature_extractor=SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """As HunyuanVideo's, and an image for every prompt."""
    return {**encode_text(prompts), "image": [picture(32, 32) for _ in prompts]}


def section(output: Any, arguments: Arguments) -> torch.Tensor:
    """The video of (video, text) without the history before it."""
    _, _, frames, height, width = arguments["hidden_states"].shape
    return output[0][:, -frames * (height // 2) * (width // 2) :]


FAMILIES: tuple[Family, ...] = (
    Family(
        name="hunyuanvideo-framepack",
        transformer="diffusers.models.transformers.transformer_hunyuan_video_framepack."
        "HunyuanVideoFramepackTransformer3DModel",
        build=build,
        encode=encode,
        image={"transformer_blocks": section, "single_transformer_blocks": section},
        # As many frames as latent_window_size latent frames stand for: one section.
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5, "latent_window_size": 2}, (2, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 9, "latent_window_size": 3}, (3, 5, 1)),
        ),
        guided={"true_cfg_scale": 3.0, "guidance_scale": 6.0},
        plain={"guidance_scale": 6.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        remark="the number of sections follows from num_frames; every section runs all steps, and frame 0 of the "
        "sequence is not frame 0 of the video",
    ),
)
