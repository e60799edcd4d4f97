"""A real Flux2Pipeline, tiny and randomly initialised, without its text encoder; and its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Pipeline, Flux2Transformer2DModel

WIDTH, TEXT = 32, 20
#: Grid (1, 2, 3).
SIZE = {"height": 8, "width": 12}


def tiny_flux2(*, seed: int = 0, vae: bool = True, **config: Any) -> Any:
    """Random weights from a seed; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = Flux2Transformer2DModel(
            **{
                "patch_size": 1,
                "in_channels": 16,
                "num_layers": 2,
                "num_single_layers": 1,
                "attention_head_dim": 16,
                "num_attention_heads": WIDTH // 16,
                "joint_attention_dim": TEXT,
                "timestep_guidance_channels": 32,
                "axes_dims_rope": (4, 4, 4, 4),
                **config,
            }
        )
        decoder = AutoencoderKLFlux2(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(4, 4),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
        )
    pipe = Flux2Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=decoder.eval() if vae else None,
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode_flux2(prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Embeddings that depend on each prompt alone, reproducibly."""
    rows = []
    for prompt in prompts:
        generator = torch.Generator().manual_seed(sum(prompt.encode()) + 7)
        rows.append(torch.randn(5, TEXT, generator=generator))
    return {"prompt_embeds": torch.stack(rows)}
