"""From a pipeline that provably carries one thing in its massive channels to the words that say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.planted import hook_record, planted_pipeline
from workbench.analysis.disruption import disruption
from workbench.analysis.tables import open_table
from workbench.errors import AnalysisError, StoreError, WorkbenchError
from workbench.sampling.conditions import open_conditions
from workbench.sampling.disrupt import disrupt, disruption_conditions, plan_disruption
from workbench.sampling.sampler import sample

SIDE, STEPS, SEEDS = 32, 4, range(7)
MASSIVE = (7, 20)
SETTINGS: dict[str, Any] = {"layers": ["transformer_blocks.1"], "windows": {}, "draws": 2}


@torch.no_grad()
def carrying(what: str) -> Any:
    """A real pipeline whose blocks pass the state on unchanged, so that what two massive channels do is read off `proj_out`.

    They come from the position embedding. ``detail``: one writes stripes two pixels wide, the other stripes of one pixel,
    and nothing else; ``content``: both write one slow wave down the picture; ``nothing``: `proj_out` does not read them.
    An ordinary channel writes a slow wave across the picture, and the noise of the seed is what is left.
    """
    pipe = planted_pipeline("random", layers=2, latent=SIDE)
    model = pipe.transformer
    for block in model.transformer_blocks:  # gates 0: h + 0 · f(h)
        block.norm1.linear.weight.zero_()
        block.norm1.linear.bias.zero_()
    model.norm_out.linear.weight.zero_()
    model.norm_out.linear.bias.zero_()
    model.norm_out.norm = torch.nn.Identity()  # LayerNorm would let every channel hang on every other
    first, second, ordinary = (*MASSIVE, 30)
    for channel in (first, second, ordinary):  # nothing of the latents, which would feed what is written back
        model.pos_embed.proj.weight[channel], model.pos_embed.proj.bias[channel] = 0.0, 0.0
    grid = model.pos_embed.pos_embed.reshape(1, SIDE, SIDE, -1)
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    down, across = (torch.cos(2 * torch.pi * place / (SIDE / 2)) for place in (row, column))
    grid[..., ordinary] = across
    grid[..., first] = 10.0 * (1.0 - 2.0 * (column % 2) if what == "detail" else 1 + 0.8 * down)
    grid[..., second] = 10.0 * (1.0 if what == "detail" else 1 + 0.8 * down)
    model.pos_embed.pos_embed.copy_(grid.reshape(model.pos_embed.pos_embed.shape))
    model.proj_out.weight.zero_()
    read = model.proj_out.weight.view(2, 2, 4, -1)  # row and column in the patch, latent channel, hidden channel
    read[..., ordinary] = 2.0
    if what == "content":
        read[..., first] = read[..., second] = 0.2
    elif what == "detail":
        read[..., first] = 0.12
        read[:, 0, :, second], read[:, 1, :, second] = 0.12, -0.12
    decoder = torch.nn.Conv2d(4, 3, 1, bias=False)
    decoder.weight.copy_(0.08 * torch.eye(3, 4)[..., None, None])
    pipe.vae.decoder = decoder
    return pipe


def recorded(pipe: Any) -> xr.Dataset:
    found = hook_record(pipe, prompts=["a", "b", "c", "d", "e"], seeds=[0], steps=STEPS)
    found.attrs |= {"settings": {"steps": STEPS, "guidance_scale": 3.0}, "layout": {"family": "sd3", "blocks": 2}}
    return found


def run(pipe: Any, recording: xr.Dataset, out: Path, **options: Any) -> xr.Dataset:
    given: dict[str, Any] = {"prompts": ["a"], "seeds": SEEDS, "progress": False} | SETTINGS | options
    return disrupt(pipe, recording, out=out, **given)


@pytest.fixture(scope="module", params=["detail", "content", "nothing"])
def planted(request: Any, tmp_path_factory: Any) -> tuple[str, xr.Dataset, Path, Any, xr.Dataset]:
    pipe = carrying(request.param)
    recording, out = recorded(pipe), tmp_path_factory.mktemp("disruption") / "run"
    return request.param, run(pipe, recording, out), out, pipe, recording


def test_what_the_massive_channels_carry_is_named(planted):
    what, measured, *_ = planted
    found = disruption(measured, resamples=500, flips=999)
    assert (
        found.attrs["verdict"]
        in {
            "detail": {"detail only"},
            "content": {"content", "detail and content"},
            "nothing": {"neither"},
        }[what]
    ), found.attrs["verdict_reason"]
    assert found.attrs["replicate"] == "seed"
    assert json.loads(found.attrs["massive_channels"]) == {"transformer_blocks.1": list(MASSIVE)}


def test_detail_goes_and_the_layout_stays_or_the_other_way_round(planted):
    what, measured, *_ = planted
    massive = measured["value"].isel(condition=int(np.flatnonzero(measured["kind"] == "massive")[0]))
    plain = measured["value"].sel(condition="none")
    similar = massive.sel(measure="low_pass_similarity")
    edges = massive.sel(measure="edge_energy") / plain.sel(measure="edge_energy")
    if what == "detail":
        assert float(similar.min()) > 0.97
        assert float(edges.max()) < 0.6
    elif what == "content":
        assert float(similar.max()) < 0.6
        assert float(edges.min()) > 0.7
    else:  # what proj_out does not read changes not one bit
        same = [m for m in measured["measure"].values if m != "low_pass_similarity"]
        np.testing.assert_array_equal(massive.sel(measure=same), plain.sel(measure=same))
        assert (similar == 1).all()


def test_the_change_lies_at_the_frequencies_that_were_planted(planted):
    what, _, out, *_ = planted
    latents = open_conditions(out / "images")["latent_final"]
    massive = next(str(name) for name in latents["condition"].values if "massive" in str(name))
    change = (latents.sel(condition=massive) - latents.sel(condition="none")).values
    power_YX = np.abs(np.fft.fft2(change)).mean(axis=(0, 1))
    down, across = (np.abs(frequency) for frequency in np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2, indexing="ij"))
    planted_YX = {"detail": across > 0.24, "content": np.maximum(down, across) < 0.07, "nothing": across < 0}[what]
    # A wave made of tokens has steps, so a little of it lies at the tokens' own frequency.
    assert power_YX[~planted_YX].max() <= (0.05 if what == "content" else 1e-6) * power_YX.max()
    assert bool(power_YX.max() > 0) is (what != "nothing")


def test_what_is_removed_is_measured_and_what_is_expected_is_said(planted):
    _, measured, *_ = planted
    by_kind = {
        kind: measured.isel(condition=measured["kind"].values == kind) for kind in ("massive", "noise", "random")
    }
    norm = float(by_kind["massive"]["removed_norm"].mean())
    assert norm == pytest.approx(np.sqrt(2) * 10.0, rel=0.25)
    np.testing.assert_allclose(by_kind["noise"]["removed_norm"].values, norm, rtol=0.05)
    assert float(by_kind["random"]["removed_norm"].max()) < 0.4 * norm
    assert (by_kind["massive"]["coverage"] == 1).all()
    for kind in ("random", "matched_random", "low"):
        at = measured.isel(condition=measured["kind"].values == kind)
        np.testing.assert_allclose(at["removed_norm"].mean("sample") / norm, at["coverage"], rtol=0.3)


def test_the_undisturbed_images_are_the_samplers(planted):
    _, _, out, pipe, _ = planted
    plain = sample(pipe, prompts=["a"], seeds=SEEDS, steps=STEPS, guidance_scale=3.0, batch_size=8, progress=False)
    np.testing.assert_array_equal(open_conditions(out / "images")["image"].sel(condition="none"), plain.images[0])


def test_it_is_kept_and_the_same_call_runs_nothing_again(planted):
    _, measured, out, pipe, recording = planted
    xr.testing.assert_identical(open_table(out, "disruption").drop_attrs(), measured.drop_attrs())
    calls = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    again = run(pipe, recording, out)
    handle.remove()
    assert not calls
    xr.testing.assert_identical(again, measured)
    assert disruption(open_table(out, "disruption"), resamples=100, flips=99).attrs["verdict"]


def test_other_settings_in_the_same_folder_are_refused(planted):
    _, _, out, pipe, recording = planted
    with pytest.raises(StoreError, match="other settings"):
        run(pipe, recording, out, steps=STEPS + 1)


@pytest.fixture(scope="module")
def recording() -> xr.Dataset:
    found = hook_record(planted_pipeline("constant", layers=5), prompts=list("abcde"), seeds=[0], steps=6)
    found.attrs |= {"settings": {"steps": 6, "guidance_scale": 3.0}, "layout": {"family": "sd3", "blocks": 5}}
    return found


def test_the_plan_takes_layers_in_turn_and_windows_at_half_depth(recording):
    plan = plan_disruption(recording, draws=2)
    # The channels are written by block 1, so they enter blocks 2, 3 and 4.
    assert plan.channels == {f"transformer_blocks.{i}": [5, 41] for i in (2, 3, 4)}
    assert [line.split(":")[0] for line in plan.omitted if "none of the channels" in line] == [
        "transformer_blocks.0",
        "transformer_blocks.1",
    ]
    factors = [dict(condition.factors) for condition in plan.conditions[1:]]
    windowed = {str(f["layer"]) for f in factors if f["window"] != "whole"}
    assert windowed == {"transformer_blocks.2"}
    assert {f["window"] for f in factors} == {"whole", "early", "middle", "late"}
    assert plan.conditions[0].factors == {"kind": "none"}
    assert plan.conditions[0].steer is None
    per_cell = [f["kind"] for f in factors if (f["layer"], f["window"]) == ("transformer_blocks.3", "whole")]
    assert [per_cell.count(kind) for kind in ("massive", "random", "low", "noise")] == [1, 2, 1, 2]
    assert "3 layers over the whole trajectory; windows early, middle, late at transformer_blocks.2" in plan.design
    names = [condition.name for condition in plan.conditions]
    assert len(set(names)) == len(names)
    assert len(plan_disruption(recording, product=True).conditions) > len(names)


def test_draws_are_shared_by_the_windows_of_a_layer_and_not_by_layers(recording):
    made = disruption_conditions(recording, product=True)

    def random_sets(layer: str, window: str) -> list[list[int]]:
        return [
            condition.identity["disruption"]["channels"]
            for condition in made
            if (condition.factors.get("layer"), condition.factors.get("window")) == (layer, window)
            and condition.factors["kind"] == "random"
        ]

    assert random_sets("transformer_blocks.2", "whole") == random_sets("transformer_blocks.2", "early")
    assert random_sets("transformer_blocks.2", "whole") != random_sets("transformer_blocks.3", "whole")
    for channels in random_sets("transformer_blocks.2", "whole"):
        assert not {5, 41} & set(channels)


def test_given_channels_are_used_at_every_layer(recording):
    plan = plan_disruption(recording, channels=[3], windows={})
    assert plan.channels == {f"transformer_blocks.{i}": [3] for i in range(5)}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"layers": ["transformer_blocks.9"]}, AnalysisError, "no block 'transformer_blocks.9'"),
        ({"layers": ["input"]}, AnalysisError, "no block 'input'"),
        ({"layers": ["transformer_blocks.0"]}, AnalysisError, "none is massive in the state that enters any"),
        ({"layers": []}, WorkbenchError, "no layer to disrupt"),
        ({"channels": []}, WorkbenchError, "name at least one of 0 to 63"),
        ({"channels": [64]}, WorkbenchError, "name at least one of 0 to 63"),
        (
            {"windows": {"tiny": (0.95, 0.96)}},
            WorkbenchError,
            r"the window 'tiny' \(0.95 to 0.96\) holds none of the recorded",
        ),
        ({"windows": {"whole": (0.0, 0.5)}}, WorkbenchError, "another name"),
        ({"kinds": ["loud"]}, WorkbenchError, "choose of massive, random"),
        ({"ratio": 1000.0}, AnalysisError, "nothing to disrupt: none of 64 channels is massive"),
        ({"draws": 0}, WorkbenchError, "draws=0"),
    ],
)
def test_what_cannot_be_planned_is_refused(recording, options, error, said):
    with pytest.raises(error, match=said):
        plan_disruption(recording, **options)


def test_a_recording_of_another_model_is_refused(recording, tmp_path):
    pipe = planted_pipeline("constant", layers=2)
    other = recording.assign_attrs(model={"transformer_class": "SD3Transformer2DModel", "config_hash": "0123"})
    with pytest.raises(
        WorkbenchError, match="the recording is of another model .*config 0123.* than the model that is disr"
    ):
        disrupt(pipe, other, out=tmp_path / "x")


def test_a_run_that_takes_too_long_says_so_and_keeps_what_is_done(recording, tmp_path):
    pipe = planted_pipeline("constant", layers=5)
    options: dict[str, Any] = {
        "prompts": ["a", "b"],
        "steps": 2,
        "windows": {},
        "kinds": ["random"],
        "draws": 1,
        "progress": False,
    }
    with pytest.raises(WorkbenchError, match=r"7 conditions|6 conditions"):
        disrupt(pipe, recording, out=tmp_path / "x", limit_s=1e-6, **options)
    found = disrupt(pipe, recording, out=tmp_path / "x", limit_s=1e-6, yes=True, **options)
    assert found.sizes["condition"] == 7


def test_samples_that_are_not_finite_are_named_and_the_rest_is_measured(recording, tmp_path):
    pipe = planted_pipeline("constant", layers=5)
    block = pipe.transformer.transformer_blocks[3]

    def overflow(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # as float16 would where channel 5 is gone
        h = kwargs["hidden_states"]
        return args, kwargs | {"hidden_states": torch.where(h[..., 5:6].abs() < 3, torch.inf, h)}

    handle = block.register_forward_pre_hook(overflow, with_kwargs=True)
    options: dict[str, Any] = {
        "prompts": list("abcdef"),
        "steps": 2,
        "windows": {},
        "kinds": ["random"],
        "progress": False,
    }
    found = disrupt(pipe, recording, out=tmp_path / "x", layers=["transformer_blocks.2"], **options)
    handle.remove()
    assert not found["finite"].values[found["kind"].values == "massive"].any()
    assert np.isnan(found["value"].values[found["kind"].values == "massive"]).all()
    assert any("massive" in line and "not finite" in line for line in found.attrs["omitted"])
    lost = disruption(found, resamples=100, flips=99)
    assert (lost["collapsed"].sel(kind="massive") == 1).all()
    assert (lost["collapsed"].sel(kind="random") < 1).all()


def test_the_judge_is_not_a_folder_that_a_store_names(recording, tmp_path, monkeypatch):
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "study-prompts.txt").write_text("not mine\n")
    monkeypatch.chdir(tmp_path)
    pipe = planted_pipeline("constant", layers=5)
    options: dict[str, Any] = {"steps": 1, "windows": {}, "kinds": [], "layers": ["transformer_blocks.2"]}
    for name in ("judge", "mini-image"):
        named = recording.assign_attrs(model_name=name)
        found = disrupt(pipe, named, out=tmp_path / name, progress=False, **options)
        assert found["prompt"].values.tolist() == list("abcde"), (
            "the recording's, not those of a judge of another model"
        )
        assert "recognised" not in found["measure"].values
        assert found.attrs["model_name"] == name
