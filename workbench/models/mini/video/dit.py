"""The transformer of ``mini-video``, its text encoder, its flow-matching loss, and the pipeline around them.

``WanPipeline`` pads a prompt with zeros to ``max_sequence_length`` and masks nothing, so that n padded positions are the
same key and value n times. In cross-attention that equals one of them whose logit gets log(n) added: training sees any
length at the price of one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from diffusers.models.activations import GELU
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from ..text import EOS, PAD, SPECIAL, word_tokenizer

TEXT_DIM = 256
WORDS = 10
"""Length every prompt is padded to in training: words and an end token."""
SHIFT = 3.0
"""Of the scheduler: more of the steps at high noise, where subject and place are decided; with 1 both come out blurred."""

LENGTHS = (226, 512)
"""Padded lengths of a prompt that training sees most: the defaults of ``encode_prompt`` and of the pipeline's call."""


def make_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """Word-level tokenizer over the words of ``captions``."""
    words = sorted({word for text in captions for word in text.split()})
    return word_tokenizer(SPECIAL + words, f"$A {EOS}", 512)


def make_text_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """Untrained one-layer text encoder."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_DIM,
            d_ff=TEXT_DIM,
            d_kv=64,
            num_layers=1,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=SPECIAL.index(PAD),
            eos_token_id=SPECIAL.index(EOS),
            decoder_start_token_id=0,
        )
    )


def make_transformer(layers: int = 8, heads: int = 4, ffn: int = 768) -> WanTransformer3DModel:
    """Untrained Wan transformer for 16 x 5 x 16 x 16 latents (5 frames of 8 x 8 tokens)."""
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_DIM,
        freq_dim=256,
        ffn_dim=ffn,
        num_layers=layers,
        cross_attn_norm=True,
        rope_max_seq_len=64,
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    # As in DiT, a block starts as (nearly) the identity and the output as zero; diffusers leaves this to the trainer.
    nn.init.zeros_(model.condition_embedder.time_proj.weight)
    for block in model.blocks:
        nn.init.normal_(block.scale_shift_table, std=0.02)
        nn.init.zeros_(block.attn2.to_out[0].weight)
    nn.init.zeros_(model.proj_out.weight)
    return model


class MiniVideo(nn.Module):
    """Everything that is trained jointly: the transformer and the text encoder."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, layers: int = 8, heads: int = 4, ffn: int = 768) -> None:
        super().__init__()
        self.transformer = make_transformer(layers, heads, ffn)
        self.text_encoder = make_text_encoder(tokenizer)


def token_ids(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> torch.Tensor:
    """Padded ids, (N, WORDS)."""
    return tokenizer(captions, padding="max_length", max_length=WORDS, truncation=True, return_tensors="pt").input_ids


class CountedPadding:
    """Wan's attention by plain matrix products, in which the padded context positions count ``padding`` times in all.

    Same result as diffusers' own processor with the padding written out. ``bias`` (B, 1, 1, tokens) is added to the
    logits of cross-attention. Plain products because torch's fused CPU attention is several times slower with so few tokens.
    """

    def __init__(self) -> None:
        self.bias: torch.Tensor | None = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        """Attention of video (B, N, width) to itself, or to the context (B, M, width)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        exact = attn.norm_q.weight.dtype  # under autocast the projections are bfloat16, the norms' weights are not
        q, k = attn.norm_q(attn.to_q(hidden_states).to(exact)), attn.norm_k(attn.to_k(context).to(exact))
        v = attn.to_v(context)
        q, k, v = (x.unflatten(2, (attn.heads, -1)) for x in (q, k, v))
        if rotary_emb is not None:
            q, k = (_rotated(x, *rotary_emb) for x in (q, k))
        q, k, v = (x.transpose(1, 2).to(v.dtype) for x in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if encoder_hidden_states is not None and self.bias is not None:
            scores = scores + self.bias.to(scores.dtype)
        out = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., 0::2].to(x.dtype), sin[..., 1::2].to(x.dtype)
    return torch.stack([first * c - second * s, first * s + second * c], dim=-1).flatten(-2)


def prepare_for_training(model: WanTransformer3DModel) -> CountedPadding:
    """Exchange slow CPU kernels for fast ones with the same result; returns the attention processor."""
    processor = CountedPadding()
    for block in model.blocks:
        block.attn1.set_processor(processor)
        block.attn2.set_processor(processor)
    for module in model.modules():
        if isinstance(module, GELU):  # the exact form is three times as fast on CPU and differs by less than 5e-4
            module.gelu = F.gelu
    return processor


def padding_bias(ids: torch.Tensor, length: torch.Tensor, pad: int) -> torch.Tensor:
    """Logits that let the first padded position stand for all: (B, WORDS) ids and (B,) lengths to (B, 1, 1, WORDS)."""
    padded = ids == pad
    first = padded & (padded.cumsum(1) == 1)
    count = (length[:, None] - (~padded).sum(1, keepdim=True)).clamp_min(1).float()
    bias = torch.where(first, count.log(), torch.where(padded, float("-inf"), 0.0))
    return bias[:, None, None]


def flow_loss(
    model: MiniVideo,
    attention: CountedPadding,
    latents: torch.Tensor,
    ids: torch.Tensor,
    lengths: torch.Tensor,
    sigma: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the velocity ``noise - latents`` at ``(1 - sigma) latents + sigma noise``.

    Parameters
    ----------
    latents, noise
        (B, 16, F, 16, 16).
    ids, lengths
        (B, WORDS) prompt tokens, and the (B,) lengths to which the pipeline would pad them.
    sigma
        (B,) noise levels in [0, 1]; the transformer gets 1000 sigma, as from the scheduler.
    """
    pad = model.text_encoder.config.pad_token_id
    s = sigma.view(-1, 1, 1, 1, 1)
    mask = (ids != pad).long()
    text = model.text_encoder(ids, mask).last_hidden_state * mask[..., None]
    attention.bias = padding_bias(ids, lengths, pad)
    out = model.transformer(
        hidden_states=(1 - s) * latents + s * noise,
        encoder_hidden_states=text,
        timestep=1000 * sigma,
        return_dict=False,
    )[0]
    return (out.float() - (noise - latents)).square().mean()


def make_pipeline(model: MiniVideo, tokenizer: PreTrainedTokenizerFast, vae: AutoencoderKLWan) -> WanPipeline:
    """Ordinary Wan pipeline around the trained parts (shared, not copied)."""
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        transformer=model.transformer,
    )
