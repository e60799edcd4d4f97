"""What was put into an experiment comes out of it, and no more; bad input is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.analysis.synthetic import synthetic
from tests.analysis.synthetic_experiment import (
    MASSIVE,
    by_embedding,
    by_latent,
    of_prompts,
    synthetic_experiment,
)
from workbench.analysis.causal import causal, diagonal
from workbench.analysis.locate import locate, located_channels
from workbench.analysis.modulation import modulation
from workbench.errors import AnalysisError

FAST = {"resamples": 200, "permutations": 199}


def overall(result: xr.Dataset, name: str, factor: str = "embedding", channel: int = 3) -> float:
    name, _, end = name.partition("/")
    return float(result[f"{name}_overall{end}"].sel(factor=factor, channel=channel))


def test_effect_of_the_embedding_is_measured_and_supported():
    result = causal(synthetic_experiment(by_embedding(0.5)), **FAST)
    assert result["channel"].values.tolist() == list(MASSIVE)
    assert result.attrs["verdict"] == "supported"
    assert overall(result, "effect") == pytest.approx(0.45, abs=0.02)
    assert overall(result, "effect/_low") < 0.45 < overall(result, "effect/_high")
    assert overall(result, "trend") == pytest.approx(0.45, abs=0.02)
    assert overall(result, "share") > 0.95
    assert overall(result, "share", "latent") < 0.02
    assert overall(result, "p_corrected") == pytest.approx(2 / 2**6)
    assert overall(result, "p_labels") <= 0.01
    assert "growing with the noise it stands for" in result.attrs["verdict_reason"]


def test_effect_of_the_latent_alone_is_not_called_modulation():
    result = causal(synthetic_experiment(by_latent(1.5)), **FAST)
    assert result.attrs["verdict"] == "not supported"
    assert set(result["channel_verdict"].values) == {"not supported"}
    assert overall(result, "effect", "latent") == pytest.approx(1.35, abs=0.02)
    assert overall(result, "share", "latent") > 0.95
    observed = modulation(diagonal(synthetic_experiment(by_latent(1.5))))
    assert (observed["direction"].isel(layer=slice(1, None)) == 1).all(), (
        "along the trajectory it looks like modulation"
    )


def test_both_are_told_apart_and_so_is_what_they_only_do_together():
    result = causal(synthetic_experiment(lambda p, s, t, e: 0.6 * e + 0.9 * t + 1.0 * e * t), **FAST)
    for factor in ("embedding", "latent", "embedding:latent"):
        assert overall(result, "share/_low", factor) > 0.005, factor
    assert overall(result, "p_value", "embedding:latent") == pytest.approx(2 / 2**6)
    assert float(result["share_overall"].sel(channel=3).sum()) == pytest.approx(1.0)


def test_a_bump_in_the_middle_is_an_effect_without_a_trend():
    result = causal(synthetic_experiment(lambda p, s, t, e: 0.5 * np.exp(-((e - 0.55) ** 2) / 0.02), grid=5), **FAST)
    assert result.attrs["verdict"] == "supported"
    assert abs(overall(result, "trend")) < 0.02
    assert "growing" not in result.attrs["verdict_reason"]


def test_prompts_that_disagree_leave_it_undecided_with_a_number():
    slopes = np.asarray([1.0, -0.6, 0.9, -0.4, 1.1, 0.2])
    result = causal(synthetic_experiment(lambda p, s, t, e: slopes[p] * e), **FAST)
    assert result.attrs["verdict"] == "undecided"
    assert "prompts would decide it" in result.attrs["verdict_reason"]
    assert overall(result, "share", "prompt:embedding") > 0.2


def test_prompt_and_seed_have_their_shares():
    result = causal(
        synthetic_experiment(lambda p, s, t, e: 0.4 * np.asarray([0, 1, 0, 1, 0, 1])[p] + 0.2 * s, seeds=3), **FAST
    )
    assert overall(result, "share", "prompt") == pytest.approx(0.04 / (0.04 + 0.04 * 2 / 3), abs=0.05)
    assert overall(result, "share", "prompt") + overall(result, "share", "seed") > 0.95
    assert overall(result, "p_value", "prompt") <= 0.01
    assert overall(result, "p_value", "seed") <= 0.01
    assert result.attrs["verdict"] == "not supported"


def test_what_was_not_varied_has_no_share():
    result = causal(synthetic_experiment(by_embedding(0.5), seeds=1), **FAST)
    for factor in ("seed", "prompt:seed", "seed:embedding"):
        assert np.isnan(result["share"].sel(factor=factor)).all()
    assert result.attrs["verdict"] == "supported"


def test_seeds_of_one_prompt_are_the_replicates():
    result = causal(synthetic_experiment(by_embedding(0.5), prompts=1, seeds=6), **FAST)
    assert result.attrs["replicate"] == "seed"
    assert result.attrs["verdict"] == "supported"
    assert np.isnan(result["share"].sel(factor="prompt")).all()
    assert np.isfinite(result["share"].sel(factor="seed:embedding", channel=3).isel(layer=1))


def test_too_few_prompts_are_undecided_with_the_number_needed():
    result = causal(synthetic_experiment(by_embedding(0.5), prompts=4), **FAST)
    assert result.attrs["verdict"] == "undecided"
    assert "4 prompts, of at least 5" in result.attrs["verdict_reason"]
    assert np.isnan(result["effect_overall_low"]).all()


def test_five_prompts_allow_no_p_small_enough():
    result = causal(synthetic_experiment(by_embedding(0.5), prompts=5), **FAST)
    assert result.attrs["verdict"] == "undecided"
    assert "p = 0.062, the smallest that 5 prompts allow; 6 are needed" in result.attrs["verdict_reason"]
    assert causal(synthetic_experiment(prompts=5), **FAST).attrs["verdict"] == "not supported"


def test_the_median_channel_stands_beside_as_a_control():
    result = causal(synthetic_experiment(by_embedding(0.5)), **FAST)
    assert (result["control_effect"].sel(factor="embedding") < 0.05).all()
    assert (result["specific_effect"].sel(factor="embedding").isel(layer=slice(1, None)) > 0.4).all()


def test_surface_is_the_mean_of_the_cells():
    data = synthetic_experiment(lambda p, s, t, e: 0.3 * e + 0.5 * t, noise=0.0)
    result = causal(data, **FAST)
    at = result["surface"].sel(channel=3, layer="transformer_blocks.1")
    expected = 0.3 * at["embedding_sigma"] + 0.5 * at["latent_sigma"]
    difference = (at - expected).values
    np.testing.assert_allclose(difference, difference.mean(), atol=1e-5)
    assert at.dims == ("latent_sigma", "embedding_sigma")


def test_mediation_gives_each_part_its_share():
    shares = {"gate": 0.7, "shift_scale": 0.2, "modulation": 0.9}
    result = causal(synthetic_experiment(by_embedding(0.8), mediate=shares), **FAST)
    for swap, share in shares.items():
        at = result.sel(swap=swap, swap_block="transformer_blocks.0", channel=3)
        assert at["mediated"].values == pytest.approx(share, abs=0.03)
        assert (at["mediated_low"] <= at["mediated"]).all()
        assert (at["mediated_high"] >= at["mediated"]).all()
    assert set(result["mediated_reason"].values.ravel()) == {""}


def test_without_an_effect_there_is_nothing_to_mediate():
    result = causal(synthetic_experiment(mediate={"gate": 0.5}), **FAST)
    assert np.isnan(result["mediated"]).all()
    assert all("nothing to share out" in reason for reason in result["mediated_reason"].values.ravel())


def test_single_factor_runs_stand_beside():
    spread = [0.0, 0.4, -0.4, 0.3, -0.3, 0.0]
    result = causal(
        synthetic_experiment(by_embedding(0.5)),
        prompt_swap=synthetic_experiment(of_prompts(spread), name="prompt-swap"),
        seed_swap=synthetic_experiment(name="seed-swap", prompts=1, seeds=12),
        **FAST,
    )
    at = result.sel(channel=3).isel(layer=1)
    assert float(at["prompt_swap_deviation"]) == pytest.approx(np.std(spread, ddof=1), abs=0.02)
    assert float(at["seed_swap_deviation"]) < 0.02
    assert "Over 6 prompts the prompt alone moves these channels by more than 0.1" in result.attrs["prompt_swap_reason"]
    assert "Over 12 seeds the seed alone moves these channels by less than 0.1" in result.attrs["seed_swap_reason"]


def test_few_seeds_say_that_they_are_few():
    result = causal(
        synthetic_experiment(by_embedding(0.5)), seed_swap=synthetic_experiment(name="seed-swap", seeds=2), **FAST
    )
    assert "Over 2 seeds, of at least 5, it is not known" in result.attrs["seed_swap_reason"]


def test_an_effect_that_cancels_over_latents_is_not_called_absent():
    # with an end latent held the embedding moves the channel by 0.8; in the mean over latents by nothing
    result = causal(synthetic_experiment(lambda p, s, t, e: 2.0 * (t - 0.55) * (e - 0.55), prompts=8), **FAST)
    assert overall(result, "effect/_high") < 0.05
    assert set(result["channel_verdict"].values) == {"undecided"}
    assert "depends on latent or block" in result.attrs["verdict_reason"]
    at = result.sel(channel=3)
    assert float(at["effect_worst"]) == pytest.approx(2 * 0.45 * 0.9, abs=0.03)
    assert float(at["effect_worst_latent_sigma"]) in (0.1, 1.0)
    held = at["effect_by_latent"].isel(layer=1)
    np.testing.assert_allclose(held, 2 * np.abs(held["latent_sigma"] - 0.55) * 0.9, atol=0.04)


def scaled(data: xr.Dataset, factor: np.ndarray, layers: slice, channels: slice) -> xr.Dataset:
    """The same with magnitudes times exp(factor) over cells, at some layers and channels."""
    for name in ("h_mean_abs", "h_mean", "h_max_abs", "h_std"):
        values = data[name].values.copy()  # some of them are one array
        values[:, :, layers, :, channels] *= np.exp(factor).astype(np.float32)[:, None]
        data[name] = (data[name].dims, values)
    return data


def test_an_effect_of_opposite_sign_in_two_blocks_is_not_called_absent():
    data = synthetic_experiment(prompts=8, layers=2)
    sigma = data["embedding_sigma"].values
    for layer, slope in ((1, 0.5), (2, -0.5)):
        for channel in MASSIVE:
            scaled(data, slope * sigma, slice(layer, layer + 1), slice(channel, channel + 1))
    result = causal(data, **FAST)
    assert overall(result, "effect/_high") < 0.05
    assert result.attrs["verdict"] == "undecided"
    assert "depends on latent or block" in result.attrs["verdict_reason"]


def test_a_channel_that_is_not_massive_is_described_only():
    data = synthetic_experiment(prompts=8)
    scaled(data, 0.5 * data["embedding_sigma"].values, slice(None), slice(5, 6))
    alone = causal(data, channels=[5], **FAST)
    assert overall(alone, "effect", channel=5) == pytest.approx(0.45, abs=0.02)
    assert alone.attrs["verdict"] == "undecided"
    assert "none of these channels is massive here" in alone.attrs["verdict_reason"]
    both = causal(data, channels=[5, 3], **FAST)
    assert both["channel_verdict"].values.tolist() == ["undecided", "not supported"]
    assert both["channel_reason"].values[0].startswith("not massive here")
    assert both.attrs["verdict"] == "not supported", "it is about the massive channel"


def test_all_channels_moved_alike_is_not_specific():
    data = synthetic_experiment(prompts=8)
    scaled(data, 0.5 * data["embedding_sigma"].values, slice(None), slice(None))
    result = causal(data, **FAST)
    assert result.attrs["verdict"] == "supported"
    assert result.attrs["specific"] == "no"
    assert set(result["channel_specific"].values) == {"no"}
    assert "not specific to massive activations" in result.attrs["verdict_reason"]
    own = causal(synthetic_experiment(by_embedding(0.5)), **FAST)
    assert own.attrs["specific"] == "yes"
    assert "not specific" not in own.attrs["verdict_reason"]


def test_bounds_know_how_many_channels_were_looked_at():
    data = synthetic_experiment(by_embedding(0.5))
    two, one = causal(data, **FAST), causal(data, channels=[3], **FAST)
    assert float(two["effect_overall_low_corrected"].sel(channel=3)) < float(one["effect_overall_low_corrected"][0])
    assert float(one["effect_overall_low_corrected"][0]) == pytest.approx(overall(one, "effect/_low"))


def test_the_sentence_is_short_and_counts_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr("tests.analysis.synthetic_experiment.MASSIVE", dict.fromkeys((3, 7, 11, 15, 19), 30.0))
    result = causal(synthetic_experiment(by_embedding(0.5), channels=64), **FAST)
    words = result.attrs["verdict_reason"]
    assert result.sizes["channel"] == 5
    assert len(words.split()) <= 60, words
    assert words.count("channel ") == 4  # three of them, and the median channel
    assert "and 2 more" in words


def test_neighbouring_cells_give_the_same_where_latent_and_embedding_only_add_up():
    result = causal(synthetic_experiment(lambda p, s, t, e: 0.5 * e + 0.3 * t), **FAST)
    for factor, size in (("embedding", 0.45), ("latent", 0.27)):
        assert overall(result, "effect_near", factor) == pytest.approx(size, abs=0.02)
    # an effect of the embedding only where the latent is two steps away is none beside the trajectory
    far = causal(synthetic_experiment(lambda p, s, t, e: 1.0 * ((t > 0.9) & (e < 0.5)), prompts=8), **FAST)
    assert overall(far, "effect") > 0.2
    assert overall(far, "effect_near") < 0.05


def test_mediation_stands_beside_that_of_the_median_channel():
    data = synthetic_experiment(by_embedding(0.8), mediate={"gate": 0.7})
    result = causal(data, **FAST)
    assert np.isnan(result["control_mediated"]).all()
    assert all("nothing to share out" in reason for reason in result["control_mediated_reason"].values.ravel())
    sigma, latent = data["embedding_sigma"].values, data["sigma"].values
    part = np.where(data["swap"] == "gate", 0.4, 1.0)
    moved = causal(scaled(data, 0.6 * (latent + part * (sigma - latent)), slice(1, None), slice(None)), **FAST)
    np.testing.assert_allclose(moved["control_mediated"], 0.4, atol=0.03)


def test_a_spread_at_the_margin_is_rarely_called_one_side():
    from workbench.analysis.single_factor import judge

    rng = np.random.default_rng(0)
    said = [judge(0.1 * rng.standard_normal((5, 1, 1)), np.ones((1, 1), bool), margin=0.1)[1] for _ in range(300)]
    assert said.count("not supported") <= 0.05 * 300
    assert said.count("supported") <= 0.05 * 300
    assert judge(0.01 * rng.standard_normal((12, 4, 2)), np.ones((4, 2), bool), margin=0.1)[1] == "not supported"
    assert judge(0.5 * rng.standard_normal((12, 4, 2)), np.ones((4, 2), bool), margin=0.1)[1] == "supported"


@pytest.mark.slow  # the planted models of the benchmark pull in torch
def test_the_measured_rates_are_those_of_this_rule():
    # benchmarks/causal_rates.py judges many data sets at once; one by one they get the same verdict here
    from benchmarks.causal_rates import judge

    rng = np.random.default_rng(1)
    verdicts = set()
    for size in (0.0, 0.15, 0.3, 0.5):
        slopes = size + 0.1 * rng.standard_normal(8)
        data = synthetic_experiment(lambda p, s, t, e, slopes=slopes: slopes[p] * e, prompts=8, grid=5, noise=0.001)
        result = causal(data, channels=[3], **FAST)
        logs = np.log(data["h_mean_abs"].sel(branch="cond", channel=3).isel(layer=slice(1, None))).transpose(
            "sample", "timestep", "layer"
        )
        ours = judge(logs.values.reshape(8, 2, 5, 5, 3, 1))["verdict"][0]
        assert result.attrs["verdict"] == ours
        verdicts.add(ours)
    assert len(verdicts) > 1


def test_a_part_of_the_channels_can_be_described_when_they_are_named():
    data = synthetic_experiment(by_embedding(0.5)).isel(channel=[3, 5, 11]).assign_attrs(layout={"channels": 32})
    result = causal(data, channels=[3, 11], **FAST)
    assert overall(result, "effect") == pytest.approx(0.45, abs=0.02)
    assert result.attrs["verdict"] == "undecided"
    assert "whether these channels are massive is not known" in result.attrs["verdict_reason"]
    assert "control_effect" not in result
    with pytest.raises(AnalysisError, match="only 3 of the model's 32 channels"):
        causal(data)


# What can't be analysed ---------------------------------------------------------------------------------------------


def test_analyses_of_trajectories_refuse_an_experiment_by_name():
    data = synthetic_experiment()
    for analysis in (locate, modulation):
        with pytest.raises(AnalysisError, match=r"experiment 'timestep-swap'.*diagonal\(recording\)"):
            analysis(data)


def test_the_causal_analysis_refuses_a_trajectory_and_other_experiments():
    with pytest.raises(AnalysisError, match="is a trajectory.*--experiment timestep-swap"):
        causal(synthetic())
    with pytest.raises(AnalysisError, match="experiment 'seed-swap'.*timestep-swap"):
        causal(synthetic_experiment(name="seed-swap"))
    with pytest.raises(AnalysisError, match="timestep-swap.*prompt-swap, seed-swap"):
        causal(synthetic_experiment(), prompt_swap=synthetic_experiment())


def test_the_diagonal_is_an_ordinary_recording():
    plain = diagonal(synthetic_experiment(grid=3))
    assert plain.sizes["timestep"] == 3
    assert plain["step"].values.tolist() == [0, 1, 2]
    assert "experiment" not in plain.attrs
    assert set(located_channels(locate(plain))) == set(MASSIVE)
    recording = synthetic()
    assert diagonal(recording) is recording


def test_a_grid_of_one_timestep_is_refused():
    with pytest.raises(AnalysisError, match="grid of the experiment has 1 timestep; .* at least two"):
        causal(synthetic_experiment(grid=1))


def test_a_part_of_the_grid_is_refused():
    with pytest.raises(AnalysisError, match="1 of 16 cells"):
        causal(synthetic_experiment().isel(timestep=[0, *range(2, 16)]))


@pytest.mark.parametrize(
    ("channels", "words"), [([], "the set is empty"), ([3, 99], r"unknown: \[99\]"), ([3, 3], "each channel once")]
)
def test_channels_that_are_not_there_are_refused(channels, words):
    with pytest.raises(AnalysisError, match=words):
        causal(synthetic_experiment(), channels=channels)


def test_a_sample_that_is_not_finite_is_left_out_with_its_prompt_and_named():
    data = synthetic_experiment(by_embedding(0.5), prompts=7)
    data["h_mean_abs"][5, 1, 2, 3, 3] = np.nan  # the second seed of the third prompt
    result = causal(data, **FAST)
    assert result.attrs["prompts_left_out"] == ["prompt 2"]
    assert result.attrs["n_replicates"] == 6
    assert "Left out: 1 prompt without a complete" in result.attrs["verdict_reason"]
    assert result.attrs["verdict"] == "supported"
    for prompt in range(7):
        data["h_mean_abs"][2 * prompt, 1, 2, 3, 3] = np.inf
    with pytest.raises(AnalysisError, match="no prompt has a complete, finite sample for each of the 2 seeds"):
        causal(data, **FAST)


def test_a_dead_channel_is_named():
    data = synthetic_experiment()
    data["h_mean_abs"][:, :, 2, :, 7] = 0.0
    with pytest.raises(AnalysisError, match="channel 7 is exactly 0 in a cell at transformer_blocks.1"):
        causal(data, channels=[3, 7])


def test_no_massive_channel_is_nothing_to_modulate():
    data = synthetic_experiment(by_embedding(0.5))
    result = causal(data.isel(channel=[c for c in range(32) if c not in MASSIVE]), **FAST)
    assert result.attrs["verdict"] == "undecided"
    assert "no channel is massive" in result.attrs["verdict_reason"]


def test_order_of_dimensions_samples_and_cells_does_not_matter():
    data = synthetic_experiment(by_embedding(0.5))
    rng = np.random.default_rng(0)
    mixed = data.isel(sample=rng.permutation(data.sizes["sample"]), timestep=rng.permutation(data.sizes["timestep"]))
    mixed = mixed.transpose("channel", "timestep", "layer", "branch", "sample", ...)
    one, two = causal(data, **FAST), causal(mixed, **FAST)
    np.testing.assert_allclose(one["surface"], two["surface"], atol=1e-6)
    np.testing.assert_allclose(one["share"], two["share"], atol=1e-6)


def test_result_can_be_stored(tmp_path):
    result = causal(synthetic_experiment(by_embedding(0.5), mediate={"gate": 0.5}), **FAST)
    result.to_zarr(tmp_path / "causal.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "causal.zarr", consolidated=False)
    assert again.attrs["verdict"] == "supported"
