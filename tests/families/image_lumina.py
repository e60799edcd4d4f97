"""Lumina-Next, Lumina 2 and Z-Image: blocks with scale and gate; text beside the image in the later two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Family, embeddings
from tests.families.image_plain import GUIDED, MODELS, PLAIN, SIZES, TEXT, assembled, masked, whole
from tests.families.parts import image_vae, picture, redrawn, seeded, words

_BARE = {"vae": None, "text_encoder": None, "tokenizer": None}


def flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def build_lumina() -> Any:
    """Its cross attention is gated by zeros at first."""
    transformer = seeded(
        lambda: diffusers.LuminaNextDiT2DModel(
            sample_size=8,
            hidden_size=16,
            num_layers=3,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            cross_attention_dim=TEXT,
        ).eval()
    )
    return assembled(diffusers.LuminaPipeline, transformer=redrawn(transformer), scheduler=flow(), **_BARE)


def combine_lumina(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Three channels of the four are combined; the flow runs backwards; the learned variance is dropped."""
    cond, uncond = cond.chunk(2, dim=1)[0], uncond.chunk(2, dim=1)[0]
    combined = uncond[:, :3] + scale * (cond[:, :3] - uncond[:, :3])
    return -torch.cat([combined, cond[:, 3:]], dim=1)


def build_lumina2() -> Any:
    transformer = seeded(
        lambda: diffusers.Lumina2Transformer2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=24,
            num_layers=3,
            num_refiner_layers=2,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(4, 4, 4),
            axes_lens=(16, 16, 16),
            cap_feat_dim=TEXT,
        ).eval()
    )
    return assembled(diffusers.Lumina2Pipeline, transformer=transformer, scheduler=flow(), **_BARE)


def after_text(output: Any, arguments: Arguments) -> torch.Tensor:
    """Every row has its own text first, of as many tokens as its mask has ones; short rows are filled up behind."""
    height, width = arguments["hidden_states"].shape[-2:]
    count = height // 2 * (width // 2)
    starts = arguments["encoder_attention_mask"].sum(dim=1).tolist()
    return torch.stack([row[start : start + count] for row, start in zip(output, starts, strict=True)])


def combine_lumina2(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Every row of latents (along the width) keeps the length that it has in the conditional prediction."""
    combined = uncond + scale * (cond - uncond)
    return -combined * (cond.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True))


def build_zimage(pipeline: str = "ZImagePipeline", **parts: Any) -> Any:
    transformer = seeded(
        lambda: diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=24,
            n_layers=3,
            n_refiner_layers=2,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=TEXT,
            axes_dims=[4, 4, 4],
            axes_lens=[128, 16, 16],
        ).eval()
    )
    components = {"transformer": redrawn(transformer), "scheduler": flow(), **_BARE, **parts}
    return assembled(getattr(diffusers, pipeline), **components)


def build_zimage_img2img() -> Any:
    return build_zimage("ZImageImg2ImgPipeline", vae=seeded(image_vae).eval())


def encode_zimage(prompts: Sequence[str]) -> Arguments:
    """Lists: every prompt has as many tokens as it has words."""
    return {
        "prompt_embeds": [embeddings(prompt, words(prompt), TEXT) for prompt in prompts],
        "negative_prompt_embeds": [embeddings("", words(""), TEXT) for _ in prompts],
    }


def before_text(output: Any, arguments: Arguments) -> torch.Tensor:
    """The image comes first, then filling up to a multiple of 32 tokens, then the text with its own filling."""
    height, width = arguments["x"][0].shape[-2:]
    tokens: torch.Tensor = output[:, : height // 2 * (width // 2)]
    return tokens


def combine_zimage(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """From the conditional prediction on; the flow runs backwards; an image is one frame."""
    return -(cond + scale * (cond - uncond)).squeeze(2)


ZIMAGE = Family(
    name="zimage",
    transformer=MODELS + "transformer_z_image.ZImageTransformer2DModel",
    build=build_zimage,
    encode=encode_zimage,
    image={"noise_refiner": before_text, "layers": before_text},
    calls=SIZES,
    guided=GUIDED,
    plain={"guidance_scale": 0.0},
    calls_per_step=(1, 1),
    rows=("cond", "uncond"),
    combine=combine_zimage,
    remark="Guidance starts above 0, not 1; images take a list of latents (C, 1, H, W).",
)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="lumina",
        transformer=MODELS + "lumina_nextdit2d.LuminaNextDiT2DModel",
        build=build_lumina,
        encode=masked,
        image={"layers": whole},
        calls=SIZES,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        rows=("cond", "uncond"),
        combine=combine_lumina,
        remark="The fourth channel of the latents is the conditional prediction's own: guidance is not of one gain.",
    ),
    Family(
        name="lumina2",
        transformer=MODELS + "transformer_lumina2.Lumina2Transformer2DModel",
        build=build_lumina2,
        encode=masked,
        image={"noise_refiner": whole, "layers": after_text},
        calls=SIZES,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=combine_lumina2,
        remark="Linear with cfg_normalization=False; the last steps go without guidance if cfg_trunc_ratio < 1.",
    ),
    ZIMAGE,
    replace(
        ZIMAGE,
        name="zimage-img2img",
        build=build_zimage_img2img,
        encode=lambda prompts: {
            **encode_zimage(prompts),
            "image": [picture(32, 48, seed=len(prompt)) for prompt in prompts],
        },
        calls=SIZES[:1],
        extra={"strength": 1.0},
        remark="The image has to have the size that is asked for; the pipeline does not bring it there.",
    ),
)
