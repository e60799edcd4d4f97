"""HunyuanVideo 1.5: a stock pipeline whose guidance is a component (`guider`), not an argument."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, rows, seeded
from tests.families.video_hunyuan import video

TEXT, TEXT_2, IMAGE, CHANNELS, SCALE = 12, 10, 8, 4, 3.0


def vae() -> AutoencoderKLHunyuanVideo15:
    """×16 in space, ×4 in time; latent frame 0 is one frame of pixels."""
    return AutoencoderKLHunyuanVideo15(latent_channels=CHANNELS, block_out_channels=(8,) * 5, layers_per_block=1)


def transformer() -> HunyuanVideo15Transformer3DModel:
    """Three blocks of width 20."""
    return HunyuanVideo15Transformer3DModel(
        # Noisy latents, latents of an image (zeros here) and a mask of them.
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=3,
        num_refiner_layers=1,
        text_embed_dim=TEXT,
        text_embed_2_dim=TEXT_2,
        image_embed_dim=IMAGE,
        rope_axes_dim=(2, 4, 4),
        task_type="t2v",
    ).eval()


def build(enabled: bool) -> Any:
    """The pipeline without its text encoders; the guider is on or off."""
    pipe = HunyuanVideo15Pipeline(
        transformer=seeded(transformer),
        vae=seeded(vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=SCALE, enabled=enabled),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )
    # Its middle block has attention whose mask is of one video: of two at once it raises (diffusers 0.42.1).
    pipe.vae.enable_slicing()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of both text encoders with their masks, for the prompts and for the empty prompt."""
    arguments: Arguments = {}
    for name, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        arguments[f"{name}prompt_embeds"] = rows(texts, 5, TEXT)
        arguments[f"{name}prompt_embeds_mask"] = mask(texts)
        arguments[f"{name}prompt_embeds_2"] = rows(texts, 4, TEXT_2)
        arguments[f"{name}prompt_embeds_mask_2"] = torch.ones(len(texts), 4)
    return arguments


def _family(enabled: bool) -> Family:
    return Family(
        name="hunyuanvideo15" if enabled else "hunyuanvideo15-plain",
        transformer="diffusers.models.transformers.transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",
        build=partial(build, enabled),
        encode=encode,
        image={"transformer_blocks": video},
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
        ),
        guided={} if enabled else None,
        plain=None if enabled else {},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        # The scale is the guider's.
        combine=lambda cond, uncond, _: uncond + SCALE * (cond - uncond),
        remark="guided or not as the guider is, whatever the call's arguments",
    )


FAMILIES: tuple[Family, ...] = (_family(True), _family(False))
