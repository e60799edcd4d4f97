"""Qwen-Image, and Qwen-Image 2.1, which keeps text and image as one sequence of which the text runs in the first step only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, seeded

_MODELS = "diffusers.models.transformers."


def build_qwen(*, zero: bool = False) -> Any:
    """Three blocks; with `zero`, as the models that edit images: the timestep's embedding has further rows."""
    return joint.quiet(
        QwenImagePipeline(
            transformer=seeded(
                lambda: QwenImageTransformer2DModel(
                    patch_size=2,
                    in_channels=16,
                    out_channels=4,
                    num_layers=3,
                    attention_head_dim=8,
                    num_attention_heads=2,
                    joint_attention_dim=joint.TEXT,
                    axes_dims_rope=(2, 2, 4),
                    zero_cond_t=zero,
                )
            ).eval(),
            vae=seeded(
                lambda: AutoencoderKLQwenImage(
                    base_dim=4,
                    z_dim=4,
                    dim_mult=[1, 1, 1, 1],
                    num_res_blocks=1,
                    temperal_downsample=[False, True, True],
                    latents_mean=[0.0] * 4,
                    latents_std=[1.0] * 4,
                )
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=None,
            tokenizer=None,
        )
    )


def encode(prompts: Sequence[str]) -> Arguments:
    """The masks say how long the prompts are; the pipelines drop a mask of ones."""
    return {
        **joint.encode(prompts),
        "prompt_embeds_mask": mask(prompts),
        "negative_prompt_embeds_mask": mask([""] * len(prompts)),
    }


def combine_qwen(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Every token is brought to the conditional one's norm."""
    both = joint.combine(cond, uncond, scale)
    return both * (cond.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True))


class _Processor:
    """The pipeline asks its processor for the length of the system prompt and for a token, though it is given embeddings."""

    tokenizer = SimpleNamespace(encode=lambda text: [0])

    def apply_chat_template(self, message: Any, **_: Any) -> list[list[int]]:
        return [[0]]


def build_qwen21() -> Any:
    return joint.quiet(
        QwenImage21Pipeline(
            transformer=seeded(
                lambda: QwenImage21Transformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=3,
                    attention_head_dim=8,
                    num_attention_heads=2,
                    context_in_dim=joint.TEXT,
                    axes_dims_rope=(2, 2, 4),
                )
            ).eval(),
            vae=None,
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=None,
            processor=_Processor(),
        )
    )


def of_target(output: torch.Tensor, arguments: Arguments) -> torch.Tensor:
    """What follows the text; all, where the text's keys and values are remembered."""
    if arguments["kv_cache_mode"] == "cached":
        return output
    return output[:, arguments["encoder_hidden_states"].shape[1] :]


_SHARED: dict[str, Any] = {
    "encode": encode,
    "guided": {"true_cfg_scale": 4.0},
    "plain": {"true_cfg_scale": 1.0},
    "calls_per_step": (2, 1),
    "rows": ("cond", "uncond"),
}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="qwen-image",
        transformer=f"{_MODELS}transformer_qwenimage.QwenImageTransformer2DModel",
        build=build_qwen,
        image={"transformer_blocks": joint.second},
        calls=joint.CALLS,
        combine=combine_qwen,
        **_SHARED,
    ),
    Family(
        name="qwen-image-zero-cond",
        transformer=f"{_MODELS}transformer_qwenimage.QwenImageTransformer2DModel",
        build=partial(build_qwen, zero=True),
        image={"transformer_blocks": joint.second},
        calls=joint.CALLS,
        combine=combine_qwen,
        **_SHARED,
    ),
    Family(
        name="qwen-image-2.1",
        transformer=f"{_MODELS}transformer_qwenimage21.QwenImage21Transformer2DModel",
        build=build_qwen21,
        image={"transformer_blocks": of_target},
        # ×16 by the VAE; the pipeline makes rows and columns even.
        calls=(Call({"height": 32, "width": 64}, (1, 2, 4)), Call({"height": 112, "width": 32}, (1, 6, 2))),
        combine=joint.combine,
        remark="After the first step the text's keys and values are remembered, and the blocks hold the image alone.",
        **_SHARED,
    ),
    Family(
        name="qwen-image-2.1-uncached",
        transformer=f"{_MODELS}transformer_qwenimage21.QwenImage21Transformer2DModel",
        build=build_qwen21,
        image={"transformer_blocks": of_target},
        calls=(Call({"height": 32, "width": 64}, (1, 2, 4)), Call({"height": 112, "width": 32}, (1, 6, 2))),
        combine=joint.combine,
        extra={"use_kv_cache": False},
        **_SHARED,
    ),
)
