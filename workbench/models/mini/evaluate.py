"""Measuring a finished folder: every number and picture that the model card shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

from . import data
from .dit import MiniModel, make_transformer
from .export import folder_bytes
from .grid import GUIDANCE, SAMPLING_STEPS, draw_prompts
from .massive import SIGMAS, channel_means, ma_report, tokens_led
from .measured import (
    TIMES,
    assembled,
    draw_some,
    ma_summary,
    parameter_counts,
    software,
    timed,
    training_log,
    training_numbers,
)
from .text import Conditioner, token_ids
from .train import PROMPTS, SHIFTS
from .vae import encode_all, psnr, to_signal

UNSEEN = ["blue apple", "purple dog face", "green pizza", "red rocket", "dog with sunglasses", "two red apples"]
"""Prompts that no training picture carries; they show what the model has not learnt to combine."""


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


def twin(model: MiniModel, adaln_zero: bool) -> MiniModel:
    """An untrained transformer of the sizes of ``model``'s, with its trained text encoders; initialised with seed 1."""
    size = model.transformer.config
    torch.manual_seed(1)
    transformer = make_transformer(size.num_layers, size.num_attention_heads, adaln_zero).eval()
    return assembled(MiniModel, transformer=transformer, conditioner=model.conditioner)


def ma_figures(model: MiniModel, latents: torch.Tensor, ids: torch.Tensor) -> dict:
    """MA ratios of ``model``, of random twins, and the reaction to the timestep input alone."""
    moved = {t: channel_means(model, latents, ids, 0.5, timestep=t) for t in TIMES}
    middle = {str(t): means[len(means) // 2] for t, means in moved.items()}
    starts = {"same_initialisation": True, "diffusers_default_initialisation": False}
    summary = ma_summary(
        f"top channel's mean |h| over the median channel's, image tokens, block outputs, {len(latents)} pictures",
        {s: channel_means(model, latents, ids, s) for s in SIGMAS},
        moved,
        {name: ma_report(twin(model, zero), latents, ids) for name, zero in starts.items()},
    )
    return summary | {
        "timestep_input_only_middle_block_top_and_median": {
            t: [round(float(v), 4) for v in (row.max(), row.median())] for t, row in middle.items()
        },
        "tokens_led_by_top_channel": tokens_led(model, latents, ids),
    }


def evaluate(folder: Path, work: Path, sample: int = 96) -> tuple[dict, dict[str, np.ndarray]]:
    """Measure the exported ``folder``; returns the numbers and the pictures by name."""
    pixels, captions, codes = data.build(work)
    pipe, speed = timed(
        lambda: StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True),
        lambda pipe: draw_prompts(pipe, PROMPTS[:1]),
        "picture",
    )
    conditioner = Conditioner(pipe.text_encoder, pipe.text_encoder_2)
    model = assembled(MiniModel, transformer=pipe.transformer, conditioner=conditioner)
    rows = torch.linspace(0, len(captions) - 1, min(64, len(captions))).long()
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
    asked, shots["sample"] = draw_some(lambda some, seed: draw_prompts(pipe, some, seed), captions, sample, batch=16)
    training = training_numbers(folder, training_log(work))
    numbers = {
        "data": {"pictures": len(captions), "words": len({w for c in captions for w in c.split()}), "size": 64,
                 "pictures_package": data.PICTURES, "names_package": data.NAMES, "codes": len(set(codes))},
        "training": training | {"epochs": round(training["images"] / len(captions), 1)},
        "versions": software(),
        "parameters": parameter_counts(pipe),
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
