"""The transformer of ``mini-image``, its flow-matching loss, and the pipeline around it.

The T5 tokens are all zero and SD3 gives context tokens no position, so n of them are the same token n times. In
joint attention that equals ONE token whose key logit gets log(n) added. Training uses this: it sees any number of
T5 tokens, the pipeline's default of 256 too, at the price of one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.activations import GELU
from torch import nn

from .text import JOINT_DIM, Conditioner, make_clip, make_t5, make_t5_tokenizer


def make_transformer(layers: int = 8, heads: int = 4, adaln_zero: bool = True) -> SD3Transformer2DModel:
    """Untrained SD3 transformer for 8 x 16 x 16 latents (64 image tokens)."""
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=layers,
        attention_head_dim=64,
        num_attention_heads=heads,
        joint_attention_dim=JOINT_DIM,
        caption_projection_dim=64 * heads,
        pooled_projection_dim=JOINT_DIM,
        pos_embed_max_size=8,
    )
    if adaln_zero:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Every block starts as the identity and the output as zero (as in DiT); diffusers leaves this to the trainer.
        for block in model.transformer_blocks:
            for norm in (block.norm1, block.norm1_context):
                nn.init.zeros_(norm.linear.weight)
        nn.init.zeros_(model.norm_out.linear.weight)
        nn.init.zeros_(model.proj_out.weight)
    return model


class MiniModel(nn.Module):
    """Everything that is trained jointly: the transformer and the two text encoders."""

    def __init__(self, tokenizer, layers: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.transformer = make_transformer(layers, heads)
        self.conditioner = Conditioner(make_clip(tokenizer), make_clip(tokenizer))


class CountedContext:
    """Joint attention in which the last context token stands for several equal ones.

    ``log_count`` is a (B, 1, 1, tokens) bias on the keys, zero but for the last column. Same result as diffusers'
    own processor with the token repeated.
    """

    def __init__(self) -> None:
        self.log_count: torch.Tensor | None = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        """Attention of image (B, N, width) and context (B, M, width) tokens; returns both."""
        batch, n, width = hidden_states.shape

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(batch, -1, attn.heads, width // attn.heads).transpose(1, 2)

        streams = [
            (attn.to_q(hidden_states), attn.add_q_proj(encoder_hidden_states)),
            (attn.to_k(hidden_states), attn.add_k_proj(encoder_hidden_states)),
            (attn.to_v(hidden_states), attn.add_v_proj(encoder_hidden_states)),
        ]
        q, k, v = (heads(torch.cat(pair, dim=1)) for pair in streams)
        # Plain matrix products: with this few tokens torch's fused CPU attention takes 4.5 times as long (measured).
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if self.log_count is not None:
            scores = scores + self.log_count.to(scores.dtype)
        out = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        image, context = out[:, :n], out[:, n:]
        context = context if attn.context_pre_only else attn.to_add_out(context)
        return attn.to_out[1](attn.to_out[0](image)), context


def prepare_for_training(model: SD3Transformer2DModel) -> CountedContext:
    """Exchange two slow CPU kernels for fast ones with the same result; returns the attention processor."""
    processor = CountedContext()
    model.set_attn_processor(processor)
    for module in model.modules():
        # On CPU the tanh form of GELU takes three times as long as the exact one. They differ by less than 5e-4,
        # well under bf16 rounding.
        if isinstance(module, GELU):
            module.gelu = F.gelu
    return processor


def set_counts(processor: CountedContext, counts: torch.Tensor | None, tokens: int) -> None:
    """Let the last of ``tokens`` keys count ``counts[b]`` times in sample b; None: once."""
    if counts is None:
        processor.log_count = None
        return
    bias = torch.zeros(len(counts), 1, 1, tokens, device=counts.device)
    bias[:, 0, 0, -1] = counts.float().log()
    processor.log_count = bias


def draw(
    generator: torch.Generator, batch: int, long_share: float = 0.3, mean: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise levels and T5 token counts of one batch.

    Returns
    -------
    sigma
        (batch,) logit-normal(mean, 1), stratified: one draw in each of ``batch`` equal slices of probability.
    counts
        (batch,) number of T5 tokens: the pipeline's default 256 in ``long_share`` of the samples, else 1 to 16.
    """
    u = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    sigma = torch.sigmoid(mean + math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-0.9999, 0.9999)))
    short = torch.randint(1, 17, (batch,), generator=generator)
    long = torch.rand(batch, generator=generator) < long_share
    return sigma, torch.where(long, 256, short)


def flow_loss(
    model: MiniModel, latents: torch.Tensor, ids: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the velocity ``noise - latents`` at ``(1 - sigma) latents + sigma noise``.

    Parameters
    ----------
    latents, noise
        (B, 8, 16, 16).
    ids
        (B, L) prompt tokens.
    sigma
        (B,) noise levels in [0, 1]; the transformer gets 1000 sigma, as from the scheduler.
    """
    s = sigma.view(-1, 1, 1, 1)
    tokens, pooled = model.conditioner(ids)
    out = model.transformer(
        hidden_states=(1 - s) * latents + s * noise,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=1000 * sigma,
        return_dict=False,
    )[0]
    return (out.float() - (noise - latents)).square().mean()


def make_pipeline(model: MiniModel, tokenizer, vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """Ordinary SD3 pipeline around the trained parts (shared, not copied)."""
    return StableDiffusion3Pipeline(
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
        vae=vae,
        text_encoder=model.conditioner.clip,
        tokenizer=tokenizer,
        text_encoder_2=model.conditioner.clip_2,
        tokenizer_2=tokenizer,
        text_encoder_3=make_t5(),
        tokenizer_3=make_t5_tokenizer(),
    )
