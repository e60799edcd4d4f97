"""The section of the choice from a trial of STAS: both halves with intervals, every setting, and none where none is better."""

from __future__ import annotations

import json
from typing import Any

import pytest
import xarray as xr

from tests.analysis.steered import simulated
from workbench.analysis.stas_choice import stas_choice
from workbench.report.choice import choice_section, interval
from workbench.report.html import cards
from workbench.report.tried import tried

FAST: dict[str, Any] = {"resamples": 500, "flips": 499}
SETTINGS: dict[str, dict[str, float]] = {"alpha=0.8": {}, "window=early": {}}
MODEL: dict[str, Any] = {"transformer_class": "Some3DModel", "config_hash": "c0", "weight_hash": "w0"}


def found(gain: float, **table: Any) -> xr.Dataset:
    grid = SETTINGS | {"alpha=2": {"own_clip_distance": gain}}
    return stas_choice(simulated({}, {"low": {}}, grid=grid, reference=False, **table), **FAST)


def test_what_was_chosen_is_shown_on_both_halves_with_intervals() -> None:
    result = found(0.8)
    section = choice_section(result)
    assert section.text.startswith("Choice: alpha=2; supported. ")
    assert result.attrs["rule"] in section.text
    halves, settings = section.tables
    best = json.loads(result.attrs["best"])
    assert [row[:3] for row in halves["rows"]] == [
        ["the half that chose", 16, interval(best["choosing"])],
        ["the other half, which had no say", 16, interval(best["reporting"])],
    ]
    assert halves["rows"][1][3] == "better"
    assert "by the rule" in halves["caption"]
    assert [row[0] for row in settings["rows"]] == ["stas", *SETTINGS, "alpha=2 (chosen)"], (
        "no control, no plain videos"
    )
    assert settings["rows"][-1][1].startswith("+0.")


def test_none_better_is_said_and_has_no_halves() -> None:
    result = found(0.0, prompts=64, noise=0.1)
    section = choice_section(result)
    assert result.attrs["choice"] == "none"
    assert section.text.startswith(f"Choice: none; {result.attrs['verdict']}. ")
    (settings,) = section.tables
    assert [row[2] for row in settings["rows"]] == ["equal"] * 4


def test_what_the_other_half_refutes_is_not_called_the_choice() -> None:
    result = found(0.8)
    best = json.loads(result.attrs["best"])
    refuted = best | {"choice": "none", "verdict": "undecided", "refuted": "alpha=2"}
    halves = choice_section(result.assign_attrs(choice="none", best=json.dumps(refuted))).tables[0]
    assert halves["caption"].startswith("alpha=2, chosen and not confirmed")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0.5, 0.25, 0.75), "+0.5 [+0.25, +0.75]"),
        ((0.5, None, None), "+0.5 (n too small)"),
        ((None, None, None), "–"),
        ((float("nan"), 0.0, 1.0), "–"),
    ],
)
def test_numbers_that_are_not_there_are_not_shown(numbers: tuple[float | None, ...], said: str) -> None:
    assert interval(dict(zip(("gain", "low", "high"), numbers, strict=True))) == said


def test_a_trial_of_several_settings_brings_the_choice_and_one_of_none_does_not() -> None:
    recording = xr.Dataset(attrs={"model": MODEL})
    for grid, there in ((SETTINGS, True), ({}, False)):
        table = simulated({}, {}, grid=grid, prompts=10, reference=False)
        table = table.assign_attrs(settings=json.dumps({"model": MODEL}))
        evidence = tried(recording, xr.Dataset(), stas=table)
        assert ("stas_choice" in evidence) is there
        assert any("Which setting" in card["question"] for card in cards(evidence, None)) is there
