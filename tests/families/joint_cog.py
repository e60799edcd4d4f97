"""CogView4, CogView3+ and GLM-Image, which adds to the image tokens what a language model made of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
)

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family, embeddings
from tests.families.parts import image_vae, rows, seeded

_MODELS = "diffusers.models.transformers."
_CONFIG: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "text_embed_dim": joint.TEXT,
    "time_embed_dim": 12,
    "condition_dim": 6,
}
#: Tokens that GLM-Image's language model knows.
PRIOR = 11


def build_cogview4(channels: int = 4) -> Any:
    return joint.quiet(
        CogView4Pipeline(
            transformer=seeded(
                lambda: CogView4Transformer2DModel(
                    **{**_CONFIG, "in_channels": channels}, pos_embed_max_size=8, sample_size=8, rope_axes_dim=(8, 8)
                )
            ).eval(),
            vae=seeded(image_vae).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(
                base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
            ),
            text_encoder=None,
            tokenizer=None,
        )
    )


def build_cogview3() -> Any:
    return joint.quiet(
        CogView3PlusPipeline(
            transformer=seeded(
                lambda: CogView3PlusTransformer2DModel(**_CONFIG, pos_embed_max_size=8, sample_size=8)
            ).eval(),
            vae=seeded(image_vae).eval(),
            scheduler=CogVideoXDDIMScheduler(
                prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
            ),
            text_encoder=None,
            tokenizer=None,
        )
    )


def encode_cogview3(prompts: Sequence[str]) -> Arguments:
    """The pipeline takes zeros for the empty prompt, whatever embeddings it is given."""
    return {"prompt_embeds": rows(prompts, joint.LENGTH, joint.TEXT)}


def build_glm() -> Any:
    """The pipeline demands texts; what its two text models would make of them is stood in for."""
    vae = seeded(image_vae).eval()
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    pipe = GlmImagePipeline(
        transformer=seeded(
            lambda: GlmImageTransformer2DModel(**_CONFIG, prior_vq_quantizer_codebook_size=PRIOR)
        ).eval(),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
        ),
        **dict.fromkeys(("tokenizer", "processor", "text_encoder", "vision_language_encoder")),
    )
    pipe._get_glyph_embeds = lambda prompts, *_: rows(prompts, joint.LENGTH, joint.TEXT)
    pipe.generate_prior_tokens = prior_tokens
    return joint.quiet(pipe)


def prior_tokens(prompt: Sequence[str], height: int, width: int, **_: Any) -> tuple[torch.Tensor, None, None]:
    """One of the language model's tokens for every image token, (B, H · W)."""
    scores = torch.stack([embeddings(text, height // 16 * (width // 16), PRIOR) for text in prompt])
    return scores.argmax(dim=-1), None, None


def _family(name: str, transformer: str, **more: Any) -> Family:
    return Family(
        **{
            "name": name,
            "transformer": _MODELS + transformer,
            "encode": joint.encode,
            "image": {"transformer_blocks": joint.first},
            "calls": joint.CALLS,
            "guided": {"guidance_scale": 5.0},
            "plain": {"guidance_scale": 1.0},
            "calls_per_step": (2, 1),
            "rows": ("cond", "uncond"),
            "combine": joint.combine,
            **more,
        }
    )


FAMILIES: tuple[Family, ...] = (
    _family("cogview4", "transformer_cogview4.CogView4Transformer2DModel", build=build_cogview4),
    _family(
        "cogview3-plus",
        "transformer_cogview3plus.CogView3PlusTransformer2DModel",
        build=build_cogview3,
        encode=encode_cogview3,
        calls_per_step=(1, 1),
        rows=("uncond", "cond"),
    ),
    _family(
        "glm-image",
        "transformer_glm_image.GlmImageTransformer2DModel",
        build=build_glm,
        encode=lambda prompts: {"prompt": list(prompts)},
        # The pipeline wants an even number of rows.
        calls=(Call({"height": 32, "width": 48}, (1, 2, 3)), Call({"height": 64, "width": 16}, (1, 4, 1))),
        remark="The unconditional call drops the language model's tokens; the timestep is one less than the scheduler's.",
    ),
)
