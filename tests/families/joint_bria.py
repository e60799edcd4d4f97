"""Bria 3, FIBO, which replaces half of every text token before each block, and FIBO 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffusers import (
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    BriaPipeline,
    BriaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import SmolLM3Config, SmolLM3ForCausalLM

from tests.families import joint_flux
from tests.families import joint_parts as joint
from tests.families.base import Arguments, Family
from tests.families.parts import image_vae, seeded, wan_vae
from workbench.models.mini.text import make_tokenizer

_MODELS = "diffusers.models.transformers."
#: Width of FIBO's text encoder.
HIDDEN = 8


def build_bria() -> Any:
    return joint.quiet(
        BriaPipeline(
            transformer=seeded(lambda: BriaTransformer2DModel(**joint_flux.config())).eval(),
            vae=seeded(image_vae).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            text_encoder=None,
            tokenizer=None,
        )
    )


def build_fibo() -> Any:
    """With its text encoder, since the pipeline takes no embeddings."""
    tokenizer = make_tokenizer(["red apple dog"])
    config = SmolLM3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return joint.quiet(
        BriaFiboPipeline(
            transformer=seeded(
                lambda: BriaFiboTransformer2DModel(
                    **joint_flux.config(in_channels=4, joint_attention_dim=2 * HIDDEN, text_encoder_dim=HIDDEN)
                )
            ).eval(),
            vae=seeded(lambda: wan_vae(4)).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=seeded(lambda: SmolLM3ForCausalLM(config)).eval(),
            tokenizer=tokenizer,
        )
    )


def encode_fibo(prompts: Sequence[str]) -> Arguments:
    """The empty prompt would be a token of a far larger vocabulary."""
    return {"prompt": list(prompts), "negative_prompt": ["red"] * len(prompts)}


def _family(name: str, transformer: str, builder: Callable[[], Any], **more: Any) -> Family:
    return Family(
        **{
            "name": name,
            "transformer": _MODELS + transformer,
            "build": builder,
            "encode": joint.encode,
            "calls": joint.CALLS,
            "guided": {"guidance_scale": 5.0},
            "plain": {"guidance_scale": 1.0},
            "calls_per_step": (1, 1),
            "combine": joint.combine,
            **more,
        }
    )


FAMILIES: tuple[Family, ...] = (
    _family(
        "bria",
        "transformer_bria.BriaTransformer2DModel",
        build_bria,
        image={"transformer_blocks": joint.second, "single_transformer_blocks": joint.second},
    ),
    _family(
        "bria-fibo",
        "transformer_bria_fibo.BriaFiboTransformer2DModel",
        build_fibo,
        encode=encode_fibo,
        image={"transformer_blocks": joint.second, "single_transformer_blocks": joint.after_text},
        remark="The pipeline takes texts only. A latent is a token, ×16.",
    ),
)
