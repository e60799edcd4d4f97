"""Training of ``mini-image``: its set, its batches, its grids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from . import data
from .dit import MiniModel, draw, flow_loss, make_pipeline, prepare_for_training, set_counts
from .loop import Loop, LoopConfig, rows_of_step
from .massive import ma_report
from .text import CLIP_TOKENS, make_tokenizer, token_ids
from .vae import encode_all, to_signal

SHIFTS = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
"""Augmentation: ``shift_share`` of the samples are moved by two pixels."""
PROMPTS = [p for p in (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8").splitlines() if p]


@dataclass
class Config(LoopConfig):
    """What a run does; stored with the checkpoint.

    ``sigma_mean`` is the mean of the logit-normal noise levels until the rate decays, then it is 0: what a picture
    shows is decided at high noise, its details are learnt last.
    """

    shift_share: float = 0.0


def load_set(work: Path, vae: AutoencoderKL) -> tuple[torch.Tensor, list[str]]:
    """Latents (shifts, N, 8, 16, 16), encoded once and cached, and the N captions."""
    pixels, captions, _ = data.build(work)
    store = work / "latents.pt"
    if not store.exists():
        torch.save(encode_all(vae, to_signal(pixels), SHIFTS), store)
    return torch.load(store), captions


class Trainer(Loop[Config]):
    """A run on ``latents`` (shifts, N, 8, 16, 16) with N ``captions``."""

    model: MiniModel
    ema: MiniModel

    def __init__(self, config: Config, work: Path, latents: torch.Tensor, captions: list[str], device: str = "cpu"):
        self.latents = latents
        self.tokenizer = make_tokenizer(captions)
        self.ids = token_ids(self.tokenizer, captions)
        self.no_ids = token_ids(self.tokenizer, [""])
        torch.manual_seed(config.seed)
        model = MiniModel(self.tokenizer, config.layers, config.heads)
        super().__init__(config, work, model, model.transformer.transformer_blocks, device)

    def prepare(self) -> None:
        """Exchange slow kernels of the transformer."""
        self.attention = prepare_for_training(self.model.transformer)

    def loss(self) -> tuple[torch.Tensor, int]:
        """Loss of the batch of this step."""
        c = self.config
        g = torch.Generator().manual_seed(c.seed * 1_000_003 + self.step)
        rows = rows_of_step(c.seed, c.batch, self.step, self.latents.shape[1])
        shift = torch.randint(1, self.latents.shape[0], (c.batch,), generator=g)
        shift = torch.where(torch.rand(c.batch, generator=g) < c.shift_share, shift, 0)
        clean = self.latents[shift, rows].float().to(self.device)
        ids = torch.where(torch.rand(c.batch, 1, generator=g) < c.drop, self.no_ids, self.ids[rows]).to(self.device)
        sigma, counts = draw(g, c.batch, mean=c.decaying_sigma_mean if c.decaying(self.step) else c.sigma_mean)
        noise = torch.randn(clean.shape, generator=g).to(self.device)
        set_counts(self.attention, counts.to(self.device), clean.shape[-1] ** 2 // 4 + CLIP_TOKENS + 1)
        return flow_loss(self.model, clean, ids, sigma.to(self.device), noise), c.batch

    def report(self) -> dict:
        """MA figures of the averaged weights on 64 fixed samples."""
        n = min(64, len(self.ids))
        rows = torch.linspace(0, len(self.ids) - 1, n).long()
        return ma_report(self.ema, self.latents[0, rows].float().to(self.device), self.ids[rows].to(self.device))

    def draw_grid(self, vae: AutoencoderKL) -> Path:
        """Picture of the fixed prompts, drawn with the averaged weights by the ordinary pipeline."""
        from PIL import Image

        from .grid import draw_prompts, tile

        pictures = draw_prompts(make_pipeline(self.ema, self.tokenizer, vae), PROMPTS)
        path = self.work / f"grid-{self.step:06d}.png"
        Image.fromarray(tile(np.stack(list(pictures)), columns=4, zoom=2)).save(path)
        return path
