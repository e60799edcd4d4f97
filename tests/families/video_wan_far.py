"""Transformers made from Wan's that generate any step or in sections: AnyFlow, Helios."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.parts import seeded, wan_vae
from tests.families.video_wan import SIZES, combine, encode, transformer_config, whole

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


def last(output: Any, arguments: Arguments) -> torch.Tensor:
    """History tokens stand in front of those of this section."""
    latents = arguments["hidden_states"]
    count = latents.shape[2] * (latents.shape[3] // 2) * (latents.shape[4] // 2)
    return output[:, -count:]  # type: ignore[no-any-return]


FAMILIES: tuple[Family, ...] = (
    Family(
        name="anyflow",
        transformer=f"{_MODELS}transformer_anyflow.AnyFlowTransformer3DModel",
        build=lambda: build(
            "AnyFlowPipeline", "AnyFlowTransformer3DModel", diffusers.FlowMapEulerDiscreteScheduler(shift=3.0)
        ),
        encode=encode,
        image={"blocks": whole},
        calls=SIZES,
        guided={"guidance_scale": 4.0},
        # It joins the negative prompt's rows to the prompts', without guidance as well.
        plain={"guidance_scale": 1.0, "negative_prompt_embeds": None},
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

REFUSED: dict[str, str] = {
    # Built, and run through AnyFlowFARPipeline. One section alone fits a row ((2, 2, 3) and (3, 3, 1), one call a step), but
    # with full_chunk_limit = 3, as released, the pipeline can't make one (its cache would have a negative size). With sections
    # of 1, 1 and 2 latent frames and 2 steps there are 8 calls: 2 + 1 + 2 + 1 + 2, the third and the sixth with
    # kv_cache_flag["is_cache_step"], and block states of 6, 6, 6, 6, 6, 7, 12 and 12 tokens (7: one frame compressed to one).
    f"{_MODELS}transformer_anyflow_far.AnyFlowFARTransformer3DModel": "sections, with calls between them that fill a cache",
    # Looked for: no pipeline of diffusers.pipelines uses it, only WanAnimate2ModularPipeline and its distilled twin. Read, not
    # run: kv_cache_mode = "extract" for the reference, and `if is_uncondtion and idx == 9: continue` in its forward.
    f"{_MODELS}transformer_wan_animate_2.WanAnimate2Transformer3DModel": "modular pipelines only",
}
