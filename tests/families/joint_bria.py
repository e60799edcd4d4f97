"""Bria 3, FIBO, which replaces half of every text token before each block, and FIBO 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    BriaPipeline,
    BriaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import SmolLM3Config, SmolLM3ForCausalLM

from tests.families import joint_flux
from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family
from tests.families.parts import image_vae, rows, seeded
from tests.tiny_flux2 import tiny_flux2
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
            # The pipeline has ×16 fixed.
            vae=joint.wan_vae(5),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=seeded(lambda: SmolLM3ForCausalLM(config)).eval(),
            tokenizer=tokenizer,
        )
    )


def encode_fibo(prompts: Sequence[str]) -> Arguments:
    """The empty prompt would be a token of a far larger vocabulary."""
    return {"prompt": list(prompts), "negative_prompt": ["red"] * len(prompts)}


def build_fibo2() -> Any:
    """One block of the image alone, then three with the gist of the text, the second of which reads the text as well."""
    return joint.quiet(
        BriaFibo2Pipeline(
            transformer=seeded(
                lambda: BriaFibo2Transformer2DModel(
                    in_channels=4,
                    patch_size=2,
                    dim=24,
                    n_layers=3,
                    n_refiner_layers=1,
                    n_heads=2,
                    cap_feat_dim=joint.TEXT,
                    injection_layer_ids=(1,),
                    perceiver_num_layers=1,
                    min_num_gist_tokens=4,
                    max_num_gist_tokens=8,
                    gist_step=2,
                    gist_min_text_len=4,
                    gist_max_text_len=16,
                    axes_dims=(4, 4, 4),
                    axes_lens=(32, 16, 16),
                )
            ).eval(),
            vae=tiny_flux2().vae,
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=None,
            processor=None,
        )
    )


def encode_fibo2(prompts: Sequence[str]) -> Arguments:
    """Features of the text for its gist, and for the block that reads it; all of one length, so without masks."""
    return {
        "prompt_embeds": rows(prompts, 2, joint.LENGTH, joint.TEXT),
        "negative_prompt_embeds": rows([""] * len(prompts), 2, joint.LENGTH, joint.TEXT),
    }


def whole(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """The image and nothing else."""
    return output


def after_gist(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """Five tokens of text have a gist of 4 + 4 · (5 − 4) / (16 − 4) = 4.3, in steps of two 6."""
    return output[:, 6:]


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
    _family(
        "bria-fibo2",
        "transformer_bria_fibo2.BriaFibo2Transformer2DModel",
        build_fibo2,
        encode=encode_fibo2,
        image={"noise_refiner": whole, "layers": after_gist},
        # The tiny VAE shrinks ×2.
        calls=(Call({"height": 8, "width": 12}, (1, 2, 3)), Call({"height": 20, "width": 4}, (1, 5, 1))),
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        remark="With prompts of different length in one batch the gist may stand last; such calls are refused.",
    ),
)
