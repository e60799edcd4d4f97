"""FLUX.1, and what has its shape: Chroma, LongCat-Image, Ovis-Image. Latents are packed 2 × 2 by the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
)

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Family
from tests.families.parts import image_vae, mask, rows, seeded

POOLED = 12
_MODELS = "diffusers.models.transformers."


def config(**more: Any) -> dict[str, Any]:
    """Arguments of FLUX.1's transformer, and of those that were made from it: two double and two single blocks."""
    return {
        "patch_size": 1,
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": joint.TEXT,
        "axes_dims_rope": (2, 2, 4),
        **more,
    }


def build(pipeline: Any, transformer: Callable[[], torch.nn.Module], channels: int = 4, **parts: Any) -> Any:
    """The pipeline without text encoders."""
    return joint.quiet(
        pipeline(
            transformer=seeded(transformer).eval(),
            vae=seeded(lambda: image_vae(channels)).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=None,
            tokenizer=None,
            **parts,
        )
    )


def build_flux(*, embedded: bool = True, **more: Any) -> Any:
    transformer = partial(
        FluxTransformer2DModel, **config(pooled_projection_dim=POOLED, guidance_embeds=embedded, **more)
    )
    return build(FluxPipeline, transformer, text_encoder_2=None, tokenizer_2=None)


def encode_flux(prompts: Sequence[str]) -> Arguments:
    return {
        **joint.encode(prompts),
        "pooled_prompt_embeds": rows(prompts, POOLED, seed=8),
        "negative_pooled_prompt_embeds": rows([""] * len(prompts), POOLED, seed=8),
    }


def build_chroma() -> Any:
    transformer = partial(
        ChromaTransformer2DModel,
        **config(approximator_num_channels=16, approximator_hidden_dim=8, approximator_layers=1),
    )
    return build(ChromaPipeline, transformer)


def encode_chroma(prompts: Sequence[str]) -> Arguments:
    return {
        **joint.encode(prompts),
        "prompt_attention_mask": mask(prompts).bool(),
        "negative_prompt_attention_mask": mask([""] * len(prompts)).bool(),
    }


def build_longcat() -> Any:
    """The pipeline takes no embeddings (it asks for the length of the prompts): its own text encoding is stood in for."""
    # The pipeline draws 16 channels, whatever the transformer says.
    transformer = partial(LongCatImageTransformer2DModel, **config(in_channels=64, pooled_projection_dim=joint.TEXT))
    pipe = build(LongCatImagePipeline, transformer, 16, text_processor=None)
    pipe._encode_prompt = lambda prompts: rows(prompts, joint.LENGTH, joint.TEXT)
    return pipe


def encode_longcat(prompts: Sequence[str]) -> Arguments:
    return {"prompt": list(prompts), "negative_prompt": [""] * len(prompts), "enable_prompt_rewrite": False}


def combine_longcat(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Every token is brought back to the conditional one's norm if it is longer."""
    both = joint.combine(cond, uncond, scale)
    norms = cond.norm(dim=-1, keepdim=True) / (both.norm(dim=-1, keepdim=True) + 1e-8)
    return both * norms.clamp(min=0.0, max=1.0)


def encode_ovis(prompts: Sequence[str]) -> Arguments:
    """The pipeline's own negative prompt is a text, which excludes embeddings."""
    return {**joint.encode(prompts), "negative_prompt": None}


def build_ovis() -> Any:
    return build(OvisImagePipeline, partial(OvisImageTransformer2DModel, **config(out_channels=16)))


def _family(name: str, transformer: str, builder: Callable[[], Any], **more: Any) -> Family:
    return Family(
        **{
            "name": name,
            "transformer": _MODELS + transformer,
            "build": builder,
            "encode": joint.encode,
            "image": {"transformer_blocks": joint.second, "single_transformer_blocks": joint.second},
            "calls": joint.CALLS,
            "guided": {"guidance_scale": 4.0},
            "plain": {"guidance_scale": 1.0},
            "calls_per_step": (2, 1),
            "rows": ("cond", "uncond"),
            "combine": joint.combine,
            **more,
        }
    )


_FLUX = {
    "encode": encode_flux,
    "guided": {"true_cfg_scale": 4.0, "guidance_scale": 3.5},
    "plain": {"true_cfg_scale": 1.0, "guidance_scale": 3.5},
}

FAMILIES: tuple[Family, ...] = (
    _family(
        "flux", "transformer_flux.FluxTransformer2DModel", build_flux, **_FLUX, remark="guidance_scale is embedded."
    ),
    _family(
        "flux-dedistilled",
        "transformer_flux.FluxTransformer2DModel",
        partial(build_flux, embedded=False),
        **_FLUX,
        remark="As FLUX.1-schnell, and as models whose embedded guidance was trained away.",
    ),
    _family(
        "chroma",
        "transformer_chroma.ChromaTransformer2DModel",
        build_chroma,
        encode=encode_chroma,
        image={"transformer_blocks": joint.second, "single_transformer_blocks": joint.after_text},
    ),
    _family(
        "longcat-image",
        "transformer_longcat_image.LongCatImageTransformer2DModel",
        build_longcat,
        encode=encode_longcat,
        combine=combine_longcat,
        remark="The places of the image tokens begin at 512.",
    ),
    _family("ovis-image", "transformer_ovis_image.OvisImageTransformer2DModel", build_ovis, encode=encode_ovis),
)
