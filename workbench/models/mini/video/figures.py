"""The figures of the model card, small enough to live in git."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..figures import draw_curves, save_pictures
from .data import FPS
from .grid import strips


def animate(videos: np.ndarray, path: Path, columns: int = 6, zoom: int = 2, gap: int = 4) -> None:
    """Clips (N, F, H, W, 3) side by side as one animated WebP."""
    from PIL import Image

    n, frames, h, w, _ = videos.shape
    rows = -(-n // columns)
    sheet = np.full((frames, rows * (h + gap), columns * (w + gap), 3), 255, np.uint8)
    for i, video in enumerate(videos):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        sheet[:, y : y + h, x : x + w] = video
    first, *rest = (Image.fromarray(frame.repeat(zoom, 0).repeat(zoom, 1)) for frame in sheet)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / FPS), loop=0, quality=70, method=6)


def draw_figures(numbers: dict, shots: dict[str, np.ndarray], folder: Path) -> list[str]:
    """Write all figures into ``folder``; returns their names."""
    pairs = np.stack([shots["originals"], shots["prompts"]], axis=1).reshape(-1, *shots["prompts"].shape[1:])
    pictures = {"grid.webp": strips(pairs, every=2), "unseen.webp": strips(shots["unseen"], every=2)}
    names = save_pictures(pictures, folder)
    animate(pairs, folder / "clips.webp")
    animate(shots["sample"], folder / "sample.webp", columns=8, zoom=1)
    curves = draw_curves(numbers, folder, numbers["training"]["config"]["still_steps"])
    return [*names, "clips.webp", "sample.webp", *curves]
