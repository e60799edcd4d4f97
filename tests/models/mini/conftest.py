"""A made-up training set and a tiny configuration, so that a whole run takes seconds."""

import json

import numpy as np
import pytest
import torch

from workbench.models.mini.train import Config, Trainer
from workbench.models.mini.vae import make_vae

CAPTIONS = ["red apple", "dog face", "blue heart", "pizza", "smiling face with heart eyes", "red heart", "dog", "cat"]


@pytest.fixture
def tiny_config():
    return Config(steps=6, batch=4, warmup=2, layers=2, heads=1, ma_every=3, log_every=1)


@pytest.fixture
def make_trainer(tiny_config):
    latents = torch.randn(5, len(CAPTIONS), 8, 16, 16, generator=torch.Generator().manual_seed(0))

    def make(work):
        work.mkdir(exist_ok=True)
        return Trainer(tiny_config, work, latents, CAPTIONS)

    return make


@pytest.fixture
def tiny_run(tmp_path, make_trainer):
    """Folder of a finished three-step run with an (untrained) autoencoder and data set."""
    work = tmp_path / "run"
    make_trainer(work).run(stop_at=3)
    torch.manual_seed(0)
    make_vae((8, 8, 8)).save_pretrained(work / "vae")
    pixels = np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), 64, 64, 3), dtype=np.uint8)
    np.save(work / "pixels.npy", pixels)
    rows = {"captions": CAPTIONS, "codes": [str(i) for i in range(len(CAPTIONS))]}
    (work / "captions.json").write_text(json.dumps(rows))
    return work
