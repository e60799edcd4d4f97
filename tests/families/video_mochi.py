"""Mochi and EasyAnimate: as CogVideoX, with masked text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.parts import seeded
from tests.families.video_cog import TEXT, WORDS, encode, family, finished


def encode_masked(prompts: Sequence[str]) -> Arguments:
    mask = torch.ones(len(prompts), WORDS, dtype=torch.bool)
    return {**encode(prompts), "prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}


def build_mochi() -> Any:
    def transformer() -> Any:
        model = diffusers.MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=TEXT,
            time_embed_dim=12,
            num_layers=3,
            max_sequence_length=WORDS,
        )
        torch.nn.init.normal_(model.pos_frequencies)
        return model

    vae = seeded(
        lambda: diffusers.AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        )
    )
    return finished(
        diffusers.MochiPipeline(
            transformer=seeded(transformer).eval(),
            vae=vae.eval(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, invert_sigmas=True),
            text_encoder=None,
            tokenizer=None,
        )
    )


def build_easy(pipeline: str = "EasyAnimatePipeline", **config: Any) -> Any:
    vae = seeded(
        lambda: diffusers.AutoencoderKLMagvit(
            latent_channels=4,
            block_out_channels=(4, 4, 4, 4),
            layers_per_block=1,
            norm_num_groups=2,
        )
    )
    transformer = seeded(
        lambda: diffusers.EasyAnimateTransformer3DModel(
            **{
                "num_attention_heads": 2,
                "attention_head_dim": 16,
                "in_channels": 4,
                "out_channels": 4,
                "time_embed_dim": 12,
                "text_embed_dim": TEXT,
                "text_embed_dim_t5": None,
                "num_layers": 3,
                "mmdit_layers": 2,
                "patch_size": 2,
                "sample_width": 6,
                "sample_height": 4,
                **config,
            }
        )
    )
    return finished(
        getattr(diffusers, pipeline)(
            transformer=transformer.eval(),
            vae=vae.eval(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
            text_encoder=None,
            tokenizer=None,
        )
    )


_MODELS = "diffusers.models.transformers."

FAMILIES: tuple[Family, ...] = (
    family(
        "mochi",
        f"{_MODELS}transformer_mochi.MochiTransformer3DModel",
        build_mochi,
        encode=encode_masked,
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 7}, (2, 2, 3)),
            Call({"height": 48, "width": 16, "num_frames": 13}, (3, 3, 1)),
        ),
    ),
    family(
        "easyanimate",
        f"{_MODELS}transformer_easyanimate.EasyAnimateTransformer3DModel",
        build_easy,
        "The transformer's first two arguments, latents and timestep, are given by place, not by name.",
        encode=encode_masked,
    ),
    # EasyAnimateControlPipeline fails in diffusers 0.42.1: it calls its encode_prompt with text_encoder_index, which that does
    # not take.
)
