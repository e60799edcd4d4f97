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
NAMES = list(registry.FIGURES)


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
    shared = " ".join(t.get_text() for t in figure.texts)
    for axes in figure.axes:
        if axes.get_visible() and axes.axison and axes.get_label() != "<colorbar>":
            own = [axes.get_ylabel(), axes.get_shared_y_axes().joined(axes, figure.axes[0])]
            assert own[0] or own[1] or shared, f"axes {axes} of {name} has no label"
    words = set(text_of(figure).replace("\n", " ").split())
    # the profile names the largest channel only, images have no channels
    named = {"layer_profile": {"5"}, "images": {"prompt"}}.get(name, {"5", "30"})
    assert named <= words, "the planted channels are named"


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
