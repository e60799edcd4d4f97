"""Motif-Video: text to video and image to video, guided by a component (`guider`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from diffusers import (
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    MotifVideoImage2VideoPipeline,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, picture, rows, seeded, wan_vae
from tests.families.video_hunyuan import video

TEXT, CHANNELS, SCALE = 12, 4, 3.0


def transformer() -> MotifVideoTransformer3DModel:
    """Two double and three single blocks of width 20; the last single block begins anew with the embedded latents."""
    return MotifVideoTransformer3DModel(
        # Noisy latents, latents of an image (zeros here) and a mask of them.
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=3,
        num_decoder_layers=1,
        text_embed_dim=TEXT,
        rope_axes_dim=(2, 4, 4),
    ).eval()


def build(enabled: bool, *, image: bool = False) -> Any:
    """The pipeline without its text encoder (which would see the image too); the guider is on or off."""
    kind: Any = MotifVideoImage2VideoPipeline if image else MotifVideoPipeline
    pipe = kind(
        transformer=seeded(transformer),
        vae=seeded(lambda: wan_vae(CHANNELS)).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        guider=ClassifierFreeGuidance(guidance_scale=SCALE, enabled=enabled),
        text_encoder=None,
        tokenizer=None,
        feature_extractor=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings with their masks, for the prompts and for the empty prompt."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "prompt_attention_mask": mask(prompts),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_prompt_attention_mask": mask(empty),
    }


def encode_image(prompts: Sequence[str]) -> Arguments:
    """As `encode`, with an image; a list of images would be frames of one video."""
    return {**encode(prompts), "prompt": None, "image": picture(32, 48)}


def _family(name: str, *, enabled: bool, image: bool = False) -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_motif_video.MotifVideoTransformer3DModel",
        build=partial(build, enabled, image=image),
        encode=encode_image if image else encode,
        image={"transformer_blocks": video, "single_transformer_blocks": video},
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
        batch=1 if image else 2,
        remark="guided or not as the guider is, whatever the call's arguments",
    )


FAMILIES: tuple[Family, ...] = (
    _family("motif-video", enabled=True),
    _family("motif-video-plain", enabled=False),
    _family("motif-video-i2v", enabled=True, image=True),
)
