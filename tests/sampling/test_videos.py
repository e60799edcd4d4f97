"""Videos through the sampler, the conditions and the comparison: whole, equal and kept without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.tiny_wan import SIZE, encode_wan, tiny_wan
from workbench.errors import UnsupportedModelError, WorkbenchError
from workbench.sampling.clip_statistics import FEATURES, clip_statistics
from workbench.sampling.compare import compare
from workbench.sampling.compare_video import shown_frames
from workbench.sampling.conditions import Condition, run_conditions
from workbench.sampling.measured import measured
from workbench.sampling.result import SampleResult
from workbench.sampling.sampler import check_images, sample
from workbench.sampling.save import save_comparison
from workbench.sampling.semantic import load_clip_reference
from workbench.sampling.spectrum import Reference
from workbench.sampling.temporal import VIDEO_MEASURES, temporal_flicker
from workbench.sampling.video_measures import VIDEO_TABLE
from workbench.store.video_files import frames_of

PROMPTS = ["red apple", "dog face"]
CALL: dict[str, Any] = {
    "prompts": PROMPTS,
    "seeds": [3, 8],
    "steps": 2,
    "batch_size": 2,
    "encode": encode_wan,
    "progress": False,
    **SIZE,
}


@pytest.fixture(scope="module")
def wan() -> Any:
    return tiny_wan()


@pytest.fixture(scope="module")
def result(wan: Any) -> SampleResult:
    return sample(wan, compare=True, guidance_scale=3.0, **CALL)


@pytest.fixture(scope="module")
def run(wan: Any, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    chosen = [Condition("plain", {"mode": "plain"}, 1.0), Condition("cfg", {"mode": "cfg"}, 3.0)]
    return run_conditions(wan, chosen, out=tmp_path_factory.mktemp("v") / "run", **CALL)


def test_a_video_is_the_stock_pipelines(wan: Any, result: SampleResult) -> None:
    assert result.modes == ("plain", "cfg")
    assert result.video
    assert result.images.shape == (2, 4, 5, 32, 48, 3)
    assert result.latents.shape == (2, 4, 16, 2, 4, 6)
    stock = wan(
        **encode_wan(PROMPTS[:1]),
        **SIZE,
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="np",
        generator=[torch.Generator().manual_seed(3)],
    ).frames
    mine = sample(wan, **{**CALL, "prompts": PROMPTS[0], "seeds": 3, "guidance_scale": 3.0}).images[0, 0]
    np.testing.assert_array_equal(mine, (stock[0] * 255).round().astype(np.uint8))
    # Another batch size may round differently, but it is the same video.
    assert np.abs(result.of("cfg")[0].astype(int) - mine).max() <= 1
    assert result.settings["num_frames"] == 5
    assert (result.settings["height"], result.settings["width"]) == (32, 48)


def test_what_is_no_number_of_frames_is_refused(wan: Any, pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="num_frames = 6 must be 1 more than a multiple of 4"):
        sample(wan, **{**CALL, "num_frames": 6})
    with pytest.raises(WorkbenchError, match="num_frames = -3 must be 1 more than a multiple of 4"):
        sample(wan, **{**CALL, "num_frames": -3})
    with pytest.raises(WorkbenchError, match="num_frames = 6 must be 1 more than a multiple of 4"):
        run_conditions(wan, [Condition("plain", {}, 3.0)], out=tmp_path / "run", **{**CALL, "num_frames": 6})
    assert not (tmp_path / "run").exists(), "a folder of that size would refuse every other"
    with pytest.raises(WorkbenchError, match="makes images, not videos"):
        sample(pipe, prompts="dog face", num_frames=5, progress=False)
    with pytest.raises(WorkbenchError, match="compare=True takes all modes"):
        sample(wan, modes="cfg", compare=True, **CALL)
    with pytest.raises(UnsupportedModelError, match="WanPipeline makes videos"):
        check_images(wan)


def test_a_comparison_of_videos_is_written(result: SampleResult, tmp_path: Path) -> None:
    found = save_comparison(result, tmp_path / "out")
    table = found.table
    assert len(table) == 8
    assert set(VIDEO_MEASURES) < set(table.columns)
    first = table[(table["sample"] == 0) & (table["mode"] == "plain")].iloc[0]
    assert first["temporal_flicker"] == temporal_flicker(result.of("plain")[0])
    assert set(found.differences["measure"]) == {*VIDEO_MEASURES, "low_pass_similarity"}
    listed = json.loads((tmp_path / "out" / "settings.json").read_text())["images"]
    assert len(listed) == 8
    for i, row in enumerate(listed[:4]):
        np.testing.assert_array_equal(frames_of(tmp_path / "out" / row["file"]), result.of("plain")[i])
        assert (tmp_path / "out" / row["animation"]).is_file()
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000
    assert "5 frames" in (tmp_path / "out" / "caption.txt").read_text()


def test_frames_that_are_shown_go_from_the_first_to_the_last() -> None:
    assert shown_frames(5) == [0, 1, 2, 3, 4]
    assert shown_frames(17, 5) == [0, 4, 8, 12, 16]
    assert shown_frames(1) == [0]


def test_conditions_make_the_samplers_videos(run: xr.Dataset, result: SampleResult) -> None:
    assert run["image"].dims == ("condition", "sample", "video_frame", "y", "x", "rgb")
    assert run["latent_final"].dims[-4:] == ("latent_channel", "latent_frame", "latent_y", "latent_x")
    for mode in ("plain", "cfg"):
        np.testing.assert_array_equal(run["image"].sel(condition=mode).values, result.of(mode))
    assert run.attrs["settings"]["num_frames"] == 5


def test_a_run_of_videos_goes_on_where_it_stopped(wan: Any, run: xr.Dataset, tmp_path: Path) -> None:
    chosen, calls = [Condition("plain", {"mode": "plain"}, 1.0)], []
    handle = wan.transformer.register_forward_pre_hook(lambda *_: calls.append(1))

    class Stop(Exception):
        pass

    stopping = wan.transformer.register_forward_pre_hook(lambda *_: stop() if len(calls) > 3 else None)

    def stop() -> None:
        raise Stop

    try:
        with pytest.raises(Stop):
            run_conditions(wan, chosen, out=tmp_path / "run", **CALL)
        stopping.remove()
        calls.clear()
        again = run_conditions(wan, chosen, out=tmp_path / "run", **CALL)
    finally:
        handle.remove()
    assert calls, "the batch that was cut off"
    np.testing.assert_array_equal(again["image"].values[0], run["image"].sel(condition="plain").values)
    with pytest.raises(WorkbenchError, match="num_frames: 5 there, 9 now"):
        run_conditions(wan, chosen, out=tmp_path / "run", **{**CALL, "num_frames": 9})


def test_videos_of_a_run_are_measured(run: xr.Dataset, tmp_path: Path) -> None:
    videos = run["image"].sel(condition="plain").values
    reference = clip_statistics(videos, run["prompt"].values.tolist(), source="itself")
    table = measured(run, baseline={"plain": "plain", "cfg": "plain"}, reference=reference)
    # Flat random videos may lack one measure; every one of the table that can be had is there, with its direction.
    assert set(table["measure"].values) <= set(VIDEO_TABLE)
    assert {"temporal_flicker", "motion_smoothness", "low_pass_similarity", "clip_distance", *FEATURES} <= set(
        table["measure"].values
    )
    assert table["better"].sel(measure="temporal_flicker") == -1
    value = table["value"].sel(condition="plain", measure="temporal_flicker").values
    np.testing.assert_array_equal(value, [temporal_flicker(video) for video in videos])
    similar = table["value"].sel(measure="low_pass_similarity")
    np.testing.assert_allclose(similar.sel(condition="plain"), 1.0)
    assert json.loads(table.attrs["reference"])["clips"] == 4
    of_pictures = Reference.of(videos[:, 0, :32, :32], ["a"] * 4, "x")
    with pytest.raises(WorkbenchError, match="none for videos"):
        measured(run, baseline="plain", reference=of_pictures)
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    assert load_clip_reference(tmp_path) == reference
    (tmp_path / "reference.json").write_text("{}")
    with pytest.raises(WorkbenchError, match="no reference of clips"):
        load_clip_reference(tmp_path)


def test_the_comparison_of_a_result_is_the_same_twice(result: SampleResult) -> None:
    assert compare(result).differences.equals(compare(result).differences)
