"""Kandinsky 6: text to video with sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky6TI2VAPipeline, Kandinsky6Transformer3DModel
from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioVAE
from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioVocoder

from tests.families.base import Arguments, Call, Family
from tests.families.parts import hunyuan_vae, redrawn, rows, seeded

TEXT, POOLED, CHANNELS, SOUND = 12, 8, 4, 4


def transformer(token_types: int) -> Kandinsky6Transformer3DModel:
    """A block each for the text of video and sound, and three for both, of width 16."""
    model = Kandinsky6Transformer3DModel(
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        in_text_dim=TEXT,
        in_text_dim2=POOLED,
        time_dim=16,
        model_dim=16,
        ff_dim=24,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=(2, 2, 4),
        in_audio_dim=SOUND,
        out_audio_dim=SOUND,
        visual_token_type_num_embeddings=token_types,
    )
    return redrawn(model).eval()


def audio_vae() -> MMAudioVAE:
    """8 mel bins."""
    return MMAudioVAE(mel_bins=8, latent_channels=SOUND, hidden_channels=8, layers_per_block=1)


def vocoder() -> MMAudioVocoder:
    """8 mel bins."""
    return MMAudioVocoder(
        num_mels=8,
        upsample_initial_channel=8,
        upsample_rates=(2,),
        upsample_kernel_sizes=(4,),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),),
    )


def build(token_types: int = 0) -> Any:
    """The pipeline without its text encoders; with two types of tokens it takes an image."""
    pipe = Kandinsky6TI2VAPipeline(
        transformer=seeded(lambda: transformer(token_types)),
        vae=seeded(hunyuan_vae).eval(),
        audio_vae=seeded(audio_vae).eval(),
        vocoder=seeded(vocoder).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode(prompts: Sequence[str]) -> Arguments:
    """Embeddings of a Qwen and of a CLIP, for the prompts and for the empty prompt."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "pooled_prompt_embeds": rows(prompts, POOLED, seed=8),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_pooled_prompt_embeds": rows(empty, POOLED, seed=8),
    }


def video(output: Any, _: Arguments) -> torch.Tensor:
    """The video of (video, sound)."""
    return output[0]


FAMILIES: tuple[Family, ...] = (
    Family(
        name="kandinsky6",
        transformer="diffusers.models.transformers.transformer_kandinsky6.Kandinsky6Transformer3DModel",
        build=build,
        encode=encode,
        image={"visual_transformer_blocks": video},
        calls=(
            Call({"height": 32, "width": 48, "num_frames": 5}, (2, 2, 3)),
            Call({"height": 80, "width": 16, "num_frames": 9}, (3, 5, 1)),
            Call({"height": 48, "width": 32, "num_frames": 5, "sample_audio": False}, (2, 3, 2)),
        ),
        guided={"guidance_scale": 3.0},
        plain={"guidance_scale": 1.0},
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=lambda cond, uncond, scale: uncond + scale * (cond - uncond),
        remark="with an image, its frame is appended to the latents: one more frame of tokens, at the end",
    ),
)
