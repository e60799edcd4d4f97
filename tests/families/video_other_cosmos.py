"""Cosmos 1: text to video.

`concat_padding_mask` is off: with it, the transformer resizes the mask with torchvision, which the tests do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLCosmos, CosmosTextToWorldPipeline, CosmosTransformer3DModel, EDMEulerScheduler

from tests.families.base import Arguments, Call, Family
from tests.families.parts import rows, seeded

TEXT, CHANNELS = 12, 4


class Harmless(torch.nn.Module):
    """In place of the guardrail, a package of its own without which the pipeline can't be made; finds nothing."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def vae() -> AutoencoderKLCosmos:
    """×8 in space, ×8 in time; latent frame 0 is one frame of pixels."""
    return AutoencoderKLCosmos(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(),
        resolution=64,
        num_layers=1,
        latents_mean=None,
        latents_std=None,
    )


def transformer() -> CosmosTransformer3DModel:
    """Three blocks of width 36."""
    return CosmosTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=18,
        num_layers=3,
        text_embed_dim=TEXT,
        adaln_lora_dim=4,
        max_size=(8, 32, 32),
        concat_padding_mask=False,
    ).eval()


def build() -> Any:
    """The pipeline without its text encoder."""
    pipe = CosmosTextToWorldPipeline(
        transformer=seeded(transformer),
        vae=seeded(vae).eval(),
        scheduler=EDMEulerScheduler(sigma_max=80.0, sigma_data=0.5, final_sigmas_type="sigma_min"),
        text_encoder=None,
        tokenizer=None,
        safety_checker=Harmless(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of a T5, for the prompts and for the empty prompt."""
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "negative_prompt_embeds": rows([""] * len(prompts), 5, TEXT),
    }


def state(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """All of it: text comes in by cross-attention."""
    return output


FAMILIES: tuple[Family, ...] = (
    Family(
        name="cosmos",
        transformer="diffusers.models.transformers.transformer_cosmos.CosmosTransformer3DModel",
        build=build,
        encode=encode,
        image={"transformer_blocks": state},
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 9}, (2, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 17}, (3, 5, 1)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=lambda cond, uncond, scale: cond + scale * (cond - uncond),
        scheduler_calls=2,
        remark="combined as clean videos, which the scheduler makes of both predictions with the same coefficients: the "
        "formula holds for the predictions too; the gain is 1 + guidance_scale",
    ),
)
