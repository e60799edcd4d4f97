"""Sana-WM: one video at a time, from an image and the path of a camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SanaWMPipeline, SanaWMTransformer3DModel

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, picture, redrawn, rows, seeded
from tests.families.video_ltx_2 import CHANNELS, vae

TEXT = 12


def transformer() -> SanaWMTransformer3DModel:
    """Three blocks of width 32, the second with softmax attention."""
    model = SanaWMTransformer3DModel(
        in_channels=CHANNELS,
        num_layers=3,
        hidden_size=32,
        num_attention_heads=2,
        linear_head_dim=16,
        softmax_every_n=2,
        caption_channels=TEXT,
        mlp_ratio=2.0,
        chunk_plucker_channels=48,
        chunk_plucker_post_attn_blocks=3,
        image_size=64,
    )
    return redrawn(model).eval()


def build() -> Any:
    """The pipeline without its text encoder."""
    pipe = SanaWMPipeline(
        transformer=seeded(transformer),
        vae=seeded(vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0),
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of a Gemma with their masks, for the prompt and for the empty prompt; image, camera and lens."""
    camera = np.tile(np.eye(4, dtype=np.float32), (32, 1, 1))
    camera[:, 2, 3] = np.linspace(0, 1, 32)
    return {
        "prompt": prompts[0],
        "prompt_embeds": rows(prompts, 1, 5, TEXT),
        "prompt_attention_mask": mask(prompts),
        "negative_prompt_embeds": rows([""], 1, 5, TEXT),
        "negative_prompt_attention_mask": mask([""]),
        "image": picture(64, 96),
        "c2w": camera,
        "intrinsics": [50.0, 50.0, 48.0, 32.0],
    }


def state(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """All of it: text comes in by cross-attention."""
    return output


FAMILIES: tuple[Family, ...] = (
    Family(
        name="sana-wm",
        transformer="diffusers.models.transformers.transformer_sana_wm.SanaWMTransformer3DModel",
        build=build,
        encode=encode,
        image={"blocks": state},
        calls=(
            Call({"height": 64, "width": 96, "num_frames": 9}, (2, 2, 3)),
            Call({"height": 160, "width": 32, "num_frames": 17}, (3, 5, 1)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        rows=("uncond", "cond"),
        # The pipeline turns the sign, and has tokens before channels.
        combine=lambda cond, uncond, scale: -(uncond + scale * (cond - uncond)).flatten(2).transpose(1, 2),
        batch=1,
        remark="frame 0 is the image's, with timestep 0; every other frame has the step's",
    ),
)
