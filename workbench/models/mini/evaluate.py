"""Measuring a finished folder: every number and picture that the model card shows."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

from . import data
from .dit import MiniModel, make_transformer
from .export import folder_bytes
from .grid import GUIDANCE, SAMPLING_STEPS, draw_prompts
from .massive import SIGMAS, channel_means, ma_report, ratios, tokens_led
from .text import Conditioner, token_ids
from .train import PROMPTS, SHIFTS
from .vae import encode_all, psnr, to_signal

BAR_RATIO, BAR_SHARE = 8.0, 0.5
UNSEEN = ["blue apple", "purple dog face", "green pizza", "red rocket", "dog with sunglasses", "two red apples"]
"""Prompts that no training picture carries; they show what the model has not learnt to combine."""


def cpu_name() -> str:
    """Model name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def rank_of(picture: np.ndarray, own: int, pixels: np.ndarray) -> int:
    """Rank (1 = nearest) of training picture ``own`` by pixel distance to ``picture``, shifts allowed.

    Parameters
    ----------
    picture
        ``uint8`` (64, 64, 3).
    pixels
        All training pictures, ``uint8`` (N, 64, 64, 3).
    """
    best = np.full(len(pixels), np.inf)
    for dy, dx in SHIFTS:
        moved = np.roll(picture, (-dy, -dx), (0, 1))[2:-2, 2:-2].astype(np.float32)
        away = ((pixels[:, 2:-2, 2:-2].astype(np.float32) - moved) ** 2).mean((1, 2, 3))
        best = np.minimum(best, away)
    return int((best < best[own]).sum()) + 1


def recall(pictures: np.ndarray, captions: list[str], all_captions: list[str], pixels: np.ndarray) -> dict:
    """How often the training picture of the prompt is the nearest (or among the five nearest) one."""
    ranks = [rank_of(p, all_captions.index(c), pixels) for p, c in zip(pictures, captions, strict=True)]
    return {"n": len(ranks), "top1": sum(r == 1 for r in ranks), "top5": sum(r <= 5 for r in ranks), "ranks": ranks}


