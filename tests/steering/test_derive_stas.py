"""From recordings of videos with a planted hierarchy, or with none, to a STAS spec; and on to the pipeline that was recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.planted_video import MASSIVE, TRUTHS, Size, planted_wan, video_recording
from tests.tiny_wan import encode_wan
from workbench.analysis.hierarchy import hierarchy
from workbench.analysis.profile import profile
from workbench.errors import SpecError
from workbench.roles import with_roles
from workbench.steering.attach import apply
from workbench.steering.derive_stas import DEFAULT_ALPHA, DEFAULT_WINDOW, derive_stas
from workbench.steering.evidence import Swept
from workbench.steering.spec import load_spec, save_spec

MODEL = {"transformer_class": "WanTransformer3DModel", "config_hash": "c0", "weight_hash": "w0", "repo": "mini"}
ASKED = {"guidance_scale": 4.0, "steps": 20, "height": 64, "width": 64, "num_frames": 17}


def recorded(truth: str = "all three levels", prompts: int = 24) -> xr.Dataset:
    attrs = {"model": {**MODEL, "revision": None}, "layout": {"family": "wan", "blocks": 3, "channels": 24}}
    return video_recording(TRUTHS[truth], seed=3, size=Size(prompts=prompts)).assign_attrs(**attrs, settings=ASKED)


def found_in(recording: xr.Dataset) -> xr.Dataset:
    return hierarchy(recording, resamples=1000, permutations=1999)


@pytest.fixture(scope="module")
def recording() -> xr.Dataset:
    return recorded()


@pytest.fixture(scope="module")
def supported(recording: xr.Dataset) -> xr.Dataset:
    found = found_in(recording)
    assert found.attrs["verdict"] == "supported"
    return found


@pytest.fixture(scope="module")
def none() -> tuple[xr.Dataset, xr.Dataset]:
    recording = recorded("none")
    found = found_in(recording)
    assert found.attrs["verdict"] == "not supported"
    return recording, found


def test_planted_channels_in_the_state_that_leaves_the_middle_block(recording, supported) -> None:
    spec = derive_stas(recording, hierarchy=supported)
    assert spec.channels == tuple(sorted(MASSIVE))
    assert spec.layers == ("blocks.0",), "of 3 blocks, one up to it and two after is as near to half as two and one"
    assert (spec.action, spec.reference, spec.branches) == ("steer", "channel", ("cond", "uncond"))
    assert (spec.alpha_first, spec.alpha_boundary, spec.alpha_interior) == (DEFAULT_ALPHA, DEFAULT_ALPHA, None)
    assert spec.window == DEFAULT_WINDOW
    recommended = spec.recommended.model_dump(exclude={"source"})
    assert recommended == ASKED
    notes = spec.evidence.notes["hierarchy"]
    assert (notes["verdict"], notes["levels"]) == ("supported", "all three levels")
    assert notes["derived_anyway"] is False
    contrast = notes["contrasts"]["first - boundary"]
    assert contrast["overall"] == pytest.approx(float(supported["overall"].sel(contrast="first - boundary")), rel=1e-5)
    assert "warning" not in spec.evidence.notes
    assert {c["channel"]: c["sign"] for c in spec.evidence.channels} == MASSIVE


def test_every_choice_says_where_it_comes_from(recording, supported) -> None:
    spec = derive_stas(recording, hierarchy=supported)
    said, words = spec.evidence.provenance, spec.recommended.source
    choices = set(type(spec).model_fields) & {*said, *words}
    assert {"layers", "channels", "alpha_first", "alpha_boundary", "boundary_width", "reference", "window"} <= choices
    assert set(said) <= set(words)
    for name, tag in said.items():
        text = words[name]
        assert {"default": "a choice" in text, "established": "2603.17825" in text, "given": "given" in text}.get(
            tag, True
        )
    assert (said["alpha_first"], said["window"], said["channels"]) == ("default", "established", "measured")
    given = derive_stas(recording, hierarchy=supported, alpha_first=1.2, layers="blocks.2", window=spec.window)
    assert [given.evidence.provenance[key] for key in ("alpha_first", "layers", "window")] == ["given"] * 3
    assert given.recommended.source["alpha_first"] == "given"


def test_window_is_the_first_20_of_50_steps() -> None:
    """Both ends belong to a window, so its end lies below the share; the step at the share is the first one left out."""
    for steps, expected in ((50, 20), (20, 8), (10, 4), (28, 12), (5, 2)):
        inside = [DEFAULT_WINDOW.contains(step / steps) for step in range(steps)]
        assert inside == [step < expected for step in range(steps)], steps


def test_without_a_hierarchy_the_spec_says_so(recording) -> None:
    spec = derive_stas(recording)
    assert spec.evidence.notes["hierarchy"]["verdict"] == "not measured"
    assert "No frame hierarchy was measured in this model" in spec.evidence.notes["warning"]


def test_hierarchy_that_is_not_supported_is_not_passed_over(none) -> None:
    recording, found = none
    with pytest.raises(SpecError, match=r"is not supported in this model \(found: none\).*anyway=True"):
        derive_stas(recording, hierarchy=found)
    spec = derive_stas(recording, hierarchy=found, anyway=True)
    notes = spec.evidence.notes
    assert (notes["hierarchy"]["verdict"], notes["hierarchy"]["derived_anyway"]) == ("not supported", True)
    assert "Derived anyway" in notes["warning"]


def test_hierarchy_that_decided_nothing_is_not_passed_over() -> None:
    recording = recorded(prompts=3)
    found = found_in(recording)
    assert found.attrs["verdict"] == "undecided"
    with pytest.raises(SpecError, match="is undecided in this model"):
        derive_stas(recording, hierarchy=found)
    assert derive_stas(recording, hierarchy=found, anyway=True).evidence.notes["hierarchy"]["derived_anyway"]


def test_hierarchy_of_another_model_or_other_channels(recording, supported) -> None:
    other = supported.assign_attrs(recording_model={**MODEL, "weight_hash": "w1"})
    with pytest.raises(SpecError, match="the hierarchy is of another model"):
        derive_stas(recording, hierarchy=other)
    with pytest.raises(SpecError, match="no result of the analysis of that name"):
        derive_stas(recording, hierarchy=recording)
    with pytest.raises(SpecError, match=r"channels 5 was not tested. It was tested on 3, 17. .*channels=\[3, 5\]"):
        derive_stas(recording, hierarchy=supported, channels=[3, 5])
    spec = derive_stas(recording, hierarchy=supported, channels=[3, 5], anyway=True)
    assert "channels 5 was not tested" in spec.evidence.notes["warning"]


def test_hierarchy_of_all_channels_is_not_passed_over(recording, supported) -> None:
    shared = supported.assign_attrs(verdict="not supported", specific="no")
    with pytest.raises(SpecError, match=r"found: all three levels, but not specific to massive channels"):
        derive_stas(recording, hierarchy=shared)


def test_boundary_width_comes_from_the_evidence(recording, supported) -> None:
    def width(found: xr.Dataset | None = None, roles: xr.Dataset = recording, **given: Any) -> tuple[str, float, str]:
        spec = derive_stas(roles, hierarchy=found, **given)
        return spec.boundary_width.unit, spec.boundary_width.value, spec.evidence.provenance["boundary_width"]

    # The recording's width was given: six tokens, which is one row of this grid.
    assert width() == ("rows", 1, "given")
    assert width(roles=with_roles(recording, 4)) == ("fraction", 4 / 36, "given")
    assert width(supported.assign_attrs(boundary_width=12)) == ("rows", 2, "given")
    bare = recording.drop_vars("role")
    bare.attrs = {key: value for key, value in recording.attrs.items() if not key.startswith("boundary_width")}
    assert width(roles=bare) == ("rows", 1, "default")
    assert width(boundary_width=5) == ("tokens", 5, "given")
    assert width(boundary_width={"unit": "fraction", "value": 0.1}) == ("fraction", 0.1, "given")
    with pytest.raises(SpecError, match="5 x 6 x 6 tokens .* 18 tokens: .*from 1 to 17"):
        derive_stas(recording, boundary_width=18)


def test_width_of_evidence_at_another_resolution_is_scaled_from_its_own_grid(recording, supported) -> None:
    """12 tokens are one row of a grid of 12 columns; on this one, of 6, they would be two."""
    finer = supported.assign_attrs(boundary_width=12, token_grid=[5, 12, 12])
    spec = derive_stas(recording, hierarchy=finer)
    assert spec.boundary_width.model_dump() == {"unit": "rows", "value": 1}
    assert "warning" not in spec.evidence.notes, "it is the width that was tested there"
    part = derive_stas(recording, hierarchy=supported.assign_attrs(boundary_width=18, token_grid=[5, 12, 12]))
    assert part.boundary_width.model_dump() == {"unit": "fraction", "value": 18 / 144}
    assert [part.boundary_width.tokens((5, side, side)) for side in (12, 6, 24)] == [18, 5, 72]


def test_profile_proposes_the_width(recording, supported) -> None:
    # Whether a width is proposed is the analysis' affair, and tested there; here it is what a spec makes of one.
    found = profile(recording, resamples=200, flips=200).assign_attrs(proposed_width=6)
    spec = derive_stas(recording, hierarchy=supported, profile=found)
    assert spec.boundary_width.model_dump() == {"unit": "rows", "value": 1}
    assert spec.evidence.provenance["boundary_width"] == "measured"
    assert "proposes 6 tokens" in spec.recommended.source["boundary_width"]
    assert "warning" not in spec.evidence.notes
    other = derive_stas(recording, hierarchy=supported, profile=found.assign_attrs(proposed_width=4))
    assert other.boundary_width.tokens((5, 6, 6)) == 4
    assert "tested with a boundary width of 6 tokens" in other.evidence.notes["warning"]
    none = derive_stas(recording, profile=found.assign_attrs(proposed_width=0, verdict="no plateau found"))
    assert none.evidence.provenance["boundary_width"] == "given", "the recording's"
    assert none.evidence.notes["profile"]["verdict"] == "no plateau found"
    same = derive_stas(recording, hierarchy=supported, boundary_width=6)
    assert "warning" not in same.evidence.notes, "6 tokens are the row that was tested"
    with pytest.raises(SpecError, match="the profile is of another model"):
        derive_stas(recording, profile=found.assign_attrs(recording_model={**MODEL, "weight_hash": "w1"}))
    with pytest.raises(SpecError, match="`profile` is no result"):
        derive_stas(recording, profile=supported)


def test_a_sweep_decides_what_is_not_given(recording, supported) -> None:
    decided = Swept(
        {"alpha_first": 1.3, "alpha_boundary": 1.1}, {"steps": 10}, {"alpha_first": "measured"}, {"why": "x"}
    )
    spec = derive_stas(recording, hierarchy=supported, sweep=decided, alpha_boundary=None)
    assert (spec.alpha_first, spec.alpha_boundary, spec.recommended.steps) == (1.3, None, 10)
    assert [spec.evidence.provenance[f"alpha_{role}"] for role in ("first", "boundary")] == ["measured", "given"]
    assert spec.recommended.source["alpha_first"] == "measured: by the sweep in evidence"
    assert spec.evidence.notes["sweep"] == {"why": "x"}
    with pytest.raises(SpecError, match="the sweep decides weight, and a STAS spec is derived from layers, channels"):
        derive_stas(recording, sweep=Swept({"weight": 1.0}, {}, {}, {}))


def test_several_blocks_and_named_ones(recording) -> None:
    spec = derive_stas(recording, layers=["blocks.2", "blocks.0"])
    assert spec.layers == ("blocks.2", "blocks.0")
    assert spec.channels == tuple(sorted(MASSIVE))
    for layers, words in (("blocks.9", "no block 'blocks.9'"), ([], "name at least one block")):
        with pytest.raises(SpecError, match=words):
            derive_stas(recording, layers=layers)
    with pytest.raises(SpecError, match=r"channels \[24\] can't be used"):
        derive_stas(recording, channels=[24])


def test_nothing_massive_derives_nothing(recording) -> None:
    rng = np.random.default_rng(0)
    flat = recording.copy()
    for name in ("h_mean_abs", "h_mean", "h_max_abs", "h_std"):
        flat[name] = (recording[name].dims, 1 + 0.01 * rng.random(recording[name].shape).astype(np.float32))
    with pytest.raises(SpecError, match=r"STAS has nothing to act on.*`layers` and `channels`"):
        derive_stas(flat)


def test_block_in_the_middle_that_was_not_recorded(recording) -> None:
    part = recording.isel(layer=[0, 3])
    with pytest.raises(SpecError, match="not that block, so it can't be told. Record all layers, or name `layers`"):
        derive_stas(part)
    assert derive_stas(part, layers="blocks.2").layers == ("blocks.2",)


def test_recording_of_images(recording) -> None:
    image = recording.isel(token=slice(0, 36)).drop_vars("role")
    with pytest.raises(SpecError, match="the recording is of images.*Detail Guidance"):
        derive_stas(image)
    with pytest.raises(SpecError, match="coordinates frame, row and column"):
        derive_stas(recording.drop_vars("frame"))


def test_same_evidence_same_bits(recording, supported, tmp_path: Path) -> None:
    one, two = (save_spec(derive_stas(recording, hierarchy=supported), tmp_path / f"{i}.json") for i in range(2))
    assert one.read_bytes() == two.read_bytes()
    assert str(tmp_path) not in one.read_text()


def test_recorded_pipeline_is_steered_by_what_was_derived(tmp_path: Path) -> None:
    """The whole way: record a pipeline with planted channels, derive, load, apply."""
    from workbench import open as open_recording
    from workbench import record

    pipe = planted_wan(TRUTHS["all three levels"])
    size = {"height": 96, "width": 96, "num_frames": 17}
    store = record(
        pipe, prompts=["a", "b", "c", "d", "e"], seeds=0, out=tmp_path / "x.zarr", steps=3, guidance_scale=3.0,
        tier="full", encode=encode_wan, progress=False, yes=True, **size,
    )  # fmt: skip
    recording = open_recording(store)
    spec = load_spec(save_spec(derive_stas(recording), tmp_path / "spec.json"))
    assert spec.channels == tuple(sorted(MASSIVE))
    seen: list[torch.Tensor] = []
    block = pipe.transformer.get_submodule(spec.layers[0])
    block.register_forward_hook(lambda m, a, out: seen.append(out.clone()))
    with apply(spec, pipe) as attached:
        pipe(**encode_wan(["a"]), num_inference_steps=3, guidance_scale=3.0, output_type="latent", **size)
    assert (attached.calls, attached.steered_calls) == (6, 4), "steps 0 and 1 of 3 are below 0.4"
    for channel in spec.channels:
        first, later = seen[0][0, :36, channel].abs(), seen[0][0, 36:, channel].abs()
        assert first.min() == first.max() == later.max(), "all at the largest value that there is"
        assert later.min() < later.max(), "the interior was left alone"
