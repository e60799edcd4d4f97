"""Motif-Video: text to video, guided by a component (`guider`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from diffusers import (
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import mask, rows, seeded, wan_vae
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


def build(enabled: bool) -> Any:
    """The pipeline without its text encoder; the guider is on or off."""
    pipe = MotifVideoPipeline(
        transformer=seeded(transformer),
        vae=seeded(lambda: wan_vae(CHANNELS)).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        guider=ClassifierFreeGuidance(guidance_scale=SCALE, enabled=enabled),
        text_encoder=None,
        tokenizer=None,
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


def _family(enabled: bool) -> Family:
    return Family(
        name="motif-video" if enabled else "motif-video-plain",
        transformer="diffusers.models.transformers.transformer_motif_video.MotifVideoTransformer3DModel",
        build=partial(build, enabled),
        encode=encode,
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
        remark="guided or not as the guider is, whatever the call's arguments",
    )


FAMILIES: tuple[Family, ...] = (_family(True), _family(False))
