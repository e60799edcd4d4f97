"""Which models are known, how they are loaded and told apart, and what is refused by name."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import encode, tiny_pipeline, tiny_with_texts
from workbench.errors import UnsupportedModelError
from workbench.models import FAMILIES, component_hashes, embedding_hash, fingerprint, layout_for, load_pipeline
from workbench.models.grid import grid_of_call
from workbench.models.layout import Guidance, Latents
from workbench.models.rows import REFUSED
from workbench.record import make_settings, prepare
from workbench.record.probe import branches_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as a diffusers folder."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_with_texts().save_pretrained(path)
    return path


def test_a_layouts_blocks_are_the_models_in_order(tiny: Any) -> None:
    layout = layout_for(tiny)
    assert layout.family == "sd3"
    assert layout.block_paths(tiny.transformer) == [f"transformer_blocks.{i}" for i in range(3)]
    assert layout_for(tiny.transformer) is layout
    assert grid_of_call(layout, tiny.transformer, {"hidden_states": torch.zeros(2, 4, 8, 12)}) == (1, 4, 6)


def test_families_are_told_apart_by_module_and_class() -> None:
    names = [row.transformer for row in FAMILIES]
    assert len(set(names)) == len(names)

    class SD3Transformer2DModel(torch.nn.Module):
        """Of the same name, but someone else's."""

    with pytest.raises(UnsupportedModelError, match=r"is not a diffusion transformer that .*`workbench models` lists"):
        layout_for(SD3Transformer2DModel())


def test_a_unet_pipeline_is_refused_as_what_it_is(tiny: Any) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 32), down_block_types=("DownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "UpBlock2D"))  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="DDPMPipeline denoises with a UNet"):
        layout_for(DDPMPipeline(unet, DDPMScheduler()))


def test_a_transformer_without_a_row_is_refused() -> None:
    class OwnTransformer(torch.nn.Module):
        pass

    with pytest.raises(UnsupportedModelError, match="OwnTransformer is not a diffusion transformer that"):
        layout_for(OwnTransformer())


@pytest.mark.parametrize("name", [*REFUSED, *(row.transformer for row in FAMILIES)])
def test_every_class_with_a_row_or_a_refusal_is_one_of_diffusers(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), torch.nn.Module)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_conditioning_that_the_analyses_cannot_use_is_refused_by_name_and_reason(name: str, reason: str) -> None:
    module, _, kind = name.rpartition(".")
    net = object.__new__(getattr(importlib.import_module(module), kind))  # the class alone decides
    torch.nn.Module.__init__(net)
    with pytest.raises(UnsupportedModelError, match=f"{kind} is known and not supported: {re.escape(reason)}"):
        layout_for(net)


def test_a_video_familys_grid_has_frames() -> None:
    from diffusers import WanTransformer3DModel

    net = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8,
                                freq_dim=16, ffn_dim=16, num_layers=2, cross_attn_norm=True)  # fmt: skip
    layout = layout_for(net)
    assert layout.family == "wan"
    assert layout.block_paths(net) == ["blocks.0", "blocks.1"]
    assert grid_of_call(layout, net, {"hidden_states": torch.zeros(1, 4, 3, 8, 12)}) == (3, 4, 6)


def test_a_folder_loads_and_computes_the_same(folder: Path) -> None:
    pipe = load_pipeline(folder)
    assert pipe.transformer.dtype == torch.float32
    arguments = {"prompt": "dog", "num_inference_steps": 2, "output_type": "latent", "max_sequence_length": 8}
    one, two = (p(**arguments, generator=torch.Generator().manual_seed(0)).images for p in (pipe, tiny_with_texts()))
    assert torch.equal(one, two)
    assert load_pipeline(folder, dtype="bfloat16").transformer.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda p: (p / "transformer" / "config.json").unlink(),
            "could not be read.*Check that the folder is complete",
        ),
        (lambda p: next((p / "transformer").glob("*.safetensors")).unlink(), "could not be read"),
        (lambda p: (p / "model_index.json").unlink(), "has no model_index.json"),
        (lambda p: (p / "model_index.json").write_text("{"), "could not be read"),
    ],
)
def test_a_damaged_folder_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    damage(copy)
    with pytest.raises(UnsupportedModelError, match=message):
        load_pipeline(copy)


