"""SD3 and SD3.5, and AuraFlow, whose single blocks hold register tokens and text before the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family
from tests.families.parts import image_vae, rows, seeded
from tests.tiny import POOLED, TEXT, tiny_pipeline

_SD3 = "diffusers.models.transformers.transformer_sd3.SD3Transformer2DModel"
#: The tiny VAE of `tests.tiny` does not shrink.
SD3_CALLS = (Call({"height": 4, "width": 6}, (1, 2, 3)), Call({"height": 10, "width": 2}, (1, 5, 1)))


def encode_sd3(prompts: Sequence[str]) -> Arguments:
    """Embeddings of T5, and of the CLIPs pooled."""
    arguments: Arguments = {}
    for name, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        arguments[f"{name}prompt_embeds"] = rows(texts, 5, TEXT)
        arguments[f"{name}pooled_prompt_embeds"] = rows(texts, POOLED, seed=8)
    return arguments


def build_auraflow() -> Any:
    """Two joint and two single blocks; learnt places up to 6 × 6 tokens."""
    return joint.quiet(
        AuraFlowPipeline(
            transformer=seeded(
                lambda: AuraFlowTransformer2DModel(
                    sample_size=8,
                    patch_size=2,
                    in_channels=4,
                    out_channels=4,
                    num_mmdit_layers=2,
                    num_single_dit_layers=2,
                    attention_head_dim=8,
                    num_attention_heads=2,
                    joint_attention_dim=joint.TEXT,
                    caption_projection_dim=16,
                    pos_embed_max_size=36,
                )
            ).eval(),
            vae=seeded(image_vae).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
            text_encoder=None,
            tokenizer=None,
        )
    )


def encode_auraflow(prompts: Sequence[str]) -> Arguments:
    """The masks are only checked: what they would leave out is zero already."""
    ones = torch.ones(len(prompts), joint.LENGTH, dtype=torch.long)
    return {**joint.encode(prompts), "prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}


def after_registers(output: Any, arguments: Arguments) -> torch.Tensor:
    """What follows eight register tokens and the text."""
    tokens: torch.Tensor = output[:, 8 + arguments["encoder_hidden_states"].shape[1] :]
    return tokens


def _sd3(name: str, remark: str, **config: Any) -> Family:
    return Family(
        name=name,
        transformer=_SD3,
        build=partial(tiny_pipeline, **config),
        encode=encode_sd3,
        image={"transformer_blocks": joint.second},
        calls=SD3_CALLS,
        guided={"guidance_scale": 5.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        combine=joint.combine,
        remark=remark,
    )


FAMILIES: tuple[Family, ...] = (
    _sd3("sd3", "The last block returns no text."),
    _sd3(
        "sd3.5",
        "A second attention in the first blocks has three modulation terms of its own.",
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    ),
    Family(
        name="auraflow",
        transformer="diffusers.models.transformers.auraflow_transformer_2d.AuraFlowTransformer2DModel",
        build=build_auraflow,
        encode=encode_auraflow,
        image={"joint_transformer_blocks": joint.second, "single_transformer_blocks": after_registers},
        calls=joint.CALLS,
        guided={"guidance_scale": 3.5},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        combine=joint.combine,
    ),
)
