"""FLUX.2, whose single blocks hold text and image as one sequence, with embedded guidance or (Klein) with a second call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import Flux2KleinPipeline

from tests.families import joint_parts as joint
from tests.families.base import Arguments, Call, Family
from tests.families.parts import rows
from tests.tiny_flux2 import TEXT, tiny_flux2

#: The tiny VAE of `tests.tiny_flux2` shrinks ×2.
CALLS = (Call({"height": 8, "width": 12}, (1, 2, 3)), Call({"height": 20, "width": 4}, (1, 5, 1)))


def build_klein(**settings: Any) -> Any:
    plain = tiny_flux2(guidance_embeds=False)
    parts = {name: plain.components[name] for name in ("vae", "scheduler", "transformer", "text_encoder", "tokenizer")}
    return joint.quiet(Flux2KleinPipeline(**parts, **settings))


def encode(prompts: Sequence[str]) -> Arguments:
    return {"prompt_embeds": rows(prompts, 5, TEXT)}


def encode_klein(prompts: Sequence[str]) -> Arguments:
    return {**encode(prompts), "negative_prompt_embeds": rows([""] * len(prompts), 5, TEXT)}


_SHARED: dict[str, Any] = {
    "transformer": "diffusers.models.transformers.transformer_flux2.Flux2Transformer2DModel",
    "image": {"transformer_blocks": joint.second, "single_transformer_blocks": joint.after_text},
    "calls": CALLS,
    "rows": ("cond", "uncond"),
}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="flux2",
        build=tiny_flux2,
        encode=encode,
        guided=None,
        plain={"guidance_scale": 4.0},
        calls_per_step=(1, 1),
        remark="guidance_scale is embedded.",
        **_SHARED,
    ),
    Family(
        name="flux2-klein",
        build=build_klein,
        encode=encode_klein,
        guided={"guidance_scale": 4.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(2, 1),
        combine=joint.combine,
        **_SHARED,
    ),
)

#: Tried: a tiny transformer by itself. Its blocks return the image in ``mode_blocks.image`` and (text, image) in
#: ``single_transformer_blocks``, as a row could say. But diffusers 0.42 has no stock pipeline of it.
REFUSED = {
    "diffusers.models.transformers.transformer_flux3.Flux3Transformer2DModel": "only modular pipelines run it",
}
