"""The sampler on a tiny real pipeline: what each mode is, whose noise is whose, and that nothing is left behind."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import encode, tiny_pipeline
from workbench.errors import SpecError, UnsupportedModelError, WorkbenchError
from workbench.sampling.sampler import default_mode, sample
from workbench.steering.attach import apply
from workbench.steering.spec import save_spec

PROMPTS = ["red apple", "dog face"]
MODES = ("plain", "cfg", "dg", "cfg+dg")
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def result(pipe, spec) -> Any:
    return sample(pipe, prompts=PROMPTS, seeds=[3, 8], spec=spec, modes=MODES, batch_size=2, **QUIET)


def stock(pipe: Any, prompts: list[str], seeds: list[int], scale: float) -> np.ndarray:
    images = pipe(
        prompts,
        num_inference_steps=3,
        guidance_scale=scale,
        output_type="pil",
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images
    return np.stack([np.asarray(image) for image in images])


def test_shapes_and_labels(result) -> None:
    assert result.images.shape == (4, 4, 16, 16, 3)
    assert result.images.dtype == np.uint8
    assert result.latents.shape == (4, 4, 4, 16, 16)
    assert list(zip(result.prompts, result.seeds, strict=True)) == [(p, s) for p in PROMPTS for s in (3, 8)]
    assert (result.settings["steps"], result.settings["guidance_scale"]) == (3, 3.0), "as the spec recommends"


def test_modes_are_the_stock_pipeline_with_and_without_the_spec(result, pipe, spec) -> None:
    for mode, scale in (("plain", 1.0), ("cfg", 3.0)):
        expected = np.concatenate([stock(pipe, [p] * 2, [3, 8], scale) for p in PROMPTS])
        np.testing.assert_array_equal(result.of(mode), expected)
    with apply(spec, pipe):
        for mode, scale in (("dg", 1.0), ("cfg+dg", 3.0)):
            expected = np.concatenate([stock(pipe, [p] * 2, [3, 8], scale) for p in PROMPTS])
            np.testing.assert_array_equal(result.of(mode), expected)
    for i in range(4):
        for j in range(i):
            assert not np.array_equal(result.latents[i], result.latents[j]), (MODES[i], MODES[j])


def test_noise_depends_on_the_seed_alone(pipe, spec, result) -> None:
    alone = sample(pipe, prompts="dog face", seeds=8, spec=spec, modes=MODES, batch_size=1, **QUIET)
    # Another batch size may round differently; another neighbour's noise would change the picture.
    np.testing.assert_allclose(alone.latents[:, 0], result.latents[:, 3], rtol=1e-4, atol=1e-5)
    again = sample(pipe, prompts=PROMPTS, seeds=[3, 8], spec=spec, modes=MODES, batch_size=2, **QUIET)
    np.testing.assert_array_equal(again.latents, result.latents)


def test_numpy_seeds(pipe) -> None:
    one, array = (sample(pipe, prompts="dog face", seeds=s, steps=1, **QUIET) for s in (np.int64(3), np.array([3, 4])))
    assert (one.seeds, array.seeds) == ((3,), (3, 4))
    assert {type(seed) for seed in one.seeds + array.seeds} == {int}, "so that settings.json can be written"


def test_weight_0_is_no_spec(pipe, spec) -> None:
    idle = sample(pipe, prompts=PROMPTS, seeds=3, spec=spec.replace(weight=0.0), modes=MODES, **QUIET)
    np.testing.assert_array_equal(idle.of("dg"), idle.of("plain"))
    np.testing.assert_array_equal(idle.latents[3], idle.latents[1])


def test_pipeline_is_left_as_it_was(pipe, spec) -> None:
    before, modules = dict(vars(pipe)), {name: dict(vars(module)) for name, module in pipe.transformer.named_modules()}
    sample(pipe, prompts="dog face", spec=spec, modes=MODES, **QUIET)
    for name, module in pipe.transformer.named_modules():
        assert vars(module).keys() == modules[name].keys()
    assert vars(pipe)["_progress_bar_config"] is before["_progress_bar_config"]
    del pipe._progress_bar_config
    sample(pipe, prompts="dog face", steps=1, **QUIET)
    assert "_progress_bar_config" not in vars(pipe)
    pipe._progress_bar_config = before["_progress_bar_config"]


def test_size_and_spec_file_and_progress(pipe, spec, tmp_path, capsys) -> None:
    path = save_spec(spec, tmp_path / "spec.json")
    result = sample(pipe, prompts="dog face", spec=path, modes="cfg+dg", height=12, width=20)
    assert result.images.shape == (1, 1, 12, 20, 3)
    assert result.settings["spec"]["content_hash"] == spec.content_hash
    assert "3/3" in capsys.readouterr().err


def test_embeddings_in_place_of_texts() -> None:
    pipe = tiny_pipeline()
    result = sample(pipe, prompts=PROMPTS, steps=2, encode=encode, **QUIET)
    expected = pipe(
        **encode(PROMPTS),
        num_inference_steps=2,
        guidance_scale=4.0,
        output_type="latent",
        generator=[torch.Generator().manual_seed(0) for _ in PROMPTS],
    ).images
    np.testing.assert_array_equal(result.latents[0], expected.numpy())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"prompts": []}, WorkbenchError, "no prompts"),
        ({"prompts": ["dog", "  "]}, WorkbenchError, "no prompts, or an empty one"),
        ({"seeds": []}, WorkbenchError, "no seeds"),
        ({"seeds": [-1]}, WorkbenchError, "negative"),
        ({"seeds": [2**63]}, WorkbenchError, "63 bits"),
        ({"seeds": [1, 2, 1]}, WorkbenchError, r"same seed is given more than once: \[1\]"),
        ({"seeds": [1, np.int64(1)]}, WorkbenchError, "same seed"),
        ({"seeds": 1.5}, WorkbenchError, "seed 1.5 is not a whole number"),
        ({"seeds": "12"}, WorkbenchError, "seed '12' is not a whole number"),
        ({"prompts": ["a cat"] * 6}, WorkbenchError, r"same prompt is given more than once: \['a cat'\]"),
        ({"height": 15}, WorkbenchError, "height = 15 must be a multiple of 2 pixels"),
        ({"height": 16, "width": 0}, WorkbenchError, "width = 0 must be"),
        ({"modes": []}, WorkbenchError, "give each at most once, of plain, cfg, dg"),
        ({"modes": ["cfg", "magic"]}, WorkbenchError, "magic"),
        ({"modes": ["cfg", "cfg"]}, WorkbenchError, "at most once"),
        ({"steps": 0}, WorkbenchError, "steps = 0"),
        ({"batch_size": 0}, WorkbenchError, "batch_size = 0"),
        ({"guidance_scale": 1.0}, WorkbenchError, "modes plain, dg and stas"),
        ({"modes": "dg"}, SpecError, "the mode dg needs a spec"),
        ({"modes": "dg", "spec": {"weight": 1}}, SpecError, "a dict is no spec that can be applied"),
        ({"spec": "nowhere.json"}, SpecError, "cannot read the spec nowhere.json"),
        ({"model": "nonexistent"}, UnsupportedModelError, "nonexistent"),
    ],
)
def test_what_cannot_be_sampled_is_refused(pipe, options, error, words) -> None:
    arguments = {"model": pipe, "prompts": "dog face", **QUIET, **options}
    with pytest.raises(error, match=words):
        sample(arguments.pop("model"), **arguments)


def test_spec_of_another_model_is_refused(spec) -> None:
    from tests.planted import planted_pipeline

    other = planted_pipeline("constant", seed=1)
    with pytest.raises(SpecError, match="other weights"):
        sample(other, prompts="dog face", spec=spec, modes="dg", **QUIET)
    with pytest.warns(UserWarning, match="other weights"):
        sample(other, prompts="dog face", spec=spec, modes="dg", strict=False, **QUIET)


def test_no_vae() -> None:
    with pytest.raises(WorkbenchError, match="no VAE"):
        sample(tiny_pipeline(vae=False), prompts="dog face", encode=encode, **QUIET)


def test_not_finite_is_reported_by_sample(spec) -> None:
    from tests.planted import planted_pipeline

    pipe = planted_pipeline("constant")
    with torch.no_grad():
        pipe.transformer.transformer_blocks[3].ff.net[2].bias[0] = float("nan")
    with pytest.raises(WorkbenchError, match="not finite, the first for 'dog face', seed 5, in mode cfg"):
        sample(pipe, prompts="dog face", seeds=5, steps=2, **QUIET)


def test_save(result, tmp_path) -> None:
    folder = result.save(tmp_path / "out")
    record = json.loads((folder / "settings.json").read_text())
    assert len(record["images"]) == 16 == len(list(folder.glob("*.png")))
    for m, mode in enumerate(result.modes):
        for i in range(4):
            entry = record["images"][m * 4 + i]
            assert (entry["mode"], entry["prompt"], entry["seed"]) == (mode, result.prompts[i], result.seeds[i])
            np.testing.assert_array_equal(np.asarray(Image.open(folder / entry["file"])), result.images[m, i])
    with pytest.raises(WorkbenchError, match="earlier run"):
        result.save(folder)
    result.save(folder, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WorkbenchError, match="cannot write"):
        result.save(tmp_path / "file" / "sub")


def test_a_spec_that_is_given_is_applied_unless_modes_say_otherwise(spec) -> None:
    assert default_mode(None) == "cfg"
    assert default_mode(spec) == "cfg+dg"
