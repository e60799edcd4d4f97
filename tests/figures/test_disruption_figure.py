"""The figure of a disruption: draws with and without windows and controls, says its norm, the same bytes each time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from tests.analysis.disrupted import NORMS, simulated
from workbench.analysis.disruption import disruption
from workbench.figures import registry, style

FAST = {"resamples": 100, "flips": 199}


def analysed(**options) -> xr.Dataset:
    measured = simulated("detail only", prompts=12, layers=3, windows=("whole", "early", "late"), **options)
    spans = {"whole": (0.0, 1.0), "early": (0.6, 1.0), "late": (0.0, 0.6), "": (np.nan, np.nan)}
    for i, name in enumerate(("sigma_low", "sigma_high")):
        measured.coords[name] = ("condition", [spans[str(window)][i] for window in measured["window"].values])
    # windows at one layer only, as they are run by default
    kept = [
        i
        for i, (layer, window) in enumerate(zip(measured["layer"].values, measured["window"].values, strict=True))
        if window in ("", "whole") or layer == "transformer_blocks.1"
    ]
    return disruption(measured.isel(condition=kept), **FAST)


@pytest.fixture(scope="module")
def evidence() -> xr.Dataset:
    return analysed()


@pytest.fixture(scope="module")
def module():
    assert registry.FIGURES["disruption"].needs == "disruption"
    return registry.load("disruption")


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_draws_saves_and_says_what_it_shows(module, evidence, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = style.save(module.draw(evidence), tmp_path, "disruption", data=module.data(evidence))
    assert [f.suffix for f in files] == [".pdf", ".png", ".csv"]
    first = [f.read_bytes() for f in files]
    style.save(module.draw(evidence), tmp_path, "disruption", data=module.data(evidence))
    assert [f.read_bytes() for f in files] == first
    caption = module.caption(evidence)
    for said in (
        "n = 12 prompts",
        "Verdict: undecided against equal norm, undecided against equal number.",
        "random 0.1",
        "95% bootstrap",
        "low_pass_similarity",
    ):
        assert said in caption, said


def test_panels_are_labelled_and_share_one_scale(module, evidence):
    figure = module.draw(evidence)
    words = texts(figure)
    for said in (
        "loss of detail",
        "loss of content",
        "before block 1",
        "early\n1 … 0.6",
        "noise level σ",
        "noise of equal norm",
    ):
        assert said in words, said
    assert len({axes.get_ylim() for axes in figure.axes}) == 1  # detail and content can be compared by eye
    assert len(figure.axes) == 4


def test_every_drawn_number_is_in_the_table(module, evidence):
    table = module.data(evidence)
    assert len(table) == evidence.sizes["cell"] * evidence.sizes["kind"] * 2
    row = table[
        (table["cell"] == "transformer_blocks.1, whole") & (table["kind"] == "massive") & (table["aspect"] == "detail")
    ]
    at = evidence.sel(cell="transformer_blocks.1, whole", kind="massive", measure="detail")
    assert row["loss"].item() == float(at["loss"])
    assert row["low"].item() == float(at["loss_low"])
    drawn = [line.get_ydata() for line in module.draw(evidence).axes[0].lines if len(line.get_ydata()) == 3]
    assert any(row["loss"].item() in values for values in drawn)


def test_a_control_that_missed_its_norm_is_not_called_equal(module):
    found = analysed(norms=NORMS | {"matched_random": 15.0})
    words = texts(module.draw(found))
    assert "random channels of 0.50 × the norm, shrunk" in words
    assert "random channels of equal norm" not in words


def test_without_controls_or_windows_or_enough_prompts_it_still_draws(module):
    measured = simulated("content", prompts=3, layers=2)
    few = disruption(measured, **FAST)
    assert len(module.draw(few).axes) == 2
    assert "no intervals (3 prompts, of at least 5)" in module.caption(few)
    alone = measured.isel(
        condition=[i for i, kind in enumerate(measured["kind"].values) if kind in ("none", "massive")]
    )
    found = disruption(alone, **FAST)
    module.draw(found)
    assert "no control" in module.caption(found)
