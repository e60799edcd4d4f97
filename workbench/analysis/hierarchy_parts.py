"""The parts of the hierarchy's result, each added from the values per prompt.

Legend: P prompts, L layers, T timesteps, K channels (the M massive ones first, then ordinary ones), F frames, R regions,
D contrasts, O rotations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import binomtest

from workbench.analysis import inference
from workbench.analysis.hierarchy_contrasts import (
    CONTRASTS,
    DECIDING,
    FIRST_BOUNDARY,
    ROWS,
    ROWS_COLUMNS,
    ROWS_FIRST,
    SHUFFLED,
    Counted,
)
from workbench.analysis.hierarchy_dynamics import dynamics, words
from workbench.analysis.hierarchy_nulls import rotated, shuffled
from workbench.analysis.hierarchy_regions import REGIONS
from workbench.analysis.inference import Floats
from workbench.analysis.visits import TEXT
from workbench.roles import ROLES

NAMES = list(CONTRASTS)
DECIDE = [NAMES.index(name) for name in DECIDING]
LN = "ln"

Variables = dict[str, tuple[Any, ...]]
"""Variables to be added to the result, all at once: dimensions, values, attributes."""


class Sampling(NamedTuple):
    """Options of all resampling."""

    confidence: float
    resamples: int
    permutations: int
    seed: int


def put(
    new: Variables, name: str, dims: tuple[str, ...], values_PX: np.ndarray, text: str, by: Sampling
) -> inference.Interval:
    """Add the mean over prompts with its interval as `name`, `name_low`, `name_high`."""
    interval = inference.bootstrap_mean(values_PX, confidence=by.confidence, resamples=by.resamples, seed=by.seed)
    for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
        new[name + suffix] = (dims, values, {"long_name": text + suffix.replace("_", ", "), "units": LN})
    return interval


def overall(values_PLTK: np.ndarray, counts: Counted) -> Floats:
    """Mean over timesteps and over the blocks and channels that count: `values` are (P, L, T, M, …), the result (P, …)."""
    return np.asarray(np.einsum("plm...,lm->p...", values_PLTK.mean(axis=2, dtype=np.float64), counts.weights_LK))


def control(values_PLTK: np.ndarray, counts: Counted) -> Floats:
    """The same of the ordinary channels, in the same blocks with the same weights; NaN if there are none."""
    ordinary = values_PLTK[:, :, :, counts.weights_LK.shape[1] :]
    if not ordinary.shape[3]:
        return np.full((len(values_PLTK), *values_PLTK.shape[4:]), np.nan)
    mean = ordinary.mean(axis=(2, 3), dtype=np.float64)
    return np.asarray(np.einsum("pl...,l->p...", mean, counts.weights_L))


def add_magnitudes(result: xr.Dataset, logs_PLTKFR: np.ndarray, counts: Counted, by: Sampling) -> None:
    """`magnitude` by role, `frame_magnitude`, and how the magnitude of each role moves with the noise."""
    new: Variables = {}
    massive = logs_PLTKFR[:, :, :, : counts.weights_LK.shape[1]]
    at = {name: i for i, name in enumerate(REGIONS)}
    later = massive[..., 1:, :].mean(axis=-2, dtype=np.float64)
    roles = np.stack([massive[..., 0, at["all"]], later[..., at["boundary"]], later[..., at["interior"]]], axis=1)
    result.coords["role"] = np.asarray(ROLES, dtype=TEXT)
    put(new, "magnitude", ("role", "layer", "timestep", "channel"), roles, "ln mean |h| over the role's tokens", by)
    places = massive[..., [at["boundary"], at["interior"]]]
    result.coords["place"] = np.asarray(["boundary", "interior"], dtype=TEXT)
    text = "ln mean |h| of each frame over the places of the boundary, and of the interior"
    put(new, "frame_magnitude", ("frame", "place"), overall(places, counts), text, by)
    by_step = np.einsum("prltm,lm->ptr", roles, counts.weights_LK)
    slope = dynamics(by_step, _sigma(result)).slope
    put(new, "magnitude_sigma_slope", ("role",), slope, "slope of ln mean |h| per unit of sigma", by)
    result.update(new)


def add_visits(result: xr.Dataset, contrasts_PLTKD: np.ndarray, counts: Counted, by: Sampling) -> None:
    """`contrast` at each layer and timestep, corrected for all of them."""
    new: Variables = {}
    massive = contrasts_PLTKD[:, :, :, : counts.weights_LK.shape[1]]
    values = np.einsum("pltmd,lm->pdlt", massive, counts.layer_weights())
    dims = ("contrast", "layer", "timestep")
    put(new, "contrast_value", dims, values, "contrast, mean over the channels massive at the layer", by)
    flips = inference.sign_flip(values, resamples=by.permutations, seed=by.seed)
    new["p_value"] = (dims, flips.p_value, {"long_name": "p, signs of prompts flipped, two-sided"})
    text = "p, corrected for all contrasts, layers and timesteps"
    new["p_corrected"] = (dims, flips.p_corrected, {"long_name": text})
    each = np.moveaxis(massive.mean(axis=0), -1, 0)
    new["channel_contrast"] = (("contrast", "layer", "timestep", "channel"), each, {"units": LN})
    result.update(new)


def add_overall(result: xr.Dataset, contrasts_PLTKD: np.ndarray, counts: Counted, by: Sampling) -> None:
    """The aggregate on which the verdict rests; of ordinary channels; the difference; the trend."""
    new: Variables = {}
    massive = contrasts_PLTKD[:, :, :, : counts.weights_LK.shape[1]]
    own, ordinary = overall(massive, counts), control(contrasts_PLTKD, counts)
    parts = {
        "overall": (own, "contrast, mean over timesteps and over the blocks and channels that count"),
        "control": (ordinary, "the same contrast of ordinary channels"),
        "specific": (own - ordinary, "contrast of the massive channels minus that of ordinary ones"),
    }
    for name, (values, text) in parts.items():
        put(new, name, ("contrast",), values, text, by)
        flips = inference.sign_flip(values, resamples=by.permutations, seed=by.seed)
        corrected = np.full(len(NAMES), np.nan)
        flipped = inference.sign_flip(values[:, DECIDE], resamples=by.permutations, seed=by.seed)
        corrected[DECIDE] = flipped.p_corrected
        new[f"{name}_p"] = ("contrast", flips.p_value, {"long_name": f"p of {name}, signs of prompts flipped"})
        text = f"p of {name}, corrected for the contrasts that decide; NaN for the others"
        new[f"{name}_p_corrected"] = ("contrast", corrected, {"long_name": text})
    _trend(new, own, by)
    result.update(new)


def _trend(new: Variables, own_PD: Floats, by: Sampling) -> None:
    """Ordered alternative: the slope over the roles, and the share of prompts with the whole order.

    Of a prompt the order holds where first - boundary at the same places, row edge - inside, row edge - column edge and the
    rows' contrast over that of the first frame are all above 0. Where only the first frame is raised, that happens in less than a half of the prompts by chance; the
    p-value is against a half, so the first frame alone does not make it small.
    """
    slope = own_PD[:, NAMES.index("first - interior")] / 2.0
    put(new, "trend", (), slope, "ln units per level of the roles, interior to boundary to first", by)
    flips = inference.sign_flip(slope[:, None], resamples=by.permutations, seed=by.seed)
    new["trend_p"] = ((), flips.p_value[0], {"long_name": "p of the trend, signs of prompts flipped"})
    parts = own_PD[:, [NAMES.index(name) for name in (FIRST_BOUNDARY, ROWS, ROWS_COLUMNS, ROWS_FIRST)]]
    known, ordered = bool(np.isfinite(parts).all()), int((parts > 0).all(axis=1).sum())
    share = ordered / len(parts) if known else np.nan
    new["ordered_share"] = ((), share, {"long_name": "share of prompts with first > boundary > interior"})
    p = binomtest(ordered, len(parts), 0.5, alternative="greater").pvalue if known else np.nan
    new["ordered_p"] = ((), p, {"long_name": "p that no more than half of the prompts have the order"})


def add_nulls(
    result: xr.Dataset, logs_PLTKFR: np.ndarray, rotated_PLTMO: np.ndarray, counts: Counted, by: Sampling
) -> None:
    """Frames shuffled, for the two contrasts of the first frame; frame boundaries rotated, for the boundary."""
    new: Variables = {}
    massive = logs_PLTKFR[:, :, :, : counts.weights_LK.shape[1]]
    places = [REGIONS.index("boundary"), REGIONS.index("interior")]
    frames = overall(massive[..., places], counts)  # P, F, 2
    test = shuffled(frames, permutations=by.permutations, seed=by.seed)
    p = np.full(len(NAMES), np.nan)
    p[[NAMES.index(name) for name in SHUFFLED]] = test.p_corrected
    text = "p, frame labels shuffled inside prompts; NaN where frames do not enter alone"
    new["shuffle_p"] = ("contrast", p, {"long_name": text})
    result.attrs["shuffle_exact"] = bool(test.exact)
    result.attrs["shuffle_smallest_p"] = float(max(frames.shape[1] ** -len(frames), 1 / test.permutations))
    values = overall(rotated_PLTMO, counts)
    put(new, "rotation_value", ("rotation",), values, "boundary minus rest after the rotation", by)
    result.attrs["rotation_p"] = alone_p = float(rotated(values)[0])
    new["rotation_p_overall"] = ((), alone_p, {"long_name": "p, frame boundaries rotated, of the aggregate"})
    visits = np.einsum("pltmo,lm->polt", rotated_PLTMO, counts.layer_weights())
    alone, corrected = rotated(visits)
    dims = ("layer", "timestep")
    new["rotation_p"] = (dims, alone, {"long_name": "p, frame boundaries rotated"})
    new["rotation_p_corrected"] = (dims, corrected, {"long_name": "p, corrected for layers and timesteps"})
    result.update(new)


def add_dynamics(result: xr.Dataset, contrasts_PLTKD: np.ndarray, counts: Counted, by: Sampling) -> None:
    """Contrasts against the noise level, and the early half of the steps against the late one."""
    new: Variables = {}
    massive = contrasts_PLTKD[:, :, :, : counts.weights_LK.shape[1]]
    sigma = _sigma(result)
    whole = dynamics(np.einsum("pltmd,lm->ptd", massive, counts.weights_LK), sigma)
    by_step = np.einsum("pltmd,lm->pdt", massive, counts.weights_LK)
    put(new, "contrast_by_step", ("contrast", "timestep"), by_step, "contrast at each step, as in overall", by)
    put(new, "sigma_slope", ("contrast",), whole.slope, "slope of the contrast per unit of sigma", by)
    put(new, "early", ("contrast",), whole.early, "contrast in the first half of the steps", by)
    put(new, "late", ("contrast",), whole.late, "contrast in the last half of the steps", by)
    change = whole.early - whole.late
    _, low, high = put(new, "early_minus_late", ("contrast",), change, "early half minus late half", by)
    p = np.full(len(NAMES), np.nan)
    flips = inference.sign_flip(change[:, DECIDE], resamples=by.permutations, seed=by.seed)
    p[DECIDE] = flips.p_corrected
    text = "p of early minus late, corrected for the contrasts that decide; NaN for the others"
    new["early_minus_late_p_corrected"] = ("contrast", p, {"long_name": text})
    margin, alpha = float(result.attrs["smallest_effect"]), float(result.attrs["alpha"])
    said = words(low, high, np.where(np.isnan(p), 1.0, p), margin=margin, alpha=alpha)
    said[[i for i in range(len(NAMES)) if i not in DECIDE]] = "not judged"
    new["dynamics"] = ("contrast", said.astype(TEXT), {"long_name": "how the contrast moves over the denoising"})
    layers = dynamics(np.einsum("pltmd,lm->ptdl", massive, counts.layer_weights()), sigma).slope
    put(new, "sigma_slope_by_layer", ("contrast", "layer"), layers, "slope of the contrast per unit of sigma", by)
    result.update(new)


def _sigma(result: xr.Dataset) -> Floats:
    values = result["sigma"].values if "sigma" in result.coords else result["timestep"].values / 1000.0
    return np.asarray(values, dtype=np.float64)
