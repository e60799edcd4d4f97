"""Known answers: what loses detail, content, both, nothing, or as much as its controls is called that, and not more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tests.analysis.disrupted import ANSWERS, NORMS, Truth, simulated
from workbench.analysis import inference
from workbench.analysis.disruption import MARGINS, NORM_TOLERANCE, SMALLEST, disruption
from workbench.analysis.disruption_verdict import AGREES, upper
from workbench.errors import AnalysisError

FAST = {"resamples": 200, "flips": 999}
MASSIVE, NONE = 0, 0


@pytest.mark.parametrize(("truth", "answer"), ANSWERS.items())
def test_known_answers(truth, answer):
    # That something is no more than something else takes more prompts than that it is there.
    prompts = 400 if truth in ("as much as equal norm", "detail, with content as the controls") else 128
    found = disruption(simulated(truth, seed=3, prompts=prompts), **FAST)
    assert len(found.attrs["verdict_reason"].split()) <= 90
    assert found.attrs["verdict"] == answer
    papers = {"detail only": "Gan et al.", "content": "Turri et al.", "detail and content": "Turri et al."}
    assert found.attrs["agrees_with"] == papers.get(
        answer, "Gan et al. in part" if answer.startswith("detail,") else "neither"
    )
    concerned = [str(found["outcome"].sel(control_set="equal norm").values[e]) for e in (1, 2)]
    assert concerned == [answer, answer]
    assert set(found["outcome"].sel(control_set="equal norm").values[[0, 3]]) == {"neither"}


def test_the_papers_controls_and_those_of_equal_norm_are_told_apart():
    found = disruption(simulated("less than equal norm"), **FAST)
    assert found.attrs["verdict"] == "neither"
    assert found.attrs["verdict_equal_number"] == "detail and content"
    assert found.attrs["agrees_with_equal_number"] == "Turri et al."
    for word in ("equal norm (matched_random, noise)", "equal number (random, low)", "64 prompts", "2 draws"):
        assert word in found.attrs["verdict_reason"]


def test_effects_and_losses_are_paired_means_over_prompts():
    measured = simulated("detail and content", prompts=12, seeds=2, draws=3)
    found = disruption(measured, **FAST)
    value = measured["value"].sel(measure="edge_energy").values
    plain = value[0]
    picked = [
        k for k in range(len(value))
        if (str(measured["kind"].values[k]), str(measured["layer"].values[k])) == ("random", "transformer_blocks.1")
    ]  # fmt: skip
    assert len(picked) == 3
    by_hand = (value[picked].mean(axis=0) - plain).reshape(12, 2).mean(axis=1)
    at = found.sel(kind="random", measure="edge_energy").isel(cell=1)
    assert float(at["effect"]) == pytest.approx(by_hand.mean())
    away = np.abs(measured["other"].sel(measure="edge_energy").values - plain).reshape(12, 2).mean(axis=1).mean()
    assert float(at["loss"]) == pytest.approx(-by_hand.mean() / away)
    low = inference.bootstrap_mean(by_hand, resamples=200).low
    assert float(at["effect_low"]) == pytest.approx(float(low))
    draws = found["condition_effect"].sel(measure="edge_energy").values
    names = found["condition"].values.tolist()
    assert draws[names.index("transformer_blocks.1-whole-random-2")] == pytest.approx((value[picked[2]] - plain).mean())


def test_contrast_norm_and_loss_per_norm_agree_with_the_losses():
    found = disruption(simulated("detail only"), **FAST)
    loss, contrast = found["loss"], found["contrast"]
    np.testing.assert_allclose(
        contrast.sel(control="noise"), loss.sel(kind="massive") - loss.sel(kind="noise"), atol=1e-12
    )
    np.testing.assert_allclose(found["norm"].sel(kind="massive"), NORMS["massive"], rtol=0.01)
    np.testing.assert_allclose(found["norm_ratio"].sel(control="random"), 5 / 30, rtol=0.02)
    detail = found.sel(kind="massive", measure="detail").isel(cell=1)
    assert float(detail["loss_per_norm"]) == pytest.approx(float(detail["loss"]) / 30, rel=0.02)
    assert bool((contrast.sel(measure="detail").isel(cell=1) > 0.3).all())
    assert bool((found["p_corrected"].sel(measure="detail").isel(cell=1) < 0.01).all())
    assert bool((found["p_corrected"] >= found["p_value"] - 1e-12).all())
    assert float(found["detail_minus_content"].sel(kind="massive")[1]) == pytest.approx(
        float(loss.sel(kind="massive", measure="detail")[1] - loss.sel(kind="massive", measure="content")[1])
    )


def test_composites_are_of_the_measures_that_are_named():
    measured = simulated("detail only")
    found = disruption(measured, **FAST)
    parameters = json.loads(found.attrs["parameters"])
    assert parameters["detail"] == ["edge_energy", "band_power_5"]
    assert parameters["margins"] == {"low_pass_similarity": 0.05, "recognised": 0.1}
    loss = found["loss"]
    mean = (loss.sel(measure="edge_energy") + loss.sel(measure="band_power_5")) / 2
    np.testing.assert_allclose(loss.sel(measure="detail"), mean, atol=1e-12)
    other = disruption(measured, detail=["band_power_4"], margins={"low_pass_similarity": 0.2}, **FAST)
    np.testing.assert_allclose(other["loss"].sel(measure="detail"), other["loss"].sel(measure="band_power_4"))
    with pytest.raises(AnalysisError, match="sharpness was not measured; there is edge_energy"):
        disruption(measured, detail=["sharpness"], **FAST)


def test_a_distance_that_grows_is_a_loss():
    measured = simulated("detail only")
    found = disruption(measured, **FAST)
    at = found.sel(kind="massive", measure="spectral_distance").isel(cell=1)
    assert float(at["effect"]) > 0
    assert float(at["loss"]) > 0.3


def test_a_control_counts_by_the_norm_that_it_could_have():
    # Controls that could change the state by less can't show that the massive channels lose more …
    less = simulated("detail only", prompts=128, norms=NORMS | {"matched_random": 20.0, "noise": 24.0}, draws=3)
    found = disruption(less, **FAST)
    assert found.attrs["verdict"] == "undecided"
    assert "against controls unclear" in found.attrs["verdict_reason"]
    assert found.attrs["verdict_equal_number"] == "detail only"
    assert "3 draws" in found.attrs["verdict_reason"]
    # … those that changed it by more, and lost less, can,
    larger = simulated("detail only", prompts=128, norms=NORMS | {"matched_random": 36.0, "noise": 40.0})
    assert disruption(larger, **FAST).attrs["verdict"] == "detail only"
    # and a single kind of control is weak.
    both = simulated("detail only", prompts=128)
    one = disruption(both.isel(condition=both["kind"].values != "matched_random"), **FAST)
    assert one.attrs["verdict"] == "detail only"
    assert "equal norm (noise, weak: one only)" in one.attrs["verdict_reason"]


def test_a_norm_that_the_pictures_changed_does_not_choose_the_controls():
    measured = simulated("detail only", prompts=128)
    measured["removed_norm"][np.isin(measured["kind"].values, ["noise", "matched_random"])] *= 0.5
    found = disruption(measured, **FAST)
    assert found.attrs["verdict"] == "detail only"
    np.testing.assert_allclose(found["norm_ratio"].sel(control="noise"), 0.5, rtol=0.02)
    np.testing.assert_allclose(found["norm_planned"].sel(control="noise"), 1.0)
    # Where the plan is not known, what was measured has to do.
    assert disruption(measured.drop_vars("coverage"), **FAST).attrs["verdict"] == "undecided"


def changed(measured: xr.Dataset, kinds, measure: str, losses, layers=(0, 1, 2, 3)) -> xr.Dataset:
    """Give a measure these losses (per sample, in its own unit) with some kinds."""
    m = measured["measure"].values.tolist().index(measure)
    for k, (kind, layer) in enumerate(zip(measured["kind"].values, measured["layer"].values, strict=True)):
        if kind in kinds and int(str(layer)[-1]) in layers:
            measured["value"][k, :, m] = measured["value"][0, :, m].values - losses
    return measured


def test_a_control_that_adds_detail_does_not_make_the_massive_channels_lose_more():
    rng = np.random.default_rng(0)
    measured = simulated("nothing", prompts=128)
    scale = float(disruption(measured, **FAST)["scale"].sel(measure="edge_energy"))
    for measure in ("edge_energy", "band_power_5"):
        changed(measured, ["noise", "matched_random"], measure, rng.normal(-0.6, 0.1, 128))
    found = disruption(measured, **FAST)
    assert found.attrs["verdict"] == "neither"
    assert float(found["contrast"].sel(control="noise", measure="edge_energy").min()) > 0.3 * scale
    assert set(found["compared"].sel(control="noise", measure="edge_energy").values) == {"no more"}


def test_detail_that_is_lost_in_one_measure_is_not_made_up_for_by_another():
    measured = simulated("nothing", prompts=128)
    scale = disruption(measured, **FAST)["scale"]
    rng = np.random.default_rng(1)
    for measure, loss in (("edge_energy", 0.4), ("band_power_5", -0.4)):
        unit = float(scale.sel(measure=measure))
        changed(measured, ["massive"], measure, unit * rng.normal(loss, 0.1, 128), layers=[2])
    found = disruption(measured, **FAST)
    assert abs(float(found["loss"].sel(kind="massive", measure="detail")[2])) < 0.1
    assert found["state"].sel(measure=["edge_energy", "band_power_5"])[2].values.tolist() == ["lost", "gained"]
    assert found.attrs["verdict"] == "detail only"
    gained = changed(
        measured,
        ["massive"],
        "edge_energy",
        -float(scale.sel(measure="edge_energy")) * rng.normal(0.4, 0.1, 128),
        layers=[2],
    )
    more = disruption(gained, **FAST)
    assert more.attrs["verdict"] == "neither"
    assert "detail gained at 1 of 4 layers" in more.attrs["verdict_reason"]


def test_content_is_no_more_lost_only_if_that_holds_of_every_measure():
    # As alike as with the controls, and recognised half as often: the mean of both would hide it.
    measured = simulated("less than equal norm", prompts=128)
    kinds = ("noise", "matched_random")
    assert disruption(measured, **FAST).attrs["verdict"] == "neither"
    changed(measured, kinds, "recognised", np.zeros(128))
    found = disruption(measured, **FAST)
    assert set(found["compared"].sel(control="noise", measure="low_pass_similarity").values) == {"no more"}
    assert found["compared"].sel(control="noise", measure="recognised").values[1] == "more"
    assert found.attrs["verdict"] == "content"


def test_detail_only_has_to_hold_of_content_at_every_layer():
    measured = simulated("detail only", prompts=128, layers=4, concerned=[1])
    assert disruption(measured, **FAST).attrs["verdict"] == "detail only"
    lost = (np.arange(128) % 2).astype(float)
    everyone = ["massive", "noise", "matched_random", "random", "low"]
    changed(measured, everyone, "recognised", lost, layers=[3])
    found = disruption(measured, **FAST)
    assert found["outcome"].sel(control_set="equal norm").values[1] == "detail only"
    assert found.attrs["verdict"] == "detail, and content no more than controls"


@pytest.mark.parametrize(("prompts", "kept"), [(64, True), (29, True), (28, False), (16, False), (5, False)])
def test_no_picture_lost_shows_that_content_is_kept_only_with_enough_prompts(prompts, kept):
    measured = simulated("nothing", prompts=prompts)
    everyone = ["massive", "noise", "matched_random", "random", "low"]
    changed(measured, everyone, "recognised", np.zeros(prompts))
    found = disruption(measured, **FAST)
    assert (found["state"].sel(measure="recognised") == ("kept" if kept else "unclear")).all()
    if not kept:
        assert float(found["needed"].min()) >= 29


def test_bounds_of_shares_are_exact_and_others_are_students():
    values = np.zeros((64, 2))
    values[:3, 1] = 1.0
    bounds = upper(values, alpha=0.05, exact=True)
    np.testing.assert_allclose(stats.binom.cdf([0, 3], 64, bounds), 0.05)
    assert upper(values, alpha=0.05, exact=False)[0] == 0
    assert np.isnan(upper(values[:4], alpha=0.05, exact=True)).all()


def test_few_prompts_decide_nothing_and_say_how_many_would():
    few = disruption(simulated("detail and content", prompts=4, seeds=3), **FAST)
    assert few.attrs["verdict"] == "undecided"
    assert few.attrs["n_replicates"] == 4
    assert "4 replicates, of at least 5" in few.attrs["verdict_reason"]
    assert np.isnan(few["loss_low"]).all()
    some = disruption(simulated(Truth((0.14, 0.12)), prompts=12), **FAST)
    assert some.attrs["verdict"] == "undecided"
    assert "prompts would decide" in some.attrs["verdict_reason"]
    assert float(some["needed"].sel(control_set="equal norm").max()) > 12


def test_seeds_of_a_prompt_are_no_replicates():
    found = disruption(simulated("detail only", prompts=8, seeds=4), **FAST)
    assert found.attrs["n_replicates"] == 8
    assert found.attrs["replication"] == "8 prompts × 4 seeds"


def test_windows_are_reported_and_do_not_make_the_verdict():
    measured = simulated("content", layers=1, concerned=[0], windows=["whole", "early"])
    slight = measured.copy(deep=True)
    whole = (measured["window"] == "whole").values
    slight["value"][{"condition": whole}] = measured["value"].isel(condition=0)
    found = disruption(slight, **FAST)
    assert found["outcome"].sel(control_set="equal norm").values.tolist() == ["neither", "content"]
    assert found.attrs["verdict"] == "neither"


def test_without_controls_nothing_is_decided():
    measured = simulated("content")
    alone = measured.isel(
        condition=[i for i, kind in enumerate(measured["kind"].values) if kind in ("none", "massive")]
    )
    found = disruption(alone, **FAST)
    assert found.attrs["verdict"] == found.attrs["verdict_equal_number"] == "undecided"
    assert "no control of equal norm" in found.attrs["verdict_reason"]
    assert float(found["loss"].sel(kind="massive", measure="content")[1]) > 0.3


def test_without_a_judge_content_is_layout_and_that_is_said():
    measured = simulated("detail only").drop_sel(measure="recognised")
    found = disruption(measured, **FAST)
    assert found.attrs["verdict"] == "detail only"
    assert "No judge: content is layout" in found.attrs["verdict_reason"]


def test_prompts_that_the_judge_does_not_know_are_left_out_of_its_measure_only():
    measured = simulated("detail only")
    measured["value"][:, :10, 4] = np.nan
    found = disruption(measured, **FAST)
    counts = dict(zip(found["measure"].values.tolist(), found["replicates"].values.tolist(), strict=True))
    assert (counts["recognised"], counts["edge_energy"], counts["detail"], counts["content"]) == (54, 64, 64, 54)
    assert found.attrs["n_replicates"] == 54


def test_pictures_that_are_not_finite_count_as_lost():
    measured = simulated("nothing", prompts=128)
    names = measured["condition"].values.tolist()
    k = names.index("transformer_blocks.3-whole-massive-0")
    before = disruption(measured, **FAST)
    for samples in (slice(0, 90), slice(0, 128)):
        measured["finite"][k, samples] = False
        measured["value"][k, samples] = np.nan
        measured["removed_norm"][k, samples] = np.nan
        found = disruption(measured, **FAST)
        assert (before.attrs["verdict"], found.attrs["verdict"]) == ("neither", "detail and content")
        assert found.attrs["n_samples"] == 128
        assert float(found["collapsed"].sel(kind="massive")[3]) == samples.stop / 128
        said = f"transformer_blocks.3-whole-massive-0: {samples.stop / 128:.0%} of its samples are not finite; they count as"
        assert any(said in line for line in found.attrs["omitted"])
    at = found["loss"].sel(kind="massive").isel(cell=3)
    for measure in ("edge_energy", "low_pass_similarity", "spectral_distance"):
        assert float(at.sel(measure=measure)) == pytest.approx(1.0)
    known = float(measured["value"].isel(condition=0).sel(measure="recognised").mean())
    assert float(found["effect"].sel(kind="massive", measure="recognised")[3]) == pytest.approx(-known)
    # With a control that loses everything, too, it is no more than that.
    for other, name in enumerate(names):
        if name.startswith("transformer_blocks.3-whole-noise"):
            measured["finite"][other] = False
    assert disruption(measured, **FAST).attrs["verdict"] == "neither"


def test_samples_that_are_not_finite_undisturbed_are_left_out():
    measured = simulated("content")
    measured["finite"][0, 5:7] = False
    found = disruption(measured, **FAST)
    assert (found.attrs["n_samples"], found.attrs["n_samples_recorded"]) == (62, 64)
    assert "2 samples that are not finite undisturbed" in found.attrs["omitted"]


def test_a_layer_without_a_usable_result_leaves_the_verdict_open():
    measured = simulated("nothing", prompts=128)
    k = measured["condition"].values.tolist().index("transformer_blocks.3-whole-massive-0")
    measured["removed_norm"][k] = np.nan
    found = disruption(measured, **FAST)
    assert found.attrs["verdict"] == "undecided"
    assert "transformer_blocks.3 has no usable result" in found.attrs["verdict_reason"]


def test_a_window_that_no_step_was_in_is_left_out_by_name():
    measured = simulated("content", windows=["whole", "late"])
    late = (measured["window"] == "late").values
    measured["removed_norm"][late] = np.nan
    found = disruption(measured, **FAST)
    assert set(found["window"].values) == {"whole"}
    assert any("no step of the run was in its window" in line for line in found.attrs["omitted"])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: m.drop_vars("other"), "lacks `other`"),
        (lambda m: m.drop_vars("layer"), "lacks the coordinate `layer`"),
        (lambda m: m.isel(condition=slice(1, None)), "no undisturbed condition"),
        (lambda m: m.isel(condition=[0]), "no usable condition of kind 'massive'"),
        (lambda m: m.assign(finite=xr.zeros_like(m["finite"])), "undisturbed samples are not finite"),
    ],
)
def test_what_cannot_be_analysed_is_refused(spoil, said):
    with pytest.raises(AnalysisError, match=said):
        disruption(spoil(simulated("content")), **FAST)


def test_parameters_out_of_range_are_refused():
    with pytest.raises(AnalysisError, match="smallest=0"):
        disruption(simulated("content"), smallest=0, **FAST)


def test_the_same_data_give_the_same_result_and_it_can_be_stored(tmp_path):
    measured = simulated("detail only", windows=["whole", "early"])
    one, two = disruption(measured, **FAST), disruption(measured, **FAST)
    xr.testing.assert_identical(one, two)
    one.to_zarr(str(tmp_path / "x.zarr"), zarr_format=3, consolidated=False)
    again = xr.open_zarr(str(tmp_path / "x.zarr"), consolidated=False).load()
    np.testing.assert_array_equal(again["loss"], one["loss"])
    assert again.attrs["verdict_reason"] == one.attrs["verdict_reason"]


def test_an_effect_of_nothing_at_all_is_kept_exactly():
    measured = simulated("nothing")
    measured["value"][:] = measured["value"].isel(condition=0)
    found = disruption(measured, **FAST)
    assert found.attrs["verdict"] == "neither"
    assert not found["loss"].sel(measure=["detail", "content"]).any()


def test_the_page_on_methods_has_the_defaults_and_a_place_for_the_rates():
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    margins = ", ".join(f"`{name}` {margin:g}" for name, margin in MARGINS.items())
    assert f"| `margins` | {margins} |" in text
    assert f"| `smallest` | {SMALLEST:g} |" in text
    assert f"| `norm_tolerance` | {NORM_TOLERANCE:g} |" in text
    assert text.count("<!-- disruption rates: begin -->") == text.count("<!-- disruption rates: end -->") == 1
    for outcome in AGREES:
        assert f"`{outcome}`" in text
