"""The papers' models: true configuration, default size, and what is established about them. One row each.

None of these checkpoints was at hand. The channels are hypotheses to hold a recording against, not values to steer by.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from workbench.models.preset import Fact, Preset

_DG = "Detail Guidance, arXiv 2510.11538"
_EMA = "its follow-up, arXiv 2607.02968"
_STAS = "STAS, arXiv 2603.17825"
_FEW = "a reproduction of arXiv 2605.13974"
_DITF = "DiTF, arXiv 2505.18584"
_FLOW = "DiTFlow, arXiv 2412.07776"

_CLIPS_T5 = (("CLIP-L", 0.124), ("CLIP-G", 0.695), ("T5-XXL encoder", 4.762), ("VAE", 0.084))
_CLIP_T5 = (("CLIP-L", 0.123), ("T5-XXL encoder", 4.762), ("VAE", 0.084))
_UMT5 = ("UMT5-XXL encoder", 5.681)
_T5 = ("T5-XXL encoder", 4.762)


def _frozen(**config: Any) -> Mapping[str, Any]:
    return MappingProxyType(config)


def _sd3(heads: int, places: int, **more: Any) -> Mapping[str, Any]:
    """As many blocks as heads of 64 channels; `places`² learnt positions."""
    return _frozen(
        num_layers=heads, num_attention_heads=heads, attention_head_dim=64, caption_projection_dim=64 * heads, patch_size=2,
        in_channels=16, out_channels=16, sample_size=128, joint_attention_dim=4096, pooled_projection_dim=2048,
        pos_embed_max_size=places, **more,
    )  # fmt: skip


_SD35_CHANNEL = Fact("channels", "676, of an SD3.5 whose size is not said", "P", _DITF, (676,))
_DG_NONE = Fact("channels", "Detail Guidance was shown on it; its channels were not found", "2nd", _DG)

_SD3_MEDIUM = Preset(
    "sd3-medium", "Stable Diffusion 3 Medium", "stabilityai/stable-diffusion-3-medium-diffusers", "sd3",
    "StableDiffusion3Pipeline", _sd3(24, 192), "3rd", 2.0, 1024, 1024, 8, 28, 7.0, _CLIPS_T5,
    (
        Fact("channels", "810, at all image tokens; the gate has its spike there", "2nd", _DG, (810,)),
        Fact("window", "the magnitude, about 150, grows as noise falls (that it is this model's is inferred)", "2nd", _DG),
        Fact("block", "that of Detail Guidance, its weight and schedule were not found", "2nd", _DG),
    ),
)  # fmt: skip
_SD35_MEDIUM = Preset(
    "sd3.5-medium", "Stable Diffusion 3.5 Medium", "stabilityai/stable-diffusion-3.5-medium", "sd3",
    "StableDiffusion3Pipeline", _sd3(24, 384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm"), "3rd", 2.5,
    1024, 1024, 8, 40, 4.5, _CLIPS_T5, (_SD35_CHANNEL,),
)  # fmt: skip
_SD35_LARGE = Preset(
    "sd3.5-large", "Stable Diffusion 3.5 Large", "stabilityai/stable-diffusion-3.5-large", "sd3",
    "StableDiffusion3Pipeline", _sd3(38, 192, qk_norm="rms_norm"), "3rd", 8.1, 1024, 1024, 8, 28, 3.5, _CLIPS_T5,
    (
        _SD35_CHANNEL, _DG_NONE,
        Fact("block", "about 25 of 38, from the latency of a partial forward: a first guess", "INF", _EMA),
    ),
)  # fmt: skip


def _flux(embedded: bool) -> Mapping[str, Any]:
    return _frozen(
        num_layers=19, num_single_layers=38, num_attention_heads=24, attention_head_dim=128, patch_size=1, in_channels=64,
        joint_attention_dim=4096, pooled_projection_dim=768, axes_dims_rope=(16, 56, 56), guidance_embeds=embedded,
    )  # fmt: skip


_FLUX1_DEV = Preset(
    "flux1-dev", "FLUX.1-dev", "black-forest-labs/FLUX.1-dev", "flux", "FluxPipeline", _flux(True), "3rd", 12.0, 1024, 1024,
    16, 28, 3.5, _CLIP_T5,
    (
        Fact("channels", "154 and 1446, before AdaLN", "P", _DITF, (154, 1446)),
        Fact("remark", "weak ones at 1762 and 2366 after AdaLN", "P", _DITF),
        Fact("block", "28 of 0 … 56 (single block 9), the state that enters it, at t = 260", "P", _DITF),
        Fact("block", "11 works best, by a reproduction's note of what the paper says", "3rd", _FEW),
    ),
    guided=False, remark="The scale goes in as an embedding; a branch without the prompt runs with true_cfg_scale only.",
)  # fmt: skip
_FLUX1_DEDISTILLED = Preset(
    "flux1-dev-de-distilled", "FLUX.1-dev, de-distilled", "InstantX/flux-dev-de-distill-diffusers", "flux",
    "FluxPipeline", _flux(False), "KNOW", 12.0, 1024, 1024, 16, 28, 3.5, _CLIP_T5,
    (
        Fact("channels", "154 and 1446, those of FLUX.1-dev", "INF", _DITF, (154, 1446)),
        Fact("remark", "the authors' page of Detail Guidance names Flux-dev-de-distill", "P", _DG),
        Fact("remark", "that its tables' FLUX is that one, and that one this checkpoint", "INF", _DG),
    ),
    transformer_alone=True, remark="The pipeline runs the branch without the prompt only where it is given a negative prompt.",
)  # fmt: skip
_DIT_XL = Preset(
    "dit-xl-2", "DiT-XL/2, 256 × 256", "facebook/DiT-XL-2-256", "dit", "DiTPipeline",
    _frozen(num_layers=28, num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, patch_size=2,
            sample_size=32, num_embeds_ada_norm=1000),
    "KNOW", 0.675, 256, 256, 8, 50, 4.0, (("VAE", 0.084),),
    (_DG_NONE, Fact("remark", "ImageNet without CFG: FID 9.52 → 5.77 with Detail Guidance", "2nd", _DG)),
    remark="diffusers keeps a copy of the embedding of timestep and class in every block, so there are more parameters than "
    "published.",
)  # fmt: skip
_PIXART = Preset(
    "pixart-sigma", "PixArt-Σ XL/2, 1024", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "pixart", "PixArtSigmaPipeline",
    _frozen(num_layers=28, num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, patch_size=2,
            sample_size=128, cross_attention_dim=1152, caption_channels=4096, interpolation_scale=2,
            use_additional_conditions=False),
    "KNOW", 0.6, 1024, 1024, 8, 20, 4.5, (_T5, ("VAE", 0.084)),
    (Fact("channels", "293", "3rd", "an independent measurement", (293,)),),
)  # fmt: skip
_KLEIN = Preset(
    "flux2-klein", "FLUX.2 [klein] 4B", "black-forest-labs/FLUX.2-klein-4B", "flux2", "Flux2KleinPipeline",
    _frozen(num_layers=5, num_single_layers=20, num_attention_heads=24, attention_head_dim=128, in_channels=128,
            joint_attention_dim=7680, guidance_embeds=False),
    "3rd", 4.0, 1024, 1024, 16, 4, 1.0, (("Qwen3-4B", 4.022), ("VAE", 0.084)),
    (
        Fact("channels", "the 12 largest of every layer, by mean magnitude; no fixed ones were reported", "3rd", _FEW),
        Fact("block", "masks from them are best near 10 (mIoU about 0.5)", "3rd", _FEW),
        Fact("remark", "that the paper's klein is the 4B", "INF", _FEW),
    ),
    guided=False, settings=_frozen(is_distilled=True),
    remark="Distilled: 4 steps, and no branch without the prompt.",
)  # fmt: skip


def _wan(blocks: int, heads: int, feed_forward: int, latents: int = 16) -> Mapping[str, Any]:
    return _frozen(
        num_layers=blocks, num_attention_heads=heads, attention_head_dim=128, ffn_dim=feed_forward, in_channels=latents,
        out_channels=latents, patch_size=(1, 2, 2), text_dim=4096, freq_dim=256, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )  # fmt: skip


_STAS_FACTS = (
    Fact("remark", "STAS was shown on it", "P", _STAS),
    Fact("window", "first frame above boundary above interior, clearest in early steps", "P", _STAS),
    Fact("channels", "those above 50 × the mean, of all blocks; which ones was not found", "2nd", _STAS),
    Fact("block", "15, for the analysis", "2nd", _STAS),
    Fact("window", "STAS in the first 20 of 50 steps", "2nd", _STAS),
)
_EMA_FACT = Fact("remark", "Detail Guidance was shown on it, at a middle block; numbers were not found", "2nd", _EMA)

_WAN_1_3B = Preset(
    "wan2.1-1.3b", "Wan2.1 T2V 1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan", "WanPipeline", _wan(30, 12, 8960), "3rd",
    1.3, 480, 832, 8, 50, 5.0, (_UMT5, ("VAE", 0.127)),
    (*_STAS_FACTS, Fact("remark", "VBench 81.39 → 81.76 with STAS", "2nd", _STAS), _EMA_FACT), frames=81,
)  # fmt: skip
_WAN_14B = Preset(
    "wan2.1-14b", "Wan2.1 T2V 14B", "Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan", "WanPipeline", _wan(40, 40, 13824), "3rd", 14.0,
    480, 832, 8, 50, 5.0, (_UMT5, ("VAE", 0.127)), (_EMA_FACT,), frames=81,
)  # fmt: skip
_WAN_5B = Preset(
    "wan2.2-ti2v-5b", "Wan2.2 TI2V 5B", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "wan", "WanPipeline", _wan(30, 24, 14336, 48),
    "3rd", 5.0, 704, 1280, 16, 50, 5.0, (_UMT5, ("VAE", 0.705)), _STAS_FACTS, frames=121,
    settings=_frozen(expand_timesteps=True), remark="Every token has a timestep of its own.",
)  # fmt: skip
_WAN_A14B = Preset(
    "wan2.2-a14b", "Wan2.2 T2V A14B", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "wan", "WanPipeline", _wan(40, 40, 13824), "KNOW",
    14.0, 480, 832, 8, 40, 4.0, (_UMT5, ("VAE", 0.127)),
    (Fact("remark", "no paper that reports massive activations of it was found", "INF", "notes on the papers above"),), frames=81,
    settings=_frozen(boundary_ratio=0.875), experts=2,
    remark="Two transformers: the second takes over below 0.875 of the noise. Each is as large as Wan2.1's 14B.",
)  # fmt: skip


def _cog(blocks: int, heads: int, rotary: bool) -> Mapping[str, Any]:
    return _frozen(
        num_layers=blocks, num_attention_heads=heads, attention_head_dim=64, in_channels=16, out_channels=16, patch_size=2,
        time_embed_dim=512, text_embed_dim=4096, max_text_seq_length=226, sample_width=90, sample_height=60,
        sample_frames=49, use_rotary_positional_embeddings=rotary,
    )  # fmt: skip


_COG_2B = Preset(
    "cogvideox-2b", "CogVideoX 2B", "zai-org/CogVideoX-2b", "cogvideox", "CogVideoXPipeline", _cog(30, 30, False), "3rd",
    1.69, 480, 720, 8, 50, 6.0, (_T5, ("VAE", 0.216)),
    (Fact("block", "15 carries motion (attention, not massive activations)", "P", _FLOW),), frames=49,
)  # fmt: skip
_COG_5B = Preset(
    "cogvideox-5b", "CogVideoX 5B", "zai-org/CogVideoX-5b", "cogvideox", "CogVideoXPipeline", _cog(42, 48, True), "3rd",
    5.57, 480, 720, 8, 50, 6.0, (_T5, ("VAE", 0.216)),
    (*_STAS_FACTS, Fact("block", "20 carries motion (attention, not massive activations)", "P", _FLOW)), frames=49,
)  # fmt: skip

#: Short name → preset.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _SD3_MEDIUM, _SD35_MEDIUM, _SD35_LARGE, _FLUX1_DEV, _FLUX1_DEDISTILLED, _DIT_XL, _PIXART, _KLEIN,
            _WAN_1_3B, _WAN_14B, _WAN_5B, _WAN_A14B, _COG_2B, _COG_5B,
        )
    }
)  # fmt: skip
