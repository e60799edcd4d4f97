"""The hierarchy of each massive channel on its own: channels may differ, and in a mean opposite ones cancel.

Legend: P prompts, L layers, T timesteps, K channels (the M massive ones first), F frames, R regions, D contrasts.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from workbench.analysis import hierarchy_rule as rule
from workbench.analysis import inference
from workbench.analysis.hierarchy_contrasts import CONTRASTS, DECIDING, NO_DRIFT, SHUFFLED, Counted
from workbench.analysis.hierarchy_nulls import shuffled
from workbench.analysis.hierarchy_parts import Sampling, Variables, put
from workbench.analysis.hierarchy_regions import REGIONS
from workbench.analysis.visits import TEXT

RESAMPLES, MOST_RESAMPLES = 1000, 20_000
"""Fewest resamples a channel for its corrected bounds, and the most that are drawn."""


def add_channels(
    result: xr.Dataset, logs_PLTKFR: np.ndarray, contrasts_PLTKD: np.ndarray, counts: Counted, by: Sampling
) -> None:
    """`overall_by_channel` with its corrected bounds and p-values, and `channel_levels` by the same rule.

    Bounds are corrected over the channels (Bonferroni), p-values over channels and contrasts.
    """
    new: Variables = {}
    names, channels = list(CONTRASTS), counts.weights_LK.shape[1]
    weights = counts.weights_LK / counts.weights_LK.sum(axis=0)
    steps = contrasts_PLTKD[:, :, :, :channels].mean(axis=2)
    each = np.einsum("plmd,lm->pdm", steps, weights)
    dims = ("contrast", "channel")
    put(new, "overall_by_channel", dims, each, "overall, of one channel", by)
    # Quantiles far out need more resamples than others.
    resamples = max(by.resamples, min(RESAMPLES * channels, MOST_RESAMPLES))
    strict = by._replace(confidence=1.0 - (1.0 - by.confidence) / channels, resamples=resamples)
    bounds: Variables = {}
    put(bounds, "bound", dims, each, "overall, of one channel, corrected over channels", strict)
    for end in ("low", "high"):
        new[f"overall_by_channel_{end}_corrected"] = bounds[f"bound_{end}"]

    at = [names.index(name) for name in DECIDING]
    p = np.full(each.shape[1:], np.nan)
    p[at] = inference.sign_flip(each[:, at], resamples=by.permutations, seed=by.seed).p_corrected
    text = "p, corrected for channels and for the contrasts that decide; NaN for the others"
    new["overall_by_channel_p_corrected"] = (dims, p, {"long_name": text})
    places = [REGIONS.index("boundary"), REGIONS.index("interior")]
    frames = np.einsum("plmfr,lm->pfrm", logs_PLTKFR[:, :, :, :channels].mean(axis=2, dtype=np.float64), weights)
    shuffle = np.full_like(p, np.nan)
    test = shuffled(frames[:, :, places], permutations=by.permutations, seed=by.seed)
    shuffle[[names.index(name) for name in SHUFFLED]] = test.p_corrected
    text = "p, frame labels shuffled inside prompts, corrected for channels"
    new["shuffle_by_channel_p"] = (dims, shuffle, {"long_name": text})

    low, high = (np.asarray(bounds[f"bound_{end}"][1])[at] for end in ("low", "high"))
    margin, alpha = float(result.attrs["smallest_effect"]), float(result.attrs["alpha"])
    states = rule.state(low, high, np.fmax(p, shuffle)[at], margin=margin, alpha=alpha)
    known = np.isfinite(each).all(axis=0)[at]
    said = []
    for m in range(channels):
        of = {name: str(states[d, m]) for d, name in enumerate(DECIDING) if name != NO_DRIFT or known[d, m]}
        said.append(rule.CONFOUNDED if result.attrs["confound"] else rule.levels(of))
    new["channel_levels"] = ("channel", np.asarray(said, dtype=TEXT), {"long_name": "levels that hold for the channel"})
    result.update(new)
