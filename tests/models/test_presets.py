"""The papers' models: built at their true configuration without weights, and run in small through their own pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import image_plain, joint_flux, joint_flux2, joint_sd3, video_cog, video_wan
from tests.families.base import Family
from tests.families.check import check
from tests.tiny import tiny_pipeline
from workbench.errors import UnsupportedModelError
from workbench.models import load, load_pipeline
from workbench.models.preset import STANDINGS, Preset, weights_of
from workbench.models.presets import PRESETS
from workbench.record import make_settings
from workbench.record.expected import expected_shape, image_of
from workbench.record.plan import make_plan
from workbench.record.probe import probe

every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)

#: Blocks and width as the papers give them (methods notes A.1, B.1), and what people know of the others.
SIZES = {
    "sd3-medium": (24, 1536),
    "sd3.5-medium": (24, 1536),
    "sd3.5-large": (38, 2432),
    "flux1-dev": (57, 3072),
    "flux1-dev-de-distilled": (57, 3072),
    "dit-xl-2": (28, 1152),
    "pixart-sigma": (28, 1152),
    "flux2-klein": (25, 3072),
    "wan2.1-1.3b": (30, 1536),
    "wan2.1-14b": (40, 5120),
    "wan2.2-ti2v-5b": (30, 3072),
    "wan2.2-a14b": (40, 5120),
    "cogvideox-2b": (30, 1920),
    "cogvideox-5b": (42, 3072),
}

#: F, H, W of the tokens at the default size; those of videos are in the notes (B.3).
GRIDS = {
    "sd3-medium": (1, 64, 64),
    "flux1-dev": (1, 64, 64),
    "dit-xl-2": (1, 16, 16),
    "flux2-klein": (1, 64, 64),
    "wan2.1-1.3b": (21, 30, 52),
    "wan2.2-ti2v-5b": (31, 22, 40),
    "cogvideox-5b": (13, 30, 45),
}

#: The small model of each, and how its pipeline is built like the real one.
SMALL: dict[str, tuple[str, Callable[[], Any]]] = {
    "sd3-medium": ("sd3", tiny_pipeline),
    "sd3.5-medium": ("sd3.5", lambda: tiny_pipeline(dual_attention_layers=(0, 1), qk_norm="rms_norm")),
    "sd3.5-large": ("sd3", lambda: tiny_pipeline(qk_norm="rms_norm")),
    "flux1-dev": ("flux", joint_flux.build_flux),
    "flux1-dev-de-distilled": ("flux-dedistilled", lambda: joint_flux.build_flux(embedded=False)),
    "dit-xl-2": ("dit", image_plain.build_dit),
    "pixart-sigma": (
        "pixart",
        lambda: image_plain.pixart(
            image_plain.diffusers.PixArtSigmaPipeline, 8, interpolation_scale=2, use_additional_conditions=False
        ),
    ),
    "flux2-klein": ("flux2-klein", lambda: joint_flux2.build_klein(is_distilled=True)),
    "wan2.1-1.3b": ("wan", video_wan.build),
    "wan2.1-14b": ("wan", video_wan.build),
    "wan2.2-ti2v-5b": ("wan-ti2v", lambda: video_wan.build(expand_timesteps=True)),
    "wan2.2-a14b": ("wan-two-experts", lambda: video_wan.build(experts=2, boundary_ratio=0.875)),
    "cogvideox-2b": ("cogvideox", video_cog.build_cog),
    "cogvideox-5b": ("cogvideox-rotary", lambda: video_cog.build_cog(use_rotary_positional_embeddings=True)),
}
FAMILIES = {
    family.name: family
    for module in (image_plain, joint_flux, joint_flux2, joint_sd3, video_cog, video_wan)
    for family in module.FAMILIES
}

#: Config keys that say how large a model is; in all others the small one must be like the real one.
SCALE = {
    "num_layers", "num_single_layers", "num_attention_heads", "attention_head_dim", "joint_attention_dim", "in_channels",
    "out_channels", "caption_projection_dim", "pooled_projection_dim", "pos_embed_max_size", "sample_size", "axes_dims_rope",
    "cross_attention_dim", "caption_channels", "timestep_guidance_channels", "ffn_dim", "text_dim", "freq_dim",
    "rope_max_seq_len", "time_embed_dim", "text_embed_dim", "max_text_seq_length", "sample_width", "sample_height",
    "sample_frames", "dual_attention_layers",
}  # fmt: skip


@cache
def built(name: str) -> torch.nn.Module:
    return PRESETS[name].transformer()


def small(preset: Preset) -> Family:
    name, build = SMALL[preset.name]
    family = replace(FAMILIES[name], build=build)
    if preset.name == "flux2-klein":  # distilled, so its scale does nothing
        return replace(family, guided=None)
    return family


@every_preset
def test_the_transformer_at_its_true_configuration_has_the_published_blocks_and_width(preset: Preset) -> None:
    transformer = built(preset.name)
    assert {value.device.type for value in transformer.parameters()} == {"meta"}
    layout = preset.layout
    assert f"{type(transformer).__module__}.{type(transformer).__name__}" == layout.transformer
    assert (len(layout.block_paths(transformer)), layout.width_of(transformer)) == SIZES[preset.name]
    assert all(0 <= channel < layout.width_of(transformer) for channel in preset.channels)


@every_preset
def test_the_transformer_has_as_many_parameters_as_published(preset: Preset) -> None:
    transformer = built(preset.name)
    count = weights_of(transformer)
    if preset.family == "dit":  # the published model embeds timestep and class once
        blocks = list(transformer.get_submodule("transformer_blocks").children())
        count -= sum(weights_of(block.get_submodule("norm1.emb")) for block in blocks[1:])
    assert count / 1e9 == pytest.approx(preset.published, rel=0.1)


@every_preset
def test_its_own_pipeline_runs_in_small_as_its_row_says(preset: Preset) -> None:
    pipe = small(preset).build()
    assert type(pipe).__name__ == preset.pipeline
    assert (getattr(pipe, "transformer_2", None) is not None) == (preset.experts == 2)
    for key, value in (preset.settings or {}).items():
        assert pipe.config[key] == value
    real, tiny = built(preset.name).config, pipe.transformer.config
    unlike = {key: (real[key], tiny[key]) for key in set(real) & set(tiny) - SCALE if not key.startswith("_")}
    assert {key: pair for key, pair in unlike.items() if pair[0] != pair[1]} == {}
    assert check(small(preset), preset.layout) == []


@pytest.mark.parametrize("preset", [row for row in PRESETS.values() if row.experts == 1], ids=lambda row: row.name)
def test_what_is_expected_of_a_recording_is_what_a_dry_run_finds(preset: Preset) -> None:
    family = small(preset)
    pipe, call = family.build(), family.calls[0]
    height, width = call.arguments.get("height", 80), call.arguments.get("width", 80)
    frames = call.arguments.get("num_frames", 1)
    # Latents a token has along one side: the pipelines of FLUX pack them before.
    patch = 1 if preset.family in ("flux", "flux2") else 2
    pixels = height // (call.grid[1] * patch)
    tiny = replace(
        preset, config={k: v for k, v in pipe.transformer.config.items() if not k.startswith("_")}, height=height,
        width=width, frames=frames, pixels=pixels, steps=3,
    )  # fmt: skip
    size = {"height": height, "width": width} if call.arguments else {}
    settings = make_settings(
        ["red apple"], [0], steps=3, guidance_scale=4.0 if preset.guided else 1.0, **size,
        num_frames=frames if preset.layout.is_video else None,
    )  # fmt: skip
    found, expected = probe(pipe, preset.layout, settings, family.encode), expected_shape(tiny, "float32")
    for name in (
        "layers", "grid", "channels", "embedding", "terms", "branches", "dtype", "latent", "calls", "token_timesteps"
    ):  # fmt: skip
        assert getattr(expected, name) == getattr(found, name), name
    assert len(expected.timesteps) == len(found.timesteps)


@pytest.mark.parametrize("name", GRIDS)
def test_the_tokens_at_the_default_size_are_those_known(name: str) -> None:
    assert expected_shape(PRESETS[name]).grid == GRIDS[name]


def test_hidden_states_take_two_bytes_a_number() -> None:
    preset = PRESETS["sd3-medium"]
    plan = make_plan(make_settings(["a prompt"], [0], steps=28, tier="full"), expected_shape(preset), image_of(preset))
    assert plan.bytes_of("hidden") == 2 * 28 * 25 * 4096 * 1536 * 2
    assert plan.bytes_of("image") == 1024 * 1024 * 3


@every_preset
def test_every_fact_has_a_standing_and_a_source(preset: Preset) -> None:
    assert preset.source in STANDINGS
    assert preset.facts
    for fact in preset.facts:
        assert fact.standing in STANDINGS
        assert fact.source
        assert all(str(channel) in fact.says for channel in fact.channels)
        assert "|" not in fact.says + fact.source  # it would end a cell of the table in docs/models.md


def test_the_reported_channels_are_those_of_the_papers() -> None:
    reported = {name: preset.channels for name, preset in PRESETS.items() if preset.channels}
    assert reported == {
        "sd3-medium": (810,),
        "sd3.5-medium": (676,),
        "sd3.5-large": (676,),
        "flux1-dev": (154, 1446),
        "flux1-dev-de-distilled": (154, 1446),
        "pixart-sigma": (293,),
    }


def test_a_short_name_is_loaded_by_its_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def fetch(source: str, **options: Any) -> Any:
        asked.append((source, options["local"]))
        return tiny_pipeline()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "_from_pretrained", fetch)
    load_pipeline("sd3-medium", device="cpu")
    assert asked == [("stabilityai/stable-diffusion-3-medium-diffusers", False)]


def test_a_folder_of_that_name_is_meant_before_the_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sd3-medium").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"no model_index\.json"):
        load_pipeline("sd3-medium")


def test_a_hub_that_is_not_reached_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    def unreached(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", unreached)
    with pytest.raises(UnsupportedModelError, match="hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers"):
        load_pipeline("wan2.1-1.3b")


def test_a_transformer_without_its_pipeline_is_refused_with_the_way_out() -> None:
    with pytest.raises(UnsupportedModelError, match=r"FluxPipeline\.from_pretrained"):
        load_pipeline("flux1-dev-de-distilled")
