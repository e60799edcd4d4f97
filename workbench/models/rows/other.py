"""Transformers of diffusers that are no image or video models, or only a part of one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Layout

_MODELS = "diffusers.models.transformers."

_AUDIO = "it makes sound, whose tokens lie along one axis; what is recorded here has frames, rows and columns"
_UNET = "it is a part of a UNet, whose blocks work at several resolutions; there is no one stack of blocks"

ROWS: tuple[Layout, ...] = ()

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        f"{_MODELS}ace_step_transformer.AceStepTransformer1DModel": _AUDIO,
        f"{_MODELS}stable_audio_transformer.StableAudioDiTModel": _AUDIO,
        f"{_MODELS}transformer_stable_audio3.StableAudio3DiTModel": _AUDIO,
        f"{_MODELS}transformer_longcat_audio_dit.LongCatAudioDiTTransformer": _AUDIO,
        f"{_MODELS}transformer_minimax_music3.MiniMaxMusic3Transformer1DModel": _AUDIO,
        f"{_MODELS}minimax_music3_rvq_depth_decoder.MiniMaxMusic3RVQDepthDecoder": (
            "it is a language model that decodes one sound token after another; it denoises nothing"
        ),
        f"{_MODELS}t5_film_transformer.T5FilmDecoder": (
            "it makes spectrograms of music for a pipeline that diffusers no longer keeps up (SpectrogramDiffusionPipeline)"
        ),
        f"{_MODELS}transformer_rfd4_proteina.RFD4ProteinaTransformer": (
            "it makes proteins, whose residues have no places in frames, rows and columns"
        ),
        f"{_MODELS}prior_transformer.PriorTransformer": (
            "it makes one embedding of an image for a UNet to start from; its tokens are not the image's"
        ),
        f"{_MODELS}transformer_2d.Transformer2DModel": _UNET,
        f"{_MODELS}transformer_temporal.TransformerTemporalModel": _UNET,
        f"{_MODELS}dual_transformer_2d.DualTransformer2DModel": _UNET,
        f"{_MODELS}transformer_2d_dreamlite.DreamLiteTransformer2DModel": _UNET,
    }
)
