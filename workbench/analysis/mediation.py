"""How much of the embedding's effect goes with the gate, or shift and scale, of one block.

In a mediation cell everything sees the timestep's own embedding, but in one block some AdaLN terms are those that another
timestep would give. Its change against the cell in which nothing was exchanged is compared with the change when the whole
embedding is exchanged.

Legend: P prompts, S seeds, D pairs of a latent's step and another step, L layers, C channels, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.experiment import Experiment
from workbench.analysis.inference import Floats
from workbench.analysis.visits import TEXT

PLACES = ("block", "last")
"""Where the effect is looked at: in the state after the block, and after the last recorded layer."""


def mediation(
    found: Experiment, at_C: np.ndarray, channels: Sequence[int], *, smallest_effect: float, **bootstrap: Any
) -> xr.Dataset:
    """Share of the effect of exchanging the embedding that comes with some terms of one block.

    With d the change of ln mean |h| against the cell with its own embedding, averaged over prompts and seeds, over all
    pairs of steps: mediated = ⟨d_terms, d_embedding⟩ / ⟨d_embedding, d_embedding⟩, the slope of one change on the other
    through the origin. 1: the terms alone do what the embedding does; 0: nothing; it may lie outside [0, 1], where other
    paths counteract. Shares of different terms need not sum to 1.

    Parameters
    ----------
    found : Experiment
        With cells whose swap is ``gate``, ``shift_scale`` or ``modulation``.
    at_C, channels
        Positions and labels of the channels.
    smallest_effect : float
        Below it there is no effect to be shared out.
    **bootstrap
        `confidence`, `resamples`, `seed`; BCa over replicates.

    Returns
    -------
    xr.Dataset
        `mediated(at, swap, swap_block, channel)` with `_low` and `_high`; `mediated_total(at, swap_block, channel)`,
        the largest difference between any two embeddings there; `mediated_reason(at, swap_block, channel)`, why there
        is no share, empty where there is one: the effect is not distinguishable from 0, or within the smallest effect.
        With the prefix `control_` and without `channel` the same of the median channel, where all channels were recorded.
    """
    visits = found.visits
    named = [name for name in dict.fromkeys(found.swap_block) if name]
    blocks = sorted(named, key=lambda name: visits.layers.index(name) if name in visits.layers else -1)
    swaps = [swap for swap in ("gate", "shift_scale", "modulation") if swap in set(found.swap)]
    result = xr.Dataset(
        coords={
            "at": np.asarray(PLACES, dtype=TEXT),
            "swap": np.asarray(swaps, dtype=TEXT),
            "swap_block": np.asarray(blocks, dtype=TEXT),
            "channel": np.asarray(channels, dtype=np.int64),
        }
    )
    columns: list[tuple[str, np.ndarray | None]] = [("", at_C)]
    if not visits.channels_missing:
        columns.append(("control_", None))
    for prefix, at in columns:
        logs = found.logs(np.arange(visits.recording.sizes["timestep"]), at)
        share, total, why = _shares(found, _replicates(found, logs), swaps, blocks, smallest_effect, bootstrap)
        over: tuple[str, ...] = ("channel",)
        if at is None:
            share, total, why, over = share[..., 0], total[..., 0], why[..., 0], ()
        per = ("at", "swap", "swap_block", *over)
        for i, end in enumerate(("", "_low", "_high")):
            note = end.replace("_", ", ")
            result[f"{prefix}mediated{end}"] = (per, share[i], {"long_name": f"share of the effect{note}"})
            result[f"{prefix}mediated_total{end}"] = (
                per[:1] + per[2:],
                total[i],
                {"long_name": "largest difference, ln units"},
            )
        result[f"{prefix}mediated_reason"] = (per[:1] + per[2:], why.astype(TEXT))
    return result


def _shares(
    found: Experiment,
    values: Floats,
    swaps: Sequence[str],
    blocks: Sequence[str],
    smallest_effect: float,
    bootstrap: dict[str, Any],
) -> tuple[Floats, Floats, np.ndarray]:
    """Shares and totals with bounds along a first axis of three, and reasons, of columns (P, cells, L, C)."""
    layers, own, count = found.visits.layers, dict(enumerate(found.own_T)), values.shape[-1]
    share = np.full((3, len(PLACES), len(swaps), len(blocks), count), np.nan)
    total = np.full((3, len(PLACES), len(blocks), count), np.nan)
    why = np.full(total.shape[1:], "", dtype=object)
    size = len(found.sigmas)
    off = [(t, e) for t in range(size) for e in range(size) if t != e]
    full_DPLC = np.stack([values[:, found.cells_TE[pair]] - values[:, own[pair[0]]] for pair in off])
    profiles = values[:, found.cells_TE].mean(axis=1)  # P, E, L, C
    for b, block in enumerate(blocks):
        for a, layer in enumerate((layers.index(block) if block in layers else -1, len(layers) - 1)):
            if layer < 0:
                why[a, b] = "the state after the block was not recorded"
                continue
            whole = inference.largest_difference(profiles[:, :, layer], confidence=bootstrap["confidence"])
            total[:, a, b] = whole
            for c in range(count):
                one = inference.Interval(*(part[c] for part in whole))
                why[a, b, c] = _no_effect(one, smallest_effect, len(values))
            for s, swap in enumerate(swaps):
                pairs = _pairs(found, swap, block)
                there = [i for i, pair in enumerate(off) if pair in pairs]
                if not there:
                    continue
                part = np.stack([values[:, pairs[off[i]]] - values[:, own[off[i][0]]] for i in there])[:, :, layer]
                both = np.stack([part, full_DPLC[there][:, :, layer]], axis=1)  # D, 2, P, C
                found_share = inference.bootstrap(np.moveaxis(both, 2, 0), _slope, method="bca_expanded", **bootstrap)
                share[:, a, s, b] = np.where(why[a, b] == "", np.stack(found_share), np.nan)
    return share, total, why


def _slope(means_R: Floats) -> Floats:
    """Slope through the origin over pairs; from (R, D, 2, C) to (R, C)."""
    part, full = means_R[:, :, 0], means_R[:, :, 1]
    scale = (full**2).sum(axis=1)
    return np.divide((part * full).sum(axis=1), scale, out=np.full_like(scale, np.nan), where=scale > 0)


def _replicates(found: Experiment, values_PS: Floats) -> Floats:
    """Mean over the other kind of sample; replicates first."""
    return np.asarray(values_PS.mean(axis=1) if found.visits.replicate == "prompt" else values_PS[0])


def _pairs(found: Experiment, swap: str, block: str) -> dict[tuple[int, int], int]:
    """Cells of one kind in one block, by position of latent and embedding in the grid."""
    cells = found.visits.recording
    return {
        (
            found.position(float(cells["timestep"].values[i]), "the latent's timestep"),
            found.position(float(cells["embedding_timestep"].values[i]), "the embedding's timestep"),
        ): int(i)
        for i in np.flatnonzero((found.swap == swap) & (found.swap_block == block))
    }


def _no_effect(whole: inference.Interval, smallest: float, n: int) -> str:
    """Why there is no effect to share out; empty if there is one."""
    mean, low, high = (float(part) for part in whole)
    if not np.isfinite(low):
        return f"{n} replicates, of at least {inference.MINIMUM_SAMPLES}"
    if high < smallest:
        return f"the embedding's effect, {mean:.2g}, lies within {smallest:g}: there is nothing to share out"
    if low <= 0:
        return f"the embedding's effect, {mean:.2g}, is not distinguishable from 0"
    return ""
