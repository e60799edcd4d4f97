"""The trial of STAS in words: what is planted is found, what is not is not, and what can't be told is called so."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from tests.analysis.steered import BETTER, CONTROLS, DISTANCE, FEATURES, simulated
from workbench.analysis import inference
from workbench.analysis.clip_distance import apart, clips_of, moments, swapped
from workbench.analysis.effects import interval
from workbench.analysis.stas import stas_effects
from workbench.analysis.stas_rule import CHANGE, MOTION, finding, verdict
from workbench.errors import AnalysisError
from workbench.sampling.video_measures import VIDEO_TABLE

FAST = {"resamples": 500, "flips": 1999}
GAIN = {"temporal_flicker": 0.8, "motion_smoothness": 0.8}


def found(table: xr.Dataset, contrast: str = "stas − plain", **options: float) -> dict[str, str]:
    result = stas_effects(table, **FAST, **options).sel(contrast=contrast)
    return dict(zip(result["measure"].values.tolist(), result["finding"].values.tolist(), strict=True))


def test_what_is_planted_is_found_and_nothing_else() -> None:
    result = stas_effects(simulated(GAIN), **FAST)
    words = result["finding"].sel(contrast="stas − plain")
    assert words.sel(measure=list(GAIN)).values.tolist() == ["better", "better"]
    others = [m for m in BETTER if m not in GAIN]
    assert not set(words.sel(measure=others).values) & {"better", "worse", "more", "less"}
    assert result.attrs["verdict"] == "supported"
    assert "better: temporal flicker, motion smoothness" in result.attrs["verdict_reason"]
    assert result["difference"].sel(contrast="stas − plain", measure="temporal_flicker") < 0, "less flicker is better"
    for control in CONTROLS:
        assert result["verdict"].sel(contrast=f"{control} − plain") != "supported"
        assert result["verdict"].sel(contrast=f"stas − {control}") == "supported"
    assert result.attrs["selective"] == "supported"


def test_a_control_that_does_the_same_is_told() -> None:
    result = stas_effects(simulated(GAIN, {"low": {}, "matched": GAIN}, noise=0.1, reference=False), **FAST)
    assert result["verdict"].sel(contrast="matched − plain") == "supported"
    assert result["verdict"].sel(contrast="stas − matched") == "not supported"
    assert result["verdict"].sel(contrast="stas − low") == "supported"
    assert result.attrs["selective"] == "not supported"


def test_harm_is_called_worse_and_both_are_mixed() -> None:
    harm = {m: -0.8 for m in BETTER if BETTER[m]}
    result = stas_effects(simulated(GAIN | {"first_frame_sharpness": -0.8}, {"zero": harm}), **FAST)
    assert result.attrs["verdict"] == "mixed"
    assert "worse: first frame sharpness" in result.attrs["verdict_reason"]
    assert result["verdict"].sel(contrast="zero − plain") == "undecided", "the distance to the clips is open"
    words = result["finding"].sel(contrast="zero − plain", measure=list(harm)).values
    assert set(words) == {"worse"}


def test_no_difference_is_shown_to_be_none_where_there_are_enough_prompts() -> None:
    result = stas_effects(simulated(noise=0.1, prompts=64), **FAST)
    words = result["finding"].sel(contrast="stas − plain", measure=[m for m in BETTER if BETTER[m]])
    assert set(words.values) == {"equal"}
    few = stas_effects(simulated(noise=1.0, prompts=8), **FAST)
    assert few.attrs["verdict"] == "undecided"
    assert "prompts would decide" in few.attrs["verdict_reason"]
    needed = few["needed"].sel(contrast="stas − plain")
    assert (needed.dropna("measure") > 8).all()


def test_an_effect_too_small_to_count_is_equal_although_it_is_not_zero() -> None:
    table = simulated({"temporal_flicker": 0.08}, noise=0.05, prompts=64)
    result = stas_effects(table, **FAST).sel(contrast="stas − plain", measure="temporal_flicker")
    assert result["p_corrected"] < 0.05
    assert result["high_all"] < 0
    assert result["finding"] == "equal"


def test_gains_of_videos_that_move_less_are_no_gains() -> None:
    result = stas_effects(simulated(GAIN | {MOTION: -0.8}), **FAST)
    assert result.attrs["verdict"] == "mixed"
    assert "may be a standstill" in result.attrs["verdict_reason"]
    assert result["finding"].sel(contrast="stas − plain", measure=MOTION) == "less"


def test_a_loss_of_motion_is_not_hidden_by_corrections() -> None:
    table = simulated({"temporal_flicker": 1.0, "motion_smoothness": 1.0, MOTION: -0.3}, {}, noise=0.6, seed=12)
    result = stas_effects(table, **FAST)
    motion = result.sel(contrast="stas − plain", measure=MOTION)
    assert motion["finding"] == "undecided"
    assert float(motion["high"]) < 0
    assert float(motion["p_value"]) < 0.05
    assert result.attrs["verdict"] == "mixed"
    assert "the videos move less" in result.attrs["verdict_reason"]


def test_flicker_that_is_gone_is_no_standstill_but_less_change_is_said() -> None:
    """The amount of change falls with flicker, too; it decides nothing, as it can't tell the two apart."""
    table = simulated(GAIN | {"sharpness": -0.8})
    names = [CHANGE if name == "sharpness" else str(name) for name in table["measure"].values]
    result = stas_effects(table.assign_coords(measure=np.array(names)), **FAST)
    assert result["finding"].sel(contrast="stas − plain", measure=CHANGE) == "less"
    assert result.attrs["verdict"] == "supported"
    assert "flicker that is gone, or a motion that is slower" in result.attrs["verdict_reason"]


