"""modulation: the trajectory, its direction, the writer and its gate, where the answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from tests.analysis.synthetic import synthetic
from tests.reduce_reference import to_dataset
from workbench.analysis.locate import locate
from workbench.analysis.modulation import CONFOUNDED, modulation
from workbench.errors import AnalysisError

FAST = {"resamples": 200}
SLOPE = 1.5


def written(slope: float = SLOPE, *, samples: int = 6, seed: int = 0) -> xr.Dataset:
    """Channel 9 is written by block 2 as 20 · exp(slope · sigma); gate_mlp of block 2 there is what is written."""
    rng = np.random.default_rng(seed)
    layers, steps, channels = 5, 6, 40
    h = rng.standard_normal((samples, 2, layers, steps, 16, channels))
    h = np.repeat(h[:, :, :1], layers, axis=2)  # the blocks write nothing else
    sigma = np.linspace(1.0, 1.0 / steps, steps)
    value = 20.0 * np.exp(slope * sigma) * (1 + 0.02 * rng.standard_normal((samples, 1, 1, steps)))
    h[:, :, 3:, :, :, 9] += value[..., None]  # layer 0 is `input`, so block 2 is layer 3
    gates = rng.standard_normal((samples, 2, layers - 1, steps, 6, channels))
    gates[:, :, 2, :, 5, 9] = value[:, :, 0]
    return to_dataset(h.astype(np.float32), modulation=gates.astype(np.float32), sigmas=sigma)


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return modulation(written(), **FAST)


def test_slope_of_the_logarithm_is_recovered_with_its_interval(result):
    at = result.sel(channel=9).isel(layer=[3, 4])
    np.testing.assert_allclose(at["sigma_slope"], SLOPE, atol=0.05)
    assert ((at["sigma_slope_low"] < SLOPE) & (at["sigma_slope_high"] > SLOPE)).all()
    np.testing.assert_allclose(at["step_slope"], -SLOPE * 5 / 6, atol=0.05)
    np.testing.assert_allclose(at["ratio_sigma_slope"], SLOPE, atol=0.1)
    np.testing.assert_allclose(at["sigma_correlation"], 1.0)
    assert at["direction"].values.tolist() == [1, 1]


@pytest.mark.parametrize(("slope", "direction"), [(SLOPE, 1), (-SLOPE, -1), (0.0, 0), (0.05, 0)])
def test_direction_is_not_given_for_a_change_below_the_smallest_slope(slope, direction):
    found = modulation(written(slope, samples=12), channels=[9], **FAST)
    assert found["direction"].isel(layer=3, channel=0) == direction


def test_writer_is_the_block_over_which_the_channel_jumps(result):
    assert result["channel"].values.tolist() == [9]
    assert str(result["writer"].values[0]) == "transformer_blocks.2"
    np.testing.assert_allclose(result["write_share"].sel(channel=9), [0, 0, 0, 1, 0], atol=1e-3)
    assert np.isnan(result["write"].isel(layer=0)).all()


def test_gate_of_the_writer_spikes_and_moves_with_the_magnitude(result):
    at = result.sel(channel=9)
    spikes = at["spike"].isel(layer=3)
    assert spikes.sel(modulation_term="gate_mlp") > 10 * spikes.drop_sel(modulation_term="gate_mlp").max()
    correlation = at["writer_correlation"]
    assert correlation.sel(modulation_term="gate_mlp") > 0.95
    assert abs(correlation.drop_sel(modulation_term="gate_mlp")).max() < 0.8
    low, high = at["writer_correlation_low"], at["writer_correlation_high"]
    assert bool(((low <= correlation) & (correlation <= high)).all())
    assert np.isnan(at["spike"].isel(layer=0)).all(), "the input has no AdaLN"


def test_verdict_is_undecided_and_says_why_and_which_way(result):
    assert result.attrs["verdict"] == "undecided"
    assert CONFOUNDED in result.attrs["verdict_reason"]
    assert "channel 9 grows with noise in 2" in result.attrs["verdict_reason"]
    assert "6 complete samples" in result.attrs["verdict_reason"]
    json.dumps(result.attrs)


def test_channels_come_from_locate_or_from_the_caller():
    recording = written()
    assert modulation(recording, **FAST).attrs["criterion"].startswith("workbench")
    given = modulation(recording, channels=[3, 9], **FAST)
    assert given["channel"].values.tolist() == [3, 9]
    assert given.attrs["criterion"] == "channels given by the caller"
    none = modulation(synthetic(), **FAST)
    assert none.sizes["channel"] == 3
    assert "no channel is massive" in none.attrs["verdict_reason"]


def test_intervals_belong_to_samples_not_to_steps():
    # The same six trajectories with the steps between them filled in: no more evidence, so no narrower interval.
    sparse = written()
    dense = sparse.isel(timestep=np.repeat(np.arange(6), 4))
    dense = dense.assign_coords(timestep=np.arange(24.0), step=("timestep", np.arange(24)))
    a, b = (modulation(r, channels=[9], **FAST) for r in (sparse, dense))
    width = [float((r["sigma_slope_high"] - r["sigma_slope_low"]).isel(layer=3, channel=0)) for r in (a, b)]
    assert width[1] == pytest.approx(width[0], rel=1e-6)


def test_without_adaln_terms_the_rest_is_there():
    found = modulation(written().drop_vars("modulation"), **FAST)
    assert "spike" not in found
    assert "magnitude" in found
    assert str(found["writer"].values[0]) == "transformer_blocks.2"


def test_a_gap_in_the_recorded_blocks_names_no_writer_across_it():
    found = modulation(written().isel(layer=[0, 1, 3, 4]), channels=[9], **FAST)
    assert np.isnan(found["write"].isel(layer=2)).all(), "block 1 was not recorded: what block 2 wrote is not known"


def test_few_samples_give_no_interval_and_say_so():
    found = modulation(written(samples=3), channels=[9], **FAST)
    assert np.isnan(found["sigma_slope_low"]).all()
    assert (found["direction"] == 0).all()
    assert "at least 5" in found.attrs["verdict_reason"]


def test_one_timestep_has_no_trend_but_is_no_error():
    found = modulation(written().isel(timestep=[2]), channels=[9], **FAST)
    assert np.isnan(found["sigma_slope"]).all()


@pytest.mark.parametrize("channels", [[999], [], [9, 9]])
def test_wrong_channels_are_refused(channels):
    with pytest.raises(AnalysisError, match="give each channel once"):
        modulation(written(), channels=channels)


def test_result_survives_zarr(result, tmp_path):
    result.to_zarr(tmp_path / "m.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "m.zarr", consolidated=False) as stored:
        xr.testing.assert_identical(stored.load(), result)


def test_magnitude_is_that_of_locate(result):
    located = locate(written(), **FAST)
    np.testing.assert_allclose(
        result["magnitude"].mean("timestep").sel(channel=9), located["magnitude"].sel(channel=9), rtol=1e-5
    )


def test_no_writer_where_the_sign_varies_over_tokens():
    h = np.random.default_rng(0).standard_normal((6, 2, 5, 3, 16, 40))
    h = np.repeat(h[:, :, :1], 5, axis=2)
    h[:, :, 3:, :, :, 9] += 20.0 * np.where(np.arange(16) % 2, 1.0, -1.0)  # mean h stays as it was
    found = modulation(to_dataset(h.astype(np.float32)), channels=[9], **FAST)
    assert found["massive"].sel(channel=9).values.tolist() == [False, False, False, True, True]
    assert found["writer"].values.tolist() == [""]
    assert "no one block can be named" in found.attrs["verdict_reason"]


@pytest.mark.parametrize("kept", [[3, 4], [0, 1, 3, 4], [1, 2, 4]])
def test_no_writer_where_it_was_not_recorded_or_the_state_before_it_was_not(kept):
    found = modulation(written().isel(layer=kept), channels=[9], **FAST)
    assert found["writer"].values.tolist() == [""]


def test_no_writer_where_two_blocks_write_about_as_much():
    rng = np.random.default_rng(1)
    h = np.repeat(rng.standard_normal((8, 2, 1, 3, 16, 40)), 5, axis=2)
    for layer in (2, 3):  # blocks 1 and 2; by how much each varies from prompt to prompt
        h[:, :, layer:, :, :, 9] += 10.0 + 3.0 * rng.standard_normal((8, 1, 1, 1, 1))
    found = modulation(to_dataset(h.astype(np.float32)), channels=[9], **FAST)
    assert found["writer"].values.tolist() == [""]
    share = found["write_share"].sel(channel=9).isel(layer=[2, 3])
    np.testing.assert_allclose(share.sum(), 1.0, atol=0.05)


def test_sign_is_that_of_the_last_state_not_of_the_mean_over_blocks():
    h = np.repeat(np.random.default_rng(2).standard_normal((6, 2, 1, 3, 16, 40)), 6, axis=2)
    h[:, :, 1:, :, :, 9] -= 30.0  # block 0 writes -30, block 4 +45: the mean over blocks is negative
    h[:, :, 5:, :, :, 9] += 45.0
    found = modulation(to_dataset(h.astype(np.float32)), channels=[9], **FAST)
    assert found["writer"].values.tolist() == ["transformer_blocks.4"]


def test_seeds_of_a_prompt_do_not_narrow_the_interval():
    recording = written()
    doubled = recording.isel(sample=np.repeat(np.arange(6), 2)).assign_coords(sample=np.arange(12))
    a, b = (modulation(r, channels=[9], **FAST) for r in (recording, doubled))
    assert (b.attrs["n_samples"], b.attrs["n_prompts"], b.attrs["n_replicates"]) == (12, 6, 6)
    assert b.attrs["replicate"] == "prompt"
    assert "6 prompts × 2 seeds (12 complete samples)" in b.attrs["verdict_reason"]
    for name in ("sigma_slope_low", "sigma_slope_high", "magnitude_low"):
        np.testing.assert_allclose(b[name], a[name], rtol=1e-6)


def test_samples_with_adaln_terms_that_are_not_finite_are_left_out():
    torn = written()
    torn["modulation"][2, 1, 3, 0, 0, 0] = np.nan
    assert modulation(torn, channels=[9], **FAST).attrs["samples_left_out"] == [2]


def test_chosen_channels_can_be_followed_where_others_were_not_recorded():
    whole = written()
    part = whole.isel(channel=[2, 9]).assign_attrs(layout={"family": "sd3", "blocks": 4, "channels": 40})
    found = modulation(part, channels=[9], **FAST)
    assert np.isnan(found["ratio_to_median"]).all()
    np.testing.assert_allclose(found["magnitude"], modulation(whole, channels=[9], **FAST)["magnitude"])
    with pytest.raises(AnalysisError, match="only 2 of the model's 40 channels"):
        modulation(part, **FAST)
