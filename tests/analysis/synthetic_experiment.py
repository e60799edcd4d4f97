"""Experiment stores made of numbers: what embedding, latent, prompt and seed do to ln |h| is put in, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from tests.reduce_reference import text

MASSIVE = {3: 40.0, 11: 25.0}
"""Channels and their magnitude; the others are near 1."""

Effect = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From prompt, seed, latent sigma and embedding sigma to what is added to ln |h| of the massive channels."""


def nothing(p: np.ndarray, s: np.ndarray, latent: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    return 0.0 * p


def synthetic_experiment(
    effect: Effect = nothing,
    *,
    name: str = "timestep-swap",
    prompts: int = 6,
    seeds: int = 2,
    grid: int = 4,
    layers: int = 3,
    channels: int = 32,
    noise: float = 0.01,
    mediate: dict[str, float] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Statistics of an experiment; `mediate` maps parts of the modulation of block 0 to their share of the effect."""
    rng = np.random.default_rng(seed)
    sigma = np.linspace(1.0, 0.1, grid)
    pairs = [(t, e) for t in range(grid) for e in range(grid) if name == "timestep-swap" or t == e]
    cells = [(t, e, "none" if t == e else "embedding", "") for t, e in pairs]
    for swap in mediate or {}:
        cells += [(t, e, swap, "transformer_blocks.0") for t, e in pairs if t != e]
    at_p, at_s = (a.ravel() for a in np.meshgrid(np.arange(prompts), np.arange(seeds), indexing="ij"))
    samples, shape = len(at_p), (len(at_p), 2, layers + 1, len(cells), channels)
    size = np.exp(0.1 * rng.standard_normal(channels) + noise * rng.standard_normal(shape))
    for c, magnitude in MASSIVE.items():
        for i, (t, e, swap, _) in enumerate(cells):
            own = effect(at_p, at_s, np.full(samples, sigma[t]), np.full(samples, sigma[t]))
            other = effect(at_p, at_s, np.full(samples, sigma[t]), np.full(samples, sigma[e]))
            part = 1.0 if swap in ("none", "embedding") else (mediate or {})[swap]
            size[:, :, 1:, i, c] *= magnitude * np.exp(own + part * (other - own))[:, None, None]
    unit, latent, embedding = (
        ("sample", "branch", "layer", "timestep"),
        [cell[0] for cell in cells],
        [cell[1] for cell in cells],
    )
    size = size.astype(np.float32)
    names = [f"prompt {i}" for i in at_p]
    return xr.Dataset(
        {
            "h_mean_abs": ((*unit, "channel"), size),
            "h_mean": ((*unit, "channel"), size),
            "h_max_abs": ((*unit, "channel"), 1.2 * size),
            "h_std": ((*unit, "channel"), 0.1 * size),
            "h_top_channel": ((*unit, "token", "rank"), np.full((*shape[:4], 4, 1), 3, dtype=np.int32)),
            "unit_checksum": (unit, np.full(shape[:4], 2**32 + 1, dtype=np.uint64)),
        },
        coords={
            "sample": np.arange(samples),
            "prompt": ("sample", text(names)),
            "seed": ("sample", at_s),
            "latent_prompt": ("sample", text([names[0]] * samples if name == "prompt-swap" else names)),
            "latent_seed": ("sample", at_s),
            "branch": text(["uncond", "cond"]),
            "layer": text(["input", *(f"transformer_blocks.{i}" for i in range(layers))]),
            "block": ("layer", np.arange(layers + 1) - 1),
            "timestep": 1000.0 * sigma[latent],
            "step": ("timestep", np.asarray(latent)),
            "sigma": ("timestep", sigma[latent]),
            "embedding_timestep": ("timestep", 1000.0 * sigma[embedding]),
            "embedding_sigma": ("timestep", sigma[embedding]),
            "swap": ("timestep", text([cell[2] for cell in cells])),
            "swap_block": ("timestep", text([cell[3] for cell in cells])),
            "channel": np.arange(channels),
            "token": np.arange(4),
            "rank": [0],
        },
        attrs={"experiment": name},
    )


def by_embedding(slope: float) -> Effect:
    return lambda p, s, latent, embedding: slope * embedding


def by_latent(slope: float) -> Effect:
    return lambda p, s, latent, embedding: slope * latent


def of_prompts(values: Sequence[float]) -> Effect:
    return lambda p, s, latent, embedding: np.asarray(values)[p]
