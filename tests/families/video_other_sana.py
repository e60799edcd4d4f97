"""Sana-Video: text to video and image to video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SanaImageToVideoPipeline,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, picture, rows, seeded, wan_vae

TEXT, CHANNELS = 12, 4


def transformer() -> SanaVideoTransformer3DModel:
    """Three blocks of width 24."""
    return SanaVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=TEXT,
        rope_max_seq_len=32,
    ).eval()


def build(kind: Any) -> Any:
    """A pipeline without its text encoder."""
    pipe = kind(
        transformer=seeded(transformer),
        vae=seeded(lambda: wan_vae(CHANNELS)).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0),
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of a Gemma with their masks, for the prompts and for the empty prompt."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "prompt_attention_mask": mask(prompts),
        # Its default is the empty prompt, which the pipeline refuses beside embeddings.
        "negative_prompt": None,
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_prompt_attention_mask": mask(empty),
    }


def encode_image(prompts: Sequence[str]) -> Arguments:
    """As `encode`, and one image for all prompts."""
    return {**encode(prompts), "image": picture(32, 64)}


def state(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """All of it: text comes in by cross-attention."""
    return output


def _family(name: str, kind: Any, encode: Any, remark: str) -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_sana_video.SanaVideoTransformer3DModel",
        build=partial(build, kind),
        encode=encode,
        image={"transformer_blocks": state},
        calls=(
            Call({"height": 32, "width": 64, "frames": 5}, (2, 2, 4)),
            Call({"height": 96, "width": 32, "frames": 9}, (3, 6, 2)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        rows=("uncond", "cond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        # It rounds sizes to a list of large ones unless told not to.
        extra={"use_resolution_binning": False},
        remark=remark,
    )


FAMILIES: tuple[Family, ...] = (
    _family(
        "sana-video",
        SanaVideoPipeline,
        encode,
        "the number of frames is the argument `frames`; sizes are multiples of 32, so rows and columns are even",
    ),
    _family(
        "sana-video-i2v",
        SanaImageToVideoPipeline,
        encode_image,
        "every token has a timestep, which is 0 for those of frame 0; frame 0 is not stepped",
    ),
)