def ma_figures(model: MiniModel, latents: torch.Tensor, ids: torch.Tensor) -> dict:
    """MA ratios of ``model``, of random twins, and the reaction to the timestep input alone."""
    trained = ma_report(model, latents, ids)
    twins = {}
    for name, zero in (("same_initialisation", True), ("diffusers_default_initialisation", False)):
        torch.manual_seed(1)
        twin = MiniModel.__new__(MiniModel)
        torch.nn.Module.__init__(twin)
        twin.transformer, twin.conditioner = make_transformer(adaln_zero=zero).eval(), model.conditioner
        twins[name] = ma_report(twin, latents, ids)
    met = {s: sum(r >= BAR_RATIO for r in trained[str(s)]["ratio"]) for s in SIGMAS}
    rows: list[torch.Tensor] = []
    blocks = model.transformer.transformer_blocks
    hooks = [b.register_forward_hook(lambda _m, _i, o: rows.append(o[1].abs().mean((0, 1)))) for b in blocks]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    by_time, by_time_absolute = {}, {}
    with torch.no_grad():
        tokens, pooled = model.conditioner(ids, t5_tokens=8)
        for t in (980, 750, 500, 250, 20):
            rows.clear()
            model.transformer(0.5 * latents + 0.5 * noise, tokens, pooled, torch.full((len(latents),), float(t)))
            by_time[str(t)] = ratios(torch.stack(rows))
            middle = rows[len(rows) // 2]
            by_time_absolute[str(t)] = [round(float(v), 4) for v in (middle.max(), middle.median())]
    for hook in hooks:
        hook.remove()
    means = torch.stack([channel_means(model, latents, ids, s) for s in SIGMAS])
    top3 = means.topk(3, dim=-1).indices.flatten().tolist()
    return {
        "definition": "top channel's mean |h| over the median channel's, image tokens, block outputs, 64 pictures",
        "trained": trained,
        "random": twins,
        "bar": {"ratio": BAR_RATIO, "share_of_blocks": BAR_SHARE, "blocks": len(blocks),
                "blocks_at_or_over": {str(s): n for s, n in met.items()},
                "met": any(n >= BAR_SHARE * len(blocks) for n in met.values())},
        "timestep_input_only": by_time,
        "timestep_input_only_middle_block_top_and_median": by_time_absolute,
        "channels_in_top3": {str(c): top3.count(c) for c in sorted(set(top3), key=lambda c: -top3.count(c))[:6]},
        "tokens_led_by_top_channel": tokens_led(model, latents, ids),
        "cells": len(SIGMAS) * len(blocks),
    }  # fmt: skip


def training_log(work: Path) -> dict:
    """Loss curve and growth of the ratio from ``train.jsonl``; of repeated steps the last counts."""
    rows: dict[int, dict] = {}
    for line in (work / "train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    loss = [[s, round(r["loss"], 5)] for s, r in sorted(rows.items()) if "loss" in r]
    growth = [[s] + [max(r["ma"][str(x)]["ratio"]) for x in SIGMAS] for s, r in sorted(rows.items()) if "ma" in r]

    def last(name: str) -> dict:
        return json.loads((work / name).read_text(encoding="utf-8").splitlines()[-1])

    vae = last("vae.jsonl")
    decoder = last("vae-decoder.jsonl") if (work / "vae-decoder.jsonl").exists() else None
    return {"loss": loss, "ma_growth": growth, "decoder": decoder, "vae_steps": vae["step"], "vae_seconds": vae["s"]}


def evaluate(folder: Path, work: Path, sample: int = 96) -> tuple[dict, dict[str, np.ndarray]]:
    """Measure the exported ``folder``; returns the numbers and the pictures by name."""
    pixels, captions, codes = data.build(work)
    start = time.perf_counter()
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)
    loaded = time.perf_counter()
    draw_prompts(pipe, PROMPTS[:1])
    speed = {"load_seconds": round(loaded - start, 2), "picture_seconds": round(time.perf_counter() - loaded, 2),
             "threads": torch.get_num_threads()}  # fmt: skip
    model = MiniModel.__new__(MiniModel)
    torch.nn.Module.__init__(model)
    model.transformer, model.conditioner = pipe.transformer, Conditioner(pipe.text_encoder, pipe.text_encoder_2)
    rows = torch.linspace(0, len(captions) - 1, 64).long()
    pictures = to_signal(pixels)
    latents = encode_all(pipe.vae, pictures[rows], [(0, 0)])[0]
    with torch.no_grad():
        out = torch.cat([pipe.vae.decode(pipe.vae.encode(p).latent_dist.mean).sample for p in pictures.split(64)])
    shots = {
        "prompts": draw_prompts(pipe, PROMPTS),
        "originals": pixels[[captions.index(p) for p in PROMPTS]],
        "stock": draw_prompts(pipe, PROMPTS, max_sequence_length=256, num_inference_steps=28, guidance_scale=7.0),
        "unguided": draw_prompts(pipe, PROMPTS, guidance_scale=1.0),
        "other_seed": draw_prompts(pipe, PROMPTS, seed=1000),
        "unseen": draw_prompts(pipe, UNSEEN),
    }
    picked = np.random.default_rng(0).choice(len(captions), sample, replace=False)
    asked = [captions[i] for i in picked]
    shots["sample"] = np.concatenate([draw_prompts(pipe, asked[i : i + 16], seed=i) for i in range(0, sample, 16)])
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    log = training_log(work)
    numbers = {
        "data": {"pictures": len(captions), "words": len({w for c in captions for w in c.split()}), "size": 64,
                 "pictures_package": data.PICTURES, "names_package": data.NAMES, "codes": len(set(codes))},
        "training": facts | {"epochs": round(facts["images"] / len(captions), 1),
                             "machine": cpu_name(), "vae_seconds": log["vae_seconds"],
                             "vae_steps": log["vae_steps"], "decoder": log["decoder"],
                             "final_loss": float(np.mean([v for _, v in log["loss"][-25:]])),
                             "loss": log["loss"][:: max(1, len(log["loss"]) // 200)], "ma_growth": log["ma_growth"]},
        "versions": {name: __import__(name).__version__ for name in ("torch", "diffusers", "transformers")}
        | {"python": platform.python_version(), "cores": os.cpu_count()},
        "parameters": {name: sum(p.numel() for p in getattr(pipe, name).parameters())
                       for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")},
        "vae": {"psnr_db": round(psnr(out, pictures), 2), "scaling_factor": pipe.vae.config.scaling_factor,
                "shift_factor": pipe.vae.config.shift_factor},
        "sampling": {"guidance": GUIDANCE, "steps": SAMPLING_STEPS, "prompts": PROMPTS, "unseen": UNSEEN,
                     "sample": asked},
        "recall": {name: recall(shots[name], PROMPTS, captions, pixels) for name in ("prompts", "stock", "unguided", "other_seed")}
        | {"sample": recall(shots["sample"], asked, captions, pixels)},
        "massive_activations": ma_figures(model, latents, token_ids(pipe.tokenizer, [captions[i] for i in rows])),
        "speed": speed,
        "psnr_between_seeds_db": round(psnr(to_signal(shots["other_seed"]), to_signal(shots["prompts"])), 2),
        "folder_bytes_without_card": folder_bytes(folder),
    }  # fmt: skip
    return numbers, shots
