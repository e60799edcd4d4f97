"""What the families in which text and image attend to each other as one sequence have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from tests.families.base import Arguments, Call
from tests.families.parts import rows, seeded

#: Tokens of every prompt, and the width of their embeddings.
LENGTH, TEXT = 5, 20

#: ×8 by the VAE, ×2 by patches: not square; one row of tokens or an odd number of them.
CALLS = (
    Call({"height": 32, "width": 48}, (1, 2, 3)),
    Call({"height": 80, "width": 16}, (1, 5, 1)),
)


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of the prompts, and of the empty prompt once for each."""
    return {
        "prompt_embeds": rows(prompts, LENGTH, TEXT),
        "negative_prompt_embeds": rows([""] * len(prompts), LENGTH, TEXT),
    }


def first(output: Any, _: Arguments) -> torch.Tensor:
    """The image of (image, text)."""
    tokens: torch.Tensor = output[0]
    return tokens


def second(output: Any, _: Arguments) -> torch.Tensor:
    """The image of (text, image)."""
    tokens: torch.Tensor = output[1]
    return tokens


def after_text(output: Any, arguments: Arguments) -> torch.Tensor:
    """What follows the text in one sequence."""
    tokens: torch.Tensor = output[:, arguments["encoder_hidden_states"].shape[1] :]
    return tokens


def combine(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance as most have it."""
    return uncond + scale * (cond - uncond)


def wan_vae(levels: int) -> Any:
    """×2 in space a level after the first; four channels."""
    return seeded(
        lambda: AutoencoderKLWan(
            base_dim=3,
            z_dim=4,
            dim_mult=[1] * levels,
            num_res_blocks=1,
            temperal_downsample=[False, True, True, False, False][: levels - 1],
            scale_factor_spatial=2 ** (levels - 1),
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        )
    ).eval()


def quiet(pipe: Any) -> Any:
    """The pipeline without its progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe
