"""The choice of a setting: what is planted is found, what is not there is not claimed, noise is not taken for the best."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.analysis.swept import Truth, simulated
from workbench.analysis.effects import contrasts, effects
from workbench.analysis.sweep import best_of, fingerprint, sweep, table
from workbench.errors import AnalysisError

MEASURES = ("edge_energy", "own_spectral_distance", "low_pass_similarity", "recognised")
UNJUDGED = MEASURES[:3]
"""Without a judge 5 prompts a half may show that the content is kept, with one it takes 29."""
KINDS = ("detail", "distance", "content", "content")
BASE = (0.05, 1.0, 1.0, 0.9)
SPREAD = (0.005, 0.05, 0.01, 0.0)


def made(
    changes: Mapping[str, tuple[float, float, float, float]],
    *,
    prompts: int = 64,
    seeds: int = 1,
    seed: int = 0,
    noise: float = 1.0,
    measures: tuple[str, ...] = MEASURES,
) -> xr.Dataset:
    """A table with these mean changes to `cfg` in edge energy, distance, similarity (to 1), share recognised."""
    rng = np.random.default_rng(seed)
    names, samples = ["cfg", *changes], prompts * seeds
    base = np.array(BASE) + rng.normal(size=(samples, 4)) * (0.02, 0.3, 0, 0)
    base[:, 2], base[:, 3] = 1.0, rng.random(samples) < BASE[3]
    value = np.stack(
        [base, *(base + change + noise * rng.normal(size=base.shape) * SPREAD for change in changes.values())]
    )
    text = [f"prompt {i // seeds}" for i in range(samples)]
    data = xr.Dataset(
        {
            "value": (("condition", "sample", "measure"), value),
            "seconds": (("condition", "sample"), np.full(value.shape[:2], 4.0)),
        },
        coords={
            "condition": np.array(names),
            "sample": np.arange(samples),
            "measure": np.array(MEASURES),
            "kind": ("measure", np.array(KINDS)),
            "prompt": ("sample", np.array(text)),
            "seed": ("sample", np.arange(samples) % seeds),
            "baseline": ("condition", np.array(["cfg"] * len(names))),
            "mode": ("condition", np.array(["cfg"] + ["cfg+dg"] * len(changes))),
            "weight": ("condition", np.arange(len(names), dtype=float)),
        },
        attrs={"settings": json.dumps({"steps": 20}), "factors": ["mode", "weight"], "left_out": []},
    )
    return data.sel(measure=list(measures))


GOOD = (0.003, -0.10, -0.01, 0.0)
BETTER = (0.006, -0.20, -0.02, 0.0)
SHARPENED = (0.020, +0.10, -0.01, 0.0)
"""More detail than the data has."""
DRIFTED = (0.010, -0.40, -0.30, 0.0)
"""Nearest to the data's spectrum, but another picture."""
UNREADABLE = (0.010, -0.40, -0.01, -0.3)
NOTHING = (0.0, 0.0, -0.01, 0.0)


def test_best_setting_is_found() -> None:
    data = made({"w1": GOOD, "w2": BETTER, "w4": SHARPENED, "w8": DRIFTED, "w16": UNREADABLE, "w0": NOTHING})
    best = best_of(sweep(data))
    assert (best["mode"], best["choice"], best["verdict"]) == ("cfg+dg", "w2", "supported")
    assert best["reporting"]["gain"] == pytest.approx(0.2, abs=0.03)
    assert best["reporting"]["gain_low"] > 0.1
    assert (best["settings"], best["n_choosing"], best["n_reporting"]) == (6, 32, 32)


@pytest.mark.parametrize(("change", "kept"), [(DRIFTED, False), (UNREADABLE, False), (SHARPENED, True)])
def test_other_content_and_mere_sharpening_are_not_the_best(change: Any, kept: bool) -> None:
    result = sweep(made({"w": change}))
    assert best_of(result)["choice"] == "none"
    assert best_of(result)["verdict"] == "not supported"
    assert bool(result["content_kept"].sel(condition="w")) is kept


def test_nothing_there_is_said_to_be_nothing_when_that_is_shown() -> None:
    result = sweep(made({f"w{i}": NOTHING for i in range(5)}))
    assert result.attrs["verdict"] == "not supported"
    assert "of 5 settings 5 gain less than 0.05" in result.attrs["verdict_reason"]


def test_nothing_shown_is_undecided_when_a_gain_is_not_excluded() -> None:
    data = made({"w": NOTHING}, prompts=60)
    data["value"][1, :, 1] += np.random.default_rng(0).normal(size=60) * 0.5
    result = sweep(data)
    assert result.attrs["verdict"] == "undecided"
    assert "is not excluded" in result.attrs["verdict_reason"]


def test_the_best_of_many_that_do_nothing_is_seldom_called_better() -> None:
    """The winner's curse: of 20 settings without effect the best one often looks good on the prompts it was chosen on."""
    looked_good = confirmed = 0
    for seed in range(100):
        data = made({f"w{i}": NOTHING for i in range(20)}, seed=seed, prompts=24, measures=UNJUDGED)
        best = best_of(sweep(data, resamples=300))
        looked_good += "choosing" in best
        confirmed += best["verdict"] == "supported"
    assert looked_good >= 15, "else this test shows nothing"
    assert confirmed <= 6


