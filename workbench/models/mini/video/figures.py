"""The figures of the model card, small enough to live in git."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..figures import axes, save
from ..massive import SIGMAS
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
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    pairs = np.stack([shots["originals"], shots["prompts"]], axis=1).reshape(-1, *shots["prompts"].shape[1:])
    pictures = {"grid.webp": strips(pairs, every=2), "unseen.webp": strips(shots["unseen"], every=2)}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name, quality=80, method=6)
    animate(pairs, folder / "clips.webp")
    animate(shots["sample"], folder / "sample.webp", columns=8, zoom=1)

    figure, plot = axes()
    steps, losses = zip(*numbers["training"]["loss"], strict=True)
    plot.plot(steps, losses, lw=0.8)
    plot.axvline(numbers["training"]["config"]["still_steps"], color="0.5", lw=0.8, ls=":")
    plot.set(xlabel="step (left of the line: single frames)", ylabel="loss (mean over 20 steps)", yscale="log")
    save(figure, folder / "loss.png")

    ma = numbers["massive_activations"]
    figure, plot = axes()
    for sigma, colour in zip(SIGMAS, ("C3", "C1", "C0"), strict=True):
        plot.plot(ma["trained"][str(sigma)]["ratio"], "o-", color=colour, label=f"trained, sigma {sigma}")
    plot.plot(ma["random"]["0.5"]["ratio"], ":", color="0.5", label="untrained, sigma 0.5")
    plot.axhline(ma["bar"]["ratio"], color="k", lw=0.6)
    plot.set(xlabel="block", ylabel="top / median channel", yscale="log")
    plot.legend(fontsize=7)
    save(figure, folder / "ma-blocks.png")

    figure, plot = axes()
    growth = np.array(numbers["training"]["ma_growth"], float)
    for i, sigma in enumerate(SIGMAS):
        plot.plot(growth[:, 0], growth[:, i + 1], "o-", ms=3, label=f"sigma {sigma}")
    plot.set(xlabel="step", ylabel="largest ratio over blocks")
    plot.legend(fontsize=7)
    save(figure, folder / "ma-growth.png")
    return [*pictures, "clips.webp", "sample.webp", "loss.png", "ma-blocks.png", "ma-growth.png"]
