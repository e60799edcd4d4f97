"""Recordings made of random numbers, with massive channels where a test wants them: fast, and without torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from tests.reduce_reference import to_dataset


def synthetic(
    planted: Mapping[int, float] | None = None,
    *,
    samples: int = 6,
    layers: int = 4,
    steps: int = 3,
    tokens: int = 16,
    channels: int = 48,
    seed: int = 0,
    spread: float = 0.2,
    hidden: bool = False,
) -> xr.Dataset:
    """Normal hidden states whose channels have log-normal scales; `planted` maps channels to values added to them."""
    rng = np.random.default_rng(seed)
    scale = np.exp(spread * rng.standard_normal(channels))
    h = rng.standard_normal((samples, 2, layers + 1, steps, tokens, channels)) * scale
    for channel, value in (planted or {}).items():
        h[:, :, 1:, :, :, channel] += value
    modulation = rng.standard_normal((samples, 2, layers, steps, 6, channels))
    return to_dataset(h.astype(np.float32), keep_hidden=hidden, modulation=modulation.astype(np.float32))
