"""Transformers made from Wan's that generate any step or in sections: AnyFlow, Helios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.parts import rows, seeded, wan_vae
from tests.families.video_wan import SIZES, TEXT, combine, encode, transformer_config, whole

_MODELS = "diffusers.models.transformers."


def config_of(**more: Any) -> dict[str, Any]:
    return {key: value for key, value in transformer_config(**more).items() if value is not None}


def build(pipeline: str, transformer: str, scheduler: Any, **config: Any) -> Any:
    pipe = getattr(diffusers, pipeline)(
        transformer=seeded(lambda: getattr(diffusers, transformer)(**config_of(**config))).eval(),
        vae=seeded(wan_vae).eval(),
        scheduler=scheduler,
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode_alone(prompts: Sequence[str]) -> Arguments:
    """AnyFlow joins the negative prompt's rows to the prompts' even where it does without guidance."""
    return {"prompt_embeds": rows(prompts, 5, TEXT)}


def last(output: Any, arguments: Arguments) -> torch.Tensor:
    """History tokens stand in front of those of this section."""
    latents = arguments["hidden_states"]
    count = latents.shape[2] * (latents.shape[3] // 2) * (latents.shape[4] // 2)
    return output[:, -count:]  # type: ignore[no-any-return]


_GUIDED = {"guidance_scale": 4.0, "negative_prompt_embeds": rows(["", ""], 5, TEXT)}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="anyflow",
        transformer=f"{_MODELS}transformer_anyflow.AnyFlowTransformer3DModel",
        build=lambda: build(
            "AnyFlowPipeline", "AnyFlowTransformer3DModel", diffusers.FlowMapEulerDiscreteScheduler(shift=3.0)
        ),
        encode=encode_alone,
        image={"blocks": whole},
        calls=SIZES,
        guided=_GUIDED,
        plain={"guidance_scale": 1.0},
        calls_per_step=(1, 1),
        combine=combine,
        remark="A timestep a frame, (B, F), and the one that the step ends at (r_timestep).",
    ),
    Family(
        name="helios",
        transformer=f"{_MODELS}transformer_helios.HeliosTransformer3DModel",
        build=lambda: build(
            "HeliosPipeline",
            "HeliosTransformer3DModel",
            diffusers.HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=True),
            rope_dim=(4, 4, 4),
            rope_max_seq_len=None,
        ),
        encode=encode,
        image={"blocks": last},
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5, "num_latent_frames_per_chunk": 2}, (2, 2, 3)),
            Call({"height": 48, "width": 16, "num_frames": 9, "num_latent_frames_per_chunk": 3}, (3, 3, 1)),
        ),
        guided={"guidance_scale": 4.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=combine,
        extra={"history_sizes": [4, 2, 1]},
        remark="One section; the next one runs all steps again. Before the section's tokens stand those of long, mid and short "
        "history, modulated with t = 0.",
    ),
)
