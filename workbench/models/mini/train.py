"""Training loop of ``mini-image``: checkpoints, exact resume, logs, sample grids.

Every random draw of step i comes from a generator seeded with (seed, i), so that a resumed run needs no random
state and ends at bit-identical weights on the same machine.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from . import data
from .dit import MiniModel, draw, flow_loss, make_pipeline, prepare_for_training, set_counts
from .massive import ma_report, peak
from .text import CLIP_TOKENS, make_tokenizer, token_ids
from .vae import encode_all, to_signal

SHIFTS = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
"""Augmentation: ``shift_share`` of the samples are moved by two pixels."""
PROMPTS = [p for p in (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8").splitlines() if p]


@dataclass
class Config:
    """What a run does; stored with the checkpoint.

    ``sigma_mean`` is the mean of the logit-normal noise levels until the rate decays, then it is 0: what a picture
    shows is decided at high noise, its details are learnt last.
    """

    steps: int = 12_000
    batch: int = 32
    lr: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 200
    decay_share: float = 0.2
    drop: float = 0.1
    shift_share: float = 0.0
    sigma_mean: float = 0.5
    ema: float = 0.999
    seed: int = 0
    layers: int = 8
    heads: int = 4
    compile: bool = False
    ma_every: int = 500
    log_every: int = 20


def load_set(work: Path, vae: AutoencoderKL) -> tuple[torch.Tensor, list[str]]:
    """Latents (shifts, N, 8, 16, 16), encoded once and cached, and the N captions."""
    pixels, captions, _ = data.build(work)
    store = work / "latents.pt"
    if not store.exists():
        torch.save(encode_all(vae, to_signal(pixels), SHIFTS), store)
    return torch.load(store), captions


def rate(config: Config, step: int) -> float:
    """Learning rate: linear warm-up, constant, linear decay to zero over the last ``decay_share``."""
    left = (config.steps - step) / max(1.0, config.steps * config.decay_share)
    return config.lr * min(1.0, (step + 1) / config.warmup, left)


def rows_of_step(config: Config, step: int, size: int) -> torch.Tensor:
    """Rows of the training set in batch ``step``: every epoch is one seeded permutation, (batch,)."""
    first = step * config.batch
    picked = []
    for epoch in range(first // size, (first + config.batch - 1) // size + 1):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(config.seed * 100_003 + epoch))
        picked.append(order[max(0, first - epoch * size) : max(0, first + config.batch - epoch * size)])
    return torch.cat(picked)


class Trainer:
    """State of a run in the folder ``work``; ``run`` continues from its checkpoint if there is one."""

    def __init__(self, config: Config, work: Path, latents: torch.Tensor, captions: list[str], device: str = "cpu"):
        self.config, self.work, self.device, self.latents = config, work, device, latents
        self.tokenizer = make_tokenizer(captions)
        self.ids = token_ids(self.tokenizer, captions)
        self.no_ids = token_ids(self.tokenizer, [""])
        torch.manual_seed(config.seed)
        self.model = MiniModel(self.tokenizer, config.layers, config.heads).to(device)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.attention = prepare_for_training(self.model.transformer)
        if config.compile:  # block by block: they share their code, so it is compiled once
            for block in self.model.transformer.transformer_blocks:
                block.compile()
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, betas=config.betas, weight_decay=0.0, fused=True
        )
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.history: list[dict] = []
        self.checkpoint = work / "checkpoint.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=device)
            for name in ("model", "ema", "optimiser"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.seconds = state["step"], state["seconds"]
            self.images, self.history = state["images"], state["history"]

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is complete."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "ema", "optimiser")}
        state |= {"step": self.step, "images": self.images, "seconds": self.seconds, "config": asdict(self.config)}
        state["history"] = self.history
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def train_step(self) -> torch.Tensor:
        """One optimiser step; returns the loss (not synchronised)."""
        c = self.config
        g = torch.Generator().manual_seed(c.seed * 1_000_003 + self.step)
        rows = rows_of_step(c, self.step, self.latents.shape[1])
        shift = torch.randint(1, self.latents.shape[0], (c.batch,), generator=g)
        shift = torch.where(torch.rand(c.batch, generator=g) < c.shift_share, shift, 0)
        clean = self.latents[shift, rows].float().to(self.device)
        ids = torch.where(torch.rand(c.batch, 1, generator=g) < c.drop, self.no_ids, self.ids[rows]).to(self.device)
        decaying = self.step >= c.steps * (1 - c.decay_share)
        sigma, counts = draw(g, c.batch, mean=0.0 if decaying else c.sigma_mean)
        noise = torch.randn(clean.shape, generator=g).to(self.device)
        set_counts(self.attention, counts.to(self.device), clean.shape[-1] ** 2 // 4 + CLIP_TOKENS + 1)
        for group in self.optimiser.param_groups:
            group["lr"] = rate(c, self.step)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            loss = flow_loss(self.model, clean, ids, sigma.to(self.device), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.images += c.batch
        decay = min(c.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
        return loss.detach()

    def report(self) -> dict:
        """MA figures of the EMA weights on 64 fixed samples."""
        n = min(64, len(self.ids))
        rows = torch.linspace(0, len(self.ids) - 1, n).long()
        return ma_report(self.ema, self.latents[0, rows].float().to(self.device), self.ids[rows].to(self.device))

    def run(self, save_minutes: float = 5, grid_minutes: float = 15, vae=None, stop_at: int | None = None) -> None:
        """Train up to ``config.steps`` (or ``stop_at``), writing ``train.jsonl`` and grids into ``work``."""
        c, log = self.config, (self.work / "train.jsonl").open("a", encoding="utf-8")
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))  # finish the step, then save
        if not self.history or self.history[-1]["config"] != asdict(c):  # a run may go on with other settings
            self.history.append({"from_step": self.step, "config": asdict(c)})
        if self.step == 0:
            log.write(json.dumps({"step": 0, "ma": self.report()}) + "\n")
        saved = drawn = before = time.monotonic()
        losses: list[torch.Tensor] = []
        while self.step < min(c.steps, stop_at or c.steps) and not stopped:
            losses.append(self.train_step())
            now = time.monotonic()
            self.seconds, before = self.seconds + now - before, now
            row: dict[str, Any] = {}
            if self.step % c.log_every == 0:
                row = {"step": self.step, "loss": float(torch.stack(losses).mean()), "lr": rate(c, self.step)}
                row |= {"images": self.images, "seconds": round(self.seconds, 1)}
                losses = []
            if self.step % c.ma_every == 0:
                row = {"step": self.step} | row | {"ma": self.report()}
                self.status(row)
            if row:
                log.write(json.dumps(row) + "\n")
                log.flush()
            if now - saved > 60 * save_minutes:
                self.save()
                self.status(row)
                saved = time.monotonic()
            if vae is not None and now - drawn > 60 * grid_minutes:
                self.draw_grid(vae)
                drawn = time.monotonic()
        log.close()
        self.save()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if stopped:
            return
        if vae is not None:
            self.draw_grid(vae)

    def status(self, row: dict) -> None:
        """Keep one line for people who want to know how far the run is."""
        line = f"{time.strftime('%H:%M:%S')} step {self.step}/{self.config.steps} {self.seconds:.0f}s"
        if "loss" in row:
            line += f" loss {row['loss']:.4f}"
        if "ma" in row:
            self.peak = peak(row["ma"])
        line += f" max MA ratio {getattr(self, 'peak', float('nan')):.2f}"
        grids = sorted(self.work.glob("grid-*.png"))
        (self.work / "STATUS.txt").write_text(f"{line} {grids[-1] if grids else ''}\n", encoding="utf-8")

    def draw_grid(self, vae: AutoencoderKL) -> Path:
        """Picture of the fixed prompts, drawn with the EMA weights by the ordinary pipeline."""
        from PIL import Image

        from .grid import draw_prompts, tile

        pictures = draw_prompts(make_pipeline(self.ema, self.tokenizer, vae), PROMPTS)
        path = self.work / f"grid-{self.step:06d}.png"
        Image.fromarray(tile(np.stack(list(pictures)), columns=4, zoom=2)).save(path)
        return path
