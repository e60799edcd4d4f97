"""A spec from a sweep: the best by measurement with its numbers, or the defaults and the plain word that nothing is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.analysis.test_sweep import BETTER, GOOD, NOTHING, made
from tests.planted import planted_pipeline
from tests.steering.test_derive import recorded
from workbench.analysis.sweep import sweep as analyse
from workbench.analysis.tables import write_table
from workbench.errors import AnalysisError, SpecError
from workbench.models import fingerprint
from workbench.sampling.sweep import settings_of, sweep
from workbench.steering.derive import DEFAULT_WEIGHT, derive_dg
from workbench.steering.spec import load_spec, save_spec


@pytest.fixture(scope="module")
def planted() -> Any:
    return planted_pipeline("constant", 3)


@pytest.fixture(scope="module")
def recording(planted: Any) -> xr.Dataset:
    return recorded(planted)


def swept(recording: xr.Dataset, **changes: Any) -> xr.Dataset:
    """A table of the recording's model: w = 2 and another layer do well, or whatever is given."""
    base = derive_dg(recording)
    chosen = {
        "w2": base.replace(weight=2.0, layer="transformer_blocks.3"),
        "mean": base.replace(weight=4.0, action="mean", window={"unit": "sigma", "low": 0.2, "high": 1.0}),
    }
    data = made({"w2": GOOD, "mean": BETTER} | changes)
    texts = ["", *(json.dumps(settings_of(spec)) for spec in chosen.values())]
    data = data.assign_coords(
        spec=("condition", np.array(texts)),
        role=("condition", np.array(["baseline", "dg", "dg"])),
        guidance_scale=("condition", np.array([7.0] * 3)),
    )
    data.attrs["settings"] = json.dumps({"steps": 13, "model": fingerprint(planted_pipeline("constant", 3))})
    data.attrs["over"] = json.dumps({"weight": [2.0, 4.0], "layer": ["auto"], "action": ["zero", "mean"]})
    return data


def test_best_setting_and_its_evidence_go_into_the_spec(recording: xr.Dataset, tmp_path: Path) -> None:
    spec = derive_dg(recording, sweep=swept(recording))
    assert (spec.layer, spec.weight, spec.action) == ("transformer_blocks.2", 4.0, "mean")
    assert (spec.window.low, spec.window.high) == (0.2, 1.0)
    provenance = spec.evidence.provenance
    assert provenance["weight"] == provenance["layer"] == provenance["action"] == "measured"
    assert provenance["channels"] == provenance["window"] == "given", "what the sweep did not vary, it did not measure"
    note: Any = spec.model_dump(mode="json")["evidence"]["notes"]["sweep"]
    assert (note["choice"], note["verdict"], note["mode"]) == ("mean", "supported", "cfg+dg")
    assert note["reporting"]["gain"] == pytest.approx(0.2, abs=0.03)
    assert note["choosing"]["gain_low"] > 0
    assert (note["n_choosing"], note["n_reporting"], note["replicates"]) == (32, 32, "64 prompts × 1 seed")
    assert len(note["fingerprint"]) == 16
    assert "largest lower bound of the gain" in note["rule"]
    assert load_spec(save_spec(spec, tmp_path / "spec.json")) == spec


def test_no_gain_is_said_and_the_defaults_stand(recording: xr.Dataset) -> None:
    spec = derive_dg(recording, sweep=swept(recording, w2=NOTHING, mean=NOTHING))
    plain = derive_dg(recording)
    assert settings_of(spec) == settings_of(plain)
    assert spec.weight == DEFAULT_WEIGHT
    assert spec.evidence.provenance == plain.evidence.provenance
    note: Any = spec.model_dump(mode="json")["evidence"]["notes"]["sweep"]
    assert note["verdict"] == "not supported"
    assert note["conclusion"] == "measured: no gain; what is here are the defaults"


def test_folder_table_and_result_give_the_same_spec(recording: xr.Dataset, tmp_path: Path) -> None:
    data = swept(recording)
    write_table(data, tmp_path, "sweep")
    specs = [derive_dg(recording, sweep=source) for source in (data, tmp_path, str(tmp_path), analyse(data))]
    assert len({spec.content_hash for spec in specs}) == 1


def test_controls_are_never_chosen(recording: xr.Dataset) -> None:
    data = swept(recording)
    data = data.assign_coords(role=("condition", np.array(["baseline", "dg", "control"])))
    assert derive_dg(recording, sweep=data).weight == 2.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"weight": 2.0}, SpecError, "the sweep decides layer, channels, .* and weight is given too"),
        ({"layer": "transformer_blocks.3", "action": "mean"}, SpecError, "layer, action is given too"),
        ({"mode": "dg"}, AnalysisError, "no mode 'dg'"),
        ({"sweep": "nowhere"}, AnalysisError, "nowhere has no table of measures"),
    ],
)
def test_what_cannot_be_combined_is_refused(recording: xr.Dataset, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        derive_dg(recording, **{"sweep": swept(recording), **options})


def test_sweep_of_another_model_is_refused(recording: xr.Dataset) -> None:
    data = swept(recording)
    data.attrs["settings"] = json.dumps({"steps": 20, "model": fingerprint(planted_pipeline("constant", 4))})
    with pytest.raises(SpecError, match="the sweep is of another model"):
        derive_dg(recording, sweep=data)


def test_a_real_sweep_goes_into_a_spec(planted: Any, recording: xr.Dataset, tmp_path: Path) -> None:
    spec = derive_dg(recording)
    prompts = [f"prompt {i}" for i in range(10)]
    sweep(
        spec, planted, over={"weight": [0.5]}, prompts=prompts, steps=1, modes="dg", out=tmp_path / "run",
        judge=None, reference=None, progress=False,
    )  # fmt: skip
    found = derive_dg(recording, sweep=tmp_path / "run")
    note: Any = found.model_dump(mode="json")["evidence"]["notes"]["sweep"]
    assert note["mode"] == "dg"
    assert note["over"] == ["weight"]
    assert "nothing here tells added detail" in note["rule"]


def test_recommended_settings_are_those_of_the_sweep_when_it_decides(recording: xr.Dataset) -> None:
    recorded = {"guidance_scale": 3.0, "steps": 4}
    recording = recording.assign_attrs(settings=recorded)
    best = derive_dg(recording, sweep=swept(recording))
    assert best.recommended is not None
    assert best.recommended.model_dump() == {"guidance_scale": 7.0, "steps": 13}
    none = derive_dg(recording, sweep=swept(recording, w2=NOTHING, mean=NOTHING))
    assert none.recommended is not None
    assert none.recommended.model_dump() == recorded, "what is here are the defaults, by the recording"
    for spec in (best, none):
        note: Any = spec.model_dump(mode="json")["evidence"]["notes"]["sweep"]
        assert (note["guidance_scale"], note["steps"]) == (7.0, 13)


@pytest.mark.parametrize("text", ["{", "[1]", '{"layer": "transformer_blocks.2"}'])
def test_settings_of_a_sweep_that_cannot_be_read_are_refused(recording: xr.Dataset, text: str) -> None:
    data = swept(recording)
    data = data.assign_coords(spec=("condition", np.array(["", text, text])))
    with pytest.raises(SpecError, match="in the sweep can't be read .*; run `workbench sweep` again"):
        derive_dg(recording, sweep=data)


def test_baselines_are_no_sweep(recording: xr.Dataset, tmp_path: Path) -> None:
    write_table(swept(recording), tmp_path, "baselines")
    with pytest.raises(AnalysisError, match="has format 'dit-workbench/baselines'"):
        derive_dg(recording, sweep=tmp_path)
