"""States to recording with numpy alone: the reductions of `docs/schema.md`, written out a second time for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

TERMS = ("shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp")


def text(values: Sequence[str]) -> np.ndarray:
    """Text as Zarr v3 keeps it."""
    return np.asarray(list(values), dtype=np.dtypes.StringDType())


def to_dataset(
    h_SBLTNC: np.ndarray,
    *,
    ranks: int = 8,
    keep_hidden: bool = False,
    prompts: list[str] | None = None,
    seeds: list[int] | None = None,
    timesteps: np.ndarray | None = None,
    sigmas: np.ndarray | None = None,
    modulation: np.ndarray | None = None,
    latent_final: np.ndarray | None = None,
    temb: np.ndarray | None = None,
) -> xr.Dataset:
    """Reduce hidden states to a recording as in `docs/schema.md`; layer 0 is `input`, branches are uncond, cond.

    Parameters
    ----------
    h_SBLTNC : array
        Hidden states: sample, branch, layer, timestep, token, channel.
    modulation : array, optional
        Blocks only (one layer fewer than the states): sample, branch, layer, timestep, term, channel.
    """
    n, branches, layers, steps, tokens, channels = h_SBLTNC.shape
    size = np.abs(h_SBLTNC)
    top = np.argsort(-size, axis=-1, kind="stable")[..., :ranks]
    unit, side = ("sample", "branch", "layer", "timestep"), round(tokens**0.5)
    per_channel, per_token = (*unit, "channel"), (*unit, "token")
    variables: dict[str, Any] = {
        "h_mean_abs": (per_channel, size.mean(axis=-2)),
        "h_mean": (per_channel, h_SBLTNC.mean(axis=-2)),
        "h_max_abs": (per_channel, size.max(axis=-2)),
        "h_std": (per_channel, h_SBLTNC.std(axis=-2)),
        "h_norm": (per_token, np.linalg.norm(h_SBLTNC, axis=-1)),
        "h_top_abs": ((*per_token, "rank"), np.take_along_axis(size, top, axis=-1)),
        "h_top_channel": ((*per_token, "rank"), top.astype(np.int32)),
        "unit_checksum": (unit, np.full((n, branches, layers, steps), 2**32 + 1, dtype=np.uint64)),
    }
    if keep_hidden:
        variables["hidden"] = ((*per_token, "channel"), h_SBLTNC)
    if modulation is not None:
        absent = np.full_like(modulation[:, :, :1], np.nan)
        variables["modulation"] = (
            (*unit, "modulation_term", "channel"),
            np.concatenate([absent, modulation], axis=2),
        )
    if temb is not None:
        variables["temb"] = (("sample", "branch", "timestep", "embedding"), temb)
    if latent_final is not None:
        variables["latent_final"] = (("sample", "latent_channel", "latent_y", "latent_x"), latent_final)
    if sigmas is None:
        sigmas = np.linspace(1.0, 1.0 / steps, steps)
    coords: dict[str, Any] = {
        "sample": np.arange(n),
        "prompt": ("sample", text(prompts or [f"prompt {i}" for i in range(n)])),
        "seed": ("sample", seeds or list(range(n))),
        "branch": text(["uncond", "cond"][-branches:]),
        "layer": text(["input"] + [f"transformer_blocks.{i}" for i in range(layers - 1)]),
        "block": ("layer", np.arange(layers) - 1),
        "timestep": timesteps if timesteps is not None else 1000.0 * np.asarray(sigmas),
        "step": ("timestep", np.arange(steps)),
        "sigma": ("timestep", np.asarray(sigmas, dtype=np.float64)),
        "token": np.arange(tokens),
        "frame": ("token", np.zeros(tokens, dtype=np.int64)),
        "row": ("token", np.arange(tokens) // side),
        "column": ("token", np.arange(tokens) % side),
        "channel": np.arange(channels),
        "rank": np.arange(ranks),
    }
    if modulation is not None:
        coords["modulation_term"] = text(TERMS)
    return xr.Dataset(variables, coords=coords, attrs={"schema": 1})