def test_reported_gain_is_not_that_of_the_choosing_half() -> None:
    """Chosen where noise was kind: the mean over repetitions is right on the other half only."""
    chosen, reported = [], []
    for seed in range(60):
        best = best_of(
            sweep(
                made({f"w{i}": (0, -0.08, 0, 0) for i in range(20)}, seed=seed, prompts=24, noise=2, measures=UNJUDGED),
                resamples=300,
            )
        )
        if "choosing" in best:
            chosen.append(best["choosing"]["gain"])
            reported.append(best["reporting"]["gain"])
    assert len(chosen) > 40, "else this test shows nothing"
    assert np.mean(chosen) > 0.11
    assert np.mean(reported) == pytest.approx(0.08, abs=0.012)


def test_a_setting_that_loses_pictures_is_never_chosen() -> None:
    data = made({"w1": GOOD, "w2": BETTER})
    data["value"][2, 5] = np.nan
    best = best_of(sweep(data))
    assert (best["choice"], best["with_lost_pictures"]) == ("w1", ["w2"])
    data["value"][2, :44] = np.nan
    result = sweep(data.sel(condition=["cfg", "w2"]))
    assert (best_of(result)["choice"], result.attrs["verdict"]) == ("none", "not supported"), (
        "a lost picture has no content"
    )
    assert int(result["lost_samples"].sel(condition="w2")) == 44
    few = made({"w2": BETTER})
    few["value"][1, 5] = np.nan
    assert sweep(few).attrs["verdict"] == "undecided"
    assert "w2 lost 1 pictures that are not finite" in sweep(few).attrs["verdict_reason"]


def test_prompts_are_counted_in_each_half() -> None:
    data = made({"w1": BETTER})
    data["value"][0, 0] = np.nan  # the baseline's: the prompt can't be compared, the setting is not to blame
    best = best_of(sweep(data))
    assert best["choice"] == "w1"
    assert best["choosing"]["n"] + best["reporting"]["n"] == 63


def test_a_gain_below_the_smallest_is_not_supported() -> None:
    result = sweep(made({"w": (0.001, -0.02, -0.01, 0.0)}, noise=0.3))
    best = best_of(result)
    assert result.attrs["verdict"] == "not supported"
    assert (best["choice"], best["refuted"]) == ("none", "w"), "it was chosen, its gain is there, and too small"
    assert 0 < best["reporting"]["gain_low"] < best["reporting"]["gain_high"] < best["smallest"]


def test_not_shown_to_keep_is_not_shown_to_lose() -> None:
    result = sweep(made({"w": (0.001, -0.2, -0.05, 0.0)}))
    assert not result["content_kept"].sel(condition="w")
    assert not result["content_lost"].sel(condition="w")
    assert result.attrs["verdict"] == "undecided"


def test_no_picture_lost_on_few_prompts_does_not_show_that_few_are() -> None:
    """No loss in n prompts has the exact upper bound 1 − 0.05^(1/n)."""
    few, enough = (sweep(made({"w": BETTER}, prompts=n)) for n in (56, 60))
    assert best_of(few)["verdict"] == "undecided"
    assert "content can't be shown to be kept with 28 prompts a half, of at least 29" in few.attrs["verdict_reason"]
    assert best_of(enough)["verdict"] == "supported"
    assert best_of(enough)["reporting"]["lost_high"] == pytest.approx(1 - 0.05 ** (1 / 30))


def test_modes_share_the_error() -> None:
    """The same numbers in one mode and in two: with two the reported interval is wider, the choosing one is not."""
    one = made({"w1": GOOD, "w2": BETTER})
    two = one.assign_coords(mode=("condition", np.array(["cfg", "other", "cfg+dg"])))
    alone, among = (best_of(sweep(d.sel(condition=["cfg", "w2"]) if d is one else d), "cfg+dg") for d in (one, two))
    assert among["choosing"] == alone["choosing"]
    assert among["reporting"]["gain_low"] < alone["reporting"]["gain_low"]


def test_reasons_are_short() -> None:
    for changes in ({"w1": GOOD}, {"w": DRIFTED, "x": NOTHING}, {"w": UNREADABLE}):
        assert len(sweep(made(changes)).attrs["verdict_reason"].split()) < 80