def test_a_gain_says_so_where_motion_was_not_measured() -> None:
    table = simulated(GAIN)
    result = stas_effects(table.sel(measure=table["measure"] != MOTION), **FAST)
    assert "whether they move less is not known" in result.attrs["verdict_reason"]
    assert "not known" not in stas_effects(table, **FAST).attrs["verdict_reason"]


def test_a_gain_of_sharpness_alone_comes_with_a_warning() -> None:
    sharper, steadier = (
        stas_effects(as_sharpness(simulated(gain, {})), **FAST).attrs["verdict_reason"]
        for gain in ({"first_frame_sharpness": 0.8}, {"first_frame_sharpness": 0.8} | GAIN)
    )
    assert "nothing here tells detail from over-sharpening" in sharper
    assert "over-sharpening" not in steadier


def as_sharpness(table: xr.Dataset) -> xr.Dataset:
    kinds = [
        "detail" if "sharpness" in str(m) else str(k)
        for m, k in zip(table.measure.values, table.kind.values, strict=True)
    ]
    return table.assign_coords(kind=("measure", np.array(kinds)))


def test_controls_that_only_do_harm_make_nothing_selective() -> None:
    harm = {m: -1.0 for m in BETTER if BETTER[m]}
    result = stas_effects(simulated({}, {"zero": harm, "all-tokens": harm}), **FAST)
    assert set(result["verdict"].values[result["question"].values == "selective"]) == {"supported"}
    assert result.attrs["selective"] == result.attrs["verdict"] == "undecided", "doing nothing beats these, too"


def test_videos_that_are_lost_are_no_gain() -> None:
    result = stas_effects(simulated(GAIN, lost=2), **FAST)
    assert result.attrs["verdict"] == "mixed"
    assert "2 videos not finite" in result.attrs["verdict_reason"]
    assert result["lost"].sel(condition="stas") == 2
    assert result["n"].sel(condition="stas", measure="temporal_flicker") == 30


def test_the_distance_to_the_clips_is_of_the_distribution() -> None:
    table = simulated({DISTANCE: 0.4}, noise=0.1, prompts=64)
    result = stas_effects(table, **FAST)
    at = {"contrast": "stas − plain", "measure": DISTANCE}
    assert result["finding"].sel(at) == "better"
    assert result["difference"].sel(at) == pytest.approx(-0.4, abs=0.12)
    mean = result["mean"].sel(measure=DISTANCE)
    assert mean.sel(condition="stas") - mean.sel(condition="plain") == pytest.approx(
        float(result["difference"].sel(at))
    )
    assert result["finding"].sel(contrast="low − plain", measure=DISTANCE) != "better"
    without = stas_effects(simulated({DISTANCE: 0.4}, reference=False), **FAST)
    assert DISTANCE not in without["measure"].values
    # By hand, from the first sample of each prompt: the same distance as the sampling room's.
    clips = clips_of(table)
    assert clips is not None
    plain = table["value"].sel(condition="plain", measure=list(FEATURES)).values
    byhand = np.sqrt(np.mean((plain.mean(0) - 0) ** 2 + (plain.std(0) - 1) ** 2))
    assert apart(moments(table, clips).mean(axis=0), clips)[0] == pytest.approx(byhand)


def test_swapping_places_gives_a_uniform_p_where_nothing_is_so() -> None:
    values = []
    for seed in range(60):
        table = simulated({}, {}, seed=seed, prompts=12)
        # The plain videos get the same noise as the steered ones, so that they can be exchanged.
        table["value"].values[0, :, -3:] += 0.2 * np.random.default_rng(seed + 999).normal(size=(12, 3))
        clips = clips_of(table)
        assert clips is not None
        two = moments(table, clips)
        values.append(swapped(two[:, 1], two[:, 0], clips, permutations=199, seed=seed))
    assert 0.3 < np.mean(values) < 0.7
    assert np.mean(np.array(values) < 0.05) < 0.2


def test_prompts_are_the_replicates_not_seeds() -> None:
    result = stas_effects(simulated(GAIN, seeds=3), **FAST)
    assert (result["n"].sel(condition="plain", measure="temporal_flicker") == 32).all()
    assert result.attrs["replication"] == "32 prompts × 3 seeds"
    # Three copies of each sample are no more evidence.
    table = simulated(GAIN, prompts=8)
    copies = table.isel(sample=np.repeat(np.arange(8), 3))
    one, three = (stas_effects(t, **FAST).sel(contrast="stas − plain") for t in (table, copies))
    for key in ("low", "high", "low_all", "high_all", "p_value"):
        np.testing.assert_allclose(one[key], three[key], atol=1e-12)


