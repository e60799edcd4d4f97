"""JoyImage-Edit and JoyImage-Edit-Plus, from the prompt alone: with reference images a call is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    JoyImageEditPipeline,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
)

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, rows, seeded

_MODELS = "diffusers.models.transformers."


def build(pipeline: Any, transformer: Callable[..., torch.nn.Module]) -> Any:
    # JoyImage-Edit's images have half a megapixel at least. To have few tokens, the VAE shrinks ×32.
    return joint.quiet(
        pipeline(
            transformer=seeded(
                lambda: transformer(
                    patch_size=[1, 2, 2],
                    in_channels=4,
                    hidden_size=16,
                    num_attention_heads=2,
                    text_dim=joint.TEXT,
                    num_layers=3,
                    rope_dim_list=[4, 2, 2],
                )
            ).eval(),
            vae=joint.wan_vae(6 if pipeline is JoyImageEditPipeline else 4),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
            **dict.fromkeys(("text_encoder", "tokenizer", "processor")),
        )
    )


def build_edit() -> Any:
    return build(JoyImageEditPipeline, JoyImageEditTransformer3DModel)


def build_plus() -> Any:
    """The pipeline demands texts; what its text encoder would make of them is stood in for."""
    pipe = build(JoyImageEditPlusPipeline, JoyImageEditPlusTransformer3DModel)
    pipe.encode_prompt_multiple_images = lambda prompt, **_: (rows(prompt, joint.LENGTH, joint.TEXT), mask(prompt))
    return pipe


def encode_edit(prompts: Sequence[str]) -> Arguments:
    """The masks are demanded and not used."""
    ones = torch.ones(len(prompts), joint.LENGTH, dtype=torch.long)
    return {**joint.encode(prompts), "prompt_embeds_mask": ones, "negative_prompt_embeds_mask": ones}


def encode_plus(prompts: Sequence[str]) -> Arguments:
    return {"prompt": list(prompts)}


def combine(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """The channels (third axis in both) of every latent are brought to the conditional one's norm."""
    both = joint.combine(cond, uncond, scale)
    return both * (cond.norm(dim=2, keepdim=True) / both.norm(dim=2, keepdim=True).clamp_min(1e-6))


_SHARED: dict[str, Any] = {
    "image": {"double_blocks": joint.first},
    "guided": {"guidance_scale": 4.0},
    "plain": {"guidance_scale": 1.0},
    "combine": combine,
}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="joyimage-edit",
        transformer=f"{_MODELS}transformer_joyimage.JoyImageEditTransformer3DModel",
        build=build_edit,
        encode=encode_edit,
        calls=(
            Call({"height": 576, "width": 1600}, (1, 9, 25)),
            Call({"height": 1792, "width": 512}, (1, 28, 8)),
        ),
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        remark="The pipeline takes the nearest of its own sizes.",
        **_SHARED,
    ),
    Family(
        name="joyimage-edit-plus",
        transformer=f"{_MODELS}transformer_joyimage_edit_plus.JoyImageEditPlusTransformer3DModel",
        build=build_plus,
        encode=encode_plus,
        calls=joint.CALLS,
        calls_per_step=(1, 1),
        **_SHARED,
    ),
)
