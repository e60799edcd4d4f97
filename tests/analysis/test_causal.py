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
    assert float(at["prompt_swap_deviation"]) == pytest.approx(np.std(spread), abs=0.02)
    assert float(at["seed_swap_deviation"]) < 0.02
    assert "Over 6 prompts the prompt alone moves these channels by more than 0.1" in result.attrs["prompt_swap_reason"]
    assert "Over 12 seeds the seed alone moves these channels by less than 0.1" in result.attrs["seed_swap_reason"]


def test_few_seeds_say_that_they_are_few():
    result = causal(
        synthetic_experiment(by_embedding(0.5)), seed_swap=synthetic_experiment(name="seed-swap", seeds=2), **FAST
    )
    assert "Over 2 seeds, of at least 5, it is not known" in result.attrs["seed_swap_reason"]


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
        logs = np.log(data["h_mean_abs"].sel(branch="cond", channel=3).isel(layer=slice(1, None))).mean("layer").values
        ours = {name: bool(value[0]) for name, value in judge(logs.reshape(8, 2, 5, 5, 1)).items()}
        verdict = "supported" if ours["supported"] else "not supported" if ours["not supported"] else "undecided"
        assert result.attrs["verdict"] == verdict
        verdicts.add(verdict)
    assert len(verdicts) > 1


def test_a_part_of_the_channels_is_enough_when_they_are_named():
    data = synthetic_experiment(by_embedding(0.5)).isel(channel=[3, 5, 11]).assign_attrs(layout={"channels": 32})
    result = causal(data, channels=[3, 11], **FAST)
    assert result.attrs["verdict"] == "supported"
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