@pytest.mark.parametrize(
    ("truth", "wrong"),
    [
        (Truth(), {"supported"}),
        (Truth(gain=0.3), {"not supported"}),
        (Truth(gain=0.3, drift=0.2), {"supported"}),
        (Truth(gain=0.3, unreadable=0.3), {"supported"}),
        (Truth(gain=0.3, collapsed=0.1), {"supported"}),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_simulated_truths(truth: Truth, wrong: set[str], own: bool) -> None:
    found = {sweep(simulated(truth, seed=i, own=own), resamples=300, flips=9).attrs["verdict"] for i in range(3)}
    assert not found & wrong


def test_few_prompts_decide_nothing() -> None:
    result = sweep(made({"w": BETTER}, prompts=4, seeds=8))
    assert result.attrs["verdict"] == "undecided"
    assert "4 prompts or seeds can't be halved; at least 10" in result.attrs["verdict_reason"]
    assert np.isnan(result["effect_low"]).all()
    assert np.isnan(result["p_corrected"]).all()


def test_prompts_are_the_replicates() -> None:
    one, many = (effects(made({"w": GOOD}, prompts=16, seeds=s)) for s in (1, 4))
    assert (one["n"] == 16).all()
    assert (many["n"] == 16).all()
    assert many.attrs["replication"] == "16 prompts × 4 seeds"


def test_effects_are_paired_differences() -> None:
    data = made({"w1": GOOD, "w2": NOTHING})
    result = effects(data)
    at = data["value"].sel(measure="own_spectral_distance")
    paired = (at.sel(condition="w1") - at.sel(condition="cfg")).values
    found = result.sel(measure="own_spectral_distance")
    assert float(found["effect"].sel(condition="w1")) == pytest.approx(paired.mean())
    assert float(found["effect_high"].sel(condition="w1")) < 0
    assert found["effect"].sel(condition="cfg") == 0
    assert float(found["p_corrected"].sel(condition="w1")) < 0.01
    assert float(found["p_corrected"].sel(condition="w2")) > 0.05
    assert (found["p_corrected"] >= found["p_value"]).where(np.isfinite(found["p_value"]), True).all()
    assert np.isnan(found["p_value"].sel(condition="cfg"))
    assert result["seconds_per_step"].values.tolist() == [0.2] * 3


def test_samples_that_are_not_finite_are_left_out_of_that_number_alone() -> None:
    data = made({"w1": GOOD, "w2": GOOD})
    data["value"][1, :3] = np.nan
    result = effects(data)
    assert result["n"].sel(condition="w1").values.tolist() == [61] * 4
    assert result["n"].sel(condition="w2").values.tolist() == [64] * 4
    assert np.isfinite(result["effect_low"].values).all()
    whole = effects(made({"w1": GOOD, "w2": GOOD}))
    xr.testing.assert_allclose(result["effect_low"].sel(condition="w2"), whole["effect_low"].sel(condition="w2"))


def test_without_a_reference_the_gain_is_edge_energy_and_the_rule_says_so() -> None:
    result = sweep(made({"w": SHARPENED}, measures=("edge_energy", "low_pass_similarity")))
    assert result.attrs["gauge"] == "edge_energy"
    assert "nothing here tells added detail from over-sharpening" in result.attrs["rule"]
    assert "over-sharpening" in result.attrs["warning"]
    assert best_of(result)["choice"] == "w"


def test_result_does_not_depend_on_the_order_of_conditions() -> None:
    data = made({"w1": GOOD, "w2": BETTER})
    other = sweep(data.isel(condition=[2, 0, 1]))
    assert best_of(other) == best_of(sweep(data))
    xr.testing.assert_allclose(other["effect_low"].sel(condition="w1"), sweep(data)["effect_low"].sel(condition="w1"))


def test_fingerprint_sees_any_number() -> None:
    data = made({"w1": GOOD})
    other = data.copy(deep=True)
    other["value"][0, 0, 0] += 1e-6
    assert fingerprint(data) == fingerprint(data.copy(deep=True)) != fingerprint(other)


def test_contrasts_of_any_two() -> None:
    data = made({"w1": GOOD, "w2": BETTER})
    found = contrasts(data, [("w2", "w1"), ("w1", "cfg")]).set_index(["condition", "measure"])
    assert found.loc[("w2", "own_spectral_distance"), "difference"] == pytest.approx(-0.1, abs=0.03)
    assert found.loc[("w2", "own_spectral_distance"), "p_corrected"] < 0.01
    with pytest.raises(AnalysisError, match="no condition .'w9'"):
        contrasts(data, [("w9", "w1")])


def test_table_has_a_row_for_each_condition_and_measure() -> None:
    rows = table(sweep(made({"w1": GOOD})), ["edge_energy", "low_pass_similarity", "not there"])
    assert len(rows) == 2 * 2
    assert {"condition", "measure", "effect", "effect_low", "effect_high", "p_corrected", "gain", "weight"} <= set(rows)


def test_what_is_no_sweep_is_refused() -> None:
    data = made({"w1": GOOD})
    with pytest.raises(AnalysisError, match="lacks value"):
        sweep(data.drop_vars("value"))
    with pytest.raises(AnalysisError, match="has no `mode`"):
        sweep(data.drop_vars("mode"))
    with pytest.raises(AnalysisError, match="no setting besides the baselines"):
        sweep(data.sel(condition=["cfg"]))
    with pytest.raises(AnalysisError, match="the baseline 'cfg' is not among the conditions"):
        sweep(data.sel(condition=["w1"]))
    with pytest.raises(AnalysisError, match="the sweep has no mode 'dg'; it has cfg.dg"):
        best_of(sweep(data), "dg")
    with pytest.raises(AnalysisError, match="no result of a sweep"):
        best_of(data)
