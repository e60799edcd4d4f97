"""Tokenizers and text encoders of ``mini-image``, and the conditioning that SD3's pipeline makes of them.

Two tiny CLIP text encoders carry the prompt. Stock SD3 insists on a T5 in slot 3: here it is a T5 whose last layer
norm has weight zero, so that it contributes only constant (all-zero) tokens.
"""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast, T5Config, T5EncoderModel

CLIP_TOKENS = 10
"""Length every prompt is padded to for CLIP: begin, up to eight words, end."""
T5_TOKENS = 8
"""Default number of T5 tokens; all of them are zero."""
JOINT_DIM = 256
PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
SPECIAL = [PAD, UNK, BOS, EOS]


def word_tokenizer(vocabulary: list[str], template: str, max_length: int) -> PreTrainedTokenizerFast:
    """Tokenizer that knows whole words only; ``template`` places begin and end tokens around them."""
    ids = {word: i for i, word in enumerate(vocabulary)}
    core = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    # The same cleaning as data.caption: lower case, punctuation and hyphens separate words.
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace("’", "'"),
            normalizers.Replace(Regex(r"[“”:,()!.&/\-]"), " "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    specials = [(token, ids[token]) for token in (BOS, EOS) if token in template]
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=max_length,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="right",
    )


def make_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """Word-level tokenizer over the words of ``captions``, for both CLIP slots."""
    words = sorted({word for text in captions for word in text.split()})
    return word_tokenizer(SPECIAL + words, f"{BOS} $A {EOS}", CLIP_TOKENS)


def make_t5_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer of the T5 slot; it knows no words, since nothing reads them."""
    return word_tokenizer(SPECIAL, f"$A {EOS}", T5_TOKENS)


def make_clip(tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 2) -> CLIPTextModelWithProjection:
    """Untrained CLIP text encoder with ``width`` features per token and in its projection."""
    model = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            # Any id but 2, which makes CLIP pool at the largest id instead of the first end token.
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    # SD3 reads hidden_states[-2], before any final norm: CLIP's 0.02 would drown words in the residual stream.
    for name, weight in model.named_parameters():
        if name.endswith("token_embedding.weight"):
            nn.init.normal_(weight, std=1.0)
        elif name.endswith("position_embedding.weight"):
            nn.init.normal_(weight, std=0.3)
    return model


def make_t5() -> T5EncoderModel:
    """T5 encoder that outputs exact zeros of width ``JOINT_DIM``."""
    model = T5EncoderModel(
        T5Config(
            vocab_size=len(SPECIAL),
            d_model=JOINT_DIM,
            d_ff=8,
            d_kv=8,
            num_layers=1,
            num_heads=1,
            pad_token_id=0,
            eos_token_id=SPECIAL.index(EOS),
            decoder_start_token_id=0,
        )
    )
    nn.init.zeros_(model.encoder.final_layer_norm.weight)
    return model


def token_ids(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> torch.Tensor:
    """Padded ids, (N, CLIP_TOKENS), exactly as the pipeline pads them."""
    rows = tokenizer(captions, padding="max_length", max_length=CLIP_TOKENS, truncation=True, return_tensors="pt")
    return rows.input_ids


class Conditioner(nn.Module):
    """The two CLIP encoders, giving what ``StableDiffusion3Pipeline.encode_prompt`` gives.

    Parameters
    ----------
    clip, clip_2
        Text encoders for the slots 1 and 2.
    """

    def __init__(self, clip: CLIPTextModelWithProjection, clip_2: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.clip, self.clip_2 = clip, clip_2

    def forward(self, ids: torch.Tensor, t5_tokens: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode padded ids (B, L).

        Returns
        -------
        tokens
            (B, L + t5_tokens, 256): CLIP features of both encoders side by side, then the zero tokens of T5.
        pooled
            (B, 256): the projections of both encoders side by side.
        """
        first, second = (clip(ids, output_hidden_states=True) for clip in (self.clip, self.clip_2))
        words = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        zeros = words.new_zeros(len(words), t5_tokens, words.shape[-1])
        return torch.cat([words, zeros], dim=1), torch.cat([first[0], second[0]], dim=-1)
