import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from workbench.models.mini import embedded_path
from workbench.models.mini.export import BUDGET_BYTES, export, folder_bytes
from workbench.models.mini.vae import make_vae, train_vae


def load(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)


def check(pipe):
    pipe.set_progress_bar_config(disable=True)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        assert getattr(pipe, name).dtype == torch.float32
    options = {"num_inference_steps": 2, "output_type": "np"}
    one = pipe("red apple", generator=torch.Generator().manual_seed(0), **options).images
    few = pipe("red apple", generator=torch.Generator().manual_seed(0), max_sequence_length=8, **options).images
    assert one.shape == few.shape == (1, 64, 64, 3)
    assert np.isfinite(one).all()


def test_exported_run_loads_as_stock_sd3(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / "mini"
    export(tiny_run, folder)
    export(tiny_run, folder)  # replaces the first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mini", "run"]
    assert not list(folder.rglob("*.bin"))
    assert "Microsoft" in (folder / "LICENSE-fluentui-emoji").read_text()
    check(load(folder, monkeypatch))


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match="mini-image"):
        embedded_path("mini-picture")


def test_autoencoder_trains_and_keeps_its_encoder_when_sharpened(tmp_path):
    from diffusers import AutoencoderKL

    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    train_vae(pixels, tmp_path, 1, batch=2, max_steps=2, widths=(8, 8, 8))
    before = AutoencoderKL.from_pretrained(tmp_path / "vae")
    train_vae(pixels, tmp_path, 1, batch=2, max_steps=2, decoder_only=True)
    after = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert before.config.shift_factor == after.config.shift_factor != 0
    assert all(torch.equal(a, b) for a, b in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True))
    untouched = zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in untouched)
    assert make_vae().config.block_out_channels == (32, 64, 64)


@pytest.mark.model
def test_shipped_folder_fits_and_loads_offline(monkeypatch):
    folder = embedded_path("mini-image")
    assert folder_bytes(folder) <= BUDGET_BYTES
    assert not [p for p in folder.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
    check(load(folder, monkeypatch))
