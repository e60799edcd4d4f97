"""Kandinsky 5: text to video, image to video and text to image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5I2VPipeline,
    Kandinsky5T2IPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
)

from tests.families.base import Arguments, Call, Family
from tests.families.parts import hunyuan_vae, image_vae, picture, redrawn, rows, seeded

TEXT, POOLED, CHANNELS = 12, 8, 4


def transformer(condition: bool) -> Kandinsky5Transformer3DModel:
    """One block for the text and three for the video, of width 16; the modulations, made as zeros, drawn.

    Parameters
    ----------
    condition : bool
        True for channels of an image and of a mask after the noisy ones.
    """
    model = Kandinsky5Transformer3DModel(
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        in_text_dim=TEXT,
        in_text_dim2=POOLED,
        time_dim=16,
        model_dim=16,
        ff_dim=24,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=(2, 2, 4),
        visual_cond=condition,
    )
    return redrawn(model).eval()


def build_video(kind: Any) -> Any:
    """A video pipeline without its text encoders."""
    return _pipeline(kind, seeded(hunyuan_vae).eval(), condition=kind is Kandinsky5I2VPipeline)


def build_image() -> Any:
    """The image pipeline without its text encoders; it rounds every size to one of its list, which is smaller here."""
    pipe = _pipeline(Kandinsky5T2IPipeline, seeded(image_vae).eval(), condition=False)
    pipe.resolutions = [(48, 32), (16, 80)]
    return pipe


def _pipeline(kind: Any, vae: torch.nn.Module, *, condition: bool) -> Any:
    pipe = kind(
        transformer=seeded(lambda: transformer(condition)),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of a Qwen and of a CLIP and the places where texts begin, for the prompts and for the empty prompt."""
    arguments: Arguments = {}
    for name, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        arguments[f"{name}prompt_embeds_qwen"] = rows(texts, 5, TEXT)
        arguments[f"{name}prompt_embeds_clip"] = rows(texts, POOLED, seed=8)
        arguments[f"{name}prompt_cu_seqlens"] = 5 * torch.arange(len(texts) + 1)
    return arguments


def encode_image(prompts: Sequence[str]) -> Arguments:
    """As `encode`, and an image for every prompt."""
    return {**encode(prompts), "image": [picture(32, 48) for _ in prompts]}


def state(output: torch.Tensor, _: Arguments) -> torch.Tensor:
    """All of it: text comes in by cross-attention."""
    return output


def _family(name: str, build: Any, calls: Sequence[Call], remark: str = "", encode: Any = encode) -> Family:
    return Family(
        name=name,
        transformer="diffusers.models.transformers.transformer_kandinsky.Kandinsky5Transformer3DModel",
        build=build,
        encode=encode,
        image={"visual_transformer_blocks": state},
        calls=calls,
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        remark=remark,
    )


CALLS = (
    Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
    Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
)

FAMILIES: tuple[Family, ...] = (
    _family("kandinsky5", partial(build_video, Kandinsky5T2VPipeline), CALLS),
    _family(
        "kandinsky5-i2v",
        partial(build_video, Kandinsky5I2VPipeline),
        # With fewer latent frames than five, it normalises the first ones by the spread of none: they are not finite.
        (
            Call({"height": 32, "width": 48, "num_frames": 17}, (5, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 21}, (6, 5, 1)),
        ),
        "frame 0 is the image's, and is not stepped; its tokens have the timestep of all",
        encode_image,
    ),
    _family(
        "kandinsky5-t2i",
        build_image,
        (Call({"height": 32, "width": 48}, (1, 2, 3)), Call({"height": 80, "width": 16}, (1, 5, 1))),
        "sizes are rounded to one of the pipeline's resolutions",
    ),
)
