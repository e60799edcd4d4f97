"""Every figure: draws from statistics or states, says what it shows, leaves nothing behind, the same bytes each time."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from tests.analysis.synthetic import synthetic
from workbench.analysis.locate import locate
from workbench.analysis.modulation import modulation
from workbench.errors import AnalysisError
from workbench.figures import registry, style

PLANTED = {5: 14.0, 30: -9.0}
FAST = {"resamples": 100}
#: Figures of a recording and its analyses; those of experiments on images have test files of their own.
NAMES = [name for name, entry in registry.FIGURES.items() if entry.needs in ("recording", "locate", "modulation")]
NAMES.remove("frame_strip")  # of videos, like those of the hierarchy


def with_images(recording: xr.Dataset) -> xr.Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (recording.sizes["sample"], 12, 16, 3), dtype=np.uint8)
    return recording.assign(image=(("sample", "y", "x", "rgb"), pixels))


def evidence_of(recording: xr.Dataset) -> dict[str, xr.Dataset]:
    return {
        "recording": recording if "image" in recording else with_images(recording),
        "locate": locate(recording, **FAST),
        "modulation": modulation(recording, **FAST),
    }


@pytest.fixture(scope="module")
def evidence() -> dict[str, xr.Dataset]:
    return evidence_of(with_images(synthetic(PLANTED, hidden=True)))


def arguments(name: str, evidence: dict[str, xr.Dataset]) -> tuple[xr.Dataset, dict[str, str]]:
    entry = registry.FIGURES[name]
    return evidence[entry.needs], dict(entry.options)


def text_of(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("name", NAMES)
def test_draws_saves_and_says_what_it_shows(name, evidence, tmp_path):
    module, (given, options) = registry.load(name), arguments(name, evidence)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph or a collapsed layout is a warning of matplotlib
        files = style.save(module.draw(given, **options), tmp_path, name, data=module.data(given, **options))
    assert [f.suffix for f in files] == [".pdf", ".png", ".csv"]
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f.name for f in files), "no partial files stay"
    caption = module.caption(given, **options)
    assert "n = " in caption
    assert "cond" in caption
    assert "erdict" in caption
    assert "timestep" in caption or "σ" in caption


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_with_data_is_labelled(name, evidence):
    module, (given, options) = registry.load(name), arguments(name, evidence)
    figure = module.draw(given, **options)
    drawn = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    for axes in drawn:
        bar = axes.get_label() == "<colorbar>"  # one of its axes is the width of the bar
        labels = {
            "x": [figure.get_supxlabel()]
            + [a.get_xlabel() for a in drawn if a is axes or axes.get_shared_x_axes().joined(axes, a)],
            "y": [figure.get_supylabel()]
            + [a.get_ylabel() for a in drawn if a is axes or axes.get_shared_y_axes().joined(axes, a)],
        }
        if hasattr(axes, "get_zlabel"):
            labels["z"] = [axes.get_zlabel()]
        found = {side: any(texts) for side, texts in labels.items()}
        assert any(found.values()) if bar else all(found.values()), f"axes {axes} of {name}: {found}"
    words = set(text_of(figure).replace("\n", " ").split())
    # the profile names the largest channel only, images have no channels
    named = {"layer_profile": {"5"}, "images": {"prompt"}}.get(name, {"5", "30"})
    assert named <= words, "the planted channels are named"


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("token_channel", {"5", "30"}),
        ("token_channel_3d", {"5", "30"}),
        ("layer_profile", {"5"}),
        ("gate", {"5", "30"}),
    ],
)
def test_massive_channels_are_named_next_to_what_is_drawn(name, named, evidence):
    # Not by a tick label that happens to be 5 or 30: by a text inside the axes.
    module, (given, options) = registry.load(name), arguments(name, evidence)
    figure = module.draw(given, **options)
    assert named <= {text.get_text() for axes in figure.axes for text in axes.texts}


def test_selection_is_said_in_the_caption(evidence):
    module = registry.load("token_channel")
    assert "chosen because a channel stands out most there" in module.caption(evidence["recording"])
    options = {"layer": "transformer_blocks.2", "step": 1}
    assert "chosen because" not in module.caption(evidence["recording"], **options)
    gate = registry.load("gate")
    assert "with the largest spike at the channel, chosen for that" in gate.caption(evidence["modulation"])
    assert "Left: size of shift_msa for every" in gate.caption(evidence["modulation"], term="shift_msa")


def test_gate_says_the_ratio_and_rank_it_draws(evidence):
    module, found = registry.load("gate"), evidence["modulation"]
    row = module.data(found).iloc[0]
    heights = found["term_all"].sel(modulation_term=row["term"], layer=row["block"])
    height = float(heights.sel(all_channel=row["channel"]))
    assert row["times_median"] == pytest.approx(height / float(heights.median()))
    assert row["rank"] == int((heights >= height).sum())
    assert f"{row['times_median']:.1f} × the median channel's, rank {row['rank']} of 48" in module.caption(found)


def test_gate_of_an_unknown_writer_does_not_say_that_it_writes(evidence):
    found = evidence["modulation"].copy()
    found["writer"] = found["writer"].copy(data=np.asarray(["", "transformer_blocks.0"], np.dtypes.StringDType()))
    module = registry.load("gate")
    titles = [axes.get_title(loc="left") for axes in module.draw(found).axes]
    assert any("largest write to channel 5" in title for title in titles)
    assert any("writes channel 30" in title for title in titles)
    assert "For channel 5 no one block can be named as the writer" in module.caption(found)


def test_trajectory_says_which_blocks_and_channels_it_draws():
    found = modulation(synthetic(layers=24, tokens=4), channels=list(range(11)), **FAST)
    module = registry.load("trajectory")
    caption = module.caption(found)
    assert "after 12 of 24 blocks, evenly spread," in caption
    assert "the first of 11" in caption
    assert set(module.data(found)["channel"]) == set(range(9))


def test_no_two_channels_look_alike():
    looks = list(zip(style.colours(72), style.markers(72), strict=True))
    assert len(set(looks)) == 72


def test_channels_with_gaps_stand_where_they_are_labelled(evidence):
    recording = evidence["recording"].isel(channel=[1, 5, 7, 30, 31, 40])
    axes = registry.load("token_channel").draw(recording).axes[0]
    bottom = registry.load("token_channel").draw(recording).axes[1]
    assert [label.get_text() for label in bottom.get_xticklabels()] == ["1", "5", "7", "30", "31", "40"]
    (named,) = [text for text in axes.texts if text.get_text() == "5"]
    assert named.xy[0] == 1


def test_n_is_prompts_in_every_caption(evidence):
    recording = evidence["recording"].assign_coords(prompt=("sample", list("aabbcc")))
    for name, given in evidence_of(recording).items():
        for figure, entry in registry.FIGURES.items():
            if entry.needs == name and not figure.startswith(("token", "images", "frame_strip")):
                caption = registry.load(figure).caption(given)
                assert "n = 3 prompts × 2 seeds" in caption, figure
    few = registry.load("layer_profile").caption(recording)
    assert "no intervals (3 prompts, of at least 5)" in few


def test_same_inputs_give_the_same_bytes_in_another_process(evidence, tmp_path):
    # Another hash seed orders sets otherwise; fonts, dates and versions are the other ways for bytes to differ.
    names = ("token_channel", "gate")
    code = (
        "import sys; from tests.figures.test_figures import *;"
        "e = evidence_of(synthetic(PLANTED, hidden=True));"
        f"[style.save(registry.load(n).draw(a[0], **a[1]), sys.argv[1], n) for n in {names} for a in [arguments(n, e)]]"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    for name in names:
        given, options = arguments(name, evidence)
        for path in style.save(registry.load(name).draw(given, **options), tmp_path / "here", name):
            assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["token_channel_3d", "layer_profile"])
def test_global_state_is_left_alone(name, evidence):
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    module, (given, options) = registry.load(name), arguments(name, evidence)
    module.draw(given, **options)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "recording",
    [
        pytest.param(synthetic(PLANTED), id="statistics only"),
        pytest.param(synthetic(), id="nothing massive"),
        pytest.param(synthetic(PLANTED, samples=2), id="too few samples for intervals"),
        pytest.param(synthetic(PLANTED, steps=1, layers=1), id="one visit a sample"),
        pytest.param(synthetic(PLANTED, layers=30, channels=700, tokens=4, hidden=True), id="deep and wide"),
    ],
)
def test_draws_whatever_was_recorded(name, recording):
    module, (given, options) = registry.load(name), arguments(name, evidence_of(recording))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.draw(given, **options).draw_without_rendering()  # lays out, where a figure that is too full would warn
    assert len(module.data(given, **options))
    assert module.caption(given, **options)


@pytest.mark.parametrize("name", NAMES)
def test_module_has_the_one_signature(name):
    module = registry.load(name)
    for function in (module.draw, module.data, module.caption):
        first, *rest = inspect.signature(function).parameters.values()
        assert first.name in ("recording", "evidence")
        assert all(p.kind is p.KEYWORD_ONLY for p in rest)
    assert isinstance(registry.FIGURES[name].title, str)


def test_layer_profile_numbers_are_those_of_the_recording(evidence):
    recording = evidence["recording"]
    table = registry.load("layer_profile").data(recording)
    part = recording["h_mean_abs"].sel(branch="cond", layer="transformer_blocks.1")
    row = table[(table["layer"] == "transformer_blocks.1") & (table["line"] == "top-1")].iloc[0]
    assert row["magnitude"] == pytest.approx(float(part.max("channel").mean()), rel=1e-6)
    assert row["channel"] == 5
    assert row["share"] == 1.0
    median = table[(table["layer"] == "transformer_blocks.1") & (table["line"] == "median")].iloc[0]
    assert median["magnitude"] == pytest.approx(float(part.median("channel").mean()), rel=1e-6)


def test_criteria_table_holds_the_massive_cells(evidence):
    table = registry.load("criteria").data(evidence["locate"])
    assert isinstance(table, pd.DataFrame)
    massive = table[(table["criterion"] == "workbench") & table["massive"]]
    assert set(massive["channel"]) == set(PLANTED)


def test_heat_map_shows_the_states_of_the_visit_it_names(evidence):
    recording = evidence["recording"]
    module = registry.load("token_channel")
    options = {"sample": 2, "layer": "transformer_blocks.2", "step": 1}
    figure = module.draw(recording, **options)
    image = figure.axes[1].images[0].get_array()
    truth = recording["hidden"].sel(branch="cond", layer="transformer_blocks.2").isel(sample=2, timestep=1)
    np.testing.assert_allclose(image, np.abs(truth.transpose("token", "channel")), rtol=1e-6)
    assert "after block 2" in module.caption(recording, **options)
    assert "sample 2" in module.caption(recording, **options)


def test_wide_states_are_pooled_by_maximum_so_that_no_channel_is_lost():
    recording = synthetic({1501: 50.0}, channels=1536, samples=1, layers=1, steps=1, hidden=True)
    image = registry.load("token_channel").draw(recording).axes[1].images[0].get_array()
    assert image.shape[1] <= 640
    assert image.max() > 45


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": "transformer_blocks.9"}, "no complete layer"),
        ({"sample": 77}, "no complete sample 77"),
        ({"step": 9}, "no complete step 9"),
        ({"view": "2d"}, "choose 'heatmap' or '3d'"),
    ],
)
def test_wrong_visits_are_refused(evidence, options, said):
    with pytest.raises(AnalysisError, match=said):
        registry.load("token_channel").draw(evidence["recording"], **options)


def test_gate_needs_adaln_terms_and_says_so(evidence):
    bare = modulation(evidence["recording"].drop_vars("modulation"), **FAST)
    with pytest.raises(AnalysisError, match="holds no `modulation`"):
        registry.load("gate").draw(bare)
    with pytest.raises(AnalysisError, match="no modulation term 'gate'"):
        registry.load("gate").draw(evidence["modulation"], term="gate")


def test_unknown_figure_names_the_known_ones():
    with pytest.raises(AnalysisError, match="token_channel, token_channel_3d"):
        registry.load("pie")


def test_analysis_and_figures_need_no_torch():
    code = (
        "import sys\n"
        "from workbench.figures import registry\n"
        "import workbench.analysis.locate, workbench.analysis.modulation\n"
        "[registry.load(name) for name in registry.FIGURES]\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'nnsight'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_drawn_is_said_beforehand(evidence):
    bare = evidence["recording"].drop_vars(["modulation", "image"])
    followed = modulation(bare, **FAST)
    assert registry.missing("images", bare) == "the recording holds no images"
    assert "AdaLN" in registry.missing("gate", followed)
    for name in ("images", "gate"):
        with pytest.raises(AnalysisError):
            registry.load(name).draw(bare if name == "images" else followed)
    for name in NAMES:
        assert registry.missing(name, arguments(name, evidence)[0]) == ""


def test_images_of_incomplete_samples_are_left_out(evidence):
    recording = evidence["recording"]
    written = np.ones(recording.sizes["sample"], dtype=np.uint64)
    written[1] = 0
    table = registry.load("images").data(recording.assign(sample_checksum=("sample", written)))
    assert 1 not in table["sample"].tolist()
    assert len(table) == recording.sizes["sample"] - 1
