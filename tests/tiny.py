"""A real StableDiffusion3Pipeline, tiny and randomly initialised, without text encoders; and its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

WIDTH, TEXT, POOLED, BLOCKS = 32, 24, 16, 3


def tiny_pipeline(*, seed: int = 0, dtype: torch.dtype = torch.float32, vae: bool = True, **config: Any) -> Any:
    """Random weights from a seed; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            **{
                "sample_size": 8,
                "patch_size": 2,
                "in_channels": 4,
                "out_channels": 4,
                "num_layers": BLOCKS,
                "attention_head_dim": 16,
                "num_attention_heads": WIDTH // 16,
                "joint_attention_dim": TEXT,
                "caption_projection_dim": WIDTH,
                "pooled_projection_dim": POOLED,
                "pos_embed_max_size": 16,
                **config,
            }
        )
        decoder = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            block_out_channels=(8,),
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
            scaling_factor=1.0,
            shift_factor=0.0,
        )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=decoder.eval() if vae else None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(dtype)


def encode(prompts: Sequence[str], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Embeddings that depend on each prompt alone, reproducibly."""
    rows = []
    for prompt in [*prompts, ""]:
        generator = torch.Generator().manual_seed(sum(prompt.encode()) + 7)
        rows.append((torch.randn(5, TEXT, generator=generator), torch.randn(POOLED, generator=generator)))
    tokens = torch.stack([row[0] for row in rows]).to(dtype)
    pooled = torch.stack([row[1] for row in rows]).to(dtype)
    count = len(prompts)
    return {
        "prompt_embeds": tokens[:count],
        "pooled_prompt_embeds": pooled[:count],
        "negative_prompt_embeds": tokens[count:].expand(count, -1, -1),
        "negative_pooled_prompt_embeds": pooled[count:].expand(count, -1),
    }


def tiny_with_texts(seed: int = 0) -> Any:
    """The same kind of pipeline with tokenizers and text encoders, so that it can be saved and loaded as a folder."""
    from workbench.models.mini.text import make_clip, make_t5, make_t5_tokenizer, make_tokenizer

    bare = tiny_pipeline(seed=seed, joint_attention_dim=256, pooled_projection_dim=256)
    tokenizer = make_tokenizer(["red apple", "dog"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        texts = {
            "text_encoder": make_clip(tokenizer).eval(),
            "text_encoder_2": make_clip(tokenizer).eval(),
            "text_encoder_3": make_t5().eval(),
        }
    pipe = StableDiffusion3Pipeline(
        transformer=bare.transformer,
        scheduler=bare.scheduler,
        vae=bare.vae,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=make_t5_tokenizer(),
        **texts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
