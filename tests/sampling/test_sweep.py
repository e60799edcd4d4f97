"""The sweep: every combination from the same seeds, the baselines always, and nothing that the model does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.planted import hook_record, planted_pipeline
from tests.steering.helpers import make_spec
from workbench.analysis.sweep import sweep as analyse
from workbench.analysis.tables import open_table
from workbench.errors import AnalysisError, SpecError, WorkbenchError
from workbench.sampling.conditions import open_conditions
from workbench.sampling.sampler import sample
from workbench.sampling.sweep import sweep, sweep_conditions
from workbench.steering.spec import save_spec
from workbench.steering.windows import window

PROMPTS = ["red apple", "dog face"]
CALL: dict[str, Any] = {"prompts": PROMPTS, "seeds": [3], "steps": 2, "guidance_scale": 3.0, "progress": False}
BLIND: dict[str, Any] = {"judge": None, "reference": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep") / "run"


@pytest.fixture(scope="module")
def table(pipe: Any, spec: Any, folder: Path) -> xr.Dataset:
    over = {"layer": ["transformer_blocks.1", 3], "weight": [1.0, 4.0]}
    return sweep(spec, pipe, over=over, out=folder, **CALL, **BLIND)


def names(pipe: Any, spec: Any, **options: Any) -> list[str]:
    return [condition.name for condition in sweep_conditions(spec, pipe, **options)]


def test_every_combination_in_both_modes_and_the_baselines(table: xr.Dataset) -> None:
    assert table["condition"].values.tolist() == [
        "plain",
        "cfg",
        "dg,layer=1,weight=1",
        "cfg+dg,layer=1,weight=1",
        "dg,layer=1,weight=4",
        "cfg+dg,layer=1,weight=4",
        "dg,layer=3,weight=1",
        "cfg+dg,layer=3,weight=1",
        "dg,layer=3,weight=4",
        "cfg+dg,layer=3,weight=4",
    ]
    assert table["baseline"].values.tolist() == ["plain", "cfg"] * 5
    assert table["weight"].values[2:].tolist() == [1, 1, 4, 4] * 2
    assert set(table["layer"].values[2:].tolist()) == {"transformer_blocks.1", "transformer_blocks.3"}
    assert json.loads(table.attrs["over"])["weight"] == [1.0, 4.0]


def test_pictures_are_the_samplers_with_that_spec(pipe: Any, spec: Any, folder: Path, table: xr.Dataset) -> None:
    changed = spec.replace(layer="transformer_blocks.3", weight=4.0)
    made = sample(pipe, spec=changed, modes=("cfg", "cfg+dg"), batch_size=8, **CALL)
    run = open_conditions(folder, ["cfg", "cfg+dg,layer=3,weight=4"])
    np.testing.assert_array_equal(run["image"].values, made.images)


def test_an_image_is_like_its_own_baseline_of_the_same_mode(table: xr.Dataset) -> None:
    similar = table["value"].sel(measure="low_pass_similarity")
    assert similar.sel(condition=["plain", "cfg"]).values.tolist() == [[1.0, 1.0]] * 2
    assert (similar.values[2:] < 1).all()


def test_table_is_kept_beside_the_pictures(folder: Path, table: xr.Dataset) -> None:
    xr.testing.assert_identical(open_table(folder), table)
    with pytest.raises(AnalysisError, match="has no table of measures. Run the same"):
        open_table(folder / "nowhere")


def test_a_sweep_grows(pipe: Any, spec: Any, folder: Path, table: xr.Dataset) -> None:
    calls = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        over = {"layer": [1, 3], "weight": [1.0, 4.0, 9.0]}
        more = sweep(spec, pipe, over=over, out=folder, modes="dg", **CALL, **BLIND)
    finally:
        handle.remove()
    assert len(calls) == 2 * 2, "only w = 9 at two layers, two steps each"
    assert more["condition"].values.tolist()[0] == "plain"
    assert "cfg" not in more["condition"].values
    sweep(spec, pipe, over={"layer": [1, 3], "weight": [1.0, 4.0]}, out=folder, **CALL, **BLIND)  # for the other tests


def test_settings_named_in_words(pipe: Any, spec: Any) -> None:
    over: dict[str, Any] = {"channels": ["massive", "top1", [7, 3]], "window": ["all", "early", "sigma:0.2-0.5"]}
    found = names(pipe, spec.replace(evidence=_ranked(spec)), over=over, modes="dg")
    assert len(found) == 1 + 9
    assert "dg,layer=2,weight=1.5,channels=3-7,window=sigma-0.2-0.5" in found
    by_name = {c.name: c for c in sweep_conditions(spec.replace(evidence=_ranked(spec)), pipe, over=over, modes="dg")}
    used = by_name["dg,layer=2,weight=1.5,channels=top1,window=early"].identity["spec"]
    assert used["channels"] == [41]
    assert used["window"] == window("early").model_dump()


def _ranked(spec: Any) -> dict[str, Any]:
    evidence = spec.model_dump(mode="json")["evidence"]
    ratios = [{"channel": 5, "ratio_to_median": 9.0}, {"channel": 41, "ratio_to_median": 12.0}]
    return {**evidence, "channels": ratios, "notes": {"located_channels": [41, 5, 9]}}


def test_actions_and_retention(pipe: Any, spec: Any) -> None:
    over = {"action": ["zero", "mean", "scale"], "retention": [0.2, 0.5]}
    found = sweep_conditions(spec, pipe, over=over, modes="dg")
    assert [c.name.partition("weight=1.5,")[2] for c in found[1:]] == [
        "action=zero",
        "action=mean",
        "action=scale,retention=0.2",
        "action=scale,retention=0.5",
    ]
    assert [c.name for c in sweep_conditions(spec, pipe, over={"retention": [0.2]}, modes="dg")][1:] == [
        "dg,layer=2,weight=1.5,retention=0.2,action=scale"
    ]


def test_matched_channels_come_from_a_recording(pipe: Any, spec: Any) -> None:
    recording = hook_record(pipe, prompts=["a", "b"], seeds=[0], steps=3)
    ranked = spec.replace(evidence=_ranked(spec))
    found = sweep_conditions(ranked, pipe, over={"channels": ["massive", "matched"]}, modes="dg", recording=recording)
    matched = found[2].identity["spec"]["channels"]
    assert len(matched) > 2
    assert not {5, 41, 9} & set(matched), "no massive channel, also not one that is massive elsewhere"
    with pytest.raises(WorkbenchError, match="give recording="):
        names(pipe, spec, over={"channels": ["matched"]})


def test_layers_on_a_grid(pipe: Any, spec: Any) -> None:
    found = names(pipe, spec.replace(layer="transformer_blocks.4"), over={"layer": "auto"}, modes="dg")
    assert [name.split(",")[1] for name in found[1:]] == ["layer=1", "layer=2", "layer=3", "layer=4"]


def test_equal_settings_are_run_once(pipe: Any, spec: Any) -> None:
    assert len(names(pipe, spec, over={"weight": [1.0, 1.0], "layer": [2, "transformer_blocks.2"]}, modes="dg")) == 2


def test_long_names_are_cut_and_still_differ(pipe: Any, spec: Any) -> None:
    over = {"channels": [list(range(40)), [*range(39), 45]]}
    found = names(pipe, spec, over=over, modes="dg")
    assert len(set(found)) == 3
    assert max(map(len, found)) <= 110


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"over": {}}, WorkbenchError, "can't sweep over nothing; name one or more of .*channels.*layer.*weight"),
        ({"over": {"wheight": [1]}}, WorkbenchError, r"can't sweep over \['wheight'\]"),
        ({"over": {"evidence": [1]}}, WorkbenchError, "can't sweep over"),
        ({"over": {"weight": []}}, WorkbenchError, "no value for 'weight'"),
        ({"over": {"layer": ["transformer_blocks.99"]}}, SpecError, "no block 'transformer_blocks.99'"),
        ({"over": {"layer": [99]}}, SpecError, "no block 99; its blocks are 0 to 4"),
        ({"over": {"channels": [[]]}}, WorkbenchError, "a set of channels is empty"),
        ({"over": {"channels": [[64]]}}, SpecError, "no channel 64"),
        ({"over": {"channels": ["biggest"]}}, WorkbenchError, "channels 'biggest' are unknown"),
        ({"over": {"channels": ["top3"]}}, WorkbenchError, "ranks .* so there is no top 3"),
        ({"over": {"window": ["noon"]}}, WorkbenchError, "window 'noon' is unknown; give all, early"),
        ({"over": {"window": ["sigma:0.5-0.2"]}}, SpecError, "low = 0.5 is above high = 0.2"),
        ({"over": {"layer": [-100]}}, SpecError, "no block -100; its blocks are 0 to 4"),
        ({"over": {"layer": -1}}, SpecError, "no block -1; its blocks are 0 to 4"),
        ({"over": {"layer": ["-1"]}}, SpecError, "no block -1; its blocks are 0 to 4"),
        ({"over": {"layer": [True, 2.0]}}, SpecError, "no block True"),
        ({"over": {"layer": 2.5}}, SpecError, "no block 2.5"),
        ({"over": {"channels": 159}}, SpecError, "no channel 159"),
        ({"over": {"channels": [-1]}}, SpecError, "channel -1 is none; channels are whole numbers"),
        ({"over": {"channels": [[3, "x"]]}}, SpecError, "channel 'x' is none"),
        ({"over": {"channels": [1.5]}}, SpecError, "channels 1.5 are unknown"),
        ({"over": {"channels": [None]}}, SpecError, "channels None are unknown"),
        ({"over": {"window": 0.5}}, SpecError, "window 0.5 is unknown; give all, early, middle, late, or a unit"),
        ({"over": {"window": ["01"]}}, SpecError, "window '01' is unknown"),
        ({"over": {"window": ["0.2-0.6"]}}, SpecError, "window '0.2-0.6' does not say its unit"),
        ({"over": {"window": [(0.1, 0.2, 0.3)]}}, SpecError, r"window \(0.1, 0.2, 0.3\) is unknown"),
        ({"over": {"window": [{}]}}, SpecError, r"window \{\} can't be used \(unit: Field required\)"),
        ({"over": {"window": [{"unit": "sigma", "low": 0, "high": "x"}]}}, SpecError, "high: Input should be"),
        (
            {"over": {"window": ["sigma:0.2-6"]}},
            SpecError,
            r"high: Input should be less than or equal to 1\); give all",
        ),
        ({"over": {"weight": None}}, SpecError, "weight"),
        ({"over": {"weight": [1]}, "guidance_scale": 1.0}, WorkbenchError, "guidance_scale = 1.0 is no CFG"),
        ({"over": {"weight": [1]}, "guidance_scale": float("nan")}, WorkbenchError, "guidance_scale = nan is no CFG"),
        ({"over": {"weight": [1]}, "batch_size": 0}, WorkbenchError, "batch_size = 0 must be at least 1"),
        ({"over": {"weight": [1e9]}}, SpecError, "weight"),
        ({"over": {"weight": [1]}, "modes": "magic"}, WorkbenchError, r"modes \['magic'\] can't be swept"),
        ({"over": {"weight": [1]}, "prompts": None}, WorkbenchError, "ships no study prompts"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(
    pipe: Any, spec: Any, tmp_path: Path, options: Any, error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        sweep(spec, pipe, out=tmp_path / "run", **{**CALL, **options}, **BLIND)
    assert not (tmp_path / "run").exists()


def test_a_sweep_of_days_is_refused_with_its_estimate(pipe: Any, spec: Any, tmp_path: Path) -> None:
    over = {"weight": [float(w) for w in range(1, 60)]}
    with pytest.raises(WorkbenchError, match="would take about .* conditions, .* batches left.*--yes"):
        sweep(spec, pipe, over=over, out=tmp_path / "run", limit_s=0.05, **CALL, **BLIND)


def test_spec_file_and_analysis(pipe: Any, spec: Any, table: xr.Dataset, tmp_path: Path) -> None:
    path = save_spec(spec, tmp_path / "spec.json")
    one = sweep(path, pipe, over={"weight": [1.0]}, out=tmp_path / "run", modes="dg", **CALL, **BLIND)
    assert one["condition"].values.tolist() == ["plain", "dg,layer=2,weight=1"]
    result = analyse(table)
    assert result.attrs["verdict"] == "undecided", "two prompts decide nothing"
    assert result.attrs["gauge"] == "edge_energy"
    other = make_spec(pipe, layer="transformer_blocks.0")
    assert "dg,layer=0,weight=2" in names(pipe, other, over={"weight": [2.0]})


def test_one_value_stands_for_a_list_of_one_and_a_span_for_a_window(pipe: Any, spec: Any) -> None:
    over = {"layer": "1", "channels": [7, np.int64(9)], "window": "sigma:0.2-0.6", "weight": 2}
    found = sweep_conditions(spec, pipe, over=over, modes="dg")[1:]
    assert [c.name for c in found] == [f"dg,layer=1,weight=2,channels={c},window=sigma-0.2-0.6" for c in (7, 9)]
    assert [c.identity["spec"]["channels"] for c in found] == [[7], [9]]
    assert found[0].identity["spec"]["window"] == {"unit": "sigma", "low": 0.2, "high": 0.6}
    assert names(pipe, spec, over={"channels": 7}, modes="dg")[1:] == ["dg,layer=2,weight=1.5,channels=7"]


def test_settings_that_differ_are_all_run(pipe: Any, spec: Any) -> None:
    over = {"weight": [1.2345678, 1.2345679], "window": ["sigma:0.1234567-1", "sigma:0.1234568-1"]}
    found = sweep_conditions(spec, pipe, over=over, modes="dg")[1:]
    assert len({c.name for c in found}) == len({json.dumps(c.whole_identity) for c in found}) == 4
    assert found[0].name == "dg,layer=2,weight=1.2345678,window=sigma-0.1234567-1", "the same name in whatever sweep"
    # Two schedules that read the same in a name's letters.
    knots = [{"knots": [[0.1, 1.0], [0.2, w]]} for w in (1.0, -1.0)]
    assert len(set(names(pipe, spec, over={"weight": knots}, modes="dg"))) == 3
    retention = {"knots": [[0.0, 0.5], [1.0, 1.0]]}
    again = sweep_conditions(spec, pipe, over={"retention": [retention, dict(retention)]}, modes="dg")
    assert len(again) == 2, "equal settings are run once"


def test_equal_names_of_other_settings_get_one_of_their_own(pipe: Any, spec: Any) -> None:
    over: dict[str, Any] = {"channels": ["top1", [5]]}
    strong = spec.replace(evidence=_ranked(spec))
    assert len(names(pipe, strong, over=over, modes="dg")) == 3
    found = sweep_conditions(
        strong, pipe, over={"window": [{"unit": "step_fraction", "low": 0, "high": 0.5}, "sigma:0-0.5"]}
    )
    assert len({c.name for c in found}) == len(found) == 2 + 4


@pytest.mark.parametrize(
    ("evidence", "over", "words"),
    [
        ({"notes": {"located_channels": ["x"]}}, "matched", r"located_channels is \['x'\], and should be a list"),
        ({"notes": {"located_channels": 5}}, "matched", "located_channels is 5"),
        ({"notes": {"located_channels": [-1]}}, "matched", "located_channels is"),
        ({"channels": [{"foo": 1}]}, "top1", "evidence.channels holds .*foo.*Derive the spec again"),
        ({"channels": [{"channel": 5, "ratio_to_median": "big"}]}, "top1", "evidence.channels holds .*big"),
    ],
)
def test_evidence_of_someone_elses_spec_is_not_trusted(
    pipe: Any, spec: Any, evidence: dict[str, Any], over: str, words: str
) -> None:
    recording = hook_record(pipe, prompts=["a"], seeds=[0], steps=2)
    theirs = spec.replace(evidence=spec.model_dump(mode="json")["evidence"] | evidence)
    with pytest.raises(SpecError, match=words):
        sweep_conditions(theirs, pipe, over={"channels": [over]}, recording=recording)


def test_a_recording_of_another_model_matches_nothing_here(pipe: Any, spec: Any, tmp_path: Path) -> None:
    other = hook_record(planted_pipeline("constant", 3, layers=5), prompts=["a"], seeds=[0], steps=2)
    with pytest.raises(WorkbenchError, match="the recording is of another model .* than the model that is swept"):
        sweep(spec, pipe, over={"channels": ["matched"]}, recording=other, out=tmp_path / "run", **CALL, **BLIND)
    assert not (tmp_path / "run").exists()


def test_images_are_added_and_the_table_is_the_last_calls(pipe: Any, spec: Any, tmp_path: Path) -> None:
    for weight in (1.0, 2.0):
        sweep(spec, pipe, over={"weight": weight}, out=tmp_path / "run", modes="dg", **CALL, **BLIND)
    assert open_table(tmp_path / "run", "sweep")["condition"].values.tolist() == ["plain", "dg,layer=2,weight=2"]
    assert open_conditions(tmp_path / "run").sizes["condition"] == 3
