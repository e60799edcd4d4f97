"""Simulated tables of a sweep whose truth is known: two modes, four settings each, skewed gains, pictures that get lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

BANDS = 5
PER_MODE = 4

SPREAD = 0.15
"""Standard deviation over prompts of a setting's gain, in means of the baseline's distance; 0.16 was measured on mini-image."""


class Truth(NamedTuple):
    """What a setting does: mean gain (in means of the baseline), similarity lost, shares of prompts."""

    gain: float = 0.0
    drift: float = 0.01
    unreadable: float = 0.0
    """Probability that a picture is not recognised any more."""
    collapsed: float = 0.0
    """Probability that a picture is not finite."""
    edges: float = 0.0


def simulated(
    settings: Mapping[str, list[Truth]] | Truth, *, prompts: int = 64, seed: int = 0, own: bool = True
) -> xr.Dataset:
    """A table as `workbench.sampling.sweep.sweep` returns it.

    Parameters
    ----------
    settings : mapping or Truth
        Mode → its settings; or one truth for all settings of both modes.
    own : bool
        With the distance to the own training picture; else with band powers alone, in which the gain is one in standard deviations
        of the data.
    """
    if isinstance(settings, Truth):
        settings = {mode: [settings] * PER_MODE for mode in ("dg", "cfg+dg")}
    rng = np.random.default_rng(seed)
    names, baselines, modes, rows = [], [], [], []
    alone = ["own_spectral_distance"] if own else [f"band_power_{k}" for k in range(BANDS)]
    picture = rng.normal(size=(prompts, 1)) * 0.6 + rng.normal(size=(prompts, BANDS)) * 0.8  # of variance 1
    hardness = rng.gamma(8.0, 1 / 8.0, prompts)
    for mode, truths in settings.items():
        plain = "cfg" if mode == "cfg+dg" else "plain"
        for k, truth in enumerate([Truth(drift=0.0), *truths]):
            names.append(plain if k == 0 else f"{mode},w={k}")
            baselines.append(plain)
            modes.append(plain if k == 0 else mode)
            skewed = 0.0 if k == 0 else SPREAD * (1.0 - rng.gamma(2.0, 1.0, prompts) / 2.0) * np.sqrt(2.0)
            if own:
                near = (hardness - truth.gain * hardness - skewed)[:, None]
            else:
                near = picture + 0.3 - truth.gain + 0.1 * rng.normal(size=picture.shape) * (k > 0)
            alike = 1.0 - truth.drift * rng.gamma(1.0, 1.0, prompts)
            right = (rng.random(prompts) >= truth.unreadable).astype(float)
            edge = 0.04 * (1.0 + truth.edges + 0.05 * rng.normal(size=prompts) * (k > 0))
            row = np.concatenate([edge[:, None], near, alike[:, None], right[:, None]], axis=1)
            row[rng.random(prompts) < truth.collapsed] = np.nan
            rows.append(row)
    measures = ["edge_energy", *alone, "low_pass_similarity", "recognised"]
    reference = "" if own else json.dumps({"mean": [0.0] * BANDS, "spread": [1.0] * BANDS, "pictures": 1000})
    return xr.Dataset(
        {"value": (("condition", "sample", "measure"), np.stack(rows))},
        coords={
            "condition": np.array(names),
            "measure": np.array(measures),
            "prompt": ("sample", np.array([f"prompt {i}" for i in range(prompts)])),
            "baseline": ("condition", np.array(baselines)),
            "mode": ("condition", np.array(modes)),
        },
        attrs={"settings": json.dumps({"steps": 20}), "factors": ["mode"], "left_out": [], "reference": reference},
    )
