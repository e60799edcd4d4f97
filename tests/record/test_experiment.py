"""Experiments: every cell has the bits of a plain forward with the same exchange made by hand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import workbench
from tests import children
from tests.record.by_hand import FAMILIES, SD3, Family, calls_of, forward, with_terms
from tests.record.test_faults import same
from tests.tiny import encode, tiny_pipeline
from workbench.errors import RecordingError, SelectionError
from workbench.models import call_arguments
from workbench.progress import Progress
from workbench.record import record
from workbench.record.cells import grid_steps
from workbench.record.settings import make_settings

PROMPTS, SEEDS, STEPS, GRID = ["red apple", "dog"], [0, 1, 2], 4, (0, 1, 3)
TERMS = {"gate": (2, 5), "shift_scale": (0, 1, 3, 4), "modulation": tuple(range(6))}


def experiment(family: Family, pipe: Any, out: Path, **options: Any) -> Path:
    chosen = {
        "prompts": PROMPTS, "seeds": SEEDS, "steps": STEPS, "guidance_scale": 3.0, "batch_size": 2, "tier": "full",
        "experiment": "timestep-swap", "grid": GRID, "progress": False, **family.options,
    } | options  # fmt: skip
    if chosen["experiment"] is None and "grid" not in options:
        chosen.pop("grid")
    return record(pipe, out=out, encode=family.encode, **chosen)


class Made:
    """A family's experiment, beside the calls that its pipeline made."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family, self.pipe = family, family.make()
        self.branches = sum(len(branches) for branches in family.branches)
        mediate = [family.paths[0], family.paths[2]]
        self.swap = workbench.open(experiment(family, self.pipe, folder / "swap.zarr", mediate=mediate)).load()
        self.plain = workbench.open(experiment(family, self.pipe, folder / "plain.zarr", experiment=None)).load()
        self.settings = make_settings(PROMPTS, SEEDS, steps=STEPS, guidance_scale=3.0, **family.options)
        self.calls, self.images = self.run([slice(0, 2), slice(2, 4), slice(4, 6)])

    def run(self, batches: list[slice]) -> tuple[list[list[list[dict[str, Any]]]], np.ndarray]:
        """Batch → step → calls of the step."""
        made, images, width = [], [], len(self.family.branches)
        for batch in batches:
            arguments = call_arguments(
                self.pipe, self.settings.samples[batch], **self.settings.call, encode=self.family.encode
            )
            calls, image = calls_of(self.pipe, arguments)
            made.append([calls[i : i + width] for i in range(0, len(calls), width)])
            images.append(image)
        return made, (np.concatenate(images) * 255).round().astype(np.uint8)

    def hold_against(self, recording: xr.Dataset, cell: int, step: int, change: Callable[..., Any]) -> int:
        """Compare one cell with `change(net, kwargs, batch, call)` for all batches and branches; how many were compared."""
        compared = 0
        for b, batch in enumerate([slice(0, 2), slice(2, 4), slice(4, 6)]):
            for c, branches in enumerate(self.family.branches):
                truth = change(self.pipe.transformer, dict(self.calls[b][step][c]), b, c)
                for row, branch in enumerate(branches):
                    mine = recording.isel(sample=batch, timestep=cell).sel(branch=branch)
                    for layer, h in truth.hidden.items():
                        assert np.array_equal(mine.hidden.sel(layer=layer), h[2 * row : 2 * row + 2]), (cell, layer)
                        compared += 1
                    for layer, six in truth.modulation.items():
                        assert np.array_equal(
                            mine.modulation.sel(layer=layer), six[2 * row : 2 * row + 2], equal_nan=True
                        )
        return compared


@pytest.fixture(params=FAMILIES, ids=lambda f: f.name, scope="module")
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp(request.param.name))


def cells(recording: xr.Dataset, *swaps: str) -> list[tuple[int, int, int, str, str]]:
    """(position, step, embedding step, swap, block)."""
    step_of = dict(zip(recording.timestep.values, recording.step.values, strict=True))
    found = [
        (i, int(recording.step[i]), int(step_of[float(recording.embedding_timestep[i])]), str(recording.swap[i].item()),
         str(recording.swap_block[i].item()))
        for i in range(recording.sizes["timestep"])
    ]  # fmt: skip
    return [cell for cell in found if cell[3] in swaps]


