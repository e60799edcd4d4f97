"""Training of the judge. A killed run continues from its checkpoint; every step draws from its own generator."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from . import data, embedded_path
from .judge import JudgeConfig, JudgeNet, class_logits, group_captions, save_judge
from .judge_augment import augmented, vae_trip

LATENT_NOISE = (0.0, 0.2, 0.4)
"""Strengths of the VAE round trips that pictures are exchanged for while training."""


@dataclasses.dataclass(frozen=True)
class JudgeTraining:
    """Settings of a run; another setting starts anew."""

    steps: int = 6000
    batch: int = 128
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.05
    ema: float = 0.998
    seed: int = 0
    widths: tuple[int, ...] = (24, 64, 128, 160)
    trips: bool = True


def training_pictures(work: Path, pixels: np.ndarray, trips: bool) -> torch.Tensor:
    """Pictures as uint8 (V, N, 3, Y, X): the originals, then their round trips through the shipped autoencoder (once)."""
    originals = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    if not trips:
        return originals[None]
    path = work / "judge" / "trips.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        vae = AutoencoderKL.from_pretrained(embedded_path("mini-image") / "vae", local_files_only=True).eval()
        g = torch.Generator().manual_seed(1)
        made = [vae_trip(vae, originals.float() / 255, noise, g).mul(255).round().byte() for noise in LATENT_NOISE]
        np.save(path.with_suffix(".part.npy"), torch.stack(made).numpy())
        path.with_suffix(".part.npy").replace(path)
    return torch.cat([originals[None], torch.from_numpy(np.load(path))])


def rate(step: int, c: JudgeTraining) -> float:
    """Learning rate: warm-up, then half a cosine down to zero."""
    return c.lr * min(1.0, (step + 1) / c.warmup) * 0.5 * (1 + math.cos(math.pi * step / c.steps))


class JudgeTrainer:
    """A run in ``work/judge``: `checkpoint.pt`, `train.jsonl`, and at the end the exported folder ``out``."""

    def __init__(self, config: JudgeTraining, work: Path, pixels: np.ndarray, captions: list[str]) -> None:
        self.config, self.folder = config, work / "judge"
        self.folder.mkdir(parents=True, exist_ok=True)
        groups = group_captions(pixels, captions)
        self.labels = torch.zeros(len(captions), dtype=torch.long)
        for k, group in enumerate(groups):
            self.labels[group] = k
        self.judge = JudgeConfig(tuple(tuple(captions[i] for i in group) for group in groups), pixels.shape[1],
                                 config.widths)  # fmt: skip
        self.pictures = training_pictures(work, pixels, config.trips)
        torch.manual_seed(config.seed)
        net: torch.nn.Module = JudgeNet(self.judge)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net).eval()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.step, self.seconds = 0, 0.0
        self._resume()

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["config"] != json.loads(json.dumps(dataclasses.asdict(self.config))):
            raise SystemExit(f"{path} is of a run with other settings: {saved['config']}. Use them, or another --work.")
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint beside its place and rename it."""
        state = {"config": json.loads(json.dumps(dataclasses.asdict(self.config))), "net": self.net.state_dict(),
                 "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
                 "seconds": self.seconds}  # fmt: skip
        torch.save(state, self.folder / "checkpoint.part")
        os.replace(self.folder / "checkpoint.part", self.folder / "checkpoint.pt")

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and labels of one step; half of the pictures are originals, half round trips."""
        g = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        versions, n = self.pictures.shape[:2]
        rows = torch.randint(n, (self.config.batch,), generator=g)
        which = torch.randint(max(1, versions - 1), rows.shape, generator=g) + 1
        which = torch.where((torch.rand(rows.shape, generator=g) < 0.5) | (versions == 1), 0, which)
        return augmented(self.pictures[which, rows].float() / 255, g), self.labels[rows]

    def train_step(self) -> tuple[float, float]:
        """Take one step; return (loss, share recognised)."""
        pictures, labels = self.batch(self.step)
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step, self.config)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net(pictures.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            average = self.average.state_dict()
            for name, tensor in self.net.state_dict().items():
                mine = average[name]
                mine.lerp_(tensor, 1 - keep) if tensor.is_floating_point() else mine.copy_(tensor)
        return float(loss.detach()), float((logits.argmax(1) == labels).float().mean())

    def run(self, save_minutes: float = 2.0, stop_at: int | None = None) -> Path | None:
        """Train to the end (or to step ``stop_at``); return the exported folder, None if it is not done yet."""
        end = min(self.config.steps, stop_at or self.config.steps)
        last, since = time.monotonic(), time.monotonic()
        rows: list[tuple[float, float]] = []
        while self.step < end:
            rows.append(self.train_step())
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if self.step % 50 == 0 or self.step == end:
                loss, right = np.mean(rows, axis=0)
                rows.clear()
                row = {"step": self.step, "loss": round(float(loss), 4), "recognised": round(float(right), 4),
                       "seconds": round(self.seconds, 1)}  # fmt: skip
                with (self.folder / "train.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            if now - since > save_minutes * 60:
                self.save()
                since = time.monotonic()
        self.save()
        return self.export() if self.step == self.config.steps else None

    def export(self) -> Path:
        """Fit the temperature on held-out augmentations; write the folder ``out``."""
        logits, labels = self.held_out(8)
        best = fit_temperature(logits, labels)
        out = self.folder / "out"
        save_judge(self.average, dataclasses.replace(self.judge, temperature=best), out)
        facts = {"config": dataclasses.asdict(self.config), "seconds": round(self.seconds), "pictures": len(self.labels),
                 "parameters": sum(p.numel() for p in self.net.parameters())}  # fmt: skip
        (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return out

    def held_out(self, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels of augmentations that no training step has drawn."""
        made = [self.batch(10_000_000 + i) for i in range(batches)]
        return torch.cat([class_logits(self.average, x) for x, _ in made]), torch.cat([y for _, y in made])


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Temperature with the least cross-entropy (Guo et al. 2017), from a grid of 2 % steps."""
    grid = [0.4 * 1.02**i for i in range(120)]
    losses = [float(F.cross_entropy(logits / t, labels)) for t in grid]
    return round(grid[int(np.argmin(losses))], 4)


def train_judge(work: Path, config: JudgeTraining, save_minutes: float = 2.0) -> Path | None:
    """Train, or continue; returns the exported folder."""
    pixels, captions, _ = data.build(work)
    return JudgeTrainer(config, work, pixels, captions).run(save_minutes)
