"""Measuring a finished folder: every number and clip that the model card shows."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline

from workbench.roles import ROLES, roles_of_grid

from .. import data as names
from ..evaluate import BAR_RATIO, BAR_SHARE, cpu_name
from ..export import folder_bytes
from ..massive import SIGMAS, ratios
from ..vae import psnr
from . import data
from .dit import MiniVideo, make_transformer, token_ids
from .grid import GUIDANCE, SAMPLING_STEPS, draw_prompts
from .nearest import recall
from .train import PROMPTS, ma_report, magnitudes
from .vae import encode

GRID = (5, 8, 8)
"""Latent frames, rows and columns of tokens."""
UNSEEN = ["blue dog face", "green rocket", "crying ghost", "dancing pizza"]
"""Prompts that no training clip carries; they show what the model has not learnt to combine."""


def real_clips(clips: data.Clips, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """Training clips as the model saw them, on random backgrounds, ``uint8`` (len(rows), 17, 64, 64, 3)."""
    shown = [data.on_background(clips.rgba[row], np.random.default_rng([seed, int(row)])) for row in rows]
    return ((np.stack(shown).transpose(0, 2, 3, 4, 1) + 1) * 127.5).round().astype(np.uint8)


def motion(videos: np.ndarray) -> np.ndarray:
    """Mean absolute difference of neighbouring frames, on [0, 1]; ``uint8`` (N, F, H, W, 3) to (N,)."""
    return np.abs(np.diff(videos.astype(np.float32) / 255, axis=1)).mean(axis=(1, 2, 3, 4))


def by_role(rows: list[torch.Tensor]) -> list[dict[str, float]]:
    """Of each block's |h| (B, tokens, channels): mean of its top channel in each role (boundary: one row of tokens)."""
    place = roles_of_grid(GRID, GRID[2])
    table = []
    for h in rows:
        top = h[..., int(h.mean((0, 1)).argmax())].mean(0).numpy()
        table.append({role: round(float(top[place == role].mean()), 4) for role in ROLES})
    return table


def ma_figures(model: MiniVideo, clean: torch.Tensor, ids: torch.Tensor) -> dict:
    """MA ratios of ``model`` and of a random twin, by role, and the reaction to the timestep input alone."""
    trained = ma_report(model, clean, ids)
    torch.manual_seed(1)
    twin = MiniVideo.__new__(MiniVideo)
    torch.nn.Module.__init__(twin)
    twin.transformer, twin.text_encoder = make_transformer().eval(), model.text_encoder
    blocks = len(model.transformer.blocks)
    met = {s: sum(r >= BAR_RATIO for r in trained[str(s)]["ratio"]) for s in SIGMAS}
    by_time = {
        str(t): ratios(torch.stack([h.mean((0, 1)) for h in magnitudes(model, clean, ids, 0.5, timestep=t)]))
        for t in (980, 750, 500, 250, 20)
    }
    rows = {str(s): magnitudes(model, clean, ids, s) for s in SIGMAS}
    top3 = [c for hs in rows.values() for h in hs for c in h.mean((0, 1)).topk(3).indices.tolist()]
    return {
        "definition": "top channel's mean |h| over the median channel's, video tokens, block outputs, 64 clips",
        "trained": trained,
        "random": ma_report(twin, clean, ids),
        "bar": {"ratio": BAR_RATIO, "share_of_blocks": BAR_SHARE, "blocks": blocks,
                "blocks_at_or_over": {str(s): n for s, n in met.items()},
                "met": any(n >= BAR_SHARE * blocks for n in met.values())},
        "timestep_input_only": by_time,
        "top_channel_by_role": {s: by_role(hs) for s, hs in rows.items()},
        "channels_in_top3": {str(c): top3.count(c) for c in sorted(set(top3), key=lambda c: -top3.count(c))[:6]},
        "cells": len(SIGMAS) * blocks,
    }  # fmt: skip


