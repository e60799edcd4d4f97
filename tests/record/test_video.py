"""Videos: roles of their tokens, equal bits with and without recording, timesteps of single tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import workbench
from tests.record.by_hand import WAN, calls_of, forward
from tests.tiny_wan import SIZE, encode_ti2v, encode_wan, tiny_ti2v, tiny_wan
from workbench.errors import RecordingError, RoleError, UnsupportedModelError
from workbench.models import call_arguments, generate, layout_for
from workbench.record import record
from workbench.roles import roles_of, with_roles
from workbench.select import Select

#: Neither square nor even: grid (3, 3, 5).
ODD = {"height": 48, "width": 80, "num_frames": 9}


def make(out: Path, pipe: Any, **options: Any) -> Path:
    chosen = {"prompts": ["red apple", "dog"], "steps": 2, "batch_size": 2, "guidance_scale": 3.0, "tier": "full",
              "encode": encode_wan, "progress": False, **SIZE} | options  # fmt: skip
    return record(pipe, out=out, **chosen)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return workbench.open(make(tmp_path_factory.mktemp("odd") / "s.zarr", tiny_wan(), **ODD)).load()


def test_every_token_of_a_video_has_a_role_and_the_width_is_said(odd: xr.Dataset) -> None:
    assert odd.role.dims == ("token",)
    assert odd.role.values.reshape(3, 3, 5)[0].tolist() == [["first"] * 5] * 3
    assert odd.role.values.reshape(3, 3, 5)[2].tolist() == [["boundary"] * 5, ["interior"] * 5, ["boundary"] * 5]
    assert odd.attrs["boundary_width"] == 5
    assert odd.attrs["boundary_width_source"] == "default: one row of tokens"
    assert odd.hidden.isel(token=Select(tokens="first").positions("token", odd.role.values)).sizes["token"] == 15


def test_a_plain_reader_sees_the_roles_and_every_byte_is_checked(odd: xr.Dataset) -> None:
    plain = xr.open_zarr(odd.attrs["path"], consolidated=False)
    assert plain.coords["role"].values.tolist() == odd.role.values.tolist()
    verdict = workbench.verify(odd.attrs["path"])
    assert verdict.ok
    assert verdict.complete == odd.unit_checksum.size == 2 * 2 * 4 * 2


def test_a_given_width_is_a_label_only(odd: xr.Dataset, tmp_path: Path) -> None:
    store = make(tmp_path / "s.zarr", tiny_wan(), boundary_width=2, **ODD)
    given = workbench.open(store).load()
    assert (given.attrs["boundary_width"], given.attrs["boundary_width_source"]) == (2, "given")
    assert np.array_equal(given.role, roles_of(odd, 2))
    assert np.array_equal(given.role, with_roles(odd, 2).role)
    assert np.array_equal(given.unit_checksum, odd.unit_checksum)
    assert given.attrs["settings_fingerprint"] == odd.attrs["settings_fingerprint"]
    make(tmp_path / "s.zarr", tiny_wan(), **ODD)  # continued without saying it again: it is what it was
    with pytest.raises(RecordingError, match=r"boundary_width = 2, not 3.*with_roles\(recording, 3\)"):
        make(tmp_path / "s.zarr", tiny_wan(), boundary_width=3, **ODD)


def test_a_width_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, tiny: Any) -> None:
    from tests.tiny import encode

    with pytest.raises(RoleError, match="boundary_width = 8 can't be used with 15 tokens a frame.*1 to 7"):
        make(tmp_path / "s.zarr", tiny_wan(), boundary_width=8, **ODD)
    with pytest.raises(RoleError, match="this is an image"):
        record(tiny, prompts=["dog"], out=tmp_path / "s.zarr", encode=encode, boundary_width=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_images_and_videos_of_one_latent_frame_have_no_roles(full_store: Path, tmp_path: Path) -> None:
    one = make(tmp_path / "s.zarr", tiny_wan(), prompts=["dog"], num_frames=1, steps=1)
    for store in (full_store, one):
        recording = workbench.open(store)
        assert "role" not in recording.coords
        assert not {"boundary_width", "boundary_width_source", "token_timesteps"} & set(recording.attrs)
        assert "token_timestep" not in recording


def test_videos_of_two_prompts_are_bit_identical_with_and_without_recording(odd: xr.Dataset) -> None:
    pipe, pairs = tiny_wan(), [("red apple", 0), ("dog", 0)]
    arguments = call_arguments(pipe, pairs, steps=2, guidance_scale=3.0, encode=encode_wan, **ODD)
    made = generate(pipe, arguments)
    latents, videos = made.latents, made.images
    assert np.array_equal(latents, odd.latent_final)
    assert np.array_equal(videos, odd.image)
    assert videos.shape == (2, 9, 48, 80, 3)
    assert not np.array_equal(videos[0], videos[1])


def test_a_videos_states_are_bit_identical_to_plain_forward_hooks(odd: xr.Dataset) -> None:
    pipe, pairs = tiny_wan(), [("red apple", 0), ("dog", 0)]
    arguments = call_arguments(pipe, pairs, steps=2, guidance_scale=3.0, encode=encode_wan, **ODD)
    calls, _ = calls_of(pipe, arguments)
    assert len(calls) == 4
    for index, kwargs in enumerate(calls):
        truth = forward(WAN, pipe.transformer, kwargs)
        mine = odd.isel(timestep=index // 2, branch=index % 2)
        for layer, hidden in truth.hidden.items():
            assert np.array_equal(mine.hidden.sel(layer=layer), hidden)


@pytest.fixture(scope="module", params=[True, False], ids=["image-to-video", "text-to-video"])
def ti2v(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Any, Callable[..., Any], xr.Dataset]:
    pipe, encoder = tiny_ti2v(image=request.param), encode_ti2v if request.param else encode_wan
    store = make(tmp_path_factory.mktemp("ti2v") / "s.zarr", pipe, encode=encoder)
    return request.param, pipe, encoder, workbench.open(store).load()


def test_a_tokens_own_timestep_is_recorded_and_said(ti2v: Any) -> None:
    image, _, _, recording = ti2v
    found = recording.token_timestep
    assert found.dims == ("sample", "branch", "timestep", "token")
    first = (recording.frame == 0).values
    own = recording.timestep.values[:, None].astype("float32")
    assert np.array_equal(found.values[..., ~first], np.broadcast_to(own, found.values[..., ~first].shape))
    assert np.array_equal(found.values[..., first] == 0, np.full(found.values[..., first].shape, image))
    assert "token_timestep" in recording.attrs["token_timesteps"]
    assert workbench.verify(recording.attrs["path"]).ok


def test_a_flipped_bit_in_a_tokens_timestep_is_found(ti2v: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ti2v[-1].attrs["path"], tmp_path / "copy.zarr"))
    file = next(iter(sorted((copy / "token_timestep").glob("c.1.*"))))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)
    wrong = workbench.verify(copy).wrong
    assert len(wrong) == 1
    assert "sample 1" in wrong[0]


def test_with_a_timestep_a_token_recording_changes_nothing(ti2v: Any) -> None:
    _, pipe, encoder, recording = ti2v
    arguments = call_arguments(
        pipe, [("red apple", 0), ("dog", 0)], steps=2, guidance_scale=3.0, encode=encoder, **SIZE
    )
    made = generate(pipe, arguments)
    latents, videos = made.latents, made.images
    assert np.array_equal(latents, recording.latent_final)
    assert np.array_equal(videos, recording.image)


def test_with_a_timestep_a_token_embedding_and_modulation_are_those_of_a_denoised_token(ti2v: Any) -> None:
    image, pipe, encoder, recording = ti2v
    arguments = call_arguments(
        pipe, [("red apple", 0), ("dog", 0)], steps=2, guidance_scale=3.0, encode=encoder, **SIZE
    )
    calls, _ = calls_of(pipe, arguments)
    token = 6 if image else 0
    for index, kwargs in enumerate(calls):
        tembs: list[torch.Tensor] = []
        handle = pipe.transformer.condition_embedder.register_forward_hook(
            lambda module, args, out, tembs=tembs: tembs.append(out[0].clone())
        )
        truth = forward(WAN, pipe.transformer, kwargs)
        handle.remove()
        mine = recording.isel(timestep=index // 2, branch=index % 2)
        assert np.array_equal(mine.temb, tembs[0][:, token])
        for layer, modulation in truth.modulation.items():
            assert np.array_equal(mine.modulation.sel(layer=layer), modulation[:, token])
            assert np.array_equal(mine.hidden.sel(layer=layer), truth.hidden[layer])


def test_the_same_image_given_again_continues_a_recording(ti2v: Any) -> None:
    _, pipe, encoder, recording = ti2v
    make(Path(recording.attrs["path"]), pipe, encode=encoder)


def test_exchanged_timesteps_and_parts_of_single_tokens_are_what_was_used(ti2v: Any, tmp_path: Path) -> None:
    image, pipe, encoder, plain = ti2v
    store = make(tmp_path / "s.zarr", pipe, encode=encoder, experiment="timestep-swap", grid=2, mediate="0")
    cells = workbench.open(store).load()
    assert cells.role.values.tolist() == plain.role.values.tolist()
    kept = cells.isel(timestep=np.flatnonzero(cells.swap == "none"))
    assert np.array_equal(kept.hidden, plain.hidden)
    for index in np.flatnonzero(cells.swap == "embedding"):
        cell = cells.isel(timestep=index)
        assert np.array_equal(cell.token_timestep[..., -1], np.full((2, 2), cell.embedding_timestep, "float32"))
        assert (cell.token_timestep.isel(token=0) == 0).all() == image
    for index in np.flatnonzero(cells.swap == "gate"):
        cell, here = cells.isel(timestep=index), plain.step.values == cells.step.values[index]
        other = plain.isel(timestep=int(np.flatnonzero(~here)[0])).modulation.sel(layer="blocks.0")
        mine = plain.isel(timestep=int(np.flatnonzero(here)[0])).modulation.sel(layer="blocks.0")
        found = cell.modulation.sel(layer="blocks.0")
        gates = found.modulation_term.str.startswith("gate").values
        assert np.array_equal(found[..., gates, :], other[..., gates, :])
        assert np.array_equal(found[..., ~gates, :], mine[..., ~gates, :])


def test_a_pipeline_with_timesteps_of_single_tokens_is_recorded_but_not_yet_steered() -> None:
    pipe = tiny_ti2v(image=False)
    assert layout_for(pipe, token_timesteps=True).family == "wan"
    with pytest.raises(UnsupportedModelError, match="expand_timesteps.*can be recorded, and STAS acts on them"):
        layout_for(pipe)
