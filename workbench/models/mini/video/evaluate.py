"""Measuring a finished folder: every number and clip that the model card shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline

from workbench.roles import ROLES, roles_of_grid

from .. import data as names
from ..export import folder_bytes
from ..massive import SIGMAS
from ..measured import (
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


def twin(model: MiniVideo) -> MiniVideo:
    """An untrained transformer of the sizes of ``model``'s, with its trained text encoder; initialised with seed 1."""
    size = model.transformer.config
    torch.manual_seed(1)
    transformer = make_transformer(size.num_layers, size.num_attention_heads, size.ffn_dim).eval()
    return assembled(MiniVideo, transformer=transformer, text_encoder=model.text_encoder)


def channel_means(rows: list[torch.Tensor]) -> torch.Tensor:
    """Of each block's |h| (B, tokens, channels): mean over samples and tokens, (blocks, channels)."""
    return torch.stack([h.mean((0, 1)) for h in rows])


def ma_figures(model: MiniVideo, clean: torch.Tensor, ids: torch.Tensor) -> dict:
    """MA ratios of ``model`` and of a random twin, by role, and the reaction to the timestep input alone."""
    rows = {s: magnitudes(model, clean, ids, s) for s in SIGMAS}
    summary = ma_summary(
        f"top channel's mean |h| over the median channel's, video tokens, block outputs, {len(clean)} clips",
        {s: channel_means(hs) for s, hs in rows.items()},
        {t: channel_means(magnitudes(model, clean, ids, 0.5, timestep=t)) for t in TIMES},
        {"same_initialisation": ma_report(twin(model), clean, ids)},
    )
    return summary | {"top_channel_by_role": {str(s): by_role(hs) for s, hs in rows.items()}}


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
    pipe, speed = timed(
        lambda: WanPipeline.from_pretrained(folder, local_files_only=True),
        lambda pipe: draw_prompts(pipe, PROMPTS[:1]),
        "clip",
    )
    model = assembled(MiniVideo, transformer=pipe.transformer, text_encoder=pipe.text_encoder)
    rows = np.linspace(0, len(captions) - 1, min(64, len(captions))).astype(int)
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
    asked, shots["sample"] = draw_some(lambda some, seed: draw_prompts(pipe, some, seed), captions, sample, batch=8)
    numbers = {
        "data": {"clips": len(captions), "words": len({w for c in captions for w in c.split()}), "size": data.SIZE,
                 "frames": data.FRAMES, "fps": data.FPS, "packages": list(data.PACKAGES),
                 "names_package": names.NAMES},
        "training": training_numbers(folder, training_log(work, vae_goes_on=True)),
        "versions": software(),
        "parameters": parameter_counts(pipe),
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
