"""The same transformers from an image and a prompt: the image's latents, with noise, are what the first step begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from diffusers import (
    ChromaImg2ImgPipeline,
    FluxImg2ImgPipeline,
    QwenImageImg2ImgPipeline,
    StableDiffusion3Img2ImgPipeline,
)

from tests.families import joint_flux, joint_qwen, joint_sd3
from tests.families import joint_parts as joint
from tests.families.base import Arguments, Family
from tests.families.parts import picture


def _from_image(family: Family, pipeline: Any) -> Family:
    """The family with another pipeline of the same parts, from an image a prompt."""

    def build() -> Any:
        return joint.quiet(pipeline(**family.build().components))

    def encode(prompts: Sequence[str], own: Callable[..., Arguments] = family.encode) -> Arguments:
        return {**own(prompts), "image": [picture(32, 48, seed=len(prompt)) for prompt in prompts]}

    return replace(
        family, name=f"{family.name}-img2img", build=build, encode=encode, extra={**family.extra, "strength": 1.0}
    )


def _named(families: Sequence[Family], name: str) -> Family:
    return next(family for family in families if family.name == name)


FAMILIES: tuple[Family, ...] = (
    _from_image(_named(joint_sd3.FAMILIES, "sd3"), StableDiffusion3Img2ImgPipeline),
    _from_image(_named(joint_flux.FAMILIES, "flux"), FluxImg2ImgPipeline),
    _from_image(_named(joint_flux.FAMILIES, "chroma"), ChromaImg2ImgPipeline),
    _from_image(_named(joint_qwen.FAMILIES, "qwen-image"), QwenImageImg2ImgPipeline),
)
