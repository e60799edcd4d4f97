"""Transformers of sound, on a grid of one row; and those that are no such model, or only a part of one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Limit, Modulation, Pipeline, Stack, Timestep

_MODELS = "diffusers.models.transformers."

_UNET = "it is a part of a UNet, whose blocks work at several resolutions; there is no one stack of blocks"

_UNCOND_FIRST = Guidance(batched=True, rows=("uncond", "cond"))

STABLE_AUDIO = Layout(
    family="stable-audio",
    title="Stable Audio",
    transformer=f"{_MODELS}stable_audio_transformer.StableAudioDiTModel",
    # One token of timestep and duration before the sound's.
    stacks=(Stack("transformer_blocks", hidden_output=None, image="last"),),
    latents=Latents("BCW", patch=("1", "1", "1")),
    timestep=Timestep(),
    modulation=Modulation("none", why="the timestep is a token of the sequence"),
    pipelines=(Pipeline("StableAudioPipeline", _UNCOND_FIRST),),
)

STABLE_AUDIO_3 = Layout(
    family="stable-audio-3",
    title="Stable Audio 3",
    transformer=f"{_MODELS}transformer_stable_audio3.StableAudio3DiTModel",
    # Tokens that are learned, the same in every call, before the sound's.
    stacks=(Stack("transformer_blocks", hidden_output=None, image="last"),),
    latents=Latents("BCW", patch=("1", "1", "patch_size")),
    # The embedding of the timestep is added to one of the duration, and no module gives the sum.
    timestep=Timestep(),
    modulation=Modulation(
        "shared_table",
        "global_cond_embedder",
        ("scale_msa", "shift_msa", "gate_msa", "scale_mlp", "shift_mlp", "gate_mlp"),
        argument="global_modulation",
        table="to_scale_shift_gate",
    ),
    pipelines=(Pipeline("StableAudio3Pipeline", _UNCOND_FIRST),),
    width=("embed_dim",),
)

LONGCAT_AUDIO = Layout(
    family="longcat-audio",
    title="LongCat-AudioDiT",
    transformer=f"{_MODELS}transformer_longcat_audio_dit.LongCatAudioDiTTransformer",
    stacks=(Stack("blocks", hidden_output=None),),
    latents=Latents("BWC", patch=("1", "1", "1")),
    # The embedding of the timestep is added to the mean of the text, and no module gives the sum.
    timestep=Timestep(scale=0.001),
    modulation=Modulation(
        "shared_table",
        "adaln_global_mlp",
        ("gate_msa", "scale_msa", "shift_msa", "gate_mlp", "scale_mlp", "shift_mlp"),
        argument="adaln_global_out",
        table="adaln_scale_shift",
    ),
    pipelines=(Pipeline("LongCatAudioDiTPipeline", Guidance(batched=False, rows=("cond", "uncond"), flag="")),),
    width=("dit_dim",),
    limits=(Limit("adaln_type", "local", "every block then has a projection of its own, which has not been checked"),),
)

ACE_STEP = Layout(
    family="ace-step",
    title="ACE-Step 1.5",
    transformer=f"{_MODELS}ace_step_transformer.AceStepTransformer1DModel",
    stacks=(Stack("layers", hidden_output=None),),
    latents=Latents("BWC", patch=("1", "1", "patch_size")),
    timestep=Timestep(),
    modulation=Modulation(
        "none",
        why="it is made from two times, that of the latents and the one to go to, which the pipeline gives together",
    ),
    pipelines=(
        Pipeline(
            "AceStepPipeline",
            Guidance(
                batched=True,
                rows=("cond", "uncond"),
                linear=False,
                why="the difference of the branches is cut to a length, with a share of the steps' before",
            ),
        ),
    ),
    width=("hidden_size",),
)

ROWS: tuple[Layout, ...] = (STABLE_AUDIO, STABLE_AUDIO_3, LONGCAT_AUDIO, ACE_STEP)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        f"{_MODELS}transformer_minimax_music3.MiniMaxMusic3Transformer1DModel": (
            "it makes music in modular pipelines only; there is no stock pipeline that says what the rows of its batch are"
        ),
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
