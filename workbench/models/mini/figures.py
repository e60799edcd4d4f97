"""The figures of the model card, small enough to live in git."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .grid import tile
from .massive import SIGMAS


def save(figure, path: Path) -> None:
    """Write a matplotlib figure as a palette PNG of a few ten kB."""
    from io import BytesIO

    from PIL import Image

    raw = BytesIO()
    figure.savefig(raw, dpi=110, bbox_inches="tight", format="png")
    Image.open(raw).convert("RGB").quantize(64).save(path, optimize=True)


def axes(width: float = 6.4, height: float = 3.2):
    """A figure of one plot, and the plot."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(width, height))
    plot = figure.subplots()
    plot.grid(alpha=0.3)
    return figure, plot


def draw_curves(numbers: dict, folder: Path, still_steps: int | None = None) -> list[str]:
    """Write loss, ratio by block and ratio during training into ``folder``; returns their names.

    ``still_steps``: up to where single frames were trained on, if they were.
    """
    figure, plot = axes()
    steps, losses = zip(*numbers["training"]["loss"], strict=True)
    plot.plot(steps, losses, lw=0.8)
    plot.set(xlabel="step", ylabel="loss (mean over 20 steps)", yscale="log")
    if still_steps is not None:
        plot.axvline(still_steps, color="0.5", lw=0.8, ls=":")
        plot.set_xlabel("step (left of the line: single frames)")
    save(figure, folder / "loss.png")

    figure, plot = axes()
    ma = numbers["massive_activations"]
    for sigma, colour in zip(SIGMAS, ("C3", "C1", "C0"), strict=True):
        plot.plot(ma["trained"][str(sigma)]["ratio"], "o-", color=colour, label=f"trained, sigma {sigma}")
    for (name, report), style in zip(ma["random"].items(), (":", "--"), strict=False):
        plot.plot(report["0.5"]["ratio"], style, color="0.5", label="untrained, " + name.replace("_", " "))
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
    return ["loss.png", "ma-blocks.png", "ma-growth.png"]


def save_pictures(pictures: dict[str, np.ndarray], folder: Path) -> list[str]:
    """Write ``uint8`` pictures (H, W, 3) by file name into ``folder``; returns the names."""
    from PIL import Image

    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name, quality=80, method=6)
    return list(pictures)


def draw_figures(numbers: dict, shots: dict[str, np.ndarray], folder: Path) -> list[str]:
    """Write all figures into ``folder``; returns their names."""
    pairs = np.stack([shots["originals"], shots["prompts"]], axis=1).reshape(-1, 64, 64, 3)
    pictures = {
        "grid.webp": tile(pairs, columns=8, zoom=2),
        "stock.webp": tile(shots["stock"], columns=8),
        "unseen.webp": tile(shots["unseen"], columns=8),
        "sample.webp": tile(shots["sample"], columns=16),
    }
    return [*save_pictures(pictures, folder), *draw_curves(numbers, folder)]
