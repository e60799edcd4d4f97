"""Ideogram 4: text and image in one sequence, and a second transformer for the unconditional prediction."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Family
from tests.families.image_plain import MODELS, SIZES, assembled
from tests.families.parts import seeded

#: Width of the text encoder, and its layers that the pipeline takes.
WIDTH, TAKEN = 4, 13


class Words:
    """A tokenizer that makes one token of every word."""

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        return str(messages[0]["content"][0]["text"])

    def __call__(self, text: str, **options: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[sum(word.encode()) % 64 for word in text.split()]])}


class Layer(torch.nn.Module):
    """Takes what a decoder layer is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor, **others: Any) -> torch.Tensor:
        return hidden + self.linear(hidden)


class Encoder(torch.nn.Module):
    """What the pipeline reads of Qwen3-VL, which it runs layer by layer itself."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig

        self.language_model = torch.nn.Module()
        self.language_model.embed_tokens = torch.nn.Embedding(64, WIDTH)
        self.language_model.layers = torch.nn.ModuleList([Layer() for _ in range(36)])
        self.language_model.rotary_emb = torch.nn.Module()
        self.language_model.rotary_emb.forward = lambda hidden, places: None
        self.language_model.config = LlamaConfig(attn_implementation="eager")
        self.device, self.dtype = torch.device("cpu"), torch.float32


def build() -> Any:
    def transformer() -> Any:
        return diffusers.Ideogram4Transformer2DModel(
            in_channels=16,
            num_layers=3,
            attention_head_dim=12,
            num_attention_heads=2,
            intermediate_size=24,
            adaln_dim=8,
            llm_features_dim=WIDTH * TAKEN,
            mrope_section=(2, 2, 2),
        ).eval()

    return assembled(
        diffusers.Ideogram4Pipeline,
        transformer=seeded(transformer),
        unconditional_transformer=seeded(transformer, seed=2),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=seeded(Encoder).eval(),
        tokenizer=Words(),
    )


def last(output: Any, arguments: Arguments) -> torch.Tensor:
    """Filling up, the text, the image: that of the indicator 2."""
    count = int((arguments["indicator"][0] == 2).sum())
    tokens: torch.Tensor = output[:, -count:]
    return tokens


def combine(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """The unconditional prediction is the other transformer's, of the image alone; the flow runs backwards."""
    return -(scale * cond[:, -uncond.shape[1] :] + (1 - scale) * uncond)


FAMILIES: tuple[Family, ...] = (
    Family(
        name="ideogram4",
        transformer=MODELS + "transformer_ideogram4.Ideogram4Transformer2DModel",
        build=build,
        encode=lambda prompts: {"prompt": list(prompts), "max_sequence_length": 4},
        image={"layers": last},
        calls=SIZES,
        guided={"guidance_scale": 4.0, "guidance_schedule": None},
        plain=None,
        calls_per_step=(1, 1),
        rows=("cond",),
        combine=combine,
        remark="`uncond` is what `unconditional_transformer` gives; it runs at every scale. Other scales step by step "
        "by default.",
    ),
)
