"""HiDream-I1, which pads the image tokens to a fixed number, and HunyuanImage 2.1, whose guidance is a component."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family
from tests.families.parts import image_vae, mask, rows, seeded

LLAMA, POOLED, TEXT_2, SCALE = 14, 12, 10, 3.5
_MODELS = "diffusers.models.transformers."


def build_hidream() -> Any:
    """Two double and two single blocks; at most 4 × 4 tokens, and every size is scaled to that area."""
    pipe = HiDreamImagePipeline(
        transformer=seeded(
            lambda: HiDreamImageTransformer2DModel(
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                caption_channels=[joint.TEXT, LLAMA],
                text_emb_dim=POOLED,
                num_routed_experts=2,
                num_activated_experts=1,
                axes_dims_rope=(4, 2, 2),
                max_resolution=(8, 8),
                llama_layers=[0, 1, 1, 2],
            )
        ).eval(),
        vae=seeded(image_vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        **{f"{part}{n}": None for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3", "_4")},
    )
    pipe.default_sample_size = 8
    return joint.quiet(pipe)


def encode_hidream(prompts: Sequence[str]) -> Arguments:
    """Embeddings of T5, of three layers of a Llama, and of the CLIPs pooled."""
    arguments: Arguments = {}
    for name, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        arguments[f"{name}prompt_embeds_t5"] = rows(texts, joint.LENGTH, joint.TEXT)
        arguments[f"{name}prompt_embeds_llama3"] = rows(texts, 3, 4, LLAMA).transpose(0, 1)
        arguments[f"{name}pooled_prompt_embeds"] = rows(texts, POOLED, seed=8)
    return arguments


def _cells(arguments: Arguments) -> int:
    height, width = arguments["hidden_states"].shape[-2:]
    return int(height // 2 * (width // 2))


def before_padding(output: Any, arguments: Arguments) -> torch.Tensor:
    """The image of (image and padding, text)."""
    tokens: torch.Tensor = output[0][:, : _cells(arguments)]
    return tokens


def before_text(output: torch.Tensor, arguments: Arguments) -> torch.Tensor:
    """What stands before padding and text in one sequence."""
    return output[:, : _cells(arguments)]


def build_hunyuan(*, guided: bool, embedded: bool = False) -> Any:
    """Two double and two single blocks, and the second text encoder for words within the image."""
    return joint.quiet(
        HunyuanImagePipeline(
            transformer=seeded(
                lambda: HunyuanImageTransformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_attention_heads=2,
                    attention_head_dim=8,
                    num_layers=2,
                    num_single_layers=2,
                    num_refiner_layers=1,
                    patch_size=(1, 1),
                    guidance_embeds=embedded,
                    text_embed_dim=joint.TEXT,
                    text_embed_2_dim=TEXT_2,
                    rope_axes_dim=(4, 4),
                )
            ).eval(),
            vae=seeded(
                lambda: AutoencoderKLHunyuanImage(
                    in_channels=3,
                    out_channels=3,
                    latent_channels=4,
                    block_out_channels=(32, 32),
                    layers_per_block=1,
                    spatial_compression_ratio=2,
                    sample_size=8,
                    scaling_factor=1.0,
                )
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            guider=ClassifierFreeGuidance(guidance_scale=SCALE, enabled=guided),
            **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
        )
    )


def encode_hunyuan(prompts: Sequence[str]) -> Arguments:
    """Embeddings of both text encoders with their masks."""
    arguments: Arguments = {}
    for name, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        arguments[f"{name}prompt_embeds"] = rows(texts, joint.LENGTH, joint.TEXT)
        arguments[f"{name}prompt_embeds_mask"] = mask(texts)
        arguments[f"{name}prompt_embeds_2"] = rows(texts, 4, TEXT_2, seed=9)
        arguments[f"{name}prompt_embeds_mask_2"] = torch.ones(len(texts), 4, dtype=torch.long)
    return arguments


def _hunyuan(name: str, *, guided: bool, remark: str, **more: Any) -> Family:
    return Family(
        name=name,
        transformer=f"{_MODELS}transformer_hunyuanimage.HunyuanImageTransformer2DModel",
        build=partial(build_hunyuan, guided=guided, **more),
        encode=encode_hunyuan,
        image={"transformer_blocks": joint.first, "single_transformer_blocks": joint.first},
        # The tiny VAE shrinks ×2, and a latent is a token.
        calls=(Call({"height": 4, "width": 6}, (1, 2, 3)), Call({"height": 10, "width": 2}, (1, 5, 1))),
        guided={} if guided else None,
        plain=None if guided else {},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        # The scale is the guider's.
        combine=lambda cond, uncond, _: joint.combine(cond, uncond, SCALE),
        remark=remark,
    )


FAMILIES: tuple[Family, ...] = (
    Family(
        name="hidream",
        transformer=f"{_MODELS}transformer_hidream_image.HiDreamImageTransformer2DModel",
        build=build_hidream,
        encode=encode_hidream,
        image={"double_stream_blocks": before_padding, "single_stream_blocks": before_text},
        calls=(
            Call({"height": 32, "width": 128}, (1, 2, 8)),
            # 15 tokens and one of padding.
            Call({"height": 48, "width": 80}, (1, 3, 5)),
            Call({"height": 64, "width": 64}, (1, 4, 4)),
        ),
        guided={"guidance_scale": 5.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        # The pipeline turns the sign of what the transformer predicts.
        combine=lambda cond, uncond, scale: -joint.combine(cond, uncond, scale),
        remark="Images that are not square are padded to the largest number of tokens.",
    ),
    _hunyuan("hunyuan-image", guided=True, remark="guided or not as the guider is, whatever the call's arguments"),
    _hunyuan("hunyuan-image-plain", guided=False, remark="as without a guider"),
    _hunyuan(
        "hunyuan-image-distilled",
        guided=False,
        embedded=True,
        remark="distilled_guidance_scale is embedded, times 1000",
    ),
)
