"""The choice of a setting: what is planted is found, what is not there is not claimed, noise is not taken for the best."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr

from workbench.analysis.effects import contrasts, effects
from workbench.analysis.sweep import best_of, fingerprint, sweep, table
from workbench.errors import AnalysisError

MEASURES = ("edge_energy", "spectral_distance", "low_pass_similarity", "recognised")
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
    assert "5 that keep the content gain less than 0.05" in result.attrs["verdict_reason"]


def test_nothing_shown_is_undecided_when_a_gain_is_not_excluded() -> None:
    data = made({"w": NOTHING}, prompts=12)
    data["value"][1, :, 1] += np.random.default_rng(0).normal(size=12) * 0.5
    result = sweep(data)
    assert result.attrs["verdict"] == "undecided"
    assert "is not excluded" in result.attrs["verdict_reason"]


def test_the_best_of_many_that_do_nothing_is_seldom_called_better() -> None:
    """The winner's curse: of 20 settings without effect the best one often looks good on the prompts it was chosen on."""
    looked_good = confirmed = 0
    for seed in range(100):
        data = made({f"w{i}": NOTHING for i in range(20)}, seed=seed, prompts=24)
        best = best_of(sweep(data, resamples=300))
        looked_good += best["choice"] != "none"
        confirmed += best["verdict"] == "supported"
    assert looked_good >= 15, "else this test shows nothing"
    assert confirmed <= 6


def test_reported_gain_is_not_that_of_the_choosing_half() -> None:
    """Chosen where noise was kind: the mean over repetitions is right on the other half only."""
    chosen, reported = [], []
    for seed in range(60):
        best = best_of(
            sweep(made({f"w{i}": (0, -0.02, 0, 0) for i in range(20)}, seed=seed, prompts=24), resamples=300)
        )
        if best["choice"] != "none":
            chosen.append(best["choosing"]["gain"])
            reported.append(best["reporting"]["gain"])
    assert np.mean(chosen) > 0.03
    assert np.mean(reported) == pytest.approx(0.02, abs=0.006)


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
    at = data["value"].sel(measure="spectral_distance")
    paired = (at.sel(condition="w1") - at.sel(condition="cfg")).values
    found = result.sel(measure="spectral_distance")
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
    assert "nothing here to tell added detail from over-sharpening" in result.attrs["rule"]
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
    assert found.loc[("w2", "spectral_distance"), "difference"] == pytest.approx(-0.1, abs=0.03)
    assert found.loc[("w2", "spectral_distance"), "p_corrected"] < 0.01
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
