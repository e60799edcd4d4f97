"""Image models whose blocks hold image tokens alone: DiT, PixArt, Sana, HunyuanDiT, PRX."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from tests.families.base import Arguments, Call, Family
from tests.families.parts import image_vae, mask, redrawn, rows, seeded

TEXT = 20
MODELS = "diffusers.models.transformers."
GUIDED, PLAIN = {"guidance_scale": 4.0}, {"guidance_scale": 1.0}
#: Eight pixels a latent, two latents a token.
SIZES = (Call({"height": 32, "width": 48}, (1, 2, 3)), Call({"height": 80, "width": 16}, (1, 5, 1)))


def whole(output: Any, arguments: Arguments) -> torch.Tensor:
    """The block returns the image tokens and nothing else."""
    tokens: torch.Tensor = output
    return tokens


def linear(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    return uncond + scale * (cond - uncond)


def without_variance(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """The second half of the channels, the learned variance, is dropped."""
    return linear(cond, uncond, scale).chunk(2, dim=1)[0]


def masked(prompts: Sequence[str]) -> Arguments:
    """Embeddings and masks of these prompts and of empty ones."""
    empty = [""] * len(prompts)
    return {
        "prompt_embeds": rows(prompts, 5, TEXT),
        "prompt_attention_mask": mask(prompts),
        "negative_prompt_embeds": rows(empty, 5, TEXT),
        "negative_prompt_attention_mask": mask(empty),
    }


def encode_masked(prompts: Sequence[str]) -> Arguments:
    """At the very size that is asked for; the default of the negative prompt, which is "", must be taken back."""
    return {**masked(prompts), "negative_prompt": None, "use_resolution_binning": False}


def assembled(pipeline: Any, **components: Any) -> Any:
    pipe = pipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixart(pipeline: Any, sample_size: int, **config: Any) -> Any:
    transformer = seeded(
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=TEXT,
            num_layers=3,
            sample_size=sample_size,
            **config,
        ).eval()
    )
    return assembled(
        pipeline,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def pixart_family(name: str, pipeline: Any, sample_size: int, remark: str) -> Family:
    return Family(
        name=name,
        transformer=MODELS + "pixart_transformer_2d.PixArtTransformer2DModel",
        build=lambda: pixart(pipeline, sample_size),
        encode=encode_masked,
        image={"transformer_blocks": whole},
        calls=SIZES,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=without_variance,
        remark=remark,
    )


def build_dit() -> Any:
    """The size is the config's: five by five tokens."""
    transformer = seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, out_channels=8, num_layers=3, sample_size=10
        ).eval()
    )
    scheduler = diffusers.DDIMScheduler()
    return assembled(diffusers.DiTPipeline, transformer=transformer, scheduler=scheduler, vae=seeded(image_vae).eval())


