"""Tiny parts that pipelines of several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan
from PIL import Image

from tests.families.base import embeddings

Made = TypeVar("Made")


def seeded(make: Callable[[], Made], seed: int = 0) -> Made:
    """What `make` makes with weights from a seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def rows(prompts: Sequence[str], *shape: int, seed: int = 7) -> torch.Tensor:
    """One row a prompt, (B, *shape), each depending on its prompt alone."""
    return torch.stack([embeddings(prompt, *shape, seed=seed) for prompt in prompts])


def hunyuan_vae() -> AutoencoderKLHunyuanVideo:
    """×8 in space, ×4 in time, 4 channels; latent frame 0 is one frame of pixels."""
    return AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )


def wan_vae(channels: int = 16) -> AutoencoderKLWan:
    """×8 in space, ×4 in time; latent frame 0 is one frame of pixels."""
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def picture(height: int, width: int, *, seed: int = 3) -> Image.Image:
    """An image of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
