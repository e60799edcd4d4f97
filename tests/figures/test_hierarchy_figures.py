"""Figures of the frame hierarchy: what they draw is what the analysis found, for the planted levels and for image edges."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from tests.planted_video import TRUTHS, Size, video_recording
from workbench.analysis.hierarchy import hierarchy
from workbench.figures import registry, style

NAMES = [name for name, entry in registry.FIGURES.items() if entry.needs == "hierarchy"]
FAST = {"resamples": 200, "permutations": 199, "controls": 4}


def found(truth: str, **size: int) -> xr.Dataset:
    return hierarchy(video_recording(TRUTHS[truth], size=Size(**size)), **FAST)


@pytest.fixture(scope="module")
def levels() -> xr.Dataset:
    return found("all three levels", prompts=8)


@pytest.fixture(scope="module")
def few() -> xr.Dataset:
    return found("all three levels", prompts=2, steps=1, blocks=1)


def texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


def test_there_are_three():
    assert set(NAMES) == {"hierarchy_map", "hierarchy_contrasts", "hierarchy_dynamics"}


@pytest.mark.parametrize("name", NAMES)
def test_draws_saves_and_says_what_it_shows(name, levels, tmp_path):
    module = registry.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = style.save(module.draw(levels), tmp_path, name, data=module.data(levels))
    assert [file.suffix for file in files] == [".pdf", ".png", ".csv"]
    first = [file.read_bytes() for file in files]
    style.save(module.draw(levels), tmp_path, name, data=module.data(levels))
    assert [file.read_bytes() for file in files] == first
    caption = module.caption(levels)
    for said in (
        "n = 8 prompts",
        "branch cond",
        "95%" if name != "hierarchy_map" else "p ≤ 0.05",
        "Verdict (hierarchy): ",
    ):
        assert said in caption, said
    assert levels.attrs["levels"] in caption


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_is_labelled(name, levels):
    figure = registry.load(name).draw(levels)
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        joined = {side: getattr(axes, f"get_shared_{side}_axes")() for side in "xy"}
        for side, over in (("x", figure.get_supxlabel()), ("y", figure.get_supylabel())):
            labels = [over] + [
                getattr(a, f"get_{side}label")() for a in figure.axes if a is axes or joined[side].joined(axes, a)
            ]
            labels += [axes.get_ylabel()] if axes.get_label() == "<colorbar>" else []
            rows_have_names = name == "hierarchy_contrasts" and side == "y" and axes.get_yticklabels()
            assert any(labels) or rows_have_names, (name, side)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_prompts_and_one_step_still_draw(name, few, tmp_path):
    module = registry.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.save(module.draw(few), tmp_path, name, data=module.data(few))
    assert "undecided" in module.caption(few)


def test_the_map_marks_what_is_significant_and_is_centred_at_zero(levels):
    module = registry.load("hierarchy_map")
    table, figure = module.data(levels), module.draw(levels)
    part = table[(table["what"] == "contrast") & (table["of"] == "boundary - interior")]
    at = levels.sel(contrast="boundary - interior")
    assert part["value"].to_numpy() == pytest.approx(at["contrast_value"].values.ravel())
    maps = [axes for axes in figure.axes if axes.collections and axes.get_label() != "<colorbar>"]
    (below,) = [axes for axes in maps if axes.get_title(loc="left") == "boundary − interior"]
    norm = below.collections[0].norm
    assert norm(0.0) == pytest.approx(0.5)
    assert -norm.vmin == norm.vmax
    dots = below.lines[0].get_xdata()
    assert len(dots) == int((at["p_corrected"] <= 0.05).sum())


def test_the_map_is_of_the_channels_that_count(levels):
    size = registry.load("hierarchy_map").magnitudes(levels)
    counts = levels["counts"].isel(layer=-1).values
    own = levels["magnitude"].isel(layer=-1, timestep=0).sel(role="first").values[counts]
    assert float(size.sel(role="first").isel(layer=-1, timestep=0)) == pytest.approx(np.exp(own.mean()))


def test_contrasts_stand_beside_those_of_ordinary_channels(levels):
    module = registry.load("hierarchy_contrasts")
    table = module.data(levels)
    row = table[(table["what"] == "massive channels") & (table["contrast"] == "row edge - column edge")].iloc[0]
    at = levels.sel(contrast="row edge - column edge")
    assert (row["value"], row["low"], row["high"]) == (
        float(at["overall"]), float(at["overall_low"]), float(at["overall_high"]),
    )  # fmt: skip
    assert row["verdict"] == str(at["contrast_verdict"].values)
    ordinary = table[(table["what"] == "ordinary channels") & (table["contrast"] == "row edge - column edge")].iloc[0]
    assert ordinary["value"] == float(at["control"])
    words = texts(module.draw(levels))
    assert {"columns − inside (control)", "massive channels", "ordinary channels", "as it is"} <= words
    drawn = set(table.loc[table["what"] == "massive channels", "contrast"])
    assert drawn == set(map(str, levels["contrast"].values)), "a contrast that the analysis has is drawn"


def test_rotations_lie_around_the_boundary(levels):
    figure = registry.load("hierarchy_contrasts").draw(levels)
    line = figure.axes[1].lines[1]
    x, y = line.get_xdata(), line.get_ydata()
    assert (np.diff(x) > 0).all()
    assert y[list(x).index(0)] == float(levels["rotation_value"].sel(rotation=0))
    assert y[list(x).index(-1)] == float(levels["rotation_value"].isel(rotation=-1))


def test_dynamics_draw_steps_blocks_and_halves(levels):
    module = registry.load("hierarchy_dynamics")
    table = module.data(levels)
    name = "first - interior, same places"
    steps = table[(table["contrast"] == name) & (table["what"] == "step")]
    assert steps["value"].to_numpy() == pytest.approx(levels["contrast_by_step"].sel(contrast=name).values)
    early = table[(table["contrast"] == name) & (table["what"] == "early")].iloc[0]
    assert early["value"] == float(levels["early"].sel(contrast=name))
    assert set(table["contrast"]) == set(levels["contrast"].values[levels["decides"].values])
    assert any("first − interior, same places\n" in text for text in texts(module.draw(levels)))


def test_an_edge_of_the_image_is_seen_as_one():
    edges = found("image edges, not boundaries", prompts=8)
    at = registry.load("hierarchy_contrasts").data(edges).set_index(["what", "contrast"])["value"]["massive channels"]
    assert at["boundary - interior"] > 0.1, "by the roles alone it would be a boundary"
    assert abs(at["row edge - column edge"]) < 0.1
