"""Latte: a block within each frame, then a block along each place, in turn."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.image_plain import GUIDED, MODELS, PLAIN, TEXT, assembled, without_variance
from tests.families.parts import rows, seeded

FRAMES = 3


def build_latte() -> Any:
    """The class adds as many places in time as the config has frames."""
    transformer = seeded(
        lambda: diffusers.LatteTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=16,
            attention_bias=True,
            sample_size=8,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=TEXT,
            video_length=FRAMES,
        ).eval()
    )
    parts = {"vae": None, "text_encoder": None, "tokenizer": None}
    return assembled(diffusers.LattePipeline, transformer=transformer, scheduler=diffusers.DDIMScheduler(), **parts)


def encode(prompts: Any) -> Arguments:
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "negative_prompt_embeds": rows([""] * len(prompts), 5, TEXT),
        "negative_prompt": None,
    }


def within_frames(output: Any, arguments: Arguments) -> torch.Tensor:
    """(B · F, H · W, C), row after row of the batch."""
    batch = len(arguments["hidden_states"])
    tokens: torch.Tensor = output.reshape(batch, -1, output.shape[-1])
    return tokens


def along_time(output: Any, arguments: Arguments) -> torch.Tensor:
    """(B · H · W, F, C), row after row of the batch."""
    batch = len(arguments["hidden_states"])
    tokens: torch.Tensor = output.reshape(batch, -1, *output.shape[1:]).transpose(1, 2).flatten(1, 2)
    return tokens


FAMILIES: tuple[Family, ...] = (
    Family(
        name="latte",
        transformer=MODELS + "latte_transformer_3d.LatteTransformer3DModel",
        build=build_latte,
        encode=encode,
        image={"transformer_blocks": within_frames, "temporal_transformer_blocks": along_time},
        calls=(
            Call({"height": 32, "width": 48, "video_length": FRAMES}, (FRAMES, 2, 3)),
            Call({"height": 80, "width": 16, "video_length": FRAMES}, (FRAMES, 5, 1)),
            Call({"height": 48, "width": 16, "video_length": 1}, (1, 3, 1)),
        ),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=without_variance,
        remark="As many frames as the config says, or one; enable_temporal_attentions=False skips every other block.",
    ),
)
