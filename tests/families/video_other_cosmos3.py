"""Cosmos 3: one video at a time; text and video tokens in one stack, without an axis for the batch."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import Cosmos3OmniPipeline, Cosmos3OmniTransformer, FlowMatchEulerDiscreteScheduler

from tests.families.base import Arguments, Call, Family
from tests.families.parts import redrawn, seeded, wan_vae

CHANNELS, WORDS = 4, 64


class Tokenizer:
    """In place of Qwen's, whose vocabulary would have to be there: five tokens a text, made of its characters."""

    eos_token_id = WORDS - 1

    def convert_tokens_to_ids(self, token: str) -> int:
        return WORDS - 2

    def apply_chat_template(self, conversations: list[dict[str, str]], **_: Any) -> SimpleNamespace:
        text = conversations[-1]["content"].encode()
        return SimpleNamespace(input_ids=[sum(text[i::5]) % (WORDS - 2) for i in range(5)])


def transformer() -> Cosmos3OmniTransformer:
    """Three layers of width 24."""
    model = Cosmos3OmniTransformer(
        head_dim=12,
        hidden_size=24,
        intermediate_size=32,
        latent_channel=CHANNELS,
        patch_latent_dim=4 * CHANNELS,
        num_attention_heads=2,
        num_hidden_layers=3,
        num_key_value_heads=2,
        vocab_size=WORDS,
        rope_axes_dim=[2, 2, 2],
        action_gen=False,
        sound_gen=False,
    )
    return redrawn(model).eval()


def build() -> Any:
    """The pipeline, whose text encoder is the transformer itself."""
    pipe = Cosmos3OmniPipeline(
        transformer=seeded(transformer),
        text_tokenizer=Tokenizer(),
        vae=seeded(lambda: wan_vae(CHANNELS)).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        enable_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """The pipeline takes one prompt, and makes tokens of it."""
    return {"prompt": prompts[0], "use_system_prompt": False}


def video(output: Any, _: Arguments) -> torch.Tensor:
    """The second of (text, video), (N, C) each, with an axis for the one video."""
    return output[1][None]


FAMILIES: tuple[Family, ...] = (
    Family(
        name="cosmos3",
        transformer="diffusers.models.transformers.transformer_cosmos3.Cosmos3OmniTransformer",
        build=build,
        encode=encode,
        image={"layers": video},
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=lambda cond, uncond, scale: (uncond + scale * (cond - uncond))[None],
        batch=1,
        remark="the timestep is added to the noisy tokens",
    ),
)
