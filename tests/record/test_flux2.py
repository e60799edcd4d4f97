"""Flux 2: packed latents, one modulation for all blocks, text and image tokens in one stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench
from tests.tiny_flux2 import SIZE, encode_flux2, tiny_flux2
from workbench.errors import UnsupportedModelError, WorkbenchError
from workbench.record import record


def flux2_recording(out: Path, pipe: Any, **options: Any) -> Any:
    chosen = {"prompts": ["red apple"], "seeds": [0, 1], "steps": 2, "batch_size": 2, "encode": encode_flux2, **SIZE}
    record(pipe, out=out, progress=False, **(chosen | options))
    return workbench.open(out).load()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return flux2_recording(tmp_path_factory.mktemp("flux2") / "s.zarr", tiny_flux2(), tier="full")


def test_packed_latents_keep_their_tokens(plain: Any) -> None:
    assert plain.latent_final.dims == ("sample", "token", "latent_channel")
    assert plain.latent_final.shape == (2, 6, 16)
    assert list(plain.row.values) == [0, 0, 0, 1, 1, 1]
    assert list(plain.column.values) == [0, 1, 2] * 2
    assert plain.image.shape == (2, *SIZE.values(), 3)
    assert list(plain.branch.values) == ["cond"]
    assert workbench.verify(plain.attrs["path"]).ok


def test_single_stream_blocks_have_three_terms_and_image_tokens_only(plain: Any) -> None:
    single = plain.sel(layer="single_transformer_blocks.0")
    assert single.hidden.sizes["token"] == 6
    assert not single.modulation.sel(modulation_term=["shift_msa", "scale_msa", "gate_msa"]).isnull().any()
    assert single.modulation.sel(modulation_term=["shift_mlp", "scale_mlp", "gate_mlp"]).isnull().all()
    double = plain.modulation.sel(layer=["transformer_blocks.0", "transformer_blocks.1"])
    assert np.array_equal(double.isel(layer=0), double.isel(layer=1))  # it is shared


def klein(is_distilled: bool = False) -> Any:
    from diffusers import Flux2KleinPipeline

    parts = tiny_flux2(guidance_embeds=False).components
    pipe = Flux2KleinPipeline(**{**parts, "is_distilled": is_distilled})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_negative(prompts: Any) -> dict[str, torch.Tensor]:
    return encode_flux2(prompts) | {
        "negative_prompt_embeds": encode_flux2([""]).popitem()[1].expand(len(prompts), -1, -1)
    }


def test_a_pipeline_of_the_family_that_guides_in_two_calls_has_two_branches(tmp_path: Path) -> None:
    recording = flux2_recording(tmp_path / "s.zarr", klein(), encode=with_negative, experiment="timestep-swap", grid=2)
    assert list(recording.branch.values) == ["cond", "uncond"]
    assert not np.array_equal(recording.h_mean.sel(branch="cond"), recording.h_mean.sel(branch="uncond"))
    assert workbench.verify(recording.attrs["path"]).ok


def test_reference_images_are_refused_with_the_shapes(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (64, 64))
    with pytest.raises(UnsupportedModelError, match="262 tokens of the call are no grid.*Reference images"):
        flux2_recording(
            tmp_path / "s.zarr", tiny_flux2(), encode=lambda prompts: encode_flux2(prompts) | {"image": picture}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_no_whole_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="height = 6 must be a multiple of 4 pixels"):
        flux2_recording(tmp_path / "s.zarr", tiny_flux2(), height=6)