def test_weights_as_pickle_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    next((copy / "transformer").glob("*.safetensors")).unlink()
    torch.save(tiny_pipeline().transformer.state_dict(), copy / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="safetensors"):
        load_pipeline(copy)


@pytest.mark.parametrize("name", ["mini-picture", "no/such/model", "./nowhere", "owner/name/more"])
def test_a_word_that_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"neither an embedded model \(mini-image, mini-video\)"):
        load_pipeline(name)


def test_a_hub_that_cannot_be_reached_says_what_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnsupportedModelError, match=r"owner/name' could not be fetched.*hf download owner/name"):
        load_pipeline("owner/name")


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'float8' is not one of float32, bfloat16, float16"):
        load_pipeline(folder, dtype="float8")


def test_a_fingerprint_stays_with_the_weights(folder: Path, tmp_path: Path) -> None:
    one = fingerprint(tiny_with_texts())
    assert fingerprint(load_pipeline(folder)) == one
    assert fingerprint(load_pipeline(shutil.copytree(folder, tmp_path / "renamed"))) == one
    assert fingerprint(load_pipeline(folder, dtype="bfloat16")) == one
    other = fingerprint(tiny_with_texts(seed=1))
    assert other["config_hash"] == one["config_hash"]
    assert other["weight_hash"] != one["weight_hash"]
    assert fingerprint(tiny_pipeline(num_layers=2))["config_hash"] != one["config_hash"]


def test_a_fingerprint_sees_a_single_changed_weight() -> None:
    pipe = tiny_pipeline()
    before = fingerprint(pipe)["weight_hash"]
    with torch.no_grad():
        pipe.transformer.transformer_blocks[1].ff.net[2].bias[5] = 100
    assert fingerprint(pipe)["weight_hash"] != before


def test_a_relative_folder_is_no_hub_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert fingerprint(load_pipeline(Path(folder.parent.name) / folder.name))["repo"] is None


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="device 'abacus' is none"):
        load_pipeline(folder, device="abacus")


def test_a_model_that_is_not_as_its_layout_says_is_refused_with_the_shapes(tiny: Any) -> None:
    row = layout_for(tiny)
    wrong = dataclasses.replace(row, latents=Latents("BCHW", patch=("1", "in_channels", "in_channels")))
    with pytest.raises(
        UnsupportedModelError,
        match=r"shape \(2, 16, 32\), which does not hold one image token per cell of the grid \(1, 2, 2\)",
    ):
        prepare(tiny, wrong, make_settings(["dog"], [0], steps=2), encode)


def test_rows_that_are_no_branches_are_refused() -> None:
    batched = Guidance(batched=True, rows=("uncond", "cond"))
    assert branches_of("sd3", batched, 3, 3) == branches_of("flux", None, 3, 3) == ("cond",)
    assert branches_of("sd3", batched, 6, 3) == ("uncond", "cond")
    with pytest.raises(UnsupportedModelError, match="9 rows for 3 samples"):
        branches_of("sd3", batched, 9, 3)


def test_hashes_of_the_other_parts_see_weights_and_leave_out_texts_that_are_given() -> None:
    pipe = tiny_with_texts()
    before = component_hashes(pipe)
    assert set(before) == {"vae", "text_encoder", "text_encoder_2", "text_encoder_3"}
    assert set(component_hashes(pipe, encode)) == {"vae"}
    with torch.no_grad():
        next(pipe.vae.parameters()).mul_(0.3)
    changed = component_hashes(pipe)
    assert {name for name in before if before[name] != changed[name]} == {"vae"}


def test_a_hash_of_embeddings_sees_every_prompt() -> None:
    assert embedding_hash(None, ["dog"]) is None
    assert embedding_hash(encode, ["dog", "cat"]) == embedding_hash(encode, ["dog", "cat"])
    assert embedding_hash(encode, ["dog", "cat"]) != embedding_hash(encode, ["dog", "cow"])
