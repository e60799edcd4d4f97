"""The figure of what STAS changes: every row is its condition's difference to plain, filled only where it is sure."""

from __future__ import annotations

import warnings

import pytest
import xarray as xr
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from tests.analysis.steered import simulated
from workbench.analysis.stas import stas_effects
from workbench.figures import registry, style

FAST = {"resamples": 200, "flips": 199}
GAIN = {"temporal_flicker": 1.5}


@pytest.fixture(scope="module")
def evidence() -> xr.Dataset:
    return stas_effects(simulated(GAIN, {"low": {}, "zero": {"frame_consistency": -1.5}}, prompts=12), **FAST)


@pytest.fixture(scope="module")
def module():
    assert registry.FIGURES["stas_effects"].needs == "stas"
    return registry.load("stas_effects")


def test_draws_saves_and_says_what_it_shows(module, evidence, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = style.save(module.draw(evidence), tmp_path, "stas_effects", data=module.data(evidence))
    first = [file.read_bytes() for file in files]
    style.save(module.draw(evidence), tmp_path, "stas_effects", data=module.data(evidence))
    assert [file.read_bytes() for file in files] == first
    caption = module.caption(evidence)
    for said in ("n = 12 prompts", "95% bootstrap", f"Verdict (stas): {evidence.attrs['verdict']}", "stands still"):
        assert said in caption, said
    words = {text.get_text() for text in module.draw(evidence).findobj(Text)}
    assert {"plain", "STAS", "controls", "low channels", "zeroed", "temporal\nflicker\n← better"} <= words


def test_every_row_is_the_difference_to_plain(module, evidence):
    table = module.data(evidence)
    row = table[(table["condition"] == "zero") & (table["measure"] == "frame_consistency")].iloc[0]
    at = evidence.sel(contrast="zero − plain", measure="frame_consistency")
    assert (row["difference"], row["low"], row["high"], row["finding"]) == (
        float(at["difference"]), float(at["low"]), float(at["high"]), str(at["finding"].values),
    )  # fmt: skip
    assert row["finding"] == "worse"
    selective = table[table["role"] == "selective"]["label"].unique().tolist()
    assert selective == ["stas − low", "stas − zero"]


def test_only_what_is_sure_is_filled(module, evidence):
    axes = next(a for a in module.draw(evidence).axes if "flicker" in a.get_title(loc="center"))
    found = {round(line.get_ydata()[0], 1): line for line in axes.lines if len(line.get_xdata()) == 1}
    stas, low = found[1.0], found[3.3]
    assert to_rgba(stas.get_markerfacecolor()) == to_rgba(stas.get_color())
    assert to_rgba(low.get_markerfacecolor()) != to_rgba(low.get_color())
    at = evidence.sel(contrast="stas − plain", measure="temporal_flicker")
    assert stas.get_xdata()[0] == float(at["difference"])
    assert str(at["finding"].values) == "better"


def test_few_prompts_many_settings_and_no_controls_still_draw(module):
    grid = {f"alpha{i}": {} for i in range(20)}
    many = stas_effects(simulated(GAIN, {}, grid=grid, prompts=6), **FAST)
    module.draw(many)
    assert "16 of 20 other settings are drawn" in module.caption(many)
    assert len(module.data(many)["condition"].unique()) == 22, "the table has all"
    few = stas_effects(simulated(GAIN, prompts=3), **FAST)
    module.draw(few)
    assert "no intervals (3 prompts" in module.caption(few)
