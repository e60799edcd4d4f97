"""The same transformers from a prompt and an image, whose latents the first step begins with or that has channels of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import diffusers
import torch

from tests.families import joint_cog, joint_flux, joint_qwen, joint_sd3
from tests.families import joint_parts as joint
from tests.families.base import Arguments, Family
from tests.families.parts import image_vae, picture, seeded
from tests.tiny import tiny_pipeline

_KNOWN = {
    family.name: family for module in (joint_sd3, joint_flux, joint_qwen, joint_cog) for family in module.FAMILIES
}
_ALONE: dict[str, Any] = {"guided": None, "plain": {"guidance_scale": 3.5}, "calls_per_step": (1, 1), "combine": None}


def build(pipeline: str, parts: Callable[[], Any]) -> Any:
    """Another pipeline of the same parts, as far as it takes them."""
    kind, components = getattr(diffusers, pipeline), parts().components
    wanted = inspect.signature(kind.__init__).parameters
    return joint.quiet(kind(**{name: part for name, part in components.items() if name in wanted}))


def build_sd3(channels: int) -> Any:
    """With 16 channels of latents, which the pipeline insists on."""
    pipe = tiny_pipeline(in_channels=channels, out_channels=16, vae=False)
    pipe.register_modules(vae=seeded(lambda: image_vae(16)).eval())
    return pipe


def encode(own: Callable[..., Arguments], images: Sequence[str], prompts: Sequence[str]) -> Arguments:
    """With an image a prompt; of a mask, what is white is made anew."""
    return {**own(prompts), **{name: [picture(32, 48, seed=len(text)) for text in prompts] for name in images}}


def build_cogview4() -> Any:
    """The pipeline draws the control image's latents from the global generator: here they have no spread."""
    pipe = build("CogView4ControlPipeline", partial(joint_cog.build_cogview4, 8))
    drawn = pipe.vae.encode

    def encode_without_spread(pixels: torch.Tensor) -> Any:
        encoded = drawn(pixels)
        encoded.latent_dist.std = torch.zeros_like(encoded.latent_dist.std)
        return encoded

    pipe.vae.encode = encode_without_spread
    return pipe


def alone(prompts: Sequence[str]) -> Arguments:
    """FLUX.1's arguments without those of a second branch, which the pipeline has not."""
    arguments = joint_flux.encode_flux(prompts)
    return {name: value for name, value in arguments.items() if not name.startswith("negative")}


def controlled(own: Callable[..., Arguments], prompts: Sequence[str]) -> Arguments:
    """With one image for all prompts."""
    return {**own(prompts), "control_image": picture(32, 48)}


def _family(name: str, pipeline: str, *images: str, like: str, **more: Any) -> Family:
    family = _KNOWN[like]
    return replace(
        family,
        **{
            "name": name,
            "build": partial(build, pipeline, family.build),
            "encode": partial(encode, family.encode, images),
            "extra": {**family.extra, "strength": 1.0},
            "remark": "",
            **more,
        },
    )


_MASKED = ("image", "mask_image")
#: The image's latents and the mask's pixels, packed 2 × 2, follow the noisy ones: 16 + 16 + 4 · 64 channels.
_FILLED = partial(joint_flux.build_flux, in_channels=16 + 16 + 256, out_channels=16)
_CONTROLLED = partial(joint_flux.build_flux, in_channels=32, out_channels=16)

FAMILIES: tuple[Family, ...] = (
    _family("sd3-img2img", "StableDiffusion3Img2ImgPipeline", "image", like="sd3"),
    *(
        _family(
            name,
            "StableDiffusion3InpaintPipeline",
            *_MASKED,
            like="sd3",
            build=partial(build, "StableDiffusion3InpaintPipeline", partial(build_sd3, channels)),
            calls=joint.CALLS,
        )
        # The second has channels for the mask and the latents of the masked image.
        for name, channels in (("sd3-inpaint", 16), ("sd3-inpaint-masked", 33))
    ),
    _family("flux-img2img", "FluxImg2ImgPipeline", "image", like="flux"),
    _family("flux-inpaint", "FluxInpaintPipeline", *_MASKED, like="flux"),
    _family(
        "flux-fill",
        "FluxFillPipeline",
        *_MASKED,
        like="flux",
        **_ALONE,
        build=partial(build, "FluxFillPipeline", _FILLED),
        encode=partial(encode, alone, _MASKED),
    ),
    _family(
        "flux-control",
        "FluxControlPipeline",
        like="flux",
        **_ALONE,
        build=partial(build, "FluxControlPipeline", _CONTROLLED),
        encode=partial(controlled, alone),
        extra={},
    ),
    _family("chroma-img2img", "ChromaImg2ImgPipeline", "image", like="chroma"),
    # ChromaInpaintPipeline fails in diffusers 0.42: it asks the transformer's config for guidance_embeds, which it has not.
    _family("qwen-image-img2img", "QwenImageImg2ImgPipeline", "image", like="qwen-image"),
    _family("qwen-image-inpaint", "QwenImageInpaintPipeline", *_MASKED, like="qwen-image"),
    _family(
        "cogview4-control",
        "CogView4ControlPipeline",
        like="cogview4",
        build=build_cogview4,
        encode=partial(controlled, joint.encode),
        extra={},
    ),
)
