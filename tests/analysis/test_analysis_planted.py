"""Known answers on real Stable Diffusion 3 pipelines: planted channels are found, random models yield nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted import PLANT, hook_record, planted_pipeline
from workbench.analysis.locate import locate, located_channels
from workbench.analysis.modulation import modulation

PROMPTS, SEEDS = ["red apple", "dog face", "blue heart", "pizza", "rocket"], [0, 1]
WRITER = f"transformer_blocks.{PLANT.block}"


@pytest.fixture(scope="module")
def recordings():
    kinds = ("random", "constant", "gate", "gate_falling")
    return {
        kind: hook_record(planted_pipeline(kind, 3), prompts=PROMPTS, seeds=SEEDS, steps=6, hidden=kind == "constant")
        for kind in kinds
    }


@pytest.mark.parametrize("branch", ["cond", "uncond"])
@pytest.mark.parametrize("kind", ["constant", "gate", "gate_falling"])
def test_locate_finds_exactly_the_planted_channels_with_their_signs(recordings, kind, branch):
    found = locate(recordings[kind], branch=branch)
    assert set(located_channels(found)) == set(PLANT.channels)
    for channel, sign in PLANT.channels.items():
        assert found["sign"].sel(channel=channel, layer="transformer_blocks.4") == sign
        massive = found["massive"].sel(criterion="workbench", channel=channel)
        assert massive.values.tolist() == [False] * (1 + PLANT.block) + [True] * 4, "from its block on, not before"
    assert found.attrs["verdict"] == "supported"


def test_nothing_is_found_in_a_random_model(recordings):
    found = locate(recordings["random"])
    assert located_channels(found) == []
    assert not found["massive"].sel(criterion=["workbench", "sun2024", "stas"]).any()
    assert found.attrs["verdict"] == "not supported"


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_in_other_random_models(seed):
    recording = hook_record(planted_pipeline("random", 100 + seed), prompts=PROMPTS, seeds=SEEDS, steps=3)
    assert located_channels(locate(recording)) == []


@pytest.mark.parametrize("kind", ["constant", "gate", "gate_falling"])
def test_writer_is_the_block_that_was_made_to_write(recordings, kind):
    found = modulation(recordings[kind])
    assert [str(name) for name in found["writer"].values] == [WRITER, WRITER]
    assert (found["write_share"].sel(layer=WRITER) > 0.9).all()
    gate = found["spike"].sel(layer=WRITER, modulation_term=PLANT.term)
    assert (gate > 5).all(), "the planted gate spikes at the planted channels"


@pytest.mark.parametrize(("kind", "direction"), [("constant", 0), ("gate", 1), ("gate_falling", -1)])
def test_direction_is_the_one_planted(recordings, kind, direction):
    found = modulation(recordings[kind])
    after = found["direction"].isel(layer=slice(1 + PLANT.block, None))
    assert (after == direction).all(), found["sigma_slope"].values


@pytest.mark.parametrize("kind", ["gate", "gate_falling"])
def test_gate_and_magnitude_move_together_where_the_gate_writes(recordings, kind):
    found = modulation(recordings[kind])
    correlation = found["writer_correlation"].sel(modulation_term=PLANT.term)
    assert (correlation > 0.9).all()


def test_constant_gate_has_no_correlation_to_report(recordings):
    found = modulation(recordings["constant"])
    assert np.isnan(found["writer_correlation"].sel(modulation_term=PLANT.term)).all()


def test_median_of_hidden_state_from_statistics_is_near_the_exact_one(recordings):
    from workbench.analysis.criteria import median_abs
    from workbench.analysis.visits import Visits

    recording = recordings["constant"]
    exact, approximate = Visits(recording, "cond"), Visits(recording.drop_vars("hidden"), "cond")
    for visit in [(0, 1, 0), (2, 3, 1), (5, 5, 5)]:
        assert median_abs(approximate, *visit) == pytest.approx(median_abs(exact, *visit), rel=0.05)


def test_the_same_holds_of_a_recording_made_by_the_package(recordings, tmp_path):
    # Two recorders that share no code, one store in between: the statistics and the answer must be the same.
    import workbench

    out = tmp_path / "gate.zarr"
    pipeline = planted_pipeline("gate", 3)
    workbench.record(pipeline, prompts=PROMPTS, seeds=SEEDS, out=out, steps=6, guidance_scale=3.0, progress=False)
    stored, hooked = workbench.open(out), recordings["gate"]
    names = list(zip(hooked["prompt"].values, hooked["seed"].values, strict=True))
    order = [names.index(pair) for pair in zip(stored["prompt"].values, stored["seed"].values, strict=True)]
    branches = list(stored["branch"].values)
    for name in ("h_mean_abs", "h_mean", "h_max_abs", "h_std", "modulation"):
        ours = stored[name].transpose(*hooked[name].dims).values
        # sums of 64 tokens taken in another order, and other batches, round differently in the last float32 digits
        truth = hooked[name].isel(sample=order).sel(branch=branches).values
        np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=2e-5, err_msg=name)
    assert set(located_channels(locate(stored))) == set(PLANT.channels)
    found = modulation(stored)
    assert [str(name) for name in found["writer"].values] == [WRITER, WRITER]
    assert (found["direction"].isel(layer=slice(1 + PLANT.block, None)) == 1).all()
