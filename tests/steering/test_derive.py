"""From recordings with a known answer to a spec, and on to the pipeline that was recorded."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.planted import PLANT, hook_record, planted_pipeline
from workbench.errors import AnalysisError, SpecError
from workbench.models import fingerprint
from workbench.steering.attach import apply
from workbench.steering.derive import DEFAULT_WEIGHT, derive_dg
from workbench.steering.spec import load_spec, save_spec

PROMPTS, SEEDS = ["red apple", "dog face", "blue heart", "pizza", "rocket"], [0]


def recorded(pipe: Any, **options: Any) -> xr.Dataset:
    recording = hook_record(pipe, prompts=PROMPTS, seeds=SEEDS, steps=4, **options)
    return recording.assign_attrs(
        model=fingerprint(pipe),
        layout={"family": "sd3", "blocks": 5, "channels": 64},
        schema_version=1,
        settings_fingerprint="0011",
        settings={"guidance_scale": 3.0, "steps": 4},
        path="/somewhere/on/this/machine/planted.zarr",
    )


@pytest.fixture(scope="module")
def planted() -> Any:
    return planted_pipeline("constant", 3)


@pytest.fixture(scope="module")
def recording(planted: Any) -> xr.Dataset:
    return recorded(planted)


@pytest.fixture(scope="module")
def silent() -> xr.Dataset:
    return recorded(planted_pipeline("random", 3))


def test_planted_channels_at_the_middle_block(recording) -> None:
    spec = derive_dg(recording)
    assert spec.channels == tuple(sorted(PLANT.channels))
    # Block 1 writes the channels, so they are in the states that enter blocks 2, 3, 4; half of 5 blocks is 2.5.
    assert spec.layer == "transformer_blocks.2"
    assert spec.weight == DEFAULT_WEIGHT
    assert spec.window.everywhere
    assert (spec.recommended.guidance_scale, spec.recommended.steps) == (3.0, 4)
    evidence = spec.evidence
    assert evidence.n_samples == len(PROMPTS) * len(SEEDS)
    assert [row["channel"] for row in evidence.channels] == list(spec.channels)
    for row in evidence.channels:
        assert row["layer"] == "transformer_blocks.1"
        assert row["sign"] == PLANT.channels[row["channel"]]
        assert row["massive_here"]
        assert row["massive_in_model"]
        assert row["ratio_to_median_low"] > 5
    assert evidence.provenance["channels"] == evidence.provenance["layer"] == "measured"
    assert evidence.provenance["weight"] == evidence.provenance["window"] == "default"
    assert evidence.store == {
        "name": "planted.zarr",
        "schema_version": 1,
        "settings_fingerprint": "0011",
        "tier": None,
        "dtype": None,
        "git_revision": None,
    }


def of_depth(recording: xr.Dataset, blocks: int) -> xr.Dataset:
    """The recording as if it were of the first blocks of a model that has `blocks` of them."""
    return recording.assign_attrs(layout={**recording.attrs["layout"], "blocks": blocks})


def test_nearest_to_half_the_models_depth_not_the_recordings(recording) -> None:
    """Written by block 1, so blocks 2, 3 and 4 are entered by it."""
    for blocks, expected in ((5, 2), (6, 3), (7, 3), (8, 4), (9, 4)):
        spec = derive_dg(of_depth(recording, blocks))
        assert spec.layer == f"transformer_blocks.{expected}", blocks
        assert spec.evidence.notes["blocks_in_model"] == blocks
        assert spec.evidence.notes["blocks_recorded"] == 5


def test_half_depth_is_not_guessed_from_some_of_the_blocks(recording) -> None:
    with pytest.raises(SpecError, match="may choose block 5 of the model's 10.*Record all layers, or name `layer`"):
        derive_dg(of_depth(recording, 10))
    late = recording.isel(layer=[0, 3, 4, 5])  # input and blocks 2, 3, 4; what enters block 2 is missing
    with pytest.raises(SpecError, match="may choose block 2 of the model's 5"):
        derive_dg(late)
    assert derive_dg(late, layer="transformer_blocks.3").channels == (5, 41)
    enough = recording.isel(layer=[2, 3, 4])  # blocks 1, 2, 3: block 2 is nearest to the middle, whatever the rest
    assert derive_dg(enough).layer == "transformer_blocks.2"
    with pytest.raises(SpecError, match=r"does not say how many blocks.*Name `layer`"):
        derive_dg(recording.assign_attrs(layout={"family": "sd3"}))


def test_what_was_not_decided_is_not_called_measured(recording) -> None:
    """One sample may be chance, a ranking finds channels in any model."""
    decided = derive_dg(recording).evidence
    assert decided.notes["verdict"] == "supported"
    assert "warning" not in decided.notes
    cases = [(recording.isel(sample=[0]), {}), (recording, {"criterion": "top_k", "k": 2})]
    for given, options in cases:
        evidence = derive_dg(given, **options).evidence
        assert evidence.provenance["channels"] == evidence.provenance["layer"] == "undecided"
        assert evidence.notes["verdict"] == "undecided"
        assert evidence.notes["verdict_reason"] in evidence.notes["warning"]
    part = derive_dg(recording, layer="transformer_blocks.3", criterion="top_k", k=2).evidence
    assert (part.provenance["layer"], part.provenance["channels"]) == ("given", "undecided")
    named = derive_dg(recording, layer="transformer_blocks.3", channels=[5], criterion="top_k", k=2).evidence
    assert "warning" not in named.notes


def test_the_command_line_says_what_was_not_decided(recording, tmp_path, capsys) -> None:
    from workbench.cli import show

    show.derived(derive_dg(recording), tmp_path / "spec.json")
    assert "decided nothing" not in capsys.readouterr().out
    show.derived(derive_dg(recording, criterion="top_k", k=2), tmp_path / "spec.json")
    assert "decided nothing" in capsys.readouterr().out


def with_late_channel(recording: xr.Dataset, channel: int, size: float) -> xr.Dataset:
    """The recording with one more constant channel, in the output of block 3 (and in all of it that follows)."""
    changed = recording.copy(deep=True)
    for name in ("h_mean_abs", "h_mean", "h_max_abs"):
        changed[name].loc[{"layer": ["transformer_blocks.3", "transformer_blocks.4"], "channel": channel}] = size
    changed["h_std"].loc[{"layer": ["transformer_blocks.3", "transformer_blocks.4"], "channel": channel}] = 0.0
    return changed


def test_weaker_channels_that_join_late_do_not_pull_the_block_to_the_end(recording) -> None:
    found = recording["h_mean_abs"].sel(branch="cond", layer="transformer_blocks.3", channel=5).mean().item()
    weaker = derive_dg(with_late_channel(recording, 20, 0.8 * found))
    assert weaker.evidence.notes["located_channels"][-1] == 20
    assert (weaker.layer, weaker.channels) == ("transformer_blocks.2", (5, 41))
    stronger = derive_dg(with_late_channel(recording, 20, 8 * found))
    assert stronger.evidence.notes["located_channels"][0] == 20
    assert (stronger.layer, stronger.channels) == ("transformer_blocks.4", (5, 20, 41))


def test_same_recording_same_spec(recording) -> None:
    assert derive_dg(recording).to_json() == derive_dg(recording).to_json()


def test_derived_spec_acts_on_the_recorded_pipeline(recording, planted, tmp_path) -> None:
    spec = load_spec(save_spec(derive_dg(recording), tmp_path / "spec.json"))

    def run() -> torch.Tensor:
        return planted(
            "red apple",
            num_inference_steps=4,
            guidance_scale=3.0,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images

    plain = run()
    with apply(spec, planted) as attached:
        assert not torch.equal(run(), plain)
    assert attached.degraded_passes == 4


def test_what_is_given_is_taken_and_said(recording) -> None:
    window = {"unit": "step_fraction", "low": 0.0, "high": 0.5}
    spec = derive_dg(recording, layer="transformer_blocks.4", channels=[41, 7], weight=2, window=window)
    assert (spec.layer, spec.channels, spec.weight) == ("transformer_blocks.4", (7, 41), 2.0)
    assert spec.window.model_dump() == window
    assert {spec.evidence.provenance[key] for key in ("layer", "channels", "weight", "window")} == {"given"}
    assert [row["massive_here"] for row in spec.evidence.channels] == [False, True]


def test_other_actions_and_schedules_are_given(recording) -> None:
    ramp = {"knots": [[0.0, 0.0], [1.0, 2.0]]}
    spec = derive_dg(recording, action="scale", retention=np.float32(0.5), weight=ramp)
    assert (spec.action, spec.retention, spec.weight_at(0.25)) == ("scale", 0.5, 0.5)
    provenance = spec.evidence.provenance
    assert [provenance[key] for key in ("action", "retention", "weight", "layer")] == ["given"] * 3 + ["measured"]
    mean = derive_dg(recording, action="mean")
    assert (mean.retention, mean.channels, mean.layer) == (None, spec.channels, spec.layer)
    with pytest.raises(SpecError, match="`scale` needs a retention"):
        derive_dg(recording, action="scale")


def test_nothing_massive_nothing_derived(silent) -> None:
    with pytest.raises(SpecError, match=r"not derived: the criterion 'workbench' finds no massive activation in 5 sam"):
        derive_dg(silent)
    assert derive_dg(silent, layer="transformer_blocks.2", channels=[1]).channels == (1,), "given by hand it is allowed"


def test_not_massive_where_it_is_asked_for(recording) -> None:
    with pytest.raises(SpecError, match=r"none is massive in the state that enters transformer_blocks\.0"):
        derive_dg(recording, layer="transformer_blocks.0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "transformer_blocks.9"}, r"no block 'transformer_blocks\.9'; it has .*\.0 … .*\.4 \(5 blocks\)"),
        ({"layer": "input"}, "no block 'input'"),
        ({"channels": [5, 64]}, r"channels \[64\] can't be used; the recording has channels 0 to 63"),
        ({"channels": []}, "at least one"),
        ({"weight": float("inf")}, "JSON"),
        ({"weight": 1000}, "`weight`"),
        ({"window": {"unit": "sigma", "low": 0.5, "high": 0.2}}, "`window`"),
    ],
)
def test_what_does_not_exist_is_refused(recording, options, words) -> None:
    with pytest.raises(SpecError, match=words):
        derive_dg(recording, **options)


def test_entering_state_not_recorded(recording) -> None:
    gap = recording.isel(layer=[1, 2, 4, 5])  # blocks 0, 1, 3, 4: what enters block 3 is missing
    with pytest.raises(SpecError, match=r"the state that enters transformer_blocks\.3 was not recorded"):
        derive_dg(gap, layer="transformer_blocks.3")
    spec = derive_dg(gap, layer="transformer_blocks.3", channels=[5])
    assert "ratio_to_median" not in spec.evidence.channels[0]


def test_recording_that_does_not_name_its_model(recording) -> None:
    with pytest.raises(SpecError, match="does not say which model"):
        derive_dg(recording.drop_attrs())


def test_not_finite_states_are_refused(recording) -> None:
    broken = recording.copy()
    broken["h_mean_abs"] = broken["h_mean_abs"].where(broken["channel"] != 3, np.nan)
    with pytest.raises(AnalysisError):
        derive_dg(broken)