def test_diagonal_cells_are_a_plain_recording_to_the_bit(made: Made) -> None:
    diagonal = made.swap.isel(timestep=[c[0] for c in cells(made.swap, "none")])
    plain = made.plain.isel(timestep=list(GRID))
    for name in plain.data_vars:
        if name != "unit_checksum":
            assert np.array_equal(diagonal[name], plain[name], equal_nan=plain[name].dtype.kind == "f"), name
    for name in ("timestep", "step", "sigma"):
        assert np.array_equal(diagonal[name], plain[name])
    assert np.array_equal(diagonal.embedding_timestep, diagonal.timestep)
    assert np.array_equal(diagonal.embedding_sigma, diagonal.sigma)
    assert np.array_equal(diagonal.unit_checksum, plain.unit_checksum)


def test_a_plain_recording_of_every_family_equals_plain_hooks(made: Made) -> None:
    for step in range(STEPS):
        compared = made.hold_against(
            made.plain, step, step, lambda net, kwargs, b, c: forward(made.family, net, kwargs)
        )
        assert compared == 3 * made.branches * 4
    assert np.array_equal(made.plain.image, made.images)


def test_images_are_those_of_the_plain_pipeline(made: Made) -> None:
    assert np.array_equal(made.swap.image, made.images)
    assert len(np.unique(made.images)) > 20


def test_an_exchanged_embedding_is_a_plain_forward_with_the_other_timestep(made: Made) -> None:
    chosen = cells(made.swap, "embedding")
    assert len(chosen) == 6
    for at, step, other, _, block in chosen:
        assert block == ""
        assert step != other

        def change(net: Any, kwargs: dict[str, Any], b: int, c: int, other: int = other) -> Any:
            kwargs["timestep"] = made.calls[b][other][c]["timestep"]
            return forward(made.family, net, kwargs)

        assert made.hold_against(made.swap, at, step, change) == 3 * made.branches * 4
        same_step = made.swap.isel(timestep=GRID.index(step))
        assert not np.array_equal(made.swap.hidden.isel(timestep=at, layer=-1), same_step.hidden.isel(layer=-1))


@pytest.mark.parametrize("what", TERMS)
def test_mediation_is_a_plain_forward_with_these_terms_put_in_by_a_hook(made: Made, what: str) -> None:
    chosen = cells(made.swap, what)
    assert len(chosen) == 2 * 6
    for at, step, other, _, block in chosen:

        def change(net: Any, kwargs: dict[str, Any], b: int, c: int, other: int = other, block: str = block) -> Any:
            theirs = forward(made.family, net, made.calls[b][other][c]).raw[block]
            return forward(made.family, net, kwargs, {block: with_terms(made.family, TERMS[what], theirs)})

        assert made.hold_against(made.swap, at, step, change) == 3 * made.branches * 4
        diagonal, mine = made.swap.isel(timestep=GRID.index(step)), made.swap.isel(timestep=at)
        layers = list(made.swap.layer.values)
        before = layers[: layers.index(block)]
        assert np.array_equal(mine.hidden.sel(layer=before), diagonal.hidden.sel(layer=before))
        assert not np.array_equal(mine.hidden.sel(layer=block), diagonal.hidden.sel(layer=block))


def test_a_second_attentions_terms_go_with_the_others(tmp_path: Path) -> None:
    """A block of Stable Diffusion 3.5 has nine terms, of which six are recorded and nine are exchanged."""
    nine = {"gate": (2, 5, 8), "shift_scale": (0, 1, 3, 4, 6, 7), "modulation": tuple(range(9))}
    pipe = tiny_pipeline(dual_attention_layers=(0,))
    options = {"prompts": ["dog"], "seeds": [0], "grid": 2, "mediate": [0], "batch_size": 1}
    recording = workbench.open(experiment(SD3, pipe, tmp_path / "s.zarr", **options)).load()
    settings = make_settings(["dog"], [0], steps=STEPS, guidance_scale=3.0)
    calls, _ = calls_of(pipe, call_arguments(pipe, settings.samples, **settings.call, encode=encode))
    block = SD3.paths[0]
    for at, step, other, what, _ in cells(recording, *nine):
        theirs = forward(SD3, pipe.transformer, calls[other]).raw[block]
        assert theirs.shape[-1] == 9 * 32
        truth = forward(SD3, pipe.transformer, calls[step], {block: with_terms(SD3, nine[what], theirs)})
        for layer, h in truth.hidden.items():
            assert np.array_equal(recording.hidden.isel(timestep=at, sample=0).sel(layer=layer), h)
        assert np.array_equal(
            recording.modulation.isel(timestep=at, sample=0).sel(layer=block), truth.modulation[block]
        )


