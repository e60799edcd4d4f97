"""Conditions × samples: the same pictures as the sampler's, kept batch by batch, never mixed with other settings."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

from tests import children
from tests.planted import planted_pipeline
from tests.steering.helpers import make_spec
from tests.tiny import encode, tiny_pipeline, tiny_with_texts
from tests.tiny_flux2 import SIZE, encode_flux2, tiny_flux2
from workbench.errors import StoreError, WorkbenchError
from workbench.sampling.baselines import baseline_conditions
from workbench.sampling.condition_store import intact_images
from workbench.sampling.conditions import Condition, duration, open_conditions, run_conditions
from workbench.sampling.sampler import sample
from workbench.sampling.sweep import steered
from workbench.steering.attach import apply
from workbench.steering.detail_guidance import METHOD_VERSION
from workbench.steering.disruption import Disruption
from workbench.store.lock import locked

PROMPTS = ["red apple", "dog face", "blue heart"]
CALL: dict[str, Any] = {"prompts": PROMPTS, "seeds": [3, 8], "steps": 3, "batch_size": 4, "progress": False}


def conditions(spec: Any) -> list[Condition]:
    weight = spec.weight if spec is not None else None
    return [
        Condition("plain", {"mode": "plain"}, 1.0),
        Condition("cfg", {"mode": "cfg", "scale": 3.0}, 3.0),
        Condition(
            "dg", {"mode": "dg", "weight": 1.5}, 1.0, steer=lambda pipe: apply(spec, pipe), identity={"w": weight}
        ),
    ]


@pytest.fixture(scope="module")
def run(pipe: Any, spec: Any, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return run_conditions(pipe, conditions(spec), out=tmp_path_factory.mktemp("c") / "run", **CALL)


def arrays(data: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(key): data[key].values for key in ("image", "latent_final", "finite")}


def test_pictures_are_those_of_the_sampler(pipe: Any, spec: Any, run: xr.Dataset) -> None:
    same = {k: v for k, v in CALL.items() if k != "progress"}
    made = sample(pipe, modes=("plain", "cfg", "dg"), guidance_scale=3.0, spec=spec, progress=False, **same)
    for mode in ("plain", "cfg", "dg"):
        np.testing.assert_array_equal(run["image"].sel(condition=mode).values, made.of(mode))
        np.testing.assert_array_equal(
            run["latent_final"].sel(condition=mode).values, made.latents[made.modes.index(mode)]
        )


def test_result_is_labelled(run: xr.Dataset) -> None:
    assert run["prompt"].values.tolist() == [p for p in PROMPTS for _ in (3, 8)]
    assert run["seed"].values.tolist() == [3, 8] * 3
    assert run["mode"].values.tolist() == ["plain", "cfg", "dg"]
    np.testing.assert_array_equal(run["weight"].values, [np.nan, np.nan, 1.5])
    assert run["image"].dims == ("condition", "sample", "y", "x", "rgb")
    assert run["image"].dtype == np.uint8
    assert run["done"].all()
    assert run["finite"].all()
    assert run.attrs["not_finite"] == []
    assert (run["seconds"].values > 0).all()
    assert run.chunks, "read lazily"


def test_complete_conditions_are_not_run_again_and_more_can_be_added(pipe: Any, spec: Any, tmp_path: Path) -> None:
    first, *others = conditions(spec)
    calls = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        run_conditions(pipe, [first], out=tmp_path / "run", **CALL)
        assert len(calls) == 2 * 3, "two batches of three steps"
        run_conditions(pipe, [first], out=tmp_path / "run", **CALL)
        assert len(calls) == 2 * 3
        run_conditions(pipe, [*others, first], out=tmp_path / "run", **CALL)
    finally:
        handle.remove()
    assert len(calls) == 2 * 3 * 3, "plain, cfg and dg, each once"
    assert open_conditions(tmp_path / "run")["condition"].values.tolist() == ["cfg", "dg", "plain"]


def test_order_of_conditions_does_not_matter(pipe: Any, spec: Any, run: xr.Dataset, tmp_path: Path) -> None:
    other = run_conditions(pipe, conditions(spec)[::-1], out=tmp_path / "run", **CALL)
    assert other["condition"].values.tolist() == ["dg", "cfg", "plain"]
    for key, values in arrays(other.isel(condition=slice(None, None, -1))).items():
        np.testing.assert_array_equal(values, run[key].values, err_msg=key)


def wait_two_steps_into_the_second_condition(out: Path, there: Event) -> None:
    pipe = planted_pipeline("constant")
    calls = []

    def wait(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 8:
            there.set()
            time.sleep(60)

    pipe.transformer.register_forward_pre_hook(wait)
    run_conditions(pipe, conditions(make_spec(pipe, recommended={"guidance_scale": 3.0, "steps": 3})), out=out, **CALL)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_equal_bits(pipe: Any, spec: Any, run: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    there = children.event()
    child = children.start(wait_two_steps_into_the_second_condition, out, there)
    assert there.wait(60), "it did not come that far"
    child.kill()
    child.join()
    with pytest.raises(StoreError, match="has no condition 'cfg'"):
        open_conditions(out, ["cfg"])
    assert open_conditions(out)["done"].values.tolist() == [True]
    resumed = run_conditions(pipe, conditions(spec), out=out, **CALL)
    for key, values in arrays(resumed).items():
        np.testing.assert_array_equal(values, run[key].values, err_msg=key)


def test_ctrl_c_keeps_the_batches_that_are_done(pipe: Any, spec: Any, run: xr.Dataset, tmp_path: Path) -> None:
    calls = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    handle = pipe.transformer.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_conditions(pipe, conditions(spec), out=tmp_path / "run", **CALL)
    finally:
        handle.remove()
    part = open_conditions(tmp_path / "run")
    assert part["done"].values.tolist() == [False]
    assert part["finite"].values.tolist() == [[True] * 4 + [False] * 2]
    assert np.isnan(part["latent_final"].values[0, 4:]).all(), "what is absent reads as NaN, not as 0"
    before = len(calls)
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    resumed = run_conditions(pipe, conditions(spec)[:1], out=tmp_path / "run", **CALL)
    handle.remove()
    assert len(calls) - before == 3, "the batch that was interrupted, and no other"
    np.testing.assert_array_equal(resumed["image"].values, run["image"].values[:1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 2}, "steps: 3 there, 2 now"),
        ({"prompts": PROMPTS[:2]}, "prompts: "),
        ({"seeds": [3, 9]}, r"seeds: [3, 8] there, [3, 9] now"),
        ({"batch_size": 2}, "batch_size: 4 there, 2 now"),
        ({"height": 16}, "height: null there, 16 now"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(pipe: Any, run: xr.Dataset, change: Any, words: str) -> None:
    with pytest.raises(StoreError, match=re.escape(words)):
        run_conditions(pipe, [Condition("plain", {}, 1.0)], out=run.attrs["path"], **{**CALL, **change})


def test_another_model_or_scheduler_in_the_same_folder_is_refused(run: xr.Dataset) -> None:
    with pytest.raises(StoreError, match="other settings .*; model: "):
        run_conditions(planted_pipeline("constant", seed=1), [Condition("a", {}, 1.0)], out=run.attrs["path"], **CALL)
    pipe = planted_pipeline("constant")
    pipe.scheduler = type(pipe.scheduler)(shift=5.0)
    with pytest.raises(StoreError, match="other settings .scheduler: "):
        run_conditions(pipe, [Condition("a", {}, 1.0)], out=run.attrs["path"], **CALL)


def test_a_condition_that_does_something_else_under_the_same_name_is_refused(pipe: Any, run: xr.Dataset) -> None:
    with pytest.raises(StoreError, match="the condition 'cfg' in .*guidance_scale: 3.0 there, 4.0 now"):
        run_conditions(pipe, [Condition("cfg", {"mode": "cfg", "scale": 3.0}, 4.0)], out=run.attrs["path"], **CALL)


def test_a_folder_of_something_else_is_left_alone(pipe: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="not a folder of conditions"):
        run_conditions(pipe, [Condition("plain", {}, 1.0)], out=tmp_path, **CALL)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(StoreError, match="not a folder of conditions"):
        open_conditions(tmp_path / "nowhere")


def test_results_that_are_not_finite_are_named_and_the_run_goes_on(pipe: Any, tmp_path: Path) -> None:
    @contextlib.contextmanager
    def poisoned(pipe: Any) -> Iterator[None]:
        def poison(module: Any, args: Any, out: Any) -> Any:
            out[0][1] = float("nan")  # one sample of the batch
            return out

        handle = pipe.transformer.register_forward_hook(poison)
        try:
            yield
        finally:
            handle.remove()

    chosen = [Condition("bad", {}, 1.0, steer=poisoned), Condition("plain", {}, 1.0)]
    result = run_conditions(pipe, chosen, out=tmp_path / "run", **CALL)
    assert result.attrs["not_finite"] == ["bad: 'red apple', seed 8", "bad: 'blue heart', seed 8"]
    np.testing.assert_array_equal(result["finite"].values.sum(axis=1), [4, 6])
    assert np.isnan(result["latent_final"].values[0, 1]).any()
    assert result["done"].all()


def test_conditions_can_report_numbers_of_their_samples(pipe: Any, tmp_path: Path) -> None:
    class Steering:
        batches = 0

        def report(self) -> dict[str, list[float]]:
            self.batches += 1
            return {"removed_norm": [10.0 * self.batches + i for i in range(4 if self.batches == 1 else 2)]}

    @contextlib.contextmanager
    def steer(pipe: Any) -> Iterator[Steering]:
        yield Steering()

    chosen = [Condition("a", {}, 1.0, steer=steer, reports=("removed_norm",)), Condition("b", {}, 1.0)]
    result = run_conditions(pipe, chosen, out=tmp_path / "run", **CALL)
    np.testing.assert_array_equal(
        result["removed_norm"].values, [[10, 11, 12, 13, 20, 21], [np.nan] * 6], "entered once, for both batches"
    )


def test_call_arguments_reach_the_pipeline(pipe: Any, run: xr.Dataset, tmp_path: Path) -> None:
    call = {"skip_guidance_layers": [2], "skip_layer_guidance_scale": 2.0, "skip_layer_guidance_stop": 1.0}
    result = run_conditions(pipe, [Condition("slg", {}, 3.0, call=call)], out=tmp_path / "run", **CALL)
    assert not np.array_equal(result["latent_final"].values[0], run["latent_final"].sel(condition="cfg").values)


def test_a_run_of_days_is_refused_after_one_batch_which_is_kept(pipe: Any, run: xr.Dataset, tmp_path: Path) -> None:
    def slow(*_: Any) -> None:
        time.sleep(0.01)

    many = [Condition(f"cfg-{i}", {"i": i}, 2.0 + i / 10) for i in range(20)]
    handle = pipe.transformer.register_forward_pre_hook(slow)
    try:
        with pytest.raises(WorkbenchError, match="about .* 20 conditions, 39 batches left.*limit is 0.1 s.*--yes"):
            run_conditions(pipe, many, out=tmp_path / "run", limit_s=0.1, **CALL)
        kept = open_conditions(tmp_path / "run")
        assert (kept["condition"].values.tolist(), int(kept["finite"].sum())) == (["cfg-0"], 4)
        done = run_conditions(pipe, many[:2], out=tmp_path / "run", limit_s=0.001, yes=True, **CALL)
    finally:
        handle.remove()
    assert done["done"].all()
    assert [duration(x) for x in (3, 100, 9000, 300_000)] == ["3 s", "1.67 min", "2.5 h", "3.47 days"]


def test_pipeline_is_left_as_it_was(pipe: Any, run: xr.Dataset) -> None:
    assert not pipe.transformer._forward_pre_hooks
    assert not pipe.transformer._forward_hooks


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([], "no conditions"),
        ([Condition("a", {}, 1.0), Condition("A", {}, 2.0)], "two conditions are called 'a'"),
        ([Condition("../a", {}, 1.0)], "can't be called '../a'"),
        ([Condition("", {}, 1.0)], "can't be called ''"),
        ([Condition("a", {"sample": 1}, 1.0)], "can't have a factor or report called 'sample'"),
        ([Condition("a", {}, 1.0, identity={"x": torch.zeros(1)})], "can't be written as JSON"),
    ],
)
def test_conditions_that_cannot_be_are_refused(pipe: Any, tmp_path: Path, chosen: Any, words: str) -> None:
    with pytest.raises(WorkbenchError, match=words):
        run_conditions(pipe, chosen, out=tmp_path / "run", **CALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_explained(pipe: Any, run: xr.Dataset, tmp_path: Path) -> None:
    shutil.copytree(run.attrs["path"], tmp_path / "run")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limit[1]))  # Python ignores SIGXFSZ: writing raises EFBIG
    try:
        with pytest.raises(StoreError, match="The disk is full"):
            run_conditions(pipe, [Condition("new", {}, 1.0)], out=tmp_path / "run", **CALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert open_conditions(tmp_path / "run", ["plain", "cfg", "dg"])["done"].all(), "what was complete is safe"


def test_metadata_is_plain_json(run: xr.Dataset) -> None:
    root = json.loads((Path(run.attrs["path"]) / "zarr.json").read_text())["attributes"]
    assert root["settings"]["steps"] == 3
    tree = xr.open_datatree(run.attrs["path"], engine="zarr", consolidated=False)
    assert set(tree.children) == {"plain", "cfg", "dg"}, "xarray reads it without this package"


SMALL: dict[str, Any] = {"prompts": ["red apple", "dog"], "steps": 1, "progress": False}
PLAIN = [Condition("plain", {}, 1.0)]


@pytest.mark.parametrize("part", ["vae", "text_encoder", "text_encoder_3"])
def test_other_weights_of_what_else_makes_the_images_are_refused(tmp_path: Path, part: str) -> None:
    pipe = tiny_with_texts()
    run_conditions(pipe, PLAIN, out=tmp_path / "run", **SMALL)
    with torch.no_grad():
        next(getattr(pipe, part).parameters()).mul_(0.3)
    with pytest.raises(StoreError, match=f"other settings .components: .*{part}"):
        run_conditions(pipe, PLAIN, out=tmp_path / "run", **SMALL)


def test_other_embeddings_of_any_prompt_are_refused(tmp_path: Path) -> None:
    def other(prompts: Any) -> dict[str, torch.Tensor]:
        return encode(["cow" if prompt == "dog" else prompt for prompt in prompts])

    pipe = tiny_pipeline()
    run_conditions(pipe, PLAIN, out=tmp_path / "run", encode=encode, **SMALL)
    with pytest.raises(StoreError, match="other settings .embeddings: "):
        run_conditions(pipe, PLAIN, out=tmp_path / "run", encode=other, **SMALL)


def test_a_pipeline_that_is_altered_already_is_refused(spec: Any, tmp_path: Path) -> None:
    pipe = planted_pipeline("constant")

    def refused(words: str) -> None:
        for call in (lambda: run_conditions(pipe, PLAIN, out=tmp_path / "run", **CALL), lambda: sample(pipe, **CALL)):
            with pytest.raises(WorkbenchError, match=words):
                call()

    with apply(spec, pipe):
        refused("a disruption is being applied .* the images would pass for the plain model's")
    with Disruption("transformer_blocks.2", "massive", (5, 41)).apply(pipe):
        refused("a disruption is being applied")
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=10.0))
    refused("A cache is enabled")
    assert not (tmp_path / "run").exists()


def chunk(out: Path, array: str, batch: int = 0) -> Path:
    (file,) = (f for f in (out / "plain" / array / "c").rglob("*") if f.is_file() and _batch(f, out, array) == batch)
    return file


def _batch(file: Path, out: Path, array: str) -> int:
    return int(file.relative_to(out / "plain" / array / "c").parts[0])


@pytest.mark.parametrize("array", ["image", "latent_final", "marker", "finite", "seconds"])
@pytest.mark.parametrize("damage", ["zeroed", "truncated"])
def test_damaged_batches_are_found_and_made_anew(
    pipe: Any, run: xr.Dataset, tmp_path: Path, array: str, damage: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run.attrs["path"], out)
    file = chunk(out, array)
    written = file.read_bytes()
    file.write_bytes(bytes(len(written)) if damage == "zeroed" else written[: len(written) // 2])
    calls: list[int] = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    again = run_conditions(pipe, conditions(None)[:1], out=out, **CALL)
    handle.remove()
    # Seconds have no checksum: a lie about them is not found, what can't be read is.
    assert len(calls) == (0 if (array, damage) == ("seconds", "zeroed") else 3), "that batch, and no other"
    for key, values in arrays(again).items():
        np.testing.assert_array_equal(values, run[key].values[:1], err_msg=key)
    np.testing.assert_array_equal(intact_images(again, "plain"), run["image"].values[0])


def test_damaged_images_are_not_handed_out(run: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run.attrs["path"], out)
    file = chunk(out, "image", 1)
    written = bytearray(file.read_bytes())
    written[len(written) // 2 - 1] ^= 1  # of two samples in a chunk of four
    file.write_bytes(written)
    data = open_conditions(out, ["plain", "cfg"])
    with pytest.raises(StoreError, match="'plain' .*1 of 6 samples .*'blue heart', seed 8.*made anew"):
        intact_images(data, "plain")
    np.testing.assert_array_equal(intact_images(data, "cfg"), run["image"].sel(condition="cfg").values)
    np.testing.assert_array_equal(intact_images(data.isel(sample=slice(0, 5)), "plain"), run["image"].values[0, :5])
    file.write_bytes(written[:100])
    with pytest.raises(StoreError, match="can't be read"):
        intact_images(data, "plain")


def test_packed_latents_are_kept_a_row_a_token(tmp_path: Path) -> None:
    flux2, call = tiny_flux2(), {**SMALL, **SIZE, "encode": encode_flux2}
    run = run_conditions(flux2, PLAIN, out=tmp_path / "run", **call)
    made = sample(flux2, modes="plain", **call)
    assert run["latent_final"].dims == ("condition", "sample", "token", "latent_channel")
    np.testing.assert_array_equal(run["latent_final"].values, made.latents)
    np.testing.assert_array_equal(intact_images(run, "plain"), made.of("plain"))


def test_two_processes_into_one_folder_are_refused(pipe: Any, run: xr.Dataset) -> None:
    with (
        locked(Path(run.attrs["path"])),
        pytest.raises(StoreError, match="Another process is generating into .*/run right now"),
    ):
        run_conditions(pipe, [Condition("plain", {"mode": "plain"}, 1.0)], out=run.attrs["path"], **CALL)
    assert run_conditions(pipe, conditions(None)[:1], out=run.attrs["path"], **CALL)["done"].all(), "let go again"


def test_the_estimate_counts_passes_and_not_hooks() -> None:
    what = Disruption("transformer_blocks.2", "massive", (5,))
    assert Condition("plain", {}, 1.0).passes == 1
    assert Condition("disrupted", {}, 3.0, steer=what.apply).passes == 2
    assert Condition("guided", {}, 3.0, extra_passes=1.0).passes == 3


def test_guidance_with_a_pass_of_its_own_says_so(pipe: Any, spec: Any) -> None:
    assert steered(spec, "cfg+dg", {}, 3.0).passes == 3
    found, _ = baseline_conditions(spec, pipe, guidance_scale=3.0)
    assert {c.name: c.passes for c in found} == {
        "plain": 1, "cfg": 2, "cfg-1.5x": 2, "cfg-2x": 2, "dg": 2, "cfg+dg": 3, "cfg+slg": 3, "pag": 2, "cfg+pag": 3,
    }  # fmt: skip


def test_another_definition_of_detail_guidance_is_another_condition(
    pipe: Any, spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_conditions(pipe, [steered(spec, "dg", {}, 3.0)], out=tmp_path / "run", **CALL)
    monkeypatch.setattr("workbench.sampling.sweep.METHOD_VERSION", METHOD_VERSION + 1)
    changed = steered(spec, "dg", {}, 3.0)
    with pytest.raises(StoreError, match="the condition 'dg' .*identity: .*method_version"):
        run_conditions(pipe, [changed], out=tmp_path / "run", **CALL)


@pytest.mark.parametrize("limit_s", [float("nan"), -1.0])
def test_a_limit_that_limits_nothing_is_refused(pipe: Any, tmp_path: Path, limit_s: float) -> None:
    with pytest.raises(WorkbenchError, match="limit_s = .* is no limit"):
        run_conditions(pipe, PLAIN, out=tmp_path / "run", limit_s=limit_s, **CALL)
    assert not (tmp_path / "run").exists()
