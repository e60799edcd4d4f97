"""The single-factor runs: the prompt alone, or the seed alone, is exchanged, everything else is held.

Legend: U units that are varied (prompts or seeds), O the other kind, T timesteps, L layers, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.experiment import Experiment
from workbench.analysis.inference import Floats
from workbench.errors import AnalysisError

VARIED = {"prompt-swap": "prompt", "seed-swap": "seed"}


def single_factor(
    experiment: xr.Dataset,
    *,
    channels: Sequence[int],
    branch: str = "cond",
    smallest_effect: float = 0.1,
    massive: xr.DataArray | None = None,
    **bootstrap: Any,
) -> xr.Dataset:
    """How far ln mean |h| spreads when only the prompt, or only the seed, is varied, against the steps of the grid.

    Parameters
    ----------
    experiment : xr.Dataset
        A prompt-swap store (each text with the latents of the first prompt) or a seed-swap store.
    channels : sequence of int
        By label.
    branch : str
        Branch to look at.
    smallest_effect : float
        In ln units; a standard deviation whose interval lies below it counts as none.
    massive : xr.DataArray, optional
        Layers and channels that the verdict is about, bool; default: all blocks.
    **bootstrap
        `confidence`; `resamples` and `seed` are not used: the bounds are those of `inference.standard_deviation`.

    Returns
    -------
    xr.Dataset
        `deviation(layer, channel)` with `_low` and `_high`: standard deviation (divisor n - 1) over prompts (or seeds) of
        ln mean |h| averaged over the rest; `step_deviation(layer, channel)`, the same over timesteps, where latent and embedding
        go together. Attributes: `verdict` on whether it matters, and its reason.

    Raises
    ------
    AnalysisError
        If it is another experiment, a channel was not recorded, or fewer than two units were varied.
    """
    found = Experiment(experiment, branch, known=tuple(VARIED))
    varied = VARIED[found.name]
    labels = [int(label) for label in found.visits.recording["channel"].values]
    unknown = [channel for channel in channels if channel not in labels]
    if unknown:
        raise AnalysisError(f"the {found.name} store has no channels {unknown}; it has {labels[0]} to {labels[-1]}.")
    values = found.logs(found.own_T, np.asarray([labels.index(channel) for channel in channels]))  # P, S, T, L, C
    units = np.moveaxis(values, 1, 0) if varied == "seed" else values
    if len(units) < 2:
        raise AnalysisError(
            f"the {found.name} store has one {varied} only; to vary it takes at least two, for an interval 5."
        )
    mean = units.mean(axis=(1, 2))  # U, L, C
    result = xr.Dataset(coords={**found.visits.coords("layer"), "channel": np.asarray(channels, dtype=np.int64)})
    steps = units.mean(axis=(0, 1)).std(axis=0)
    result["step_deviation"] = (("layer", "channel"), steps, {"long_name": "standard deviation over timesteps"})
    counted_LC = np.broadcast_to(found.visits.blocks[:, None], steps.shape)
    if massive is not None and bool(massive.any()):
        kept = massive.reindex(layer=found.visits.layers, fill_value=False).sel(channel=list(channels))
        counted_LC = np.asarray(kept.transpose("layer", "channel").values, dtype=bool)
    if not counted_LC.any():
        counted_LC = np.ones_like(counted_LC)
    spread, verdict = judge(mean, counted_LC, margin=smallest_effect, confidence=bootstrap.get("confidence", 0.95))
    for end, array in zip(("", "_low", "_high"), spread, strict=True):
        text = f"standard deviation over {varied}s of ln mean |h|" + end.replace("_", ", ")
        result[f"deviation{end}"] = (("layer", "channel"), array, {"long_name": text})
    largest, against = float(spread.mean[counted_LC].max()), float(steps[counted_LC].mean())
    said = {
        "supported": f"the {varied} alone moves these channels by more than {smallest_effect:g} in ln units",
        "not supported": f"the {varied} alone moves these channels by less than {smallest_effect:g} in ln units",
        "undecided": f"it is not known whether the {varied} alone moves these channels by {smallest_effect:g} in ln units",
    }[verdict]
    few = f", of at least {inference.MINIMUM_SAMPLES}," if len(units) < inference.MINIMUM_SAMPLES else ""
    result.attrs = {
        **found.visits.attrs("single_factor"),
        "experiment": found.name,
        "varied": varied,
        "n_varied": len(units),
        "verdict": verdict,
        "verdict_reason": f"Over {len(units)} {varied}s{few} {said} (standard deviation at most {largest:.2g}; over the timesteps "
        f"of the grid {against:.2g} in the mean).",
    }
    return result


def judge(
    units_ULC: Floats, counted_LC: np.ndarray, *, margin: float, confidence: float = 0.95
) -> tuple[inference.Interval, str]:
    """Standard deviations over units, and whether one is beyond the margin or all are within it.

    ``supported``: some lower bound, corrected for the number of columns counted (Bonferroni), lies above the margin.
    ``not supported``: every upper bound lies below it (intersection-union: no correction). Else, and with few units,
    ``undecided``.

    Parameters
    ----------
    units_ULC : array, shape (U, L, C)
        Mean of ln mean |h| of each unit.
    counted_LC : array of bool, shape (L, C)
        Columns that the verdict is about, at least one.
    margin, confidence : float
        Smallest standard deviation that counts; of the interval.
    """
    spread = inference.standard_deviation(units_ULC, confidence=confidence)
    corrected = 1.0 - (1.0 - confidence) / int(counted_LC.sum())
    low = inference.standard_deviation(units_ULC, confidence=corrected).low[counted_LC]
    if (low > margin).any():
        return spread, "supported"
    return spread, "not supported" if (spread.high[counted_LC] < margin).all() else "undecided"
