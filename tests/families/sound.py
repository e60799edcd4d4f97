"""Stable Audio, Stable Audio 3 and LongCat-AudioDiT: tokens along one axis, the time of a sound."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.image_plain import GUIDED, MODELS, PLAIN, TEXT, assembled, linear, whole
from tests.families.parts import mask, redrawn, rows, seeded


def autoencoder(kind: Any, **config: Any) -> Any:
    """Its convolutions are normalised in PyTorch's old way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kind(**config).eval()


def build_stable_audio() -> Any:
    """The length is the config's."""
    transformer = seeded(
        lambda: diffusers.StableAudioDiTModel(
            sample_size=7,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=2,
            num_key_value_attention_heads=1,
            cross_attention_dim=16,
            time_proj_dim=8,
            global_states_input_dim=2 * TEXT,
            cross_attention_input_dim=TEXT,
        ).eval()
    )
    vae = autoencoder(
        diffusers.AutoencoderOobleck,
        encoder_hidden_size=4,
        downsampling_ratios=[2, 4],
        decoder_channels=4,
        decoder_input_channels=4,
        channel_multiples=[1, 2],
        sampling_rate=8,
    )
    return assembled(
        diffusers.StableAudioPipeline,
        transformer=transformer,
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(),
        vae=vae,
        projection_model=seeded(lambda: diffusers.StableAudioProjectionModel(TEXT, TEXT, 0, 8)).eval(),
        text_encoder=None,
        tokenizer=None,
    )


def encode(prompts: Sequence[str]) -> Arguments:
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "attention_mask": mask(prompts),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_attention_mask": mask(empty),
    }


def after_one(output: Any, arguments: Arguments) -> torch.Tensor:
    """One token of the timestep and the duration, then the sound."""
    tokens: torch.Tensor = output[:, 1:]
    return tokens


def build_stable_audio3() -> Any:
    """Two tokens of memory."""
    transformer = seeded(
        lambda: diffusers.StableAudio3DiTModel(
            io_channels=4,
            embed_dim=16,
            depth=3,
            num_heads=2,
            cond_token_dim=TEXT,
            global_cond_dim=TEXT,
            timestep_features_dim=8,
            num_memory_tokens=2,
        ).eval()
    )
    vae = diffusers.AutoencoderSAME(
        patch_size=4,
        encoder_channels=8,
        encoder_c_mults=(1,),
        encoder_strides=(2,),
        encoder_transformer_depths=(1,),
        latent_dim=4,
        dim_heads=4,
        sampling_rate=8,
    )
    return assembled(
        diffusers.StableAudio3Pipeline,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae.eval(),
        duration_embedder=seeded(lambda: diffusers.StableAudio3DurationEmbedder(output_dim=TEXT, fourier_dim=8)).eval(),
        text_encoder=None,
        tokenizer=None,
    )


def encode3(prompts: Sequence[str]) -> Arguments:
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "encoder_attention_mask": mask(prompts),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_encoder_attention_mask": mask(empty),
    }


def after_memory(output: Any, arguments: Arguments) -> torch.Tensor:
    """The memory, then the sound."""
    tokens: torch.Tensor = output[:, 2:]
    return tokens


def build_longcat() -> Any:
    """Its last layer starts as zeros."""
    from workbench.models.mini.text import make_t5, make_t5_tokenizer

    transformer = seeded(
        lambda: diffusers.LongCatAudioDiTTransformer(
            dit_dim=16, dit_depth=3, dit_heads=2, dit_text_dim=256, latent_dim=4
        ).eval()
    )
    vae = autoencoder(
        diffusers.LongCatAudioDiTVae,
        channels=4,
        c_mults=[1, 2],
        strides=[2],
        latent_dim=4,
        encoder_latent_dim=8,
        downsampling_ratio=2,
        sample_rate=2,
    )
    return assembled(
        diffusers.LongCatAudioDiTPipeline,
        transformer=redrawn(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, invert_sigmas=True),
        vae=vae,
        text_encoder=seeded(make_t5).eval(),
        tokenizer=make_t5_tokenizer(),
    )


def build_ace_step() -> Any:
    """Without a VAE the pipeline makes 25 latents a second, of which two are a token."""
    from workbench.models.mini.text import make_t5, make_t5_tokenizer

    size = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    transformer = seeded(
        lambda: diffusers.AceStepTransformer1DModel(
            **size, num_hidden_layers=3, in_channels=12, audio_acoustic_hidden_dim=4
        ).eval()
    )
    encoder = seeded(
        lambda: diffusers.AceStepConditionEncoder(
            **size,
            text_hidden_dim=256,
            timbre_hidden_dim=4,
            num_lyric_encoder_hidden_layers=1,
            num_timbre_encoder_hidden_layers=1,
        ).eval()
    )
    return assembled(
        diffusers.AceStepPipeline,
        transformer=transformer,
        condition_encoder=encoder,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1),
        vae=None,
        text_encoder=seeded(make_t5).eval(),
        tokenizer=make_t5_tokenizer(),
    )


FAMILIES: tuple[Family, ...] = (
    Family(
        name="stable-audio",
        transformer=MODELS + "stable_audio_transformer.StableAudioDiTModel",
        build=build_stable_audio,
        encode=encode,
        image={"transformer_blocks": after_one},
        calls=(Call({}, (1, 1, 7)),),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=linear,
    ),
    Family(
        name="stable-audio-3",
        transformer=MODELS + "transformer_stable_audio3.StableAudio3DiTModel",
        build=build_stable_audio3,
        encode=encode3,
        image={"transformer_blocks": after_memory},
        calls=(Call({"duration": 6.0}, (1, 1, 6)), Call({"duration": 3.0}, (1, 1, 3))),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=linear,
    ),
    Family(
        name="longcat-audio",
        transformer=MODELS + "transformer_longcat_audio_dit.LongCatAudioDiTTransformer",
        build=build_longcat,
        encode=lambda prompts: {"prompt": list(prompts), "negative_prompt": ""},
        image={"blocks": whole},
        calls=(Call({"audio_duration_s": 6.0}, (1, 1, 6)), Call({"audio_duration_s": 3.0}, (1, 1, 3))),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(2, 1),
        rows=("cond", "uncond"),
        combine=linear,
    ),
    Family(
        name="ace-step",
        transformer=MODELS + "ace_step_transformer.AceStepTransformer1DModel",
        build=build_ace_step,
        encode=lambda prompts: {"prompt": list(prompts), "lyrics": [""] * len(prompts)},
        image={"layers": whole},
        calls=(Call({"audio_duration": 0.48}, (1, 1, 6)), Call({"audio_duration": 0.24}, (1, 1, 3))),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        rows=("cond", "uncond"),
        remark="The guidance remembers the steps before. A number of latents that is odd is filled up to a whole token.",
    ),
)
