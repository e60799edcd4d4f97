"""Krea 2, Nucleus, ERNIE and OmniGen: text and image in one sequence, or packed latents."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import diffusers
import torch

from tests.families.base import Arguments, Family, embeddings
from tests.families.image_plain import GUIDED, MODELS, PLAIN, SIZES, TEXT, assembled, linear, whole
from tests.families.parts import image_vae, mask, redrawn, rows, seeded, words

#: Layers of the text encoder that Krea 2 is given.
LAYERS = 2


def flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def behind(output: Any, arguments: Arguments) -> torch.Tensor:
    """Text first, then as many image tokens as there are packed latents."""
    tokens: torch.Tensor = output[:, -arguments["hidden_states"].shape[1] :]
    return tokens


def build_krea() -> Any:
    transformer = seeded(
        lambda: diffusers.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=3,
            attention_head_dim=12,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=24,
            timestep_embed_dim=16,
            text_hidden_dim=TEXT,
            num_text_layers=LAYERS,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=24,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 4, 4),
        ).eval()
    )
    parts = {"vae": None, "text_encoder": None, "tokenizer": None}
    return assembled(diffusers.Krea2Pipeline, transformer=redrawn(transformer), scheduler=flow(), **parts)


def encode_krea(prompts: Sequence[str]) -> Arguments:
    """Several layers of the text encoder for every token."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, LAYERS, TEXT),
        "prompt_embeds_mask": mask(prompts).bool(),
        "negative_prompt_embeds": rows(empty, 5, LAYERS, TEXT),
        "negative_prompt_embeds_mask": mask(empty).bool(),
    }


def combine_krea(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    return cond + scale * (cond - uncond)


def build_nucleus() -> Any:
    """The fourth of its five blocks chooses among experts, whose weights nothing sets."""
    transformer = seeded(
        lambda: diffusers.NucleusMoEImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=5,
            attention_head_dim=24,
            num_attention_heads=2,
            joint_attention_dim=TEXT,
            axes_dims_rope=(8, 8, 8),
            num_experts=3,
            moe_intermediate_dim=8,
            capacity_factors=1.0,
        ).eval()
    )
    return assembled(
        diffusers.NucleusMoEImagePipeline,
        transformer=redrawn(transformer),
        scheduler=flow(),
        vae=None,
        text_encoder=None,
        processor=None,
    )


def encode_nucleus(prompts: Sequence[str]) -> Arguments:
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "prompt_embeds_mask": mask(prompts).bool(),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_prompt_embeds_mask": mask(empty).bool(),
    }


def combine_nucleus(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Every token keeps the length that it has in the conditional prediction; the flow runs backwards."""
    combined = linear(cond, uncond, scale)
    return -combined * (cond.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True))


def build_ernie() -> Any:
    """Its modulation and its last layer start as zeros."""
    transformer = seeded(
        lambda: diffusers.ErnieImageTransformer2DModel(
            hidden_size=24,
            num_attention_heads=2,
            num_layers=3,
            ffn_hidden_size=32,
            in_channels=8,
            out_channels=8,
            text_in_dim=TEXT,
            rope_axes_dim=(4, 4, 4),
        ).eval()
    )
    parts = {"vae": None, "text_encoder": None, "tokenizer": None}
    return assembled(diffusers.ErnieImagePipeline, transformer=redrawn(transformer), scheduler=flow(), **parts)


def encode_ernie(prompts: Sequence[str]) -> Arguments:
    """Lists: every prompt has as many tokens as it has words."""
    return {
        "prompt_embeds": [embeddings(prompt, words(prompt), TEXT) for prompt in prompts],
        "negative_prompt_embeds": [embeddings("", words(""), TEXT) for _ in prompts],
    }


def sequence_first(output: Any, arguments: Arguments) -> torch.Tensor:
    """(S, B, C), the image before the text; a token is one latent."""
    height, width = arguments["hidden_states"].shape[-2:]
    tokens: torch.Tensor = output[: height * width].transpose(0, 1)
    return tokens


class Words:
    """A tokenizer that makes one token of every word."""

    model_max_length = 512

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=[1, *(sum(word.encode()) % 90 + 3 for word in text.split())])


def build_omnigen() -> Any:
    """Without torchvision the pipeline lacks its processor, which transforms images with it; text alone needs none."""
    from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen

    factor = [1.0] * 4
    transformer = seeded(
        lambda: diffusers.OmniGenTransformer2DModel(
            hidden_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=24,
            num_layers=3,
            pad_token_id=0,
            vocab_size=96,
            max_position_embeddings=1024,
            original_max_position_embeddings=1024,
            rope_scaling={"short_factor": factor, "long_factor": factor},
            pos_embed_max_size=8,
            time_step_dim=16,
        ).eval()
    )
    processor = processor_omnigen.OmniGenMultiModalProcessor
    with (
        mock.patch.object(processor_omnigen, "transforms", mock.MagicMock(), create=True),
        mock.patch.object(pipeline_omnigen, "OmniGenMultiModalProcessor", processor, create=True),
    ):
        return assembled(
            diffusers.OmniGenPipeline,
            transformer=redrawn(transformer),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
            vae=seeded(image_vae).eval(),
            tokenizer=Words(),
        )


def after_time(output: Any, arguments: Arguments) -> torch.Tensor:
    """The condition, filled up in front, then one token of the timestep, then the image."""
    height, width = arguments["hidden_states"].shape[-2:]
    tokens: torch.Tensor = output[:, arguments["input_ids"].shape[1] + 1 :]
    assert tokens.shape[1] == height // 2 * (width // 2)
    return tokens


FAMILIES: tuple[Family, ...] = (
    Family(
        name="krea2",
        transformer=MODELS + "transformer_krea2.Krea2Transformer2DModel",
        build=build_krea,
        encode=encode_krea,
        image={"transformer_blocks": behind},
        calls=SIZES,
        guided=GUIDED,
        plain={"guidance_scale": 0.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=combine_krea,
        remark="Guidance starts above 0, not 1.",
    ),
    Family(
        name="nucleus",
        transformer=MODELS + "transformer_nucleusmoe_image.NucleusMoEImageTransformer2DModel",
        build=build_nucleus,
        encode=encode_nucleus,
        image={"transformer_blocks": whole},
        calls=SIZES,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=combine_nucleus,
    ),
    Family(
        name="ernie",
        transformer=MODELS + "transformer_ernie_image.ErnieImageTransformer2DModel",
        build=build_ernie,
        encode=encode_ernie,
        image={"layers": sequence_first},
        calls=SIZES,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=linear,
        remark="The pipeline's latents have two by two of the VAE's in their channels; a token is one of them.",
    ),
    Family(
        name="omnigen",
        transformer=MODELS + "transformer_omnigen.OmniGenTransformer2DModel",
        build=build_omnigen,
        encode=lambda prompts: {"prompt": list(prompts)},
        image={"layers": after_time},
        calls=SIZES,
        guided=GUIDED,
        plain=None,
        calls_per_step=(1, 1),
        rows=("cond", "uncond"),
        combine=linear,
        remark="Both branches always run; a third, of the images alone, with input_images. Its time runs from 0, noise, to 1.",
    ),
)
