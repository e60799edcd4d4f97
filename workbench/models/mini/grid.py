"""Pictures of prompts with the ordinary pipeline, and grids of them."""

from __future__ import annotations

import numpy as np
import torch

GUIDANCE = 4.0
SAMPLING_STEPS = 20


def draw_prompts(pipe, prompts: list[str], seed: int = 0, max_sequence_length: int = 8, **kwargs) -> np.ndarray:
    """One picture per prompt, ``uint8`` (N, 64, 64, 3); picture i starts from noise of seed ``seed + i``."""
    pipe.set_progress_bar_config(disable=True)
    options = {"guidance_scale": GUIDANCE, "num_inference_steps": SAMPLING_STEPS, "height": 64, "width": 64} | kwargs
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    with torch.no_grad():
        out = pipe(
            prompts, generator=generators, max_sequence_length=max_sequence_length, output_type="np", **options
        ).images
    return (out * 255).round().astype(np.uint8)


def tile(pictures: np.ndarray, columns: int, zoom: int = 1, gap: int = 2) -> np.ndarray:
    """Pictures (N, H, W, 3) as one picture of ``columns`` columns, each pixel ``zoom`` wide."""
    n, h, w, _ = pictures.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap), columns * (w + gap), 3), 224, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[y : y + h, x : x + w] = picture
    return sheet.repeat(zoom, axis=0).repeat(zoom, axis=1)
