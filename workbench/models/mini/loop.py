"""The training loop of the embedded models: checkpoints, exact resume, logs, sample grids.

Every random draw of step i comes from a generator seeded with (seed, i), so that a resumed run needs no random
state and ends at bit-identical weights on the same machine.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from .massive import peak


@dataclass
class LoopConfig:
    """What any run does; stored with the checkpoint."""

    steps: int = 12_000
    batch: int = 32
    lr: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 200
    decay_share: float = 0.2
    drop: float = 0.1
    sigma_mean: float = 0.5
    decaying_sigma_mean: float = 0.0
    ema: float = 0.999
    seed: int = 0
    layers: int = 8
    heads: int = 4
    compile: bool = False
    ma_every: int = 500
    log_every: int = 20

    def decaying(self, step: int) -> bool:
        """Whether the rate decays at this step."""
        return step >= self.steps * (1 - self.decay_share)


def rate(config: LoopConfig, step: int) -> float:
    """Learning rate: linear warm-up, constant, linear decay to zero over the last ``decay_share``."""
    left = (config.steps - step) / max(1.0, config.steps * config.decay_share)
    return config.lr * min(1.0, (step + 1) / config.warmup, left)


def rows_of_step(seed: int, batch: int, step: int, size: int) -> torch.Tensor:
    """Rows of the training set in batch ``step``: every epoch is one seeded permutation, (batch,)."""
    first = step * batch
    picked = []
    for epoch in range(first // size, (first + batch - 1) // size + 1):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        picked.append(order[max(0, first - epoch * size) : max(0, first + batch - epoch * size)])
    return torch.cat(picked)


C = TypeVar("C", bound=LoopConfig)


class Loop(ABC, Generic[C]):
    """State of a run in the folder ``work``; ``run`` continues from its checkpoint if there is one.

    Parameters
    ----------
    config
        What the run does.
    work
        Folder of the checkpoint, ``train.jsonl`` and the grids.
    model
        Untrained, made after ``torch.manual_seed(config.seed)``.
    blocks
        The blocks to compile if the config says so: they share their code, so it is compiled once.
    """

    SAMPLES = "images"
    """What is counted, as the checkpoint and the log name it."""

    def __init__(self, config: C, work: Path, model: nn.Module, blocks: Iterable[nn.Module], device: str = "cpu"):
        self.config, self.work, self.device = config, work, device
        self.model = model.to(device)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.prepare()
        if config.compile:
            for block in blocks:
                block.compile()
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, betas=config.betas, weight_decay=0.0, fused=True
        )
        self.step, self.samples, self.seconds = 0, 0, 0.0
        self.history: list[dict] = []
        self.checkpoint = work / "checkpoint.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=device)
            for name in ("model", "ema", "optimiser"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.seconds = state["step"], state["seconds"]
            self.samples, self.history = state[self.SAMPLES], state["history"]

    @abstractmethod
    def prepare(self) -> None:
        """Exchange slow kernels of the model that is trained; its averaged copy keeps diffusers' own."""

    @abstractmethod
    def loss(self) -> tuple[torch.Tensor, int]:
        """Loss of the batch of step ``self.step``, and how many samples it has."""

    @abstractmethod
    def report(self) -> dict:
        """MA figures of the averaged weights on fixed samples."""

    @abstractmethod
    def draw_grid(self, vae: Any) -> Path:
        """Picture of the fixed prompts, drawn with the averaged weights by the ordinary pipeline."""

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is complete."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "ema", "optimiser")}
        state |= {"step": self.step, self.SAMPLES: self.samples, "seconds": self.seconds}
        state |= {"config": asdict(self.config), "history": self.history}
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def train_step(self) -> torch.Tensor:
        """One optimiser step; returns the loss (not synchronised)."""
        c = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = rate(c, self.step)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            loss, samples = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += samples
        decay = min(c.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
        return loss.detach()

    def run(self, save_minutes: float = 5, grid_minutes: float = 15, vae=None, stop_at: int | None = None) -> None:
        """Train up to ``config.steps`` (or ``stop_at``), writing ``train.jsonl`` and grids into ``work``."""
        c, stopped = self.config, list[int]()
        signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))  # finish the step, then save
        if not self.history or self.history[-1]["config"] != asdict(c):  # a run may go on with other settings
            self.history.append({"from_step": self.step, "config": asdict(c)})
        with (self.work / "train.jsonl").open("a", encoding="utf-8") as log:
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
                    row |= {self.SAMPLES: self.samples, "seconds": round(self.seconds, 1)}
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
        self.save()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if vae is not None and not stopped:
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
