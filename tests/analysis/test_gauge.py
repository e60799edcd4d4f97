"""What a gain is measured by: the own picture where there is one, else distributions; never nearness to an average."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.swept import BANDS, Truth, simulated
from tests.analysis.test_sweep import BETTER, made
from workbench.analysis.gauge import (
    DISTRIBUTION,
    EDGES,
    LEAST,
    OWN,
    RECOGNISED,
    SIMILARITY,
    content,
    gains,
    gauge_of,
    needed_prompts,
    smallest_gain,
)
from workbench.analysis.sweep import RULE_VERSION
from workbench.errors import AnalysisError

OPTIONS: dict[str, Any] = {"confidence": 0.95, "resamples": 300, "seed": 0}


def test_best_gauge_that_the_table_allows() -> None:
    own, bands = simulated(Truth()), simulated(Truth(), own=False)
    assert (gauge_of(own).name, gauge_of(bands).name) == (OWN, DISTRIBUTION)
    bands.attrs["reference"] = ""
    assert gauge_of(bands).name == EDGES
    assert "over-sharpening" in gauge_of(bands).warning
    assert gauge_of(own, EDGES).name == EDGES
    with pytest.raises(AnalysisError, match="lacks band_distribution"):
        gauge_of(own, DISTRIBUTION)
    with pytest.raises(AnalysisError, match="choose auto, own_spectral_distance"):
        gauge_of(own, "spectral_distance")


def test_own_distance_counts_only_if_every_prompt_has_one() -> None:
    data = simulated(Truth())
    data["value"][:, 3, list(data["measure"].values).index(OWN)] = np.nan
    assert gauge_of(data).name == EDGES


def test_gain_of_distributions_by_hand() -> None:
    data = simulated({"cfg+dg": [Truth(gain=0.2)]}, own=False, prompts=40)
    gauge = gauge_of(data)
    bands = data["value"].values[..., [list(data["measure"].values).index(f"band_power_{k}") for k in range(BANDS)]]
    apart = np.sqrt((bands.mean(axis=1) ** 2 + (bands.std(axis=1) - 1) ** 2).mean(axis=1))
    found = gains(data, gauge, [(1, 0), (0, 0)], **OPTIONS)
    assert found.mean[0] == pytest.approx(apart[0] - apart[1])
    assert found.low[0] < found.mean[0] < found.high[0]
    assert [side[1] for side in found] == [0, 0, 0]
    assert smallest_gain(data, gauge, "cfg", 0.05) == 0.05


def test_pictures_that_are_more_average_than_the_data_are_no_gain() -> None:
    """All pictures at the mean spectrum have the smallest distance to it, and are no distribution of pictures."""
    data = simulated({"cfg+dg": [Truth()]}, own=False)
    at = [list(data["measure"].values).index(f"band_power_{k}") for k in range(BANDS)]
    data["value"][0, :, at] = data["value"].values[0][:, at] - 0.3  # the baseline is as the data are
    data["value"][1, :, at] = 0.0
    assert gains(data, gauge_of(data), [(1, 0)], **OPTIONS).high[0] < 0


def test_pictures_that_are_lost_have_no_content() -> None:
    data = made({"w": BETTER})
    assert content(data, **OPTIONS).kept.tolist() == [True, True]
    data["value"][1, :20] = np.nan
    found = content(data, **OPTIONS)
    assert not found.kept[1]
    assert found.shown_lost[1]
    assert found.similarity[1] == pytest.approx(0.98 * 44 / 64, abs=0.01)


def test_a_prompt_loses_if_one_of_its_pictures_does() -> None:
    data = made({"w": BETTER}, prompts=64, seeds=2)
    column = list(data["measure"].values).index("recognised")
    data["value"][0, :, column] = 1.0
    data["value"][1, :, column] = 1.0
    data["value"][1, :10:2, column] = 0.0
    found = content(data, **OPTIONS)
    assert found.lost[1] == 5 / 64
    assert found.judged[1] == 64
    assert not found.kept[1], "the exact upper bound of 5 in 64 is 0.16"


def test_fewest_prompts() -> None:
    assert needed_prompts(0.1) == 29
    assert needed_prompts(0.05) == 59


def test_bands_of_another_reference_are_refused() -> None:
    data = simulated(Truth(), own=False)
    data.attrs["reference"] = json.dumps({"mean": [0.0], "spread": [1.0]})
    with pytest.raises(AnalysisError, match="have 1 bands, the table 5"):
        gauge_of(data)


def test_the_page_has_the_defaults_and_the_rates() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    for name, value in (("least", LEAST), ("similarity", SIMILARITY), ("recognised", RECOGNISED)):
        assert f"| `{name}` | {value:g} |" in text
    assert f"**The rule**, version {RULE_VERSION}." in text
    assert text.count("<!-- sweep rates: begin -->") == text.count("<!-- sweep rates: end -->") == 1
