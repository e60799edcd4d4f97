"""Baselines: each is what its name says, by an independent way to make it; what a pipeline can't have is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.planted import hook_record, planted_pipeline
from tests.steering.helpers import make_spec
from tests.tiny import encode, tiny_pipeline
from workbench.analysis.effects import effects
from workbench.analysis.tables import open_table
from workbench.errors import SpecError, WorkbenchError
from workbench.sampling.baselines import PAG_SCALE, at_depth, baseline_conditions, baselines
from workbench.sampling.conditions import open_conditions, run_conditions
from workbench.sampling.sampler import sample

PROMPTS = ["red apple", "dog face"]
CALL: dict[str, Any] = {"prompts": PROMPTS, "seeds": [3], "steps": 4, "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def recording(pipe: Any) -> xr.Dataset:
    return hook_record(pipe, prompts=["a", "b"], seeds=[0], steps=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baselines") / "run"


@pytest.fixture(scope="module")
def table(pipe: Any, spec: Any, recording: xr.Dataset, folder: Path) -> xr.Dataset:
    return baselines(
        spec, pipe, recording=recording, out=folder, guidance_scale=3.0, judge=None, reference=None, **CALL
    )


@pytest.fixture(scope="module")
def run(table: xr.Dataset, folder: Path) -> xr.Dataset:
    return open_conditions(folder, table["condition"].values.tolist()).load()


def images(run: xr.Dataset, name: str) -> np.ndarray:
    return np.asarray(run["image"].sel(condition=name).values)


def test_every_baseline_is_there(table: xr.Dataset) -> None:
    names = table["condition"].values.tolist()
    assert names[:6] == ["plain", "cfg", "cfg-1.5x", "cfg-2x", "dg", "cfg+dg"]
    assert names[6:8] == ["dg,channels=matched,draw=0", "cfg+dg,channels=matched,draw=0"]
    assert names[8:] == ["cfg+slg", "pag", "cfg+pag"]
    assert "ordinary channels together hold" in table.attrs["left_out"][0], "so one draw is all there is"
    against = dict(zip(names, table["baseline"].values.tolist(), strict=True))
    assert (against["dg"], against["cfg+dg"], against["cfg-2x"], against["pag"]) == ("plain", "cfg", "cfg", "plain")
    assert (table["seconds"].values > 0).all()
    assert np.isfinite(effects(table)["seconds_per_step"].values).all()


def test_cfg_and_dg_are_the_samplers(pipe: Any, spec: Any, run: xr.Dataset) -> None:
    for name, scale, mode in (
        ("plain", 3, "plain"),
        ("cfg", 3, "cfg"),
        ("cfg-1.5x", 4.5, "cfg"),
        ("cfg+dg", 3, "cfg+dg"),
    ):
        made = sample(pipe, spec=spec, modes=mode, guidance_scale=scale, **CALL)
        np.testing.assert_array_equal(images(run, name), made.of(mode), err_msg=name)


def test_matched_channels_are_ordinary_and_draws_differ(pipe: Any, spec: Any, recording: xr.Dataset) -> None:
    def sets(of: Any) -> list[list[int]]:
        chosen, _ = baseline_conditions(of, pipe, recording=recording)
        return [c.identity["spec"]["channels"] for c in chosen if c.factors["role"] == "matched"]

    assert not {5, 41} & {channel for one in sets(spec) for channel in one}
    weak = sets(spec.replace(channels=[7]))  # holds little, so that there are many ways to match it
    assert weak[0] == weak[1] != weak[2] == weak[3]


def test_skip_layer_guidance_is_the_pipelines_own(pipe: Any, run: xr.Dataset) -> None:
    made = pipe(
        PROMPTS,
        num_inference_steps=4,
        guidance_scale=3.0,
        skip_guidance_layers=at_depth((7, 8, 9), 5),
        generator=[torch.Generator().manual_seed(3) for _ in PROMPTS],
        skip_layer_guidance_stop=0.2,
        output_type="np",
    ).images
    np.testing.assert_array_equal(images(run, "cfg+slg"), (made * 255).round().astype(np.uint8))


@torch.no_grad()
def plain_perturbed_attention(pipe: Any, block: int, guidance_scale: float) -> np.ndarray:
    """D_c + λ (D_c − D_p), D_p: image tokens of the block attend to themselves and the text alone. Own loop and mask."""
    transformer, scheduler = pipe.transformer, type(pipe.scheduler).from_config(pipe.scheduler.config)
    cond, uncond, pooled, pooled_uncond = pipe.encode_prompt(prompt=PROMPTS, prompt_2=None, prompt_3=None)
    scheduler.set_timesteps(4)
    generators = [torch.Generator().manual_seed(3) for _ in PROMPTS]
    size = transformer.config.sample_size
    x = torch.cat([torch.randn((1, 4, size, size), generator=g) for g in generators])
    attention = transformer.transformer_blocks[block].attn
    tokens = (size // 2) ** 2
    original = torch.nn.functional.scaled_dot_product_attention

    def masked(q: Any, k: Any, v: Any, **_: Any) -> Any:
        allowed = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool)
        allowed[:tokens, :tokens] = torch.eye(tokens, dtype=torch.bool)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~allowed, float("-inf")).softmax(-1)
        return weights @ v

    def predict(t: Any, text: Any, vector: Any, *, perturb: bool = False) -> Any:
        def before(*_: Any) -> None:
            torch.nn.functional.scaled_dot_product_attention = masked

        def after(*_: Any) -> None:
            torch.nn.functional.scaled_dot_product_attention = original

        handles = (
            [attention.register_forward_pre_hook(before), attention.register_forward_hook(after)] if perturb else []
        )
        try:
            return transformer(x, encoder_hidden_states=text, pooled_projections=vector, timestep=t.expand(2)).sample
        finally:
            after()
            for handle in handles:
                handle.remove()

    for t in scheduler.timesteps:
        c = predict(t, cond, pooled)
        d = c
        if guidance_scale > 1:
            u = predict(t, uncond, pooled_uncond)
            d = u + guidance_scale * (c - u)
        d = d + PAG_SCALE * (c - predict(t, cond, pooled, perturb=True))
        x = scheduler.step(d, t, x).prev_sample
    return x.numpy()


@pytest.mark.parametrize(("name", "scale"), [("pag", 1.0), ("cfg+pag", 3.0)])
def test_perturbed_attention_guidance_is_that_of_the_paper(pipe: Any, run: xr.Dataset, name: str, scale: float) -> None:
    expected = plain_perturbed_attention(pipe, at_depth((13,), 5)[0], scale)
    found = run["latent_final"].sel(condition=name).values
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_pipeline_is_left_as_it_was(pipe: Any, run: xr.Dataset) -> None:
    kinds = {type(processor).__name__ for processor in pipe.transformer.attn_processors.values()}
    assert kinds == {"JointAttnProcessor2_0"}
    assert type(pipe).__name__ == "StableDiffusion3Pipeline"


def test_an_interrupted_run_leaves_no_other_attention_behind(pipe: Any, spec: Any, tmp_path: Path) -> None:
    chosen = [c for c in baseline_conditions(spec, pipe)[0] if c.name == "pag"]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = pipe.transformer.transformer_blocks[4].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_conditions(pipe, chosen, out=tmp_path / "run", **CALL)
    handle.remove()
    assert {type(p).__name__ for p in pipe.transformer.attn_processors.values()} == {"JointAttnProcessor2_0"}


def test_what_a_model_cannot_have_is_named(spec: Any) -> None:
    pipe = tiny_pipeline(qk_norm="rms_norm")
    chosen, lacking = baseline_conditions(make_spec(pipe, channels=[3]), pipe)
    assert not [c for c in chosen if c.factors["role"] in ("pag", "matched")]
    assert lacking[0].startswith("DG with matched random channels: no recording")
    assert "leaves out this model's normalisation of queries and keys" in lacking[1]


def test_what_is_left_out_stands_in_the_table(pipe: Any, spec: Any, folder: Path, table: xr.Dataset) -> None:
    again = baselines(spec, pipe, out=folder, guidance_scale=3.0, judge=None, reference=None, **CALL)
    assert again.attrs["left_out"][0].startswith("DG with matched random channels")
    assert len(again["condition"]) == len(table["condition"]) - 2
    xr.testing.assert_identical(open_table(folder), again)


def test_embeddings_in_place_of_texts(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    tiny = make_spec(pipe, layer="transformer_blocks.1", channels=[3])
    made = baselines(tiny, pipe, out=tmp_path / "run", encode=encode, judge=None, reference=None, **CALL)
    assert "cfg+pag" in made["condition"].values


def test_other_models_spec_is_refused(spec: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="another model"):
        baselines(spec, tiny_pipeline(), out=tmp_path / "run", **CALL)


def test_depths() -> None:
    assert at_depth((7, 8, 9), 24) == [7, 8, 9]
    assert at_depth((7, 8, 9), 8) == [2, 3]
    assert at_depth((13,), 8) == [4]
    assert at_depth((7, 8, 9), 1) == [0]


def test_another_models_recording_and_a_scale_that_is_none_are_refused(pipe: Any, spec: Any, tmp_path: Path) -> None:
    other = hook_record(planted_pipeline("constant", 3, layers=5), prompts=["a"], seeds=[0], steps=2)
    with pytest.raises(WorkbenchError, match="the recording is of another model .* than the model that is compared"):
        baselines(spec, pipe, recording=other, out=tmp_path / "run", **CALL)
    for scale in (1.0, float("nan")):
        with pytest.raises(WorkbenchError, match=f"guidance_scale = {scale} is no CFG"):
            baselines(spec, pipe, guidance_scale=scale, out=tmp_path / "run", **CALL)
    assert not (tmp_path / "run").exists()
