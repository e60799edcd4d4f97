"""Figures of the sweep and of the baselines: the numbers of the analysis, what was kept, what was chosen, in words too."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from tests.analysis.test_sweep import BETTER, DRIFTED, GOOD, NOTHING, SHARPENED, made
from workbench.analysis.baselines import baselines
from workbench.analysis.sweep import sweep
from workbench.figures import registry, style

FAST = {"resamples": 100}
CHANGES: Mapping[str, Any] = {"a": GOOD, "b": BETTER, "c": NOTHING, "d": DRIFTED}


def labelled(data: xr.Dataset) -> xr.Dataset:
    measures = [str(m) for m in data["measure"].values]
    return data.assign_coords(
        unit=("measure", np.array(["sd" if m == "own_spectral_distance" else "" for m in measures])),
        label=("measure", np.array(["distance to the data's spectrum" if "dist" in m else m for m in measures])),
    )


def swept(modes: int = 2, **options: Any) -> xr.Dataset:
    """Two layers × two weights, with CFG, and optionally without."""
    with_cfg = labelled(made(CHANGES, **options))
    with_cfg = with_cfg.assign_coords(
        weight=("condition", np.array([np.nan, 1, 4, 1, 4])),
        layer=("condition", np.array(["", *["transformer_blocks.1"] * 2, *["transformer_blocks.3"] * 2])),
    )
    with_cfg.attrs["factors"] = ["mode", "weight", "layer"]
    if modes == 1:
        return with_cfg
    plain = with_cfg.assign_coords(
        condition=("condition", np.array(["plain", "a-", "b-", "c-", "d-"])),
        baseline=("condition", np.array(["plain"] * 5)),
        mode=("condition", np.array(["plain"] + ["dg"] * 4)),
    )
    both = xr.concat([plain, with_cfg], "condition", data_vars="all", coords="minimal", join="exact", compat="override")
    both.attrs = with_cfg.attrs
    return both


def beside(**options: Any) -> xr.Dataset:
    names = {"plain": NOTHING, "dg": GOOD, "cfg+dg": GOOD, "cfg-2x": SHARPENED, "matched": NOTHING, "cfg+slg": NOTHING}
    data = labelled(made(names, **options))
    data.attrs["left_out"] = ["perturbed attention guidance: not for this pipeline"]
    return data.assign_coords(
        baseline=("condition", np.array(["cfg", "plain", "plain", "cfg", "cfg", "plain", "cfg"])),
        guidance_scale=("condition", np.array([4.0, 1, 1, 4, 8, 1, 4])),
        method=("condition", np.array(["CFG", "none", "DG", "DG", "CFG 2×", "DG, matched channels 1", "SLG"])),
    )


@pytest.fixture(scope="module")
def evidence() -> dict[str, xr.Dataset]:
    return {"sweep": sweep(swept(), **FAST), "baselines": baselines(beside(), **FAST)}


def dots(axes: Axes, colour: str | None = None) -> np.ndarray:
    """Places of the settings, those of one face colour if given; the ring around a choice is larger."""
    found = [
        c.get_offsets()
        for c in axes.collections
        if isinstance(c, PathCollection) and len(c.get_offsets()) and c.get_sizes()[0] < 20
        and (colour is None or tuple(c.get_facecolor()[0]) == to_rgba(colour))
    ]  # fmt: skip
    return np.asarray(np.ma.concatenate(found))


def text_of(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("name", ["sweep", "baselines"])
def test_draws_saves_and_says_what_it_shows(name: str, evidence: Any, tmp_path: Path) -> None:
    module, given = registry.load(name), evidence[registry.FIGURES[name].needs]
    assert registry.missing(name, given) == ""
    saved = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            files = style.save(module.draw(given), folder, name, data=module.data(given))
        assert [f.suffix for f in files] == [".pdf", ".png", ".csv"]
        saved.append([f.read_bytes() for f in files])
    assert saved[0] == saved[1], "the same bytes each time"
    caption = module.caption(given)
    assert "n = 64 prompts × 1 seed" in caption
    assert "95% bootstrap intervals over prompts" in caption
    assert caption.endswith(f"Verdict ({name}): {given.attrs['verdict']}."), "the reason stands in the text beside it"


def test_sweep_draws_every_setting_once_where_its_gain_is(evidence: Any) -> None:
    rows = registry.load("sweep").data(evidence["sweep"])
    assert len(rows) == 8
    assert set(rows["series"]) == {"block 1", "block 3"}
    figure = registry.load("sweep").draw(evidence["sweep"])
    for axes, mode in zip(figure.axes[:2], ("dg", "cfg+dg"), strict=True):
        drawn = dots(axes)[:, 1]
        np.testing.assert_allclose(sorted(drawn), sorted(rows[rows["mode"] == mode]["gain"]))
        assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "4"]
    assert "gain: decrease of distance to the own training picture's spectrum  (ln luma²)" in text_of(figure)


def test_what_keeps_the_content_is_filled_and_what_was_chosen_is_ringed(evidence: Any) -> None:
    rows = registry.load("sweep").data(evidence["sweep"]).set_index("condition")
    assert not rows.loc["d", "content_kept"]
    assert rows.loc["b", "chosen"]
    assert rows["chosen"].sum() == 2, "one in each mode"
    figure = registry.load("sweep").draw(evidence["sweep"])
    assert dots(figure.axes[3], "white")[:, 0] == pytest.approx([rows.loc["d", "similarity"]])
    assert "chosen by the rule" in text_of(figure)


def test_nothing_chosen_is_not_in_the_legend() -> None:
    figure = registry.load("sweep").draw(sweep(swept(prompts=4), **FAST))
    assert "chosen by the rule" not in text_of(figure)
    caption = registry.load("sweep").caption(sweep(swept(prompts=4), **FAST))
    assert "No intervals (4 prompts, of at least 5)" in caption
    assert "undecided" in caption


def test_of_many_series_the_best_are_in_colour_and_all_in_the_plane() -> None:
    data = made({f"s{i}": (0, -0.01 * i, -0.01, 0) for i in range(20)}, noise=0.2)
    data = labelled(data).assign_coords(
        channels=("condition", np.array(["", *(f"{i}" for i in range(20))])), weight=("condition", np.ones(21))
    )
    data.attrs["factors"] = ["mode", "weight", "channels"]
    result = sweep(data, **FAST)
    figure, caption = (part(result) for part in (registry.load("sweep").draw, registry.load("sweep").caption))
    assert [f"channels {i}" in text_of(figure) for i in (11, 12, 19)] == [False, True, True]
    assert len(dots(figure.axes[0])) == 8
    assert len(dots(figure.axes[1])) == 20
    assert "In colour the 8 of 20 with the largest lower bounds that keep the content" in caption


def test_one_mode_fits_a_column() -> None:
    figure = registry.load("sweep").draw(sweep(swept(1), **FAST))
    assert figure.get_figwidth() == style.COLUMN
    assert len(figure.axes) == 2


def test_baselines_are_grouped_and_compared_with_the_first_of_their_group(evidence: Any) -> None:
    rows = registry.load("baselines").data(evidence["baselines"])
    order = rows[rows["measure"] == "edge_energy"]["guidance"].tolist()
    assert order == ["no guidance", "DG", "DG, matched channels 1", "CFG s = 4", "CFG + DG", "CFG s = 8", "CFG + SLG"]
    figure = registry.load("baselines").draw(evidence["baselines"])
    words = text_of(figure)
    for part in (*order, "seconds\na step", "distance to own\n← closer"):
        assert part in words
    distance = next(axes for axes in figure.axes if "distance" in axes.get_title(loc="center"))
    at = rows[(rows["measure"] == "own_spectral_distance") & (rows["guidance"] == "CFG + DG")].iloc[0]
    dots = [line for line in distance.lines if line.get_marker() == "o"]
    assert any(line.get_xdata()[0] == pytest.approx(at["effect"]) for line in dots)
    assert len(dots) == 5, "the first row of each group is a number, not a dot"
    assert "Left out: perturbed attention guidance" in registry.load("baselines").caption(evidence["baselines"])


def test_baselines_say_whether_it_is_more_than_a_higher_scale(evidence: Any) -> None:
    result = evidence["baselines"]
    found = dict(zip(result["contrast"].values.tolist(), result["finding"].values.tolist(), strict=True))
    assert found["cfg+dg − cfg"] == "closer"
    assert found["cfg+dg − cfg-2x"] == "closer"
    assert found["dg − plain"] == "closer"
    assert result.attrs["verdict"] == "supported"
    nothing = baselines(
        beside().assign(value=beside()["value"] * 0 + beside()["value"].sel(condition="cfg", drop=True)), **FAST
    )
    assert nothing.attrs["verdict"] == "not supported"
    assert set(nothing["finding"].values.tolist()) == {"equal"}
    lost = beside()
    lost["value"][lost["condition"].values.tolist().index("cfg+dg"), :2] = np.nan
    assert baselines(lost, **FAST).attrs["verdict"] == "undecided", "closer, but pictures are lost"
    drifted = beside()
    at = {"condition": "cfg+dg", "measure": "low_pass_similarity"}
    drifted["value"].loc[at] = drifted["value"].loc[at] - 0.2
    assert baselines(drifted, **FAST).attrs["verdict"] == "not supported", "closer, but another picture"
    assert "Content of CFG under cfg+dg: lost" in baselines(drifted, **FAST).attrs["verdict_reason"]
    few = baselines(beside(prompts=4), **FAST)
    assert few.attrs["verdict"] == "undecided"


def test_columns_are_those_that_were_measured() -> None:
    data = beside().sel(measure=["edge_energy", "low_pass_similarity"]).drop_vars("seconds")
    result = baselines(data, **FAST)
    assert len(registry.load("baselines").draw(result).axes) == 2
    assert result.attrs["gauge"] == "edge_energy"
    assert "By edge energy (0.0025 counts)" in result.attrs["verdict_reason"]
    assert "of less than cfg-2x" in result.attrs["verdict_reason"]


def test_one_scale_that_does_as_well_is_enough_for_no_and_all_must_do_worse_for_yes() -> None:
    data = beside()
    for name, shift, verdict in (("cfg-2x", -0.6, "not supported"), ("cfg-2x", -0.155, "undecided")):
        changed = data.copy(deep=True)
        at = {"condition": name, "measure": "own_spectral_distance"}
        changed["value"].loc[at] = data["value"].loc[at] + shift
        result = baselines(changed, **FAST)
        assert result.attrs["verdict"] == verdict, result.attrs["verdict_reason"]
    assert len(result.attrs["verdict_reason"].split()) < 80
