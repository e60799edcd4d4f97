"""Recording changes nothing, and what is recorded is what was there: equal bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import workbench
from tests.record.hooks import hook_recording
from tests.tiny import encode, tiny_pipeline
from workbench.models import call_arguments, generate
from workbench.record.reduce import reduce_tokens
from workbench.record.settings import make_settings

PROMPTS = ["red apple", "dog"]


def bf16(prompts: Any) -> dict[str, torch.Tensor]:
    return encode(prompts, dtype=torch.bfloat16)


CASES = {
    "guided": ({}, encode, torch.float32),
    "unguided": ({"guidance_scale": 1.0}, encode, torch.float32),
    "one at a time": ({"batch_size": 1}, encode, torch.float32),
    "uneven last batch": ({"batch_size": 3}, encode, torch.float32),
    "not square": ({"height": 8, "width": 12}, encode, torch.float32),
    "bfloat16": ({}, bf16, torch.bfloat16),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: Any, make_recording: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    options, encoder, dtype = CASES[request.param]
    pipe = tiny_pipeline(dtype=dtype)
    store = make_recording(tmp_path_factory.mktemp("s") / "s.zarr", model=pipe, encode=encoder, **options)
    options = {"batch_size": 2, "guidance_scale": 3.0} | options
    settings = make_settings(PROMPTS, [0, 1], steps=3, **options)
    return pipe, encoder, settings, workbench.open(store).load()


def batches(settings: Any) -> list[slice]:
    count = len(settings.samples)
    return [slice(i, min(i + settings.batch_size, count)) for i in range(0, count, settings.batch_size)]


def test_the_generated_images_and_latents_are_bit_identical_with_and_without_recording(case: Any) -> None:
    pipe, encoder, settings, recording = case
    for batch in batches(settings):
        made = generate(pipe, call_arguments(pipe, settings.samples[batch], **settings.call, encode=encoder))
        latents, images = made.latents, made.images
        assert np.array_equal(latents, recording.latent_final[batch].values)
        assert images is not None
        assert np.array_equal(images, recording.image[batch].values)
    assert len(np.unique(recording.latent_final.values)) > 100


def test_recorded_tensors_are_bit_identical_to_plain_forward_hooks(case: Any) -> None:
    pipe, encoder, settings, recording = case
    compared = 0
    for batch in batches(settings):
        truth = hook_recording(pipe, call_arguments(pipe, settings.samples[batch], **settings.call, encode=encoder))
        count = batch.stop - batch.start
        names = ["cond"] if settings.guidance_scale <= 1 else ["uncond", "cond"]
        for row, branch in enumerate(names):
            rows = slice(row * count, (row + 1) * count)
            mine = recording.isel(sample=batch).sel(branch=branch)
            for step in range(settings.steps):
                at = mine.isel(timestep=step)
                assert np.array_equal(at.temb.values, truth["temb"][step][rows])
                for layer, calls in truth["hidden"].items():
                    assert np.array_equal(at.hidden.sel(layer=layer).values, calls[step][rows])
                    compared += 1
                for layer, calls in truth["modulation"].items():
                    assert np.array_equal(at.modulation.sel(layer=layer).values.reshape(count, -1), calls[step][rows])
    assert compared == len(batches(settings)) * len(names) * settings.steps * 4


def test_statistics_on_the_fly_equal_the_same_reductions_of_the_full_states(case: Any) -> None:
    *_, recording = case
    planes = recording.hidden.stack(visit=("sample", "branch", "layer", "timestep")).transpose("visit", ...)
    for visit in range(planes.sizes["visit"]):
        again = reduce_tokens(torch.from_numpy(planes[visit].values)[None])
        for name, value in again.items():
            stored = recording[name].stack(visit=("sample", "branch", "layer", "timestep")).transpose("visit", ...)
            assert np.array_equal(stored[visit].values, value[0].numpy()), name


def test_the_statistics_are_what_their_names_say(full_store: Path) -> None:
    recording = workbench.open(full_store).load()
    h = recording.hidden.astype("float64")
    xr.testing.assert_allclose(recording.h_mean_abs, abs(h).mean("token").astype("float32"), rtol=1e-5)
    xr.testing.assert_allclose(recording.h_mean, h.mean("token").astype("float32"), rtol=1e-4, atol=1e-6)
    xr.testing.assert_allclose(recording.h_std, h.std("token").astype("float32"), rtol=1e-5)
    xr.testing.assert_allclose(recording.h_norm, np.sqrt((h**2).sum("channel")).astype("float32"), rtol=1e-5)
    assert np.array_equal(recording.h_max_abs, abs(recording.hidden).max("token"))
    assert np.array_equal(recording.h_top_channel.isel(rank=0), abs(recording.hidden).argmax("channel"))
    assert np.array_equal(recording.h_top_abs.isel(rank=0), abs(recording.hidden).max("channel"))


def test_a_samples_noise_does_not_depend_on_its_neighbours(case: Any, full_store: Path) -> None:
    *_, settings, recording = case
    if settings.width is None and recording.dtype != "bfloat16":  # bfloat16 rounds the same noise
        assert np.array_equal(recording.latent_initial, workbench.open(full_store).latent_initial)


def test_coordinates_say_where_every_number_belongs(full_store: Path) -> None:
    recording = workbench.open(full_store).load()
    assert list(recording.layer.values) == ["input", *(f"transformer_blocks.{i}" for i in range(3))]
    assert list(recording.block.values) == [-1, 0, 1, 2]
    assert list(zip(recording.prompt.values, recording.seed.values, strict=True)) == [
        (prompt, seed) for prompt in PROMPTS for seed in (0, 1)
    ]
    assert np.allclose(recording.sigma, recording.timestep / 1000)
    assert recording.sigma[0] == 1.0
    assert list(recording.row.values[:5]) == [0, 0, 0, 0, 1]
    assert list(recording.column.values[:5]) == [0, 1, 2, 3, 0]
    assert recording.modulation.sel(layer="input").isnull().all()


def test_the_pipeline_is_left_as_it_was_found(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    pipe = tiny_pipeline()
    net, config = pipe.transformer, dict(pipe.config)
    attributes = {name: set(module.__dict__) for name, module in net.named_modules()}
    make_recording(tmp_path / "s.zarr", model=pipe)
    assert pipe.transformer is net
    assert dict(pipe.config) == config
    assert {name: set(module.__dict__) for name, module in net.named_modules()} == attributes


def test_recording_twice_gives_equal_bytes(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    again = make_recording(tmp_path / "again.zarr")
    for file in sorted(p for p in full_store.rglob("*") if p.is_file() and p.name != "zarr.json"):
        assert file.read_bytes() == (again / file.relative_to(full_store)).read_bytes()


def test_a_selection_records_exactly_that_part(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    chosen = workbench.Select(layers="transformer_blocks.1,input", timesteps="1:", branches="cond")
    part = workbench.open(make_recording(tmp_path / "part.zarr", select=chosen))
    whole = workbench.open(full_store)
    layers = ["input", "transformer_blocks.1"]
    assert list(part.layer.values) == layers
    for name in ("hidden", "h_mean_abs", "h_top_channel", "temb"):
        expected = whole[name].sel(branch=["cond"]).isel(timestep=slice(1, None))
        expected = expected.sel(layer=layers) if "layer" in expected.dims else expected
        assert np.array_equal(part[name], expected), name
    assert workbench.verify(part.attrs["path"]).ok


@pytest.mark.parametrize("layers", ["input", "transformer_blocks.2"])
def test_a_single_layer_can_be_recorded(tmp_path: Path, make_recording: Callable[..., Path], layers: str) -> None:
    store = make_recording(tmp_path / "one.zarr", select=workbench.Select(layers=layers))
    assert workbench.verify(store).ok
    assert bool(workbench.open(store).modulation.isnull().all()) == (layers == "input")


def test_states_larger_than_a_block_go_visit_by_visit_with_equal_bits(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.record.plan.PLANE_BYTES", 100)
    monkeypatch.setattr("workbench.record.plan.BLOCK_BYTES", 1)
    store = make_recording(tmp_path / "planes.zarr")
    assert workbench.verify(store).ok
    planes, blocks = workbench.open(store), workbench.open(full_store)
    assert planes.hidden.data.chunksize[:4] == (1, 1, 1, 1)
    for name in blocks.data_vars:
        assert np.array_equal(planes[name], blocks[name], equal_nan=name == "modulation"), name
