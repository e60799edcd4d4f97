"""Known answers: what loses detail, content, both, nothing, or as much as its controls is called that, and not more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.analysis.disrupted import ANSWERS, NORMS, Truth, simulated
from workbench.analysis import inference
from workbench.analysis.disruption import MARGINS, NORM_TOLERANCE, SMALLEST, disruption
from workbench.analysis.disruption_verdict import AGREES
from workbench.errors import AnalysisError

FAST = {"resamples": 200, "flips": 999}
MASSIVE, NONE = 0, 0


@pytest.mark.parametrize(("truth", "answer"), ANSWERS.items())
def test_known_answers(truth, answer):
    found = disruption(simulated(truth, seed=3), **FAST)
    assert found.attrs["verdict"] == answer
    papers = {"detail only": "Gan et al.", "content": "Turri et al.", "detail and content": "Turri et al."}
    assert found.attrs["agrees_with"] == papers.get(
        answer, "Gan et al. in part" if answer.startswith("detail,") else "neither"
    )
    concerned = [str(found["outcome"].sel(control_set="equal norm").values[e]) for e in (1, 2)]
    assert concerned == [answer, answer]
    assert set(found["outcome"].sel(control_set="equal norm").values[[0, 3]]) == {"neither"}


def test_the_papers_controls_and_those_of_equal_norm_are_told_apart():
    found = disruption(simulated("as much as equal norm"), **FAST)
    assert found.attrs["verdict"] == "neither"
    assert found.attrs["verdict_equal_number"] == "detail and content"
    assert found.attrs["agrees_with_equal_number"] == "Turri et al."
    for word in ("equal norm", "equal number", "64 prompts", "at 0.17 × the norm"):
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


def test_equal_norm_is_measured_and_not_believed():
    # Controls that changed the state by less can't show that the massive channels lose more …
    found = disruption(simulated("detail only", norms=NORMS | {"matched_random": 20.0, "noise": 24.0}), **FAST)
    assert found.attrs["verdict"] == "undecided"
    assert "against controls unclear" in found.attrs["verdict_reason"]
    assert found.attrs["verdict_equal_number"] == "detail only"
    # … those that changed it by more, and lost less, can,
    larger = disruption(simulated("detail only", norms=NORMS | {"matched_random": 36.0, "noise": 40.0}), **FAST)
    assert larger.attrs["verdict"] == "detail only"
    # and where there is one of equal norm, that one decides.
    one = disruption(simulated("detail only", norms=NORMS | {"matched_random": 18.0}), **FAST)
    assert one.attrs["verdict"] == "detail only"  # noise is still equal


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
    assert "What the pictures mean was not measured" in found.attrs["verdict_reason"]


def test_prompts_that_the_judge_does_not_know_are_left_out_of_its_measure_only():
    measured = simulated("detail only")
    measured["value"][:, :10, 4] = np.nan
    found = disruption(measured, **FAST)
    counts = dict(zip(found["measure"].values.tolist(), found["replicates"].values.tolist(), strict=True))
    assert (counts["recognised"], counts["edge_energy"], counts["detail"], counts["content"]) == (54, 64, 64, 54)
    assert found.attrs["verdict"].startswith("detail")


def test_what_is_not_finite_is_left_out_by_name():
    measured = simulated("content")
    names = measured["condition"].values.tolist()
    collapsed, single = (
        names.index("transformer_blocks.3-whole-massive-0"),
        names.index("transformer_blocks.1-whole-low-0"),
    )
    for k, samples in ((collapsed, slice(0, 40)), (single, slice(5, 6))):
        measured["finite"][k, samples] = False
        measured["value"][k, samples] = np.nan
    found = disruption(measured, **FAST)
    said = " / ".join(found.attrs["omitted"])
    assert "transformer_blocks.3-whole-massive-0: 62% of its samples are not finite" in said
    assert "1 samples that are not finite in some condition" in said
    assert found["layer"].values.tolist() == [f"transformer_blocks.{i}" for i in range(3)]
    assert (found.attrs["n_samples"], found.attrs["n_samples_recorded"]) == (63, 64)
    assert found.attrs["verdict"] == "content"


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
