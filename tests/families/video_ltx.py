"""LTX-Video: text to video and image to video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, picture, rows, seeded

TEXT, CHANNELS = 12, 8


def vae() -> AutoencoderKLLTXVideo:
    """×32 in space, ×8 in time; latent frame 0 is one frame of pixels."""
    return AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )


def transformer() -> LTXVideoTransformer3DModel:
    """Three blocks of width 16."""
    return LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=3,
        caption_channels=TEXT,
    ).eval()


def build(pipeline: Any) -> Any:
    """The pipeline without its text encoder."""
    pipe = pipeline(
        transformer=seeded(transformer),
        vae=seeded(vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str], *, image: bool = False) -> Arguments:
    """Embeddings of a T5 with their masks, for the prompts and for the empty prompt; and an image for every prompt."""
    empty = [""] * len(prompts)
    return {
        **({"image": [picture(64, 96) for _ in prompts]} if image else {}),
        "prompt_embeds": rows(prompts, 5, TEXT),
        "prompt_attention_mask": mask(prompts),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_prompt_attention_mask": mask(empty),
    }


def state(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """All of it: text comes in by cross-attention."""
    return output


def _family(name: str, pipeline: Any, *, image: bool, remark: str) -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_ltx.LTXVideoTransformer3DModel",
        build=partial(build, pipeline),
        encode=partial(encode, image=image),
        image={"transformer_blocks": state},
        calls=(
            Call({"height": 64, "width": 96, "num_frames": 9}, (2, 2, 3)),
            Call({"height": 160, "width": 32, "num_frames": 17}, (3, 5, 1)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        rows=("uncond", "cond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        remark=remark,
    )


FAMILIES: tuple[Family, ...] = (
    _family("ltx", LTXPipeline, image=False, remark="guidance_rescale > 0 is not linear"),
    _family(
        "ltx-i2v",
        LTXImageToVideoPipeline,
        image=True,
        remark="the tokens of frame 0 have timestep 0, and are not stepped",
    ),
)
