"""locate: known answers on real pipelines, and properties that must hold whatever the numbers are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.synthetic import synthetic
from tests.reduce_reference import to_dataset
from workbench.analysis.criteria import CRITERIA
from workbench.analysis.locate import locate, located_channels, table
from workbench.errors import AnalysisError

FAST = {"resamples": 200}
PLANTED = {5: 14.0, 30: -9.0}


@pytest.fixture(scope="module")
def recording() -> xr.Dataset:
    return synthetic(PLANTED)


@pytest.fixture(scope="module")
def result(recording) -> xr.Dataset:
    return locate(recording, **FAST)


def test_finds_exactly_what_was_planted_with_sign_and_order(result):
    assert located_channels(result) == [5, 30]
    assert result["sign"].sel(layer="transformer_blocks.2", channel=[5, 30]).values.tolist() == [1, -1]
    assert result["sign"].sel(layer="transformer_blocks.2", channel=7) == 0
    assert result.attrs["verdict"] == "supported"
    assert "5, 30" in result.attrs["verdict_reason"]
    assert "6 complete samples" in result.attrs["verdict_reason"]


def test_shapes_and_names_are_the_contract(result):
    dims = {name: set(variable.dims) for name, variable in result.data_vars.items()}
    per = {"layer", "channel"}
    assert dims == {
        "massive": {"criterion", *per},
        "massive_channel": {"criterion", "channel"},
        "layer_recurrence": {"criterion", "channel"},
        "timestep_recurrence": {"criterion", "channel"},
        "sample_recurrence": {"criterion", "channel"},
        "sample_recurrence_low": {"criterion", "channel"},
        "magnitude": per,
        "ratio_to_median": per,
        "ratio_to_median_low": per,
        "ratio_to_median_high": per,
        "ratio_to_mean": per,
        "ratio_by_timestep": {"timestep", *per},
        "sign": per,
        "sign_consistency": per,
        "dominance": per,
        "token_share": per,
    }
    assert list(result["criterion"].values) == list(CRITERIA)
    assert {"block", "step", "sigma"} <= set(result.coords)
    json.dumps(result.attrs)


def test_numbers_against_a_second_way_of_computing_them(recording, result):
    part = recording.sel(branch="cond")
    ratio = part["h_mean_abs"] / part["h_mean_abs"].median("channel")
    xr.testing.assert_allclose(
        result["ratio_to_median"].drop_attrs(), ratio.mean(["sample", "timestep"]).rename(None), rtol=1e-5
    )
    xr.testing.assert_allclose(
        result["magnitude"].drop_attrs(), part["h_mean_abs"].mean(["sample", "timestep"]).rename(None), rtol=1e-5
    )
    first = part["h_top_channel"].isel(rank=0)
    for channel in (5, 30, 7):
        share = (first == channel).mean(["sample", "timestep", "token"])
        np.testing.assert_allclose(result["dominance"].sel(channel=channel), share, atol=1e-6)
    inside = (result["ratio_to_median_low"] <= result["ratio_to_median"]) & (
        result["ratio_to_median"] <= result["ratio_to_median_high"]
    )
    assert bool(inside.all())


def test_input_layer_counts_only_when_asked():
    everywhere = synthetic(PLANTED)
    assert float(locate(everywhere, **FAST)["layer_recurrence"].sel(criterion="workbench", channel=5)) == 1.0
    counted = locate(everywhere, include_input=True, **FAST)["layer_recurrence"].sel(criterion="workbench", channel=5)
    assert float(counted) == pytest.approx(4 / 5)


def test_table_has_one_row_per_channel_and_says_who_agrees(result):
    rows = table(result)
    assert [row["channel"] for row in rows] == [5, 30]
    assert [row["sign"] for row in rows] == ["+", "-"]
    assert rows[0]["layers"] == 4
    assert "top_k" in rows[0]["also_by"]
    assert rows[0]["ratio_low"] < rows[0]["ratio_to_median"] < rows[0]["ratio_high"]
    assert {5, 30} < {row["channel"] for row in table(result, criterion="top_k")}


def test_a_ranking_supports_nothing():
    found = locate(synthetic(), criterion="top_k", **FAST)
    assert found.attrs["verdict"] == "undecided"
    assert "ranking" in found.attrs["verdict_reason"]


def test_nothing_planted_is_not_supported_and_few_samples_are_undecided():
    assert locate(synthetic(), **FAST).attrs["verdict"] == "not supported"
    few = locate(synthetic(PLANTED, samples=4), **FAST)
    assert few.attrs["verdict"] == "undecided"
    assert located_channels(few) == [5, 30]
    assert np.isnan(few["ratio_to_median_low"]).all()


def test_absent_units_leave_their_sample_out_and_are_reported(recording):
    torn = recording.copy(deep=True)
    cond = list(recording["branch"].values).index("cond")
    torn["unit_checksum"][1, cond, 2, 1] = 0
    torn["h_mean_abs"][4, cond, 3, 0] = np.nan
    result = locate(torn, **FAST)
    assert result.attrs["n_samples"] == 4
    assert result.attrs["n_samples_recorded"] == 6
    assert result.attrs["samples_left_out"] == [1, 4]
    kept = locate(recording.isel(sample=[0, 2, 3, 5]), **FAST)
    xr.testing.assert_equal(result, kept)
    other = locate(torn, branch="uncond", **FAST)
    assert other.attrs["n_samples"] == 6, "the other branch is complete"


def test_no_complete_sample_is_an_error(recording):
    with pytest.raises(AnalysisError, match=r"none of the 6 samples.*workbench record"):
        locate(recording.assign(h_mean_abs=recording["h_mean_abs"] * np.nan))


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda r: r.drop_vars("h_mean_abs"), {}, "lacks h_mean_abs; it holds h_max_abs"),
        (lambda r: r.drop_vars("h_top_channel"), {}, "lacks h_top_channel"),
        (lambda r: r, {"branch": "degraded"}, "no branch 'degraded'; it has uncond, cond"),
        (lambda r: r, {"criterion": "mine"}, "no criterion 'mine'"),
        (lambda r: r, {"threshold": 3}, "no parameter 'threshold'"),
        (lambda r: r.isel(layer=[0]), {}, "no block"),
    ],
)
def test_what_is_missing_is_named(recording, change, options, said):
    with pytest.raises(AnalysisError, match=said):
        locate(change(recording), **options)


def test_parameters_reach_the_rule_and_are_recorded(recording):
    strict = locate(recording, ratio=14.0, **FAST)
    assert located_channels(strict) == [5]
    assert json.loads(strict.attrs["parameters"])["ratio"] == 14.0
    assert json.loads(strict.attrs["parameters_by_criterion"])["stas"]["ratio"] == 50.0


def test_result_survives_zarr_and_a_lazily_opened_recording(recording, result, tmp_path):
    recording.chunk({"sample": 1, "layer": 1}).to_zarr(tmp_path / "r.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "r.zarr", consolidated=False) as lazy:
        again = locate(lazy, **FAST)
    xr.testing.assert_identical(again, result)
    result.to_zarr(tmp_path / "e.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "e.zarr", consolidated=False) as stored:
        xr.testing.assert_identical(stored.load(), result)


def test_the_recording_is_not_changed(recording):
    before = recording.copy(deep=True)
    locate(recording, **FAST)
    xr.testing.assert_identical(recording, before)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_permuting_channels_permutes_the_result(random):
    recording = synthetic(PLANTED, samples=5, layers=2)
    order = list(range(recording.sizes["channel"]))
    random.shuffle(order)
    shuffled = locate(recording.isel(channel=order), **FAST)
    straight = locate(recording, **FAST).isel(channel=order)
    xr.testing.assert_allclose(shuffled, straight, rtol=1e-5)
    assert located_channels(shuffled) == located_channels(straight)


@settings(max_examples=10, deadline=None)
@given(st.permutations(["sample", "branch", "layer", "timestep", "token", "channel", "rank", "modulation_term"]))
def test_order_of_dimensions_does_not_matter(order):
    recording = synthetic(PLANTED, samples=5, layers=2)
    turned = recording.transpose(*order)
    xr.testing.assert_identical(locate(turned, **FAST), locate(recording, **FAST))


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_scaling_the_states_leaves_ratios_and_what_follows_from_them(factor):
    recording = synthetic(PLANTED, samples=5, layers=2)
    names = ["h_mean_abs", "h_mean", "h_max_abs", "h_std", "h_norm", "h_top_abs"]
    scaled = recording.assign({n: recording[n] * np.float32(factor) for n in names})
    a, b = locate(recording, **FAST), locate(scaled, **FAST)
    for name in ("ratio_to_median", "ratio_to_mean", "ratio_by_timestep", "sign_consistency", "dominance"):
        xr.testing.assert_allclose(a[name], b[name], rtol=1e-4)
    ratio_based = ["workbench", "stas", "top_k", "top_k_abs_mean"]
    xr.testing.assert_equal(a["massive"].sel(criterion=ratio_based), b["massive"].sel(criterion=ratio_based))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sets(st.integers(0, 47), max_size=4))
def test_finds_any_set_of_planted_channels(seed, channels):
    recording = synthetic({c: (-1) ** c * 10.0 for c in channels}, samples=5, layers=2, seed=seed)
    assert set(located_channels(locate(recording, **FAST))) == channels


def test_n_is_prompts_and_seeds_of_one_prompt_are_said_to_be_that():
    recording = synthetic(PLANTED)
    two = locate(recording.assign_coords(prompt=("sample", list("aabbcc"))), **FAST)
    assert (two.attrs["n_samples"], two.attrs["n_replicates"], two.attrs["replicate"]) == (6, 3, "prompt")
    assert two.attrs["verdict"] == "undecided"
    assert "3 prompts × 2 seeds (6 complete samples)" in two.attrs["verdict_reason"]
    assert np.isnan(two["ratio_to_median_low"]).all()
    one = locate(recording.assign_coords(prompt=("sample", ["a"] * 6)), **FAST)
    assert (one.attrs["n_prompts"], one.attrs["n_replicates"], one.attrs["replicate"]) == (1, 6, "seed")
    assert one.attrs["verdict"] == "supported"
    assert "6 seeds of one prompt" in one.attrs["verdict_reason"]
    uneven = locate(recording.assign_coords(prompt=("sample", list("abcdee"))), **FAST)
    assert "5 prompts with 1 to 2 seeds each" in uneven.attrs["verdict_reason"]
    bound = uneven["sample_recurrence_low"].sel(criterion="workbench", channel=5)
    assert float(bound) == pytest.approx(0.05 ** (1 / 5))


@pytest.mark.parametrize("statistic", ["h_mean", "h_max_abs", "h_std"])
def test_a_sample_with_any_statistic_that_is_not_finite_is_left_out(recording, statistic):
    torn = recording.copy(deep=True)
    torn[statistic][3, 1, 2, 1, 0] = np.inf
    assert locate(torn, **FAST).attrs["samples_left_out"] == [3]


def test_some_of_the_blocks_decide_nothing_about_the_model(recording):
    whole = recording.assign_attrs(layout={"family": "sd3", "blocks": 4, "channels": 48})
    assert locate(whole, **FAST).attrs["verdict"] == "supported"
    last = locate(whole.isel(layer=[4]), **FAST)
    assert last.attrs["verdict"] == "undecided"
    assert "Only 1 of the model's 4 blocks" in last.attrs["verdict_reason"]


def test_some_of_the_channels_are_refused(recording):
    part = recording.assign_attrs(layout={"channels": 48}).isel(channel=[5, 7, 9])
    with pytest.raises(AnalysisError, match="only 3 of the model's 48 channels"):
        locate(part, **FAST)


def test_states_that_are_mostly_zero_are_undecided_not_a_ratio_of_nothing():
    h = np.zeros((6, 2, 3, 2, 16, 48), dtype=np.float32)
    h[..., 5] = 50.0
    found = locate(to_dataset(h), **FAST)
    assert found.attrs["verdict"] == "undecided"
    assert "more than half of the channels are exactly 0" in found.attrs["verdict_reason"]


def test_the_reason_quotes_the_quantity_of_the_criterion_that_decided():
    wide = synthetic({5: 1000.0}, channels=64)
    assert "times the mean of all channels" in locate(wide, criterion="stas", **FAST).attrs["verdict_reason"]
    assert "times the median" not in locate(wide, criterion="sun2024", **FAST).attrs["verdict_reason"]
    assert "times the median channel (95% interval" in locate(wide, **FAST).attrs["verdict_reason"]


@pytest.mark.parametrize("options", [{"confidence": 95}, {"confidence": 0.0}, {"resamples": 0}])
def test_options_of_the_bootstrap_are_checked(recording, options):
    with pytest.raises(AnalysisError, match=next(iter(options))):
        locate(recording, **options)
