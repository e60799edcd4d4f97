"""LTX-2: text, or text and image, to video with sound."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, picture, rows, seeded

TEXT, CHANNELS = 16, 8


def vae() -> AutoencoderKLLTX2Video:
    """×32 in space, ×8 in time; latent frame 0 is one frame of pixels."""
    return AutoencoderKLLTX2Video(
        latent_channels=CHANNELS,
        block_out_channels=(4, 8, 8, 8),
        decoder_block_out_channels=(4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )


def audio_vae() -> AutoencoderKLLTX2Audio:
    """2 channels, 8 mel bins: 2 of latents."""
    return AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1, 1, 1),
        num_res_blocks=1,
        latent_channels=2,
        mel_bins=8,
    )


def transformer() -> LTX2VideoTransformer3DModel:
    """Three blocks: video of width 24, sound of width 16."""
    return LTX2VideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=3,
        caption_channels=TEXT,
    ).eval()


def connectors() -> LTX2TextConnectors:
    """One layer each for video and sound."""
    return LTX2TextConnectors(
        caption_channels=TEXT,
        text_proj_in_factor=2,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
    ).eval()


def vocoder() -> LTX2Vocoder:
    """For 2 channels of 8 mel bins."""
    return LTX2Vocoder(
        in_channels=16,
        hidden_channels=8,
        upsample_kernel_sizes=[4],
        upsample_factors=[2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
    ).eval()


def build(kind: Any) -> Any:
    """A pipeline without its text encoder."""
    pipe = kind(
        transformer=seeded(transformer),
        connectors=seeded(connectors),
        vae=seeded(vae).eval(),
        audio_vae=seeded(audio_vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
        vocoder=seeded(vocoder),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """States of two layers of a Gemma with their masks, for the prompts and for the empty prompt."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 8, TEXT * 2),
        "prompt_attention_mask": mask(prompts, 8),
        "negative_prompt_embeds": rows(empty, 8, TEXT * 2),
        "negative_prompt_attention_mask": mask(empty, 8),
    }


def encode_image(prompts: Sequence[str]) -> Arguments:
    """As `encode`, and an image for every prompt, as it is (a pipeline may compress it first)."""
    return {**encode(prompts), "image": [picture(64, 96) for _ in prompts], "image_crf": 0}


def video(output: Any, _: Arguments) -> torch.Tensor:
    """The video of (video, sound)."""
    return output[0]


def _family(name: str, kind: Any, encode: Any) -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_ltx2.LTX2VideoTransformer3DModel",
        build=partial(build, kind),
        encode=encode,
        image={"transformer_blocks": video},
        calls=(
            Call({"height": 64, "width": 96, "num_frames": 9}, (2, 2, 3)),
            Call({"height": 160, "width": 32, "num_frames": 17}, (3, 5, 1)),
        ),
        guided={"guidance_scale": 3.0, "audio_guidance_scale": 3.0},
        plain={"guidance_scale": 1.0, "audio_guidance_scale": 1.0},
        calls_per_step=(1, 1),
        rows=("uncond", "cond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        # By default two more calls a step, of the prompts alone: one with attention of block 28 passed over (STG), one with
        # video and sound kept apart; and the result is rescaled.
        extra={
            "stg_scale": 0.0,
            "audio_stg_scale": 0.0,
            "modality_scale": 1.0,
            "audio_modality_scale": 1.0,
            "guidance_rescale": 0.0,
            "audio_guidance_rescale": 0.0,
            "frame_rate": 8.0,
        },
        remark="combined as clean videos, which is the same for the predictions",
    )


FAMILIES: tuple[Family, ...] = (
    _family("ltx2", LTX2Pipeline, encode),
    # The tokens of frame 0 have timestep 0, and are not stepped.
    _family("ltx2-i2v", LTX2ImageToVideoPipeline, encode_image),
)