def test_the_modulation_of_t_is_that_of_the_exchanged_embedding(made: Made) -> None:
    """Exchanging all terms in one block, or the embedding, gives that block the same six terms."""
    embedding = {(step, other): at for at, step, other, *_ in cells(made.swap, "embedding")}
    for at, step, other, _, block in cells(made.swap, "modulation"):
        mine, whole = (made.swap.modulation.isel(timestep=i).sel(layer=block) for i in (at, embedding[step, other]))
        assert np.array_equal(mine, whole, equal_nan=True)


def test_an_experiment_says_so_and_verifies(made: Made) -> None:
    recording = made.swap
    assert recording.attrs["experiment"] == "timestep-swap"
    assert "experiment" not in made.plain.attrs
    assert "swap" not in made.plain.coords
    assert workbench.verify(recording.attrs["path"]).ok
    assert recording.sizes["timestep"] == 3 + 6 + 2 * 3 * 6
    assert list(recording.latent_prompt.values) == list(recording.prompt.values)
    assert list(recording.latent_seed.values) == list(recording.seed.values)
    plain = xr.open_zarr(recording.attrs["path"], consolidated=False)
    assert set(plain.coords) == set(recording.coords)


def test_the_pipeline_is_left_as_it_was_found(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    net, config = pipe.transformer, dict(pipe.config)
    attributes = {name: set(module.__dict__) for name, module in net.named_modules()}
    experiment(SD3, pipe, tmp_path / "s.zarr", mediate="all")
    assert pipe.transformer is net
    assert dict(pipe.config) == config
    assert {name: set(module.__dict__) for name, module in net.named_modules()} == attributes


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_prompt_swap_gives_every_text_the_first_prompts_latents(made: Made, tmp_path: Path, batch_size: int) -> None:
    """With batches of 2 prompts share a batch, with batches of 4 a donor comes out of another batch than its guest."""
    family = made.family
    recording = workbench.open(
        experiment(family, made.pipe, tmp_path / "p.zarr", experiment="prompt-swap", batch_size=batch_size)
    ).load()
    assert list(recording.latent_prompt.values) == ["red apple"] * 6
    assert list(recording.latent_seed.values) == SEEDS * 2
    assert set(recording.swap.values) == {"none"}
    batches = [slice(i, min(i + batch_size, 6)) for i in range(0, 6, batch_size)]
    calls, _ = made.run(batches)
    latents = [  # of every sample at every step of the grid
        [calls[i // batch_size][step][0]["hidden_states"][i % batch_size] for step in GRID] for i in range(6)
    ]
    compared = 0
    for b, batch in enumerate(batches):
        samples = list(range(6))[batch]
        for cell, step in enumerate(GRID):
            for c, branches in enumerate(family.branches):
                kwargs = dict(calls[b][step][c])
                donated = [latents[i % 3][cell] for i in samples] * len(branches)
                kwargs["hidden_states"] = kwargs["hidden_states"].new_tensor(np.stack(donated))
                truth = forward(family, made.pipe.transformer, kwargs)
                for row, branch in enumerate(branches):
                    mine = recording.isel(sample=batch, timestep=cell).sel(branch=branch)
                    rows = slice(row * len(samples), (row + 1) * len(samples))
                    for layer, h in truth.hidden.items():
                        assert np.array_equal(mine.hidden.sel(layer=layer), h[rows])
                        compared += 1
    assert compared == len(batches) * 3 * made.branches * 4
    own = workbench.open(experiment(family, made.pipe, tmp_path / "own.zarr", experiment="seed-swap"))
    first = slice(0, 2)  # in its own batch of 2
    if batch_size == 2:
        assert np.array_equal(recording.hidden[first], own.hidden[first])
    assert not np.array_equal(recording.hidden[3:], own.hidden[3:])


def test_a_seed_swap_is_the_diagonal(made: Made, tmp_path: Path) -> None:
    seeds = workbench.open(experiment(made.family, made.pipe, tmp_path / "s.zarr", experiment="seed-swap"))
    assert seeds.attrs["experiment"] == "seed-swap"
    assert list(seeds.step.values) == list(GRID)
    assert np.array_equal(seeds.hidden, made.plain.hidden.isel(timestep=list(GRID)))


def test_one_branch_or_one_layer_can_be_recorded(made: Made, tmp_path: Path) -> None:
    layer = made.family.paths[1]
    part = workbench.open(
        experiment(made.family, made.pipe, tmp_path / "s.zarr", select={"branches": "cond", "layers": layer})
    )
    whole = made.swap.sel(branch=["cond"], layer=[layer]).isel(timestep=slice(0, 9))
    assert np.array_equal(part.hidden, whole.hidden)
    assert np.array_equal(part.temb, whole.temb)


def test_without_guidance_there_is_one_branch(made: Made, tmp_path: Path) -> None:
    store = experiment(made.family, made.pipe, tmp_path / "s.zarr", guidance_scale=1.0, grid=2)
    recording = workbench.open(store)
    assert list(recording.branch.values) == ["cond"]
    assert list(recording.step.values) == [0, 3, 0, 3]
    assert workbench.verify(store).ok


def test_an_interrupted_experiment_goes_on_with_equal_bits(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mediate = tmp_path / "s.zarr", [made.family.paths[0], made.family.paths[2]]
    steps = iter(range(1000))

    def advance(self: Progress, count: int = 1) -> None:
        if next(steps) == 80:  # in the cells of the second of three batches
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", advance)
    monkeypatch.setattr("workbench.record.plan.BLOCK_BYTES", 150_000)
    with pytest.raises(KeyboardInterrupt):
        experiment(made.family, made.pipe, out, mediate=mediate)
    monkeypatch.undo()
    verdict = workbench.verify(out)
    assert verdict.wrong == []
    assert 0 < verdict.complete < verdict.units
    monkeypatch.setattr("workbench.record.plan.BLOCK_BYTES", 150_000)
    experiment(made.family, made.pipe, out, mediate=mediate)
    assert workbench.verify(out).ok
    assert same(out, Path(made.swap.attrs["path"]))


@pytest.mark.parametrize("kind", ["prompt-swap", "timestep-swap"])
def test_a_resume_generates_only_what_is_missing(
    made: Made, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = experiment(made.family, made.pipe, tmp_path / "s.zarr", experiment=kind)
    copy = Path(shutil.copytree(out, tmp_path / "copy.zarr"))
    flipped = next((copy / "h_std").glob("c.5.*"))
    flipped.write_bytes(b"\0" * flipped.stat().st_size)
    before = {s: next((copy / "h_mean_abs").glob(f"c.{s}.*")).stat().st_mtime_ns for s in range(5)}
    experiment(made.family, made.pipe, copy, experiment=kind, repair=True)
    assert {s: next((copy / "h_mean_abs").glob(f"c.{s}.*")).stat().st_mtime_ns for s in range(5)} == before
    assert same(copy, out)


def experiment_everywhere(out: Path) -> None:
    torch.set_num_threads(1)
    experiment(SD3, SD3.make(), out, mediate="all")


@pytest.mark.slow
def test_after_kill_9_a_resume_is_bit_identical(tmp_path: Path) -> None:
    whole = experiment(SD3, SD3.make(), tmp_path / "whole.zarr", mediate="all")
    out = tmp_path / "killed.zarr"
    child = children.start(experiment_everywhere, out)
    while not any(out.glob("h_mean_abs/c.*")) and child.is_alive():
        time.sleep(0.001)
    child.kill()
    child.join()
    assert workbench.verify(out).wrong == []
    assert not workbench.verify(out).ok
    experiment(SD3, SD3.make(), out, mediate="all")
    assert workbench.verify(out).ok
    assert same(out, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experiment": "time-swap"}, "experiment = 'time-swap'.*'timestep-swap', 'prompt-swap' or 'seed-swap'"),
        ({"grid": 1}, "A grid of 1 steps can't be used. The trajectory has steps 0 to 3: take 2 to 4"),
        ({"grid": 5}, "A grid of 5 steps can't be used"),
        ({"grid": [2]}, "at least two, each once"),
        ({"grid": [1, 1]}, "at least two, each once"),
        ({"grid": [0, 4]}, r"steps \[4\] are outside. The trajectory has steps 0 to 3"),
        ({"grid": [-1, 2]}, r"steps \[-1\] are outside"),
        ({"mediate": ["transformer_blocks.7"]}, "no block named 'transformer_blocks.7'.*positions 0 to 2"),
        ({"mediate": [3]}, "no block at position 3"),
        ({"mediate": ["input"]}, "no block named 'input'"),
        ({"mediate": "all", "experiment": "seed-swap"}, "mediate= exchanges the modulation of two timesteps"),
        ({"mediate": "all", "experiment": None}, "mediate= belongs to an experiment"),
        ({"grid": 3, "experiment": None}, r"grid= \(3\) belongs to an experiment"),
        ({"experiment": "prompt-swap", "prompts": ["dog"]}, "prompt-swap with one prompt \\('dog'\\)"),
        ({"experiment": "seed-swap", "seeds": [0]}, "seed-swap with one seed"),
        ({"select": {"timesteps": "0,1"}}, "takes its steps from the grid"),
        ({"budget": 1000}, "more than the budget.*--yes"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_generated(
    tmp_path: Path, tiny: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.record.experiment.generate", lambda *a: pytest.fail("an image was generated"))
    monkeypatch.setattr("workbench.record.run.generate", lambda *a: pytest.fail("an image was generated"))
    with pytest.raises((RecordingError, SelectionError), match=message):
        experiment(SD3, tiny, tmp_path / "s.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_another_experiment_is_another_recording(tmp_path: Path, tiny: Any) -> None:
    out = experiment(SD3, tiny, tmp_path / "s.zarr", grid=2, mediate=["transformer_blocks.1"])
    for options, names in [
        ({"grid": 3, "mediate": [1]}, "grid: 2 there, 3 now"),
        ({"grid": 2}, r"mediate: \['transformer_blocks.1'\] there, None now"),
        ({"grid": 2, "experiment": "seed-swap"}, "experiment: 'timestep-swap' there, 'seed-swap' now; mediate"),
        ({"experiment": None}, "experiment: .*; grid: 2 there, None now"),
    ]:
        with pytest.raises(RecordingError, match=names):
            experiment(SD3, tiny, out, **options)
    experiment(SD3, tiny, out, grid=2, mediate=[1])


def test_the_grid_has_both_ends() -> None:
    assert grid_steps(5, 20) == (0, 5, 10, 14, 19)
    assert grid_steps(2, 2) == (0, 1)
    assert grid_steps((3, 0), 4) == (0, 3)


def test_the_plan_counts_cells(tmp_path: Path, tiny: Any) -> None:
    asked: list[Any] = []
    experiment(SD3, tiny, tmp_path / "s.zarr", mediate="all", confirm=lambda plan: bool(asked.append(plan)))
    assert list(tmp_path.iterdir()) == []
    (plan,) = asked
    assert len(plan.cells) == plan.sizes["timestep"] == 3 + 6 + 3 * 3 * 6
    out = experiment(SD3, tiny, tmp_path / "s.zarr", mediate="all")
    chunks = [p for name in plan.variables for p in (out / name).glob("c.*")]
    assert len(chunks) == plan.files
    assert sum(p.stat().st_size for p in chunks) == plan.bytes


def test_nan_is_refused_with_its_place(tmp_path: Path) -> None:
    """Only where the embedding of another step meets these latents."""
    pipe = tiny_pipeline()
    forwarded = pipe.transformer.transformer_blocks[1].forward
    times: list[float] = []
    timestep = pipe.transformer.time_text_embed.register_forward_pre_hook(
        lambda module, args: times.append(float(args[0][0]))
    )
    latents: list[float] = []

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        text, h = forwarded(*args, **kwargs)
        latents.append(times[-1])
        return text, (h * float("nan") if len(latents) == 9 else h)  # probe, 4 steps, 3 of the diagonal, then this

    pipe.transformer.transformer_blocks[1].forward = poisoned
    with pytest.raises(RecordingError, match=r"NaN or infinite.*layer transformer_blocks\.1, step 0"):
        record(pipe, prompts=["dog"], seeds=[0], steps=4, out=tmp_path / "s.zarr", experiment="timestep-swap",
               grid=GRID, encode=encode, progress=False)  # fmt: skip
    timestep.remove()
    assert workbench.verify(tmp_path / "s.zarr").finished == 0
