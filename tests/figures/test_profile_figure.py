"""The figure of the profile over tokens: frames are marked, units said, and what is shaded is what the caption says."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from tests.planted_video import Size, Truth, video_recording
from workbench.analysis.profile import profile
from workbench.figures import registry, style

FIGURE = registry.load("profile")


def evidence_of(truth: Truth, *, prompts: int = 6, controls: int = 16) -> xr.Dataset:
    recording = video_recording(truth, size=Size(prompts=prompts, grid=(4, 8, 8), width=5))
    return profile(recording, width=8, controls=controls, resamples=100, flips=199)


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return evidence_of(Truth(first=0.5, boundary=0.3))


@pytest.fixture(scope="module")
def nothing() -> xr.Dataset:
    return evidence_of(Truth())


def test_draws_saves_and_says_what_it_shows(found, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = style.save(FIGURE.draw(found), tmp_path, "profile", data=FIGURE.data(found))
        again = style.save(FIGURE.draw(found), tmp_path / "again", "profile", data=FIGURE.data(found))
    assert [f.suffix for f in files] == [".pdf", ".png", ".csv"]
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]
    caption = FIGURE.caption(found)
    assert "first and last 5 tokens of later frames (the width proposed)" in caption
    assert "4 latent frames of 8 × 8 tokens" in caption
    assert "n = 6 prompts × 1 seed; branch cond. Verdict (profile): boundary found." in caption


def test_the_first_panel_has_the_tokens_in_order_with_every_frame_marked(found):
    figure = FIGURE.draw(found)
    top = next(axes for axes in figure.axes if axes.get_xlabel().startswith("token index"))
    assert top.get_yscale() == "log"
    assert "units of the hidden state" in top.get_ylabel()
    assert np.array_equal(top.lines[-2].get_xdata(), np.arange(4 * 64))
    assert np.allclose(top.lines[-2].get_ydata(), found["token_magnitude"])
    begins = {float(line.get_xdata()[0]) for line in top.lines[:-2]}
    assert begins == {-0.5, 63.5, 127.5, 191.5}
    others = [axes for axes in figure.axes if axes is not top]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in others)


def test_what_is_shaded_are_the_boundary_tokens(found, nothing):
    for evidence, width in ((found, 5), (nothing, 8)):
        top = next(axes for axes in FIGURE.draw(evidence).axes if axes.get_xlabel().startswith("token index"))
        spans = sorted((p.get_x(), p.get_x() + p.get_width()) for p in top.patches)
        expected = [(f * 64 - 0.5, f * 64 + width - 0.5) for f in (1, 2, 3)]
        expected += [(f * 64 - width - 0.5, f * 64 - 0.5) for f in (2, 3, 4)]
        assert np.allclose(spans, sorted(expected))


def test_the_table_has_tokens_places_and_widths(found):
    table = FIGURE.data(found)
    widths = found.sizes["width"]
    assert table.groupby(["panel", "line"]).size().to_dict() == {
        ("token", "massive channels"): 256, ("token", "ordinary channels"): 256,
        ("place", "later frames"): 64, ("place", "first frame"): 64,
        ("width", "later frames"): widths, ("width", "first frame"): widths, ("width", "column order"): widths,
    }  # fmt: skip
    token = table[(table["line"] == "massive channels") & (table["index"] == 70)].iloc[0]
    assert (token["frame"], token["row"], token["column"], token["role"]) == (1, 0, 6, "boundary")
    step = table[(table["panel"] == "width") & (table["line"] == "later frames") & (table["index"] == 5)].iloc[0]
    assert step["value"] == pytest.approx(float(found["rise"].sel(width=5)))
    later = table[(table["panel"] == "place") & (table["line"] == "later frames")]["value"]
    assert later.mean() == pytest.approx(1.0, abs=0.05)


def test_nothing_found_is_drawn_and_said(nothing):
    words = [text.get_text() for axes in FIGURE.draw(nothing).axes for text in axes.texts]
    assert "no boundary found" in words
    assert "that of the recording's roles, given" in FIGURE.caption(nothing)
    assert "Verdict (profile): no boundary found." in FIGURE.caption(nothing)


def test_few_prompts_and_no_ordinary_channels_are_drawn_without_bands():
    evidence = evidence_of(Truth(boundary=0.3), prompts=2, controls=0)
    figure = FIGURE.draw(evidence)
    assert not any(axes.collections for axes in figure.axes)
    assert "no intervals (2 prompts, of at least 5)" in FIGURE.caption(evidence)
    assert "ordinary" not in FIGURE.caption(evidence)
