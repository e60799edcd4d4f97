"""Allegro: text to video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    EulerAncestralDiscreteScheduler,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, rows, seeded

TEXT = 12


def vae() -> AutoencoderKLAllegro:
    """×8 in space, ×4 in time."""
    return AutoencoderKLAllegro(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2)


def transformer() -> AllegroTransformer3DModel:
    """Three blocks of width 24."""
    return AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        cross_attention_dim=24,
        caption_channels=TEXT,
        sample_height=8,
        sample_width=8,
        sample_frames=4,
    ).eval()


def build() -> Any:
    """The pipeline without its text encoder."""
    pipe = AllegroPipeline(
        transformer=seeded(transformer),
        vae=seeded(vae).eval(),
        scheduler=EulerAncestralDiscreteScheduler(beta_start=0.0001, beta_end=0.02),
        text_encoder=None,
        tokenizer=None,
    )
    pipe.vae.enable_tiling()  # it decodes in no other way
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of a T5 with their masks, for the prompts and for the empty prompt."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "prompt_attention_mask": mask(prompts),
        # Its default is the empty prompt, which the pipeline refuses beside embeddings.
        "negative_prompt": None,
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_prompt_attention_mask": mask(empty),
    }


def state(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """All of it: text comes in by cross-attention."""
    return output


FAMILIES: tuple[Family, ...] = (
    Family(
        name="allegro",
        transformer="diffusers.models.transformers.transformer_allegro.AllegroTransformer3DModel",
        build=build,
        encode=encode,
        image={"transformer_blocks": state},
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 8}, (2, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        rows=("uncond", "cond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        remark="an even number of frames is compressed in fours, the first four like all others",
    ),
)
