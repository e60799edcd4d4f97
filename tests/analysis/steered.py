"""Simulated tables of a trial of STAS whose truth is known: paired, skewed, with a spread between prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr

from workbench.analysis.stas_rule import MOTION

FEATURES = ("band_power_0", "band_power_1", "temporal_power_1")

BETTER = {
    "temporal_flicker": -1,
    "motion_smoothness": 1,
    "frame_consistency": 1,
    "first_frame_consistency": 1,
    "own_clip_distance": -1,
    "first_frame_sharpness": 1,
    "first_frame_relative_sharpness": 1,
    MOTION: 0,
    "sharpness": 0,
}
"""Measures and their direction, as in `workbench.sampling.video_measures.VIDEO_TABLE`."""

CONTROLS = ("low", "matched", "all-tokens", "zero", "late")

NOISE = 0.3
"""Standard deviation of a paired difference over prompts, in standard deviations of the unsteered videos."""

Truth = Mapping[str, float]
"""Measure → gain in standard deviations over prompts, above 0 is better (of the undirected: more); `DISTANCE`: nearer."""

DISTANCE = "clip_distribution"


def simulated(
    stas: Truth | None = None,
    controls: Mapping[str, Truth] | None = None,
    *,
    grid: Mapping[str, Truth] | None = None,
    prompts: int = 32,
    seeds: int = 1,
    noise: float = NOISE,
    lost: int = 0,
    reference: bool = True,
    seed: int = 0,
) -> xr.Dataset:
    """A table as `workbench.stas_trial` returns it; `lost`: videos of STAS that are not finite."""
    rng = np.random.default_rng(seed)
    controls = {name: {} for name in CONTROLS} if controls is None else controls
    truths: dict[str, tuple[str, Truth]] = {"plain": ("baseline", {}), "stas": ("stas", stas or {})}
    truths |= {name: ("control", truth) for name, truth in controls.items()}
    truths |= {name: ("grid", truth) for name, truth in (grid or {}).items()}
    names = list(BETTER)
    base = rng.normal(size=(prompts, 1, len(names)))
    clip = rng.normal(size=(prompts, 1, len(FEATURES)))
    rows = []
    for role, truth in truths.values():
        change = np.array([truth.get(m, 0.0) * (BETTER[m] or 1) for m in names])
        skewed = (rng.gamma(2.0, 1.0, (prompts, 1, len(names))) - 2.0) / np.sqrt(2.0) * noise
        each = rng.normal(size=(prompts, seeds, len(names))) * 0.1
        value = base + change + (skewed if role != "baseline" else 0.0) + each
        # Plain videos lie half a deviation from the clips in every feature; nearer means less of it.
        shift = 0.5 - truth.get(DISTANCE, 0.0)
        feature = clip + shift + (0.2 * rng.normal(size=(prompts, seeds, len(FEATURES))) if role != "baseline" else 0.0)
        feature = np.broadcast_to(feature, (prompts, seeds, len(FEATURES)))
        rows.append(np.concatenate([value, feature], axis=2).reshape(prompts * seeds, -1))
    values = np.stack(rows)
    finite = np.ones(values.shape[:2], dtype=bool)
    finite[list(truths).index("stas"), :lost] = False
    values[~finite] = np.nan
    measures = [*names, *FEATURES]
    known = {"mean": dict.fromkeys(FEATURES, 0.0), "spread": dict.fromkeys(FEATURES, 1.0), "clips": 400}
    return xr.Dataset(
        {"value": (("condition", "sample", "measure"), values), "finite": (("condition", "sample"), finite)},
        coords={
            "condition": np.array(list(truths)),
            "measure": np.array(measures),
            "prompt": ("sample", np.repeat([f"prompt {i}" for i in range(prompts)], seeds)),
            "seed": ("sample", np.tile(np.arange(seeds), prompts)),
            "baseline": ("condition", np.full(len(truths), "plain")),
            "role": ("condition", np.array([role for role, _ in truths.values()])),
            "control": (
                "condition",
                np.array([name if role == "control" else "" for name, (role, _) in truths.items()]),
            ),
            "better": ("measure", [*BETTER.values(), *([0] * len(FEATURES))]),
            "kind": ("measure", np.array(["statistic" if m in (MOTION, *FEATURES) else "temporal" for m in measures])),
            "label": ("measure", np.array([m.replace("_", " ") for m in measures])),
            "unit": ("measure", np.full(len(measures), "sd")),
        },
        attrs={
            "settings": json.dumps({"steps": 20}),
            "left_out": [],
            "reference": json.dumps(known) if reference else "",
        },
    )