def combine_dit(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """For both halves of the rows; the halves' variances, which are not combined, are dropped."""
    half = without_variance(cond, uncond, scale)
    return torch.cat([half, half])


def build_sana() -> Any:
    transformer = seeded(
        lambda: diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=3,
            num_attention_heads=2,
            attention_head_dim=12,
            num_cross_attention_heads=2,
            cross_attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=TEXT,
            sample_size=8,
        ).eval()
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    parts = {"vae": None, "text_encoder": None, "tokenizer": None}
    return assembled(diffusers.SanaPipeline, transformer=transformer, scheduler=scheduler, **parts)


def build_hunyuan() -> Any:
    """Four blocks: the last takes up what the first left, too (fewer than four have no such skip)."""
    transformer = seeded(
        lambda: diffusers.HunyuanDiT2DModel(
            in_channels=4,
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            hidden_size=16,
            num_layers=4,
            cross_attention_dim=TEXT,
            cross_attention_dim_t5=16,
            pooled_projection_dim=16,
            text_len=5,
            text_len_t5=4,
        ).eval()
    )
    parts = {"vae": None, "text_encoder": None, "tokenizer": None, "text_encoder_2": None, "tokenizer_2": None}
    return assembled(
        diffusers.HunyuanDiTPipeline,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


def encode_hunyuan(prompts: Sequence[str]) -> Arguments:
    """For both text encoders, CLIP's and T5's."""
    empty = [""] * len(prompts)
    return {
        **masked(prompts),
        "prompt_embeds_2": rows(prompts, 4, 16, seed=8),
        "prompt_attention_mask_2": mask(prompts, 4),
        "negative_prompt_embeds_2": rows(empty, 4, 16, seed=8),
        "negative_prompt_attention_mask_2": mask(empty, 4),
        "use_resolution_binning": False,
    }


def build_prx(pipeline: str = "PRXPipeline", channels: int = 4) -> Any:
    """Its modulations start as zeros, which would make every block hand on what it is given."""
    transformer = seeded(
        lambda: diffusers.PRXTransformer2DModel(
            in_channels=channels, context_in_dim=TEXT, hidden_size=16, num_heads=2, depth=3, axes_dim=[4, 4]
        ).eval()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what the pipeline itself is derived from
        return assembled(
            getattr(diffusers, pipeline),
            transformer=redrawn(transformer),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
            text_encoder=None,
            tokenizer=None,
        )


def prx(name: str, pipeline: str, channels: int, calls: Sequence[Call], **more: Any) -> Family:
    return Family(
        name=name,
        transformer=MODELS + "transformer_prx.PRXTransformer2DModel",
        build=lambda: build_prx(pipeline, channels),
        encode=encode_masked,
        image={"blocks": whole},
        calls=calls,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        batch=1,
        **more,
    )


FAMILIES: tuple[Family, ...] = (
    pixart_family("pixart", diffusers.PixArtSigmaPipeline, 8, "PixArt-Σ."),
    pixart_family(
        "pixart-alpha",
        diffusers.PixArtAlphaPipeline,
        128,
        "PixArt-α at 1024²: the embedding holds resolution and shape, too.",
    ),
    Family(
        name="dit",
        transformer=MODELS + "dit_transformer_2d.DiTTransformer2DModel",
        build=build_dit,
        encode=lambda prompts: {"class_labels": [len(prompt) for prompt in prompts]},
        image={"transformer_blocks": whole},
        calls=(Call({}, (1, 5, 5)),),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        rows=("cond", "uncond"),
        combine=combine_dit,
        remark="Square images of the config's size only: the pipeline takes no other, and the class writes no other.",
    ),
    Family(
        name="sana",
        transformer=MODELS + "sana_transformer.SanaTransformer2DModel",
        build=build_sana,
        encode=encode_masked,
        image={"transformer_blocks": whole},
        calls=(Call({"height": 64, "width": 96}, (1, 2, 3)), Call({"height": 160, "width": 32}, (1, 5, 1))),
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=linear,
        remark="32 pixels a latent (without a VAE the pipeline takes it to be that), one latent a token.",
    ),
    Family(
        name="hunyuan-dit",
        transformer=MODELS + "hunyuan_transformer_2d.HunyuanDiT2DModel",
        build=build_hunyuan,
        encode=encode_hunyuan,
        image={"blocks": whole},
        calls=SIZES,
        guided=GUIDED,
        plain=PLAIN,
        calls_per_step=(1, 1),
        combine=without_variance,
        remark="guidance_rescale > 0 is not linear.",
    ),
    prx(
        "prx",
        "PRXPipeline",
        4,
        SIZES,
        combine=linear,
        remark="With guidance its pipeline hands over two timesteps however many rows there are: one image at a time.",
    ),
    prx(
        "prx-pixel",
        "PRXPixelPipeline",
        3,
        (Call({"height": 4, "width": 6}, (1, 2, 3)), Call({"height": 10, "width": 2}, (1, 5, 1))),
        remark="It predicts the image, of which the pipeline makes a velocity; that needs the latents, too.",
    ),
)