def training_log(work: Path) -> dict:
    """Loss curve (of single frames, then of clips) and growth of the ratio; of repeated steps the last counts."""
    rows: dict[int, dict] = {}
    for line in (work / "train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    loss = [[s, round(r["loss"], 5)] for s, r in sorted(rows.items()) if "loss" in r]
    growth = [[s] + [max(r["ma"][str(x)]["ratio"]) for x in SIGMAS] for s, r in sorted(rows.items()) if "ma" in r]
    vae = [json.loads(line) for line in (work / "vae.jsonl").read_text(encoding="utf-8").splitlines()]
    # A run that goes on begins to count again: every drop of the clock is a new leg.
    legs = [row for row, later in zip(vae, [*vae[1:], {"s": -1}], strict=True) if later["s"] < row["s"]]
    decoder = work / "vae-decoder.jsonl"
    sharpened = json.loads(decoder.read_text(encoding="utf-8").splitlines()[-1]) if decoder.exists() else None
    return {"loss": loss, "ma_growth": growth, "decoder": sharpened,
            "vae_steps": sum(r["step"] for r in legs), "vae_seconds": sum(r["s"] for r in legs)}  # fmt: skip


def vae_quality(pipe: WanPipeline, clips: data.Clips, rows: np.ndarray) -> dict:
    """PSNR in dB of what the autoencoder makes of training clips: of the first frame, and of each chunk of four."""
    real = torch.from_numpy(real_clips(clips, rows, seed=7)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        out = torch.cat([pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample for x in real.split(4)])
    spans = [slice(0, 1), *(slice(1 + 4 * i, 5 + 4 * i) for i in range(4))]
    return {"psnr_db": [round(psnr(out[:, :, s], real[:, :, s]), 2) for s in spans], "clips": len(rows)}


def evaluate(folder: Path, work: Path, sample: int = 32) -> tuple[dict, dict[str, np.ndarray]]:
    """Measure the exported ``folder``; returns the numbers and the clips by name."""
    clips = data.build(work)
    captions = clips.captions
    start = time.perf_counter()
    pipe = WanPipeline.from_pretrained(folder, local_files_only=True)
    loaded = time.perf_counter()
    draw_prompts(pipe, PROMPTS[:1])
    speed = {"load_seconds": round(loaded - start, 2), "clip_seconds": round(time.perf_counter() - loaded, 2),
             "threads": torch.get_num_threads()}  # fmt: skip
    model = MiniVideo.__new__(MiniVideo)
    torch.nn.Module.__init__(model)
    model.transformer, model.text_encoder = pipe.transformer, pipe.text_encoder
    rows = np.linspace(0, len(captions) - 1, 64).astype(int)
    real = torch.from_numpy(real_clips(clips, rows)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        clean = torch.cat([encode(pipe.vae, x) for x in real.split(4)])
    shots = {
        "prompts": draw_prompts(pipe, PROMPTS),
        "originals": real_clips(clips, np.array([captions.index(p) for p in PROMPTS])),
        "other_seed": draw_prompts(pipe, PROMPTS, seed=1000),
        "unguided": draw_prompts(pipe, PROMPTS, guidance_scale=1.0),
        "unseen": draw_prompts(pipe, UNSEEN),
    }
    picked = np.random.default_rng(0).choice(len(captions), sample, replace=False)
    asked = [captions[i] for i in picked]
    shots["sample"] = np.concatenate([draw_prompts(pipe, asked[i : i + 8], seed=i) for i in range(0, sample, 8)])
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    log = training_log(work)
    numbers = {
        "data": {"clips": len(captions), "words": len({w for c in captions for w in c.split()}), "size": data.SIZE,
                 "frames": data.FRAMES, "fps": data.FPS, "packages": list(data.PACKAGES),
                 "names_package": names.NAMES},
        "training": facts | {"machine": cpu_name(), "vae_seconds": log["vae_seconds"], "vae_steps": log["vae_steps"],
                             "decoder": log["decoder"], "ma_growth": log["ma_growth"],
                             "final_loss": float(np.mean([v for _, v in log["loss"][-25:]])),
                             "loss": log["loss"][:: max(1, len(log["loss"]) // 200)]},
        "versions": {name: __import__(name).__version__ for name in ("torch", "diffusers", "transformers")}
        | {"python": platform.python_version(), "cores": os.cpu_count()},
        "parameters": {name: sum(p.numel() for p in getattr(pipe, name).parameters())
                       for name in ("transformer", "vae", "text_encoder")},
        "vae": vae_quality(pipe, clips, rows[::2]),
        "sampling": {"guidance": GUIDANCE, "steps": SAMPLING_STEPS, "prompts": PROMPTS, "unseen": UNSEEN,
                     "sample": asked},
        "recall": {name: recall(shots[name], PROMPTS, clips) for name in ("prompts", "unguided", "other_seed")}
        | {"sample": recall(shots["sample"], asked, clips)},
        "motion": {"prompts": motion(shots["prompts"]).round(4).tolist(),
                   "originals": motion(shots["originals"]).round(4).tolist()},
        "massive_activations": ma_figures(model, clean, token_ids(pipe.tokenizer, [captions[i] for i in rows])),
        "speed": speed,
        "folder_bytes_without_card": folder_bytes(folder),
    }  # fmt: skip
    return numbers, shots
