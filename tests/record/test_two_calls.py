"""Pipelines that run their branches one after the other: each call is put where it belongs, or refused."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench
from tests.tiny_wan import SIZE, encode_wan, tiny_wan
from workbench.errors import RecordingError, UnsupportedModelError, WorkbenchError
from workbench.models import layout_for
from workbench.record import record


def wan_recording(out: Path, pipe: Any, **options: Any) -> Any:
    chosen = {"prompts": ["red apple"], "seeds": [0, 1], "steps": 2, "batch_size": 2, **SIZE} | options
    record(pipe, out=out, encode=encode_wan, progress=False, **chosen)
    return workbench.open(out)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Recorded with the pipeline naming its calls, as it does."""
    return wan_recording(tmp_path_factory.mktemp("wan") / "s.zarr", tiny_wan()).load()


def test_a_videos_tokens_have_frames_rows_and_columns(named: Any) -> None:
    assert named.sizes["token"] == 2 * 2 * 3
    assert list(named.frame.values) == [0] * 6 + [1] * 6
    assert list(named.row.values) == [0, 0, 0, 1, 1, 1] * 2
    assert list(named.column.values) == [0, 1, 2] * 4
    assert named.latent_final.dims == ("sample", "latent_channel", "latent_frame", "latent_y", "latent_x")
    assert named.latent_final.shape == (2, 16, 2, 4, 6)
    assert named.image.dims == ("sample", "video_frame", "y", "x", "rgb")
    assert named.image.shape == (2, 5, 32, 48, 3)


def test_calls_without_a_name_are_told_apart_by_their_order(named: Any, tmp_path: Path) -> None:
    class Unnamed(type(tiny_wan())):  # type: ignore[misc]
        """As WanPipeline, but its calls are in no context."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            stand_in = self.transformer
            if hasattr(stand_in, "net"):
                stand_in.cache_context = lambda *a, **k: contextlib.nullcontext()
            return super().__call__(*args, **kwargs)

    pipe = tiny_wan()
    pipe.__class__ = Unnamed
    unnamed = wan_recording(tmp_path / "s.zarr", pipe)
    assert np.array_equal(unnamed.h_mean_abs, named.h_mean_abs)
    assert not np.array_equal(named.h_mean_abs.sel(branch="cond"), named.h_mean_abs.sel(branch="uncond"))


def test_a_name_counts_more_than_the_order(named: Any, tmp_path: Path) -> None:
    class Reversed(type(tiny_wan())):  # type: ignore[misc]
        """Calls the first of its two calls "uncond"."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            stand_in = self.transformer
            if hasattr(stand_in, "net"):
                real = stand_in.cache_context
                other = {"cond": "pred_uncond", "uncond": "pred_cond"}
                stand_in.cache_context = lambda name, **k: real(other[name], **k)
            return super().__call__(*args, **kwargs)

    pipe = tiny_wan()
    pipe.__class__ = Reversed
    swapped = wan_recording(tmp_path / "s.zarr", pipe)
    for one, other in [("cond", "uncond"), ("uncond", "cond")]:
        assert np.array_equal(swapped.h_mean_abs.sel(branch=one), named.h_mean_abs.sel(branch=other))


def test_a_third_kind_of_call_is_refused(tmp_path: Path) -> None:
    class Thrice(type(tiny_wan())):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            stand_in = self.transformer
            if hasattr(stand_in, "net"):
                real = stand_in.cache_context
                stand_in.cache_context = lambda name, **k: real("cond_skip" if name == "uncond" else name, **k)
            return super().__call__(*args, **kwargs)

    pipe = tiny_wan()
    pipe.__class__ = Thrice
    with pytest.raises(RecordingError, match="cache context 'cond_skip'.*one call of each of cond, uncond a step"):
        wan_recording(tmp_path / "s.zarr", pipe)


