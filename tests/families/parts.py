"""Tiny parts that pipelines of several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLHunyuanVideo, AutoencoderKLWan
from PIL import Image

from tests.families.base import embeddings

Made = TypeVar("Made")
Model = TypeVar("Model", bound=torch.nn.Module)


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


def image_vae(channels: int = 4) -> AutoencoderKL:
    """×8 in space."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=channels,
        norm_num_groups=2,
        layers_per_block=1,
        mid_block_add_attention=False,
        shift_factor=0.0,
    )


def words(prompt: str) -> int:
    """Tokens of a prompt's own, 2 to 5; not alike for all prompts."""
    return 2 + len(prompt) % 4


def mask(prompts: Sequence[str], length: int = 5) -> torch.Tensor:
    """Attention mask (B, length) with as many ones as the prompt has words."""
    return torch.stack([(torch.arange(length) < words(prompt)).long() for prompt in prompts])


def redrawn(model: Model, std: float = 0.2, seed: int = 1) -> Model:
    """The model with all matrices and biases drawn again, because some classes start with zeros or leave memory as it was."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or name.endswith(("bias", "pad_token", "gate")):
            parameter.data = torch.randn(parameter.shape, generator=generator) * std
    return model
