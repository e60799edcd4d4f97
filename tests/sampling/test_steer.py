"""The trial of STAS: what each condition is, that it goes on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import workbench
from tests.steering.stas_helpers import stas_spec
from tests.tiny_wan import WIDTH, encode_wan, tiny_wan
from workbench.analysis.tables import open_table
from workbench.errors import SpecError, UnsupportedModelError, WorkbenchError
from workbench.sampling.conditions import open_conditions
from workbench.sampling.sampler import all_modes, sample
from workbench.sampling.stas_conditions import CONTROLS, control_specs, leaving_mean_square, mirrored, stas_conditions
from workbench.sampling.stas_grid import GRID, grid_specs
from workbench.sampling.steer import stas_trial
from workbench.steering.attach import apply
from workbench.steering.spec import StasSpec, Window

STEPS = 4
EARLY = {"unit": "step_fraction", "low": 0.0, "high": 0.25}
CALL: dict[str, Any] = {
    "prompts": ["red apple", "dog face"],
    "seeds": 5,
    "steps": STEPS,
    "guidance_scale": 3.0,
    "batch_size": 2,
    "encode": encode_wan,
    "progress": False,
}


@pytest.fixture(scope="module")
def wan() -> Any:
    return tiny_wan()


@pytest.fixture(scope="module")
def spec(wan: Any) -> StasSpec:
    return stas_spec(wan, window=EARLY)


@pytest.fixture(scope="module")
def recording(wan: Any) -> xr.Dataset:
    """What `leaving_mean_square` reads: in every state channel c has mean 1 + c and deviation 2, and block 2 ten times that."""
    layers, sizes = ["blocks.0", "blocks.1", "blocks.2"], (2, 2, 3, STEPS, WIDTH)
    mean = np.broadcast_to(1.0 + np.arange(WIDTH), sizes) * np.array([1, 1, 10])[:, None, None]
    from workbench.models import fingerprint

    return xr.Dataset(
        {
            "h_mean": (("sample", "branch", "layer", "timestep", "channel"), mean),
            "h_std": (("sample", "branch", "layer", "timestep", "channel"), np.full(sizes, 2.0)),
        },
        coords={
            "branch": ["cond", "uncond"],
            "layer": layers,
            "block": ("layer", [0, 1, 2]),
            "sigma": ("timestep", [1.0, 0.9, 0.75, 0.5]),
            "step": ("timestep", np.arange(STEPS)),
            "channel": np.arange(WIDTH),
        },
        attrs={"model": fingerprint(wan)},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stas") / "trial"


@pytest.fixture(scope="module")
def table(wan: Any, spec: StasSpec, recording: xr.Dataset, folder: Path) -> xr.Dataset:
    return stas_trial(spec, wan, recording=recording, out=folder, **CALL)


def specs(table: xr.Dataset) -> dict[str, Any]:
    return {
        str(n): json.loads(str(s) or "{}") for n, s in zip(table["condition"].values, table["spec"].values, strict=True)
    }


def changes(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {key for key in one if one[key] != other[key]}


def test_every_control_differs_from_the_spec_in_its_one_thing(table: xr.Dataset) -> None:
    found = specs(table)
    assert list(found) == ["plain", "stas", *CONTROLS]
    assert found.pop("plain") == {}
    stas = found.pop("stas")
    assert {name: changes(stas, one) for name, one in found.items()} == {
        "low": {"channels"},
        "matched": {"channels"},
        "all-tokens": {"alpha_interior"},
        "zero": {"action", "alpha_first", "alpha_boundary"},
        "zero-all-tokens": {"action", "alpha_first", "alpha_boundary", "alpha_interior"},
        "late": {"window"},
    }
    assert found["all-tokens"]["alpha_interior"] == stas["alpha_boundary"]
    assert found["low"]["channels"] == [0, 1]
    assert not set(found["matched"]["channels"]) & set(stas["channels"])
    assert found["zero"]["alpha_interior"] is None
    assert found["late"]["window"] == {"unit": "step_fraction", "low": 0.5, "high": 0.75}
    roles = dict(zip(table["condition"].values.tolist(), table["role"].values.tolist(), strict=True))
    assert (roles["plain"], roles["stas"], roles["late"]) == ("baseline", "stas", "control")
    assert set(table["baseline"].values) == {"plain"}


def test_stas_and_plain_are_the_samplers_videos(wan: Any, spec: StasSpec, table: xr.Dataset, folder: Path) -> None:
    made = sample(wan, spec=spec, modes=("cfg", "cfg+stas"), **CALL)
    run = open_conditions(folder, ["plain", "stas"])
    np.testing.assert_array_equal(run["image"].values, made.images)
    assert made.title("cfg+stas") == "CFG s=3 + STAS α=1.5/0.75"
    assert (made.of("cfg") != made.of("cfg+stas")).any()
    np.testing.assert_array_equal(run["latent_final"].values, made.latents)


def test_what_was_changed_is_reported_and_nothing_is_in_plain(table: xr.Dataset) -> None:
    norm = table["changed_norm"]
    assert np.isnan(norm.sel(condition="plain")).all()
    assert (norm.sel(condition=["stas", "zero", "all-tokens", "late"]) > 0).all()
    assert (norm.sel(condition="all-tokens") > norm.sel(condition="stas")).all()


def test_the_same_call_runs_nothing_again_and_more_is_added(
    wan: Any, spec: StasSpec, recording: xr.Dataset, table: xr.Dataset, folder: Path
) -> None:
    calls: list[int] = []
    handle = wan.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        again = stas_trial(spec, wan, recording=recording, out=folder, **CALL)
        assert not calls
        more = stas_trial(spec, wan, out=folder, controls=(), over={"alpha": [0.5, 2], "reference": "joint"}, **CALL)
        assert calls
    finally:
        handle.remove()
    xr.testing.assert_equal(again["value"], table["value"])
    assert more["condition"].values.tolist() == ["plain", "stas", "alpha=0.5", "alpha=2", "reference=joint"]
    assert open_table(folder, "stas")["role"].values.tolist() == ["baseline", "stas", "grid", "grid", "grid"]
    both = specs(more)
    assert (both["alpha=2"]["alpha_first"], both["alpha=2"]["alpha_boundary"], both["alpha=2"]["alpha_interior"]) == (
        2,
        2,
        None,
    )


def test_without_a_recording_other_channels_are_left_out_by_name(wan: Any, spec: StasSpec) -> None:
    chosen, lacking = stas_conditions(spec, wan, guidance_scale=3.0, steps=STEPS)
    assert [c.name for c in chosen] == ["plain", "stas", "all-tokens", "zero", "zero-all-tokens", "late"]
    assert [line.split(":")[0] for line in lacking] == ["low channels", "matched channels"]


def test_a_control_that_is_the_spec_itself_is_left_out(wan: Any) -> None:
    everything = stas_spec(wan, action="zero", alpha_first=0.0, alpha_boundary=0.0, alpha_interior=0.0)
    made, lacking = control_specs(everything, wan, steps=STEPS, controls=["zero-all-tokens", "late"])
    assert made == {}
    assert lacking == [
        "zero-all-tokens: the spec does that itself",
        "late steps: the window holds the same steps counted from the other end",
    ]


def test_late_steps_are_as_many_and_really_steered(wan: Any, spec: StasSpec) -> None:
    by_sigma = spec.replace(window={"unit": "sigma", "low": 0.85, "high": 1.0})
    steered: dict[str, int] = {}
    for name, one in (("early", by_sigma), ("late", mirrored(by_sigma, wan, STEPS, []))):
        assert one is not None
        with apply(one, wan) as attachment:
            sample_once(wan)
        steered[name] = attachment.steered_calls
    assert steered["early"] == steered["late"] > 0


def sample_once(wan: Any) -> None:
    call = {**encode_wan(["dog face"]), "height": 32, "width": 48, "num_frames": 5, "num_inference_steps": STEPS}
    wan(**call, guidance_scale=3.0, output_type="latent")


def test_channels_are_matched_in_the_state_that_leaves_the_spec_s_blocks(spec: StasSpec, recording: xr.Dataset) -> None:
    np.testing.assert_allclose(leaving_mean_square(recording, spec), (1.0 + np.arange(WIDTH)) ** 2 + 4)
    both = spec.replace(layers=["blocks.1", "blocks.2"])
    np.testing.assert_allclose(leaving_mean_square(recording, both), 50.5 * (1.0 + np.arange(WIDTH)) ** 2 + 4)
    with pytest.raises(WorkbenchError, match="has no block 'blocks.1'"):
        leaving_mean_square(recording.isel(layer=[0]), spec)
    with pytest.raises(WorkbenchError, match="none of its steps"):
        leaving_mean_square(
            recording.isel(timestep=[3]), spec.replace(window={"unit": "sigma", "low": 0.9, "high": 1.0})
        )


def test_steps_are_counted_in_the_trajectory_where_only_some_were_recorded(
    spec: StasSpec, recording: xr.Dataset
) -> None:
    # Steps 0, 4, 8, 12 of 16; the window holds the first half, so 0 and 4.
    some = recording.assign_coords(step=("timestep", 4 * np.arange(STEPS))).assign_attrs(settings={"steps": 16})
    some["h_mean"] = some["h_mean"] * xr.DataArray([1.0, 3.0, 100.0, 100.0], dims="timestep")
    half = spec.replace(window={"unit": "step_fraction", "low": 0.0, "high": 0.49})
    np.testing.assert_allclose(leaving_mean_square(some, half), 5.0 * (1.0 + np.arange(WIDTH)) ** 2 + 4)


def test_the_grid_s_windows_hold_that_share_of_the_steps() -> None:
    shares = (0.1, 0.2, 0.4, 0.6)
    windows = [Window(**window) for window in GRID["window"]]
    assert [sum(window.contains(step / 20) for step in range(20)) for window in windows] == [2, 4, 8, 12]
    assert [window.high for window in windows] == [pytest.approx(share, abs=1e-5) for share in shares]


def test_the_grid_varies_one_thing_at_a_time_or_all(wan: Any, spec: StasSpec) -> None:
    one = list(grid_specs(spec, wan, {"boundary_width": ["1 rows", 1 / 4, 3], "layers": ["auto", [0, 2]]}))
    assert [labels for labels, _ in one] == [
        {"boundary_width": "1 rows"},
        {"boundary_width": "0.25 fraction"},
        {"boundary_width": "3 tokens"},
        {"layers": "blocks.0"},
        {"layers": "blocks.2"},
        {"layers": "blocks.0 blocks.2"},
    ], "blocks.1 is the spec's own"
    assert one[-1][1].layers == ("blocks.0", "blocks.2")
    many = list(grid_specs(spec, wan, {"alpha": [0.5, 1], "reference": ["channel", "joint"]}, product=True))
    assert len(many) == 4
    labels, windowed = next(grid_specs(spec, wan, {"window": "sigma:0.2-0.6"}))
    assert labels == {"window": "sigma:0.2-0.6"}
    assert (windowed.window.unit, windowed.window.low) == ("sigma", 0.2)
    assert len(list(grid_specs(spec, wan, GRID))) == 3 + 4 + 3 + 1 + 2


@pytest.mark.parametrize(
    ("over", "error", "said"),
    [
        ({}, WorkbenchError, "can't vary nothing; name one or more of alpha"),
        ({"weight": [1]}, WorkbenchError, r"can't vary \['weight'\]"),
        ({"alpha": []}, WorkbenchError, "no value for 'alpha'"),
        ({"boundary_width": 0.7}, SpecError, "boundary_width 0.7 can't be used"),
        ({"layers": 9}, SpecError, "no block 9; its blocks are 0 to 2"),
        ({"window": "soon"}, SpecError, "window 'soon' is unknown"),
        ({"alpha": ["much"]}, SpecError, "alpha_first"),
    ],
)
def test_what_cannot_be_varied_is_refused(wan: Any, spec: StasSpec, over: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        list(grid_specs(spec, wan, over))


def test_what_cannot_be_tried_is_refused_before_anything_runs(
    wan: Any, pipe: Any, spec: StasSpec, tmp_path: Path
) -> None:
    idle = spec.replace(alpha_first=None, alpha_boundary=None)
    for given, error, said in (
        ({"spec": idle}, SpecError, "does nothing"),
        ({"spec": spec.replace(branches=["uncond"]), "guidance_scale": 1.0}, SpecError, "the uncond pass alone"),
        ({"controls": ["random"]}, WorkbenchError, r"controls \['random'\] are unknown; choose of low"),
        ({"controls": "high"}, WorkbenchError, r"controls \['high'\] are unknown"),
        ({"seedz": 1}, WorkbenchError, "no option 'seedz'; besides its own there are prompts, seeds"),
        ({"model": pipe}, UnsupportedModelError, "makes images"),
        ({"over": {"layers": "blocks.7"}}, SpecError, "no block 'blocks.7'"),
    ):
        call = {"spec": spec, "model": wan, "out": tmp_path / "x", **CALL, **given}
        with pytest.raises(error, match=said):
            stas_trial(call.pop("spec"), call.pop("model"), **call)
    assert not (tmp_path / "x").exists()


def test_the_size_is_the_spec_s_unless_given(wan: Any, spec: StasSpec) -> None:
    made = sample(wan, spec=spec, modes="stas", **{**CALL, "prompts": "dog face", "num_frames": 9})
    assert made.images.shape[2:] == (9, 32, 48, 3)


def test_a_spec_of_the_uncond_pass_alone_has_no_mode_without_cfg(wan: Any, spec: StasSpec) -> None:
    alone = spec.replace(branches=["uncond"])
    assert all_modes(spec) == ("plain", "cfg", "stas", "cfg+stas")
    assert all_modes(alone) == ("plain", "cfg", "cfg+stas")
    with pytest.raises(SpecError, match="no uncond pass, .* with this one: plain, cfg, cfg\\+stas"):
        sample(wan, spec=alone, modes="stas", **CALL)


def test_the_table_goes_through_the_analysis(table: xr.Dataset) -> None:
    result = workbench.stas_effects(table, resamples=100, flips=99)
    assert result["contrast"].values[0] == "stas − plain"
    assert result["contrast"].size == 1 + 2 * len(CONTROLS)
    assert result.attrs["verdict"] == "undecided", "two prompts decide nothing"
    assert result.attrs["left_out"] == table.attrs["left_out"]
    at = {"contrast": "stas − plain", "measure": "temporal_flicker"}
    flicker = table["value"].sel(measure="temporal_flicker")
    change = flicker.sel(condition="stas") - flicker.sel(condition="plain")
    assert result["difference"].sel(at) == pytest.approx(float(change.mean()))
