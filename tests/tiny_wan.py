"""A real WanPipeline, tiny and randomly initialised, without its text encoder; and its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from PIL import Image

WIDTH, TEXT, BLOCKS = 24, 20, 3
#: Pixels and frames of the smallest video that has several tokens along every axis: grid (2, 2, 3).
SIZE = {"height": 32, "width": 48, "num_frames": 5}


def tiny_wan(*, seed: int = 0, dtype: torch.dtype = torch.float32, vae: bool = True, **config: Any) -> Any:
    """Random weights from a seed; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            **{
                "patch_size": (1, 2, 2),
                "num_attention_heads": 2,
                "attention_head_dim": WIDTH // 2,
                "in_channels": 16,
                "out_channels": 16,
                "text_dim": TEXT,
                "freq_dim": 32,
                "ffn_dim": 48,
                "num_layers": BLOCKS,
                "rope_max_seq_len": 32,
                **config,
            }
        )
        decoder = AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
    pipe = WanPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=decoder.eval() if vae else None,
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(dtype)


def encode_wan(prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Embeddings that depend on each prompt alone, reproducibly."""
    rows = []
    for prompt in [*prompts, ""]:
        generator = torch.Generator().manual_seed(sum(prompt.encode()) + 7)
        rows.append(torch.randn(5, TEXT, generator=generator))
    return {
        "prompt_embeds": torch.stack(rows[:-1]),
        "negative_prompt_embeds": rows[-1].expand(len(prompts), -1, -1),
    }


def tiny_ti2v(*, image: bool, seed: int = 0) -> Any:
    """Wan2.2-TI2V in small: every token has a timestep of its own; with an image, frame 0's is 0."""
    from diffusers import WanImageToVideoPipeline

    plain = tiny_wan(seed=seed)
    parts = {name: plain.components[name] for name in ("vae", "scheduler", "transformer", "text_encoder", "tokenizer")}
    pipe = (WanImageToVideoPipeline if image else WanPipeline)(**parts, expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode_ti2v(prompts: Sequence[str]) -> dict[str, Any]:
    """As `encode_wan`, with the image that the video starts with, made anew in every call."""
    pixels = np.random.default_rng(3).integers(0, 256, (SIZE["height"], SIZE["width"], 3), dtype=np.uint8)
    return {**encode_wan(prompts), "image": Image.fromarray(pixels)}