def test_a_call_too_few_is_an_error(tmp_path: Path) -> None:
    class Hasty(type(tiny_wan())):  # type: ignore[misc]
        """Leaves out the unconditional call of its second step."""

        def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
            def stop(pipe: Any, step: int, t: Any, values: Any) -> Any:
                pipe._guidance_scale = 1.0
                return callback_on_step_end(pipe, step, t, values) if callback_on_step_end else {}

            return super().__call__(*args, callback_on_step_end=stop, **kwargs)

    pipe = tiny_wan()
    pipe.__class__ = Hasty
    with pytest.raises(RecordingError, match="made 3 calls of its transformer, the recording expects 4"):
        wan_recording(tmp_path / "s.zarr", pipe)
    assert workbench.verify(tmp_path / "s.zarr").finished == 0


def test_one_branch_of_two_calls_can_be_recorded(named: Any, tmp_path: Path) -> None:
    for branch in ("cond", "uncond"):
        part = wan_recording(tmp_path / f"{branch}.zarr", tiny_wan(), select={"branches": branch})
        assert np.array_equal(part.h_mean_abs, named.h_mean_abs.sel(branch=[branch]))
        assert workbench.verify(part.attrs["path"]).ok


def test_without_a_vae_there_is_no_video(named: Any, tmp_path: Path) -> None:
    part = wan_recording(tmp_path / "s.zarr", tiny_wan(vae=False))
    assert "image" not in part
    assert part.latent_final.dims == named.latent_final.dims


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 4}, "num_frames = 4 must be 1 more than a multiple of 4"),
        ({"height": 40}, "height = 40 must be a multiple of 16 pixels"),
        ({"num_frames": 0}, "num_frames = 0 can't be used"),
    ],
)
def test_a_size_that_is_no_whole_tokens_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkbenchError, match=message):
        wan_recording(tmp_path / "s.zarr", tiny_wan(), **options)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_an_image_are_refused(tmp_path: Path, tiny: Any) -> None:
    from tests.tiny import encode

    with pytest.raises(WorkbenchError, match="num_frames = 5, but StableDiffusion3Pipeline makes images"):
        record(tiny, prompts=["dog"], out=tmp_path / "s.zarr", encode=encode, num_frames=5, progress=False)


def test_two_experts_and_timesteps_per_token_are_refused_by_name() -> None:
    from diffusers import WanPipeline

    pipe = tiny_wan()
    parts = {name: pipe.components[name] for name in ("vae", "scheduler", "transformer", "text_encoder", "tokenizer")}
    both = WanPipeline(**parts, transformer_2=tiny_wan(seed=1).transformer, boundary_ratio=0.5)
    with pytest.raises(UnsupportedModelError, match="denoises with two transformers.*transformer_2"):
        layout_for(both)
    with pytest.raises(UnsupportedModelError, match="expand_timesteps"):
        layout_for(WanPipeline(**parts, expand_timesteps=True))


@pytest.mark.parametrize("experiment", [None, "timestep-swap"])
def test_a_cache_is_refused_because_it_would_return_an_earlier_calls_states(
    tmp_path: Path, experiment: str | None
) -> None:
    from diffusers import FirstBlockCacheConfig

    pipe = tiny_wan()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.9))
    with pytest.raises(RecordingError, match="A cache is enabled in this transformer .*disable_cache"):
        wan_recording(tmp_path / "s.zarr", pipe, experiment=experiment)
    pipe.transformer.disable_cache()
    options = {"experiment": experiment, "grid": 2} if experiment else {}
    assert workbench.verify(wan_recording(tmp_path / "s.zarr", pipe, **options).attrs["path"]).ok


def test_a_cache_that_was_put_on_by_hand_is_refused_too(tmp_path: Path) -> None:
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    from tests.tiny import encode, tiny_pipeline

    pipe = tiny_pipeline()
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.9))
    with pytest.raises(RecordingError, match="A cache is enabled in this transformer .FBC"):
        record(pipe, prompts=["dog"], out=tmp_path / "s.zarr", encode=encode, progress=False)


def test_a_model_that_predicts_no_such_latents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="The pipeline fails with these settings: The size of tensor"):
        wan_recording(tmp_path / "s.zarr", tiny_wan(in_channels=20))
    assert list(tmp_path.iterdir()) == []
