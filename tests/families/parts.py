"""Tiny parts that pipelines of several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from diffusers import AutoencoderKLHunyuanVideo

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
