"""Clips of prompts with the ordinary pipeline, as frame strips."""

from __future__ import annotations

import numpy as np
import torch

from .data import FRAMES, SIZE

GUIDANCE = 4.0
SAMPLING_STEPS = 20


def draw_prompts(pipe, prompts: list[str], seed: int = 0, num_frames: int = FRAMES, **kwargs) -> np.ndarray:
    """One clip per prompt, ``uint8`` (N, F, 64, 64, 3); clip i starts from noise of seed ``seed + i``."""
    pipe.set_progress_bar_config(disable=True)
    options = {"guidance_scale": GUIDANCE, "num_inference_steps": SAMPLING_STEPS, "height": SIZE, "width": SIZE}
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    with torch.no_grad():
        out = pipe(prompts, generator=generators, num_frames=num_frames, output_type="np", **(options | kwargs)).frames
    return (np.asarray(out) * 255).round().astype(np.uint8)


def strips(videos: np.ndarray, every: int = 1, gap: int = 2) -> np.ndarray:
    """Clips (N, F, H, W, 3) as one picture: a row a clip, every so many frames from left to right."""
    shown = videos[:, ::every]
    n, f, h, w, _ = shown.shape
    sheet = np.full((n * (h + gap), f * (w + gap), 3), 255, np.uint8)
    for row in range(n):
        for column in range(f):
            sheet[row * (h + gap) : row * (h + gap) + h, column * (w + gap) : column * (w + gap) + w] = shown[
                row, column
            ]
    return sheet
