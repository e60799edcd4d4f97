"""Known answers on real pipelines: what was planted through embedding or latent is found there, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted import PLANT, hook_experiment, planted_pipeline
from workbench.analysis.causal import causal, diagonal
from workbench.analysis.locate import locate, located_channels
from workbench.analysis.modulation import modulation

PROMPTS, SEEDS = ["red apple", "dog face", "blue heart", "pizza", "rocket", "green car"], [0, 1]
KINDS = ("constant", "gate", "noise_only", "both", "random")


@pytest.fixture(scope="module")
def experiments():
    return {
        kind: hook_experiment(
            planted_pipeline(kind, 3),
            prompts=PROMPTS,
            seeds=SEEDS,
            steps=8,
            grid=3,
            mediate=PLANT.block if kind == "both" else None,
        )
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def results(experiments):
    return {kind: causal(experiments[kind]) for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("constant", "not supported"),
        ("gate", "supported"),
        ("noise_only", "not supported"),
        ("both", "supported"),
        ("random", "undecided"),
    ],
)
def test_verdict_is_what_was_planted(results, kind, verdict):
    assert results[kind].attrs["verdict"] == verdict, results[kind].attrs["verdict_reason"]
    if kind != "random":
        assert set(results[kind]["channel"].values) == set(PLANT.channels)
        assert set(results[kind]["channel_verdict"].values) == {verdict}


def test_latent_is_found_where_it_was_planted(results):
    for kind in ("noise_only", "both"):
        assert (results[kind]["effect_overall_low"].sel(factor="latent") > 0.5).all()
    for kind in ("constant", "gate"):
        assert (results[kind]["effect_overall_high"].sel(factor="latent") < 0.2).all()
    assert (results["noise_only"]["share_overall"].sel(factor="latent") > 0.95).all()
    assert (results["gate"]["share_overall"].sel(factor="embedding") > 0.95).all()


def test_along_the_trajectory_latent_and_embedding_look_alike(experiments):
    # the reason for the experiment: observed, `noise_only` grows with noise as much as `gate` does
    for kind in ("gate", "noise_only"):
        plain = diagonal(experiments[kind])
        assert set(located_channels(locate(plain))) == set(PLANT.channels)
        assert (modulation(plain)["sigma_slope"].isel(layer=-1) > 0.5).all()


def test_before_the_block_that_writes_the_embedding_does_nothing(results):
    effect = results["gate"]["effect"].sel(factor="embedding")
    assert (effect.isel(layer=slice(0, 1 + PLANT.block)) < 0.02).all()
    assert (effect.isel(layer=slice(1 + PLANT.block, None)) > 0.5).all()


def test_the_effect_goes_with_the_gate_and_not_with_shift_and_scale(results):
    mediated = results["both"]["mediated"].sel(swap_block=f"transformer_blocks.{PLANT.block}")
    np.testing.assert_allclose(mediated.sel(swap="gate"), 1.0, atol=0.1)
    np.testing.assert_allclose(mediated.sel(swap="shift_scale"), 0.0, atol=0.1)
    np.testing.assert_allclose(mediated.sel(swap="modulation"), 1.0, atol=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_other_weights_never_turn_noise_into_modulation(seed):
    pipeline = planted_pipeline("noise_only", 50 + seed)
    result = causal(hook_experiment(pipeline, prompts=PROMPTS[:5], seeds=[0], grid=3), permutations=199, resamples=200)
    assert result.attrs["verdict"] == "not supported", result.attrs["verdict_reason"]


@pytest.mark.slow
def test_the_same_holds_of_experiments_recorded_by_the_package(experiments, tmp_path):
    # two recorders that share no code must find the same cells, and the analysis the same answer
    import workbench

    block = f"transformer_blocks.{PLANT.block}"
    stores = {}
    for name, options in (("timestep-swap", {"mediate": [block]}), ("prompt-swap", {}), ("seed-swap", {})):
        stores[name] = workbench.record(
            planted_pipeline("both", 3), prompts=PROMPTS, seeds=SEEDS, out=tmp_path / name, steps=8, guidance_scale=3.0,
            experiment=name, grid=3, progress=False, **options,
        )  # fmt: skip
    swap, prompt, seed = (workbench.open(store) for store in stores.values())
    ours = causal(swap, prompt_swap=prompt, seed_swap=seed)
    hooked = causal(experiments["both"])
    assert ours.attrs["verdict"] == "supported"
    np.testing.assert_allclose(ours["surface"], hooked["surface"], atol=1e-4)
    np.testing.assert_allclose(ours["mediated"], hooked["mediated"], atol=1e-3)
    assert (ours["prompt_swap_deviation"].isel(layer=-1) < 0.1).all()
    # a deviation of 0.02 over six prompts: a few prompts more would show that it is below 0.1
    assert "it is not known whether the prompt alone moves these channels by 0.1" in ours.attrs["prompt_swap_reason"]
