"""Videos with something that moves, and a recording that holds them."""

from __future__ import annotations

import numpy as np
import xarray as xr

FRAMES, SIZE = 17, 24


def moving(colour: tuple[int, int, int] = (230, 60, 40), *, noise: float = 0.0, frames: int = FRAMES) -> np.ndarray:
    """A square that goes from left to right on grey: (frame, y, x, rgb), uint8."""
    video = np.full((frames, SIZE, SIZE, 3), 150.0)
    for f in range(frames):
        left = 1 + round(f * (SIZE - 10) / max(frames - 1, 1))
        video[f, 8:16, left : left + 8] = colour
    video += np.random.default_rng(0).normal(0, noise, video.shape) if noise else 0
    return video.clip(0, 255).astype(np.uint8)


def recorded(samples: int = 3) -> xr.Dataset:
    """What a figure of videos needs of a recording."""
    colours = [(230, 60, 40), (40, 90, 220), (60, 180, 80), (220, 200, 60)]
    videos = np.stack([moving(colours[i % 4]) for i in range(samples)])
    latents = np.zeros((samples, 4, 1 + (FRAMES - 1) // 4, 6, 6), dtype=np.float32)
    return xr.Dataset(
        {
            "image": (("sample", "video_frame", "y", "x", "rgb"), videos),
            "latent_final": (("sample", "latent_channel", "latent_frame", "latent_y", "latent_x"), latents),
            "sample_checksum": ("sample", np.ones(samples, dtype=np.uint64)),
        },
        coords={
            "sample": np.arange(samples),
            "prompt": ("sample", [f"square {i}" for i in range(samples)]),
            "seed": ("sample", np.zeros(samples, dtype=np.int64)),
            "timestep": np.linspace(1000.0, 50.0, 4),
            "branch": ["cond", "uncond"],
        },
    )
