"""What is measured alike of both embedded models: speed, the training log, massive activations beside untrained twins."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from .massive import SIGMAS, ratios, report_of

BAR_RATIO, BAR_SHARE = 8.0, 0.5
TIMES = (980, 750, 500, 250, 20)
"""Timesteps that go into the embedding of one and the same noisy latent."""

M = TypeVar("M", bound=nn.Module)


def assembled(kind: type[M], **parts: nn.Module) -> M:
    """A module of class ``kind`` with the ``parts`` given; none is made anew."""
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    for name, part in parts.items():
        setattr(model, name, part)
    return model


def cpu_name() -> str:
    """Model name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def software() -> dict[str, Any]:
    """Versions of what computes, and the number of cores."""
    versions = {name: __import__(name).__version__ for name in ("torch", "diffusers", "transformers")}
    return versions | {"python": platform.python_version(), "cores": os.cpu_count()}


def parameter_counts(pipe: Any) -> dict[str, int]:
    """Number of parameters of every network of a pipeline."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in pipe.components.items()
            if isinstance(part, nn.Module)}  # fmt: skip


def timed(load: Callable[[], Any], draw: Callable[[Any], Any], unit: str) -> tuple[Any, dict[str, float]]:
    """What ``load`` returns, and the seconds that this and drawing one ``unit`` take."""
    start = time.perf_counter()
    pipe = load()
    loaded = time.perf_counter()
    draw(pipe)
    took = {"load_seconds": round(loaded - start, 2), f"{unit}_seconds": round(time.perf_counter() - loaded, 2)}
    return pipe, took | {"threads": torch.get_num_threads()}


def draw_some(
    draw: Callable[[list[str], int], np.ndarray], captions: Sequence[str], count: int, batch: int
) -> tuple[list[str], np.ndarray]:
    """``count`` captions at random, and what ``draw(prompts, seed)`` makes of them, ``batch`` at a time."""
    asked = [captions[i] for i in np.random.default_rng(0).choice(len(captions), count, replace=False)]
    return asked, np.concatenate([draw(asked[i : i + batch], i) for i in range(0, count, batch)])


def training_log(work: Path, vae_goes_on: bool = False) -> dict:
    """Loss curve and growth of the ratio from ``train.jsonl`` (of repeated steps the last counts), and the autoencoder's time.

    ``vae_goes_on``: every start of the autoencoder's training went on from the one before; else the last began anew.
    """

    def read(name: str) -> list[dict]:
        return [json.loads(line) for line in (work / name).read_text(encoding="utf-8").splitlines()]

    rows: dict[int, dict] = {}
    for row in read("train.jsonl"):
        rows.setdefault(row["step"], {}).update(row)
    loss = [[s, round(r["loss"], 5)] for s, r in sorted(rows.items()) if "loss" in r]
    growth = [[s] + [max(r["ma"][str(x)]["ratio"]) for x in SIGMAS] for s, r in sorted(rows.items()) if "ma" in r]
    vae = read("vae.jsonl")
    # A run that goes on begins to count again: every drop of the clock is a new leg.
    legs = [row for row, later in zip(vae, [*vae[1:], {"s": -1}], strict=True) if later["s"] < row["s"]]
    legs = legs if vae_goes_on else legs[-1:]
    decoder = read("vae-decoder.jsonl")[-1] if (work / "vae-decoder.jsonl").exists() else None
    return {"loss": loss, "ma_growth": growth, "decoder": decoder,
            "vae_steps": sum(r["step"] for r in legs), "vae_seconds": sum(r["s"] for r in legs)}  # fmt: skip


def training_numbers(folder: Path, log: dict) -> dict:
    """The facts in ``training.json``, and the `training_log` with at most some 200 points of its loss."""
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    final, thin = float(np.mean([v for _, v in log["loss"][-25:]])), max(1, len(log["loss"]) // 200)
    return facts | {"machine": cpu_name()} | log | {"final_loss": final, "loss": log["loss"][::thin]}


def ma_summary(
    definition: str,
    means: Mapping[float, torch.Tensor],
    moved: Mapping[int, torch.Tensor],
    twins: Mapping[str, dict[str, dict[str, list]]],
) -> dict:
    """MA ratios of a model and its untrained twins, the bar, and the reaction to the timestep input alone.

    Parameters
    ----------
    definition
        What the ratio is, in words.
    means
        Mean |h| (blocks, channels) by noise level, for all of `SIGMAS`.
    moved
        The same at noise level 0.5 with another timestep as input, by that timestep.
    twins
        Reports of untrained models by name.
    """
    trained = report_of(means.__getitem__)
    blocks = len(means[SIGMAS[0]])
    met = {s: sum(r >= BAR_RATIO for r in trained[str(s)]["ratio"]) for s in SIGMAS}
    top3 = torch.stack([means[s] for s in SIGMAS]).topk(3, dim=-1).indices.flatten().tolist()
    return {
        "definition": definition,
        "trained": trained,
        "random": dict(twins),
        "bar": {"ratio": BAR_RATIO, "share_of_blocks": BAR_SHARE, "blocks": blocks,
                "blocks_at_or_over": {str(s): n for s, n in met.items()},
                "met": any(n >= BAR_SHARE * blocks for n in met.values())},
        "timestep_input_only": {str(t): ratios(table) for t, table in moved.items()},
        "channels_in_top3": {str(c): top3.count(c) for c in sorted(set(top3), key=lambda c: -top3.count(c))[:6]},
        "cells": len(SIGMAS) * blocks,
    }  # fmt: skip
