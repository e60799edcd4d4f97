"""HunyuanVideo 1.5: stock pipelines whose guidance is a component (`guider`), not an argument."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, picture, rows, seeded
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
        # Where an image gives the size: that of the square that has as many pixels.
        target_size=48,
    ).eval()


def image_encoder() -> SiglipVisionModel:
    """One layer, four tokens an image."""
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=IMAGE,
            intermediate_size=IMAGE,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
    )


def build(enabled: bool, *, image: bool = False) -> Any:
    """The pipeline without its text encoders; the guider is on or off."""
    of_image = {
        "image_encoder": seeded(image_encoder).eval(),
        "feature_extractor": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    }
    kind: Any = HunyuanVideo15ImageToVideoPipeline if image else HunyuanVideo15Pipeline
    pipe = kind(
        transformer=seeded(transformer),
        vae=seeded(vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=SCALE, enabled=enabled),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
        **(of_image if image else {}),
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


CALLS = (
    Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
    Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
)
#: One image for all prompts.
FROM_IMAGE = (
    Call({"image": picture(32, 48), "num_frames": 5}, (2, 2, 3)),
    Call({"image": picture(80, 16), "num_frames": 9}, (3, 4, 1)),
)


def _family(name: str, *, enabled: bool, image: bool = False) -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",
        build=partial(build, enabled, image=image),
        encode=encode,
        image={"transformer_blocks": video},
        calls=FROM_IMAGE if image else CALLS,
        guided={} if enabled else None,
        plain=None if enabled else {},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        # The scale is the guider's.
        combine=lambda cond, uncond, _: uncond + SCALE * (cond - uncond),
        remark="guided or not as the guider is, whatever the call's arguments",
    )


FAMILIES: tuple[Family, ...] = (
    _family("hunyuanvideo15", enabled=True),
    _family("hunyuanvideo15-plain", enabled=False),
    _family("hunyuanvideo15-i2v", enabled=True, image=True),
)
