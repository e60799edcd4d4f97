"""Transformers made from Wan's: VACE, Animate, ChronoEdit, SkyReels-V2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import diffusers

from tests.families.base import Arguments, Call, Family
from tests.families.parts import picture, seeded, wan_vae
from tests.families.video_wan import (
    SIZES,
    combine,
    encode,
    encode_with_image,
    image_encoder,
    transformer_config,
    whole,
)

_MODELS = "diffusers.models.transformers."


def build(pipeline: str, transformer: str, *, clip: bool = False, **config: Any) -> Any:
    """A pipeline with one transformer of class `transformer`; its config as Wan's, apart from `config`."""
    if clip:
        config = {"image_dim": 16, **config}
    pipe = getattr(diffusers, pipeline)(
        transformer=seeded(lambda: getattr(diffusers, transformer)(**transformer_config(**config))).eval(),
        vae=seeded(wan_vae).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=None,
        tokenizer=None,
        **(seeded(image_encoder) if clip else {}),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_vace() -> Any:
    # Control: latents of what stays and of what changes, and a mask of 8 × 8 pixels a latent.
    return build("WanVACEPipeline", "WanVACETransformer3DModel", vace_layers=[0, 2], vace_in_channels=16 + 16 + 64)


def build_animate() -> Any:
    return build(
        "WanAnimatePipeline",
        "WanAnimateTransformer3DModel",
        clip=True,
        in_channels=36,
        latent_channels=16,
        num_layers=4,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )


def encode_animate(prompts: Sequence[str]) -> Arguments:
    """A character, and five frames of poses and faces."""
    return {
        **encode_with_image(prompts),
        "pose_video": [picture(32, 48, seed=i) for i in range(5)],
        "face_video": [picture(16, 16, seed=i) for i in range(5)],
    }


def family(name: str, transformer: str, builder: Callable[[], Any], remark: str = "", **more: Any) -> Family:
    """All of them: two calls a step, the conditional one first."""
    return Family(
        **{
            "name": name,
            "transformer": _MODELS + transformer,
            "build": builder,
            "encode": encode,
            "image": {"blocks": whole},
            "calls": SIZES,
            "guided": {"guidance_scale": 4.0},
            "plain": {"guidance_scale": 1.0},
            "calls_per_step": (2, 1),
            "rows": ("cond", "uncond"),
            "combine": combine,
            "remark": remark,
            **more,
        }
    )


_SKYREELS = "transformer_skyreels_v2.SkyReelsV2Transformer3DModel"

FAMILIES: tuple[Family, ...] = (
    family(
        "wan-vace",
        "transformer_wan_vace.WanVACETransformer3DModel",
        build_vace,
        "vace_blocks run first, on the control stream; what they leave is added to the video tokens after some blocks.",
        batch=1,
    ),
    family(
        "wan-animate",
        "transformer_wan_animate.WanAnimateTransformer3DModel",
        build_animate,
        "Token frame 0 is the character, the video starts at frame 1. After every second block the face is attended to.",
        encode=encode_animate,
        calls=(
            Call({"height": 32, "width": 48, "segment_frame_length": 5}, (3, 2, 3)),
            Call({"height": 48, "width": 16, "segment_frame_length": 5}, (3, 3, 1)),
        ),
    ),
    family(
        "chronoedit",
        "transformer_chronoedit.ChronoEditTransformer3DModel",
        lambda: build(
            "ChronoEditPipeline", "ChronoEditTransformer3DModel", clip=True, in_channels=36, added_kv_proj_dim=24
        ),
        "Without temporal reasoning there are two latent frames, the image and its edit, whatever num_frames says; with it "
        "the frames between are dropped after num_temporal_reasoning_steps steps (here: never).",
        encode=encode_with_image,
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
            Call(
                {
                    "height": 48,
                    "width": 16,
                    "num_frames": 9,
                    "enable_temporal_reasoning": True,
                    "num_temporal_reasoning_steps": 2,
                },
                (3, 3, 1),
            ),
        ),
    ),
    # SkyReelsV2DiffusionForcingPipeline was run as well: timestep (B, F), the blocks' temb (B, 6, N, C), the scheduler's copies
    # stepped a frame each, its timesteps rounded down. No row has that.
    family("skyreels-v2", _SKYREELS, lambda: build("SkyReelsV2Pipeline", "SkyReelsV2Transformer3DModel")),
    family(
        "skyreels-v2-i2v",
        _SKYREELS,
        lambda: build(
            "SkyReelsV2ImageToVideoPipeline",
            "SkyReelsV2Transformer3DModel",
            clip=True,
            in_channels=36,
            added_kv_proj_dim=24,
        ),
        encode=encode_with_image,
    ),
)