def test_too_few_prompts_decide_nothing() -> None:
    result = stas_effects(simulated(GAIN, prompts=4), **FAST)
    assert set(result["finding"].values.ravel()) == {"undecided"}
    assert result.attrs["verdict"] == "undecided"
    assert np.isnan(result["low"]).all()


def test_numbers_are_those_of_the_inference_room() -> None:
    table = simulated(GAIN)
    result = stas_effects(table, **FAST).sel(contrast="stas − plain")
    change = (table["value"].sel(condition="stas") - table["value"].sel(condition="plain")).values[:, : len(BETTER)]
    whole = interval(change, confidence=0.95, resamples=500, seed=0, method="bca_expanded")
    np.testing.assert_allclose(result["low"].values[: len(BETTER)], whole.low)
    np.testing.assert_allclose(result["difference"].values[: len(BETTER)], change.mean(axis=0))
    p = inference.sign_flip(change, resamples=1999).p_value
    np.testing.assert_allclose(result["p_value"].values[: len(BETTER)], p)
    judged = result["judged"].values
    corrected = inference.adjust(result["p_value"].values[judged])
    np.testing.assert_allclose(result["p_corrected"].values[judged], corrected)
    assert (result["low_all"] <= result["low"] + 1e-9).all()
    margin = result["margin"].sel(measure="own_clip_distance")
    assert margin == pytest.approx(0.2 * table["value"].sel(condition="plain", measure="own_clip_distance").std(ddof=1))


def test_a_grid_is_one_family() -> None:
    many = {f"alpha={a}": {} for a in range(12)} | {"alpha=best": {"temporal_flicker": 0.8}}
    result = stas_effects(simulated(GAIN, {}, grid=many), resamples=500, flips=9999)
    better = json.loads(result.attrs["grid"])
    assert better["temporal_flicker"] == ["alpha=best"]
    assert all(not settings for name, settings in better.items() if name != "temporal_flicker")
    alone = stas_effects(simulated(GAIN, {}), **FAST)
    at = {"contrast": "alpha=best − plain", "measure": "temporal_flicker"}
    assert result["p_corrected"].sel(at) > result["p_value"].sel(at) * 50, "over all settings and measures"
    assert alone.attrs["grid"] == "{}"
    assert alone.attrs["selective"] == "not tried"


def test_what_is_no_trial_is_refused() -> None:
    table = simulated(GAIN)
    with pytest.raises(AnalysisError, match="no `role`"):
        stas_effects(table.drop_vars("role"))
    with pytest.raises(AnalysisError, match="one plain condition and one of STAS, not 0 and 1"):
        stas_effects(table.isel(condition=slice(1, None)))
    with pytest.raises(AnalysisError, match="least=0"):
        stas_effects(table, least=0)


@pytest.mark.parametrize(
    ("low", "high", "better", "p", "equivalent", "said"),
    [
        (0.1, 0.5, 1, 0.01, 0.9, "better"),
        (0.1, 0.5, -1, 0.01, 0.9, "worse"),
        (-0.5, -0.1, -1, 0.01, 0.9, "better"),
        (0.1, 0.5, 0, 0.01, 0.9, "more"),
        (-0.5, -0.1, 0, 0.01, 0.9, "less"),
        (0.1, 0.5, 1, 0.2, 0.9, "undecided"),
        (0.01, 0.1, 1, 0.01, 0.001, "equal"),
        (-0.1, 0.1, 1, 0.9, np.nan, "equal"),
        (-0.9, 0.1, 1, 0.4, 0.9, "not better"),
        (-0.1, 0.9, -1, 0.4, 0.9, "not better"),
        (-0.9, 0.1, 0, 0.4, 0.9, "undecided"),
        (-0.9, 0.9, 1, 0.4, 0.9, "undecided"),
        (np.nan, np.nan, 1, np.nan, np.nan, "undecided"),
    ],
)
def test_findings(low: float, high: float, better: int, p: float, equivalent: float, said: str) -> None:
    got = finding(low, high, 0.2, better=better, p_corrected=p, p_equivalent=equivalent, alpha=0.05)
    assert got == said


def test_a_margin_of_nothing_makes_nothing_equal() -> None:
    assert finding(0.0, 0.0, 0.0, better=1, p_corrected=1.0, p_equivalent=np.nan, alpha=0.05) == "undecided"


def test_verdicts_of_a_contrast() -> None:
    same = {"moves": "equal", "lost": 0}
    assert verdict({"a": "better", "b": "undecided"}, **same) == "supported"
    assert verdict({"a": "better", "b": "worse"}, **same) == "mixed"
    assert verdict({"a": "equal", "b": "not better"}, **same) == "not supported"
    assert verdict({"a": "equal", "b": "undecided"}, **same) == "undecided"
    assert verdict({}, **same) == "undecided"


def test_the_simulation_has_the_measures_of_the_table() -> None:
    assert {name: VIDEO_TABLE[name].better for name in BETTER} == BETTER
