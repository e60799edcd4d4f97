"""The contrasts of the frame hierarchy: each is a difference of ln mean |h| between regions of frames.

All are linear in the ln magnitudes, one row of weights over (frame, region) each, so that seeds, layers, steps and prompts
may be averaged before or after. Means over later frames weigh every frame the same.

Legend: D contrasts, F latent frames, R regions, X anything else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.hierarchy_regions import REGIONS, Places

Floats = NDArray[np.float64]

FIRST_BOUNDARY = "first - boundary, same places"
FIRST_INTERIOR = "first - interior, same places"
ROWS = "row edge - inside"
ROWS_COLUMNS = "row edge - column edge"
COLUMNS = "column edge - inside"
ROWS_FIRST = "row edge - inside, later - first frame"
NO_DRIFT = "first - interior, drift taken out"
STEEP_BOUNDARY = "first - boundary, beyond a steep drift"
STEEP_INTERIOR = "first - interior, beyond a steep drift"

CONTRASTS: dict[str, str] = {
    "first - boundary": "all tokens of the first frame against the boundary tokens of later frames, as the paper's roles",
    "boundary - interior": "boundary against interior tokens of later frames, as the paper's roles",
    "first - interior": "all tokens of the first frame against the interior tokens of later frames, as the paper's roles",
    FIRST_BOUNDARY: "first frame against later frames, at the places of the boundary only",
    FIRST_INTERIOR: "first frame against later frames, at the places of the interior only",
    ROWS: "later frames: head and tail of the run in raster order, without corners, against what is at no edge",
    COLUMNS: "later frames: head and tail in column order, without corners, against what is at no edge (control)",
    ROWS_COLUMNS: "the contrast of these two contrasts: what the boundary has beyond an edge of the image",
    ROWS_FIRST: "row edge - inside of later frames, minus the same of the first frame, whose edges show the same image",
    NO_DRIFT: "first - interior, same places, where a straight line through the later frames is taken on to the first",
    STEEP_BOUNDARY: "first - boundary, same places, minus the most that a drift seen in the second frame makes of it",
    STEEP_INTERIOR: "first - interior, same places, minus the most that a drift seen in the second frame makes of it",
}

STEEP = (STEEP_BOUNDARY, STEEP_INTERIOR)
"""Bounds and no estimates: above, they tell a step from a drift; else nothing, for a step may come with a drift."""

DECIDING = (FIRST_BOUNDARY, FIRST_INTERIOR, NO_DRIFT, ROWS, ROWS_COLUMNS, ROWS_FIRST, *STEEP)
"""Those on which the verdict rests, named beforehand."""

SHUFFLED = (FIRST_BOUNDARY, FIRST_INTERIOR)
"""Those for which the frames are shuffled too."""

DRIFT_FRAMES = 4
"""Latent frames from which a line through the later ones is a line and not two points."""

STEEP_FRAMES = 3
"""Latent frames from which the second one can be set against later ones."""

STEEPEST = 3.0
"""Factor by which a drift may fall off from frame to frame and is still told from a step. A choice: with a larger one the
noise of the second frame costs power, and no number of prompts tells a drift without a bound from a step."""


def contrast_weights(places: Places) -> Floats:
    """Weights over (frame, region) of each of `CONTRASTS`, shape (D, F, R); NaN where a region has no place."""
    frames, at = places.grid[0], {name: i for i, name in enumerate(REGIONS)}
    first, later = np.eye(frames)[0], np.r_[0.0, np.full(frames - 1, 1.0 / (frames - 1))]

    def mean(when: Floats, region: str) -> Floats:
        out = np.zeros((frames, len(REGIONS)))
        out[:, at[region]] = when
        if places.absent_R[at[region]]:
            out[0, at[region]] = np.nan
        return out

    step, line, beyond = first - later, first - _extrapolated(frames), first - later - _steepest(frames)
    rows, columns = (mean(later, edge) - mean(later, "inside") for edge in ("row edge", "column edge"))
    return np.stack(
        [
            mean(first, "all") - mean(later, "boundary"),
            mean(later, "boundary") - mean(later, "interior"),
            mean(first, "all") - mean(later, "interior"),
            mean(step, "boundary"),
            mean(step, "interior"),
            rows,
            columns,
            rows - columns,
            rows - mean(first, "row edge") + mean(first, "inside"),
            mean(line, "interior"),
            mean(beyond, "boundary"),
            mean(beyond, "interior"),
        ]
    )


def _extrapolated(frames: int) -> Floats:
    """Weights over frames of the value at frame 0 of the least-squares line through the later ones; NaN if too few."""
    if frames < DRIFT_FRAMES:
        return np.full(frames, np.nan)
    x = np.arange(1, frames) - frames / 2.0
    return np.r_[0.0, 1.0 / len(x) - frames / 2.0 * x / (x**2).sum()]


def _steepest(frames: int) -> Floats:
    """Weights over frames of the most that a drift makes of first - later frames; NaN if too few.

    It is K times the second frame over those after it, where K is the ratio of both for a drift that falls off by `STEEPEST`
    from frame to frame. Where it falls off by less, or along a straight line, the ratio is smaller. First - later minus k times
    the second's is linear in k, so with first - later (k = 0) above as well, it is above for every k up to K: for all such
    drifts and all sums of them, falling or rising.
    """
    if frames < STEEP_FRAMES:
        return np.full(frames, np.nan)
    left = STEEPEST ** -np.arange(1.0, frames)
    most = (1.0 - left.mean()) / (left[0] - left[1:].mean())
    return most * np.r_[0.0, 1.0, np.full(frames - 2, -1.0 / (frames - 2))]


def apply_weights(logs_XFR: NDArray[np.float32], weights_DFR: Floats) -> Floats:
    """Contrasts of ln magnitudes, shape (X, D): NaN where a contrast does not exist."""
    known = np.isfinite(weights_DFR).all(axis=(1, 2))
    flat = np.where(np.isfinite(weights_DFR), weights_DFR, 0.0).reshape(len(weights_DFR), -1)
    values = logs_XFR.reshape(*logs_XFR.shape[:-2], -1).astype(np.float64) @ flat.T
    return np.where(known, values, np.nan)


class Counted(NamedTuple):
    """How layers, timesteps and channels are averaged into one number.

    Attributes
    ----------
    weights_LK : array
        Of the massive channels; sums to 1. Each channel counts the same, and so does each block in which it is massive.
    """

    weights_LK: Floats

    @property
    def weights_L(self) -> Floats:
        """What a layer counts, over all channels: for channels that are massive nowhere."""
        return np.asarray(self.weights_LK.sum(axis=1))

    def layer_weights(self) -> Floats:
        """Weights of the channels at each layer, shape (L, K): those that count there, or all where none does."""
        counts = self.weights_LK > 0
        counts[~counts.any(axis=1)] = True
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def counted(massive_LK: NDArray[np.bool_], blocks_L: NDArray[np.bool_]) -> Counted:
    """Blocks that count for a channel: where it is massive, or all of them where it is massive in none."""
    counts = massive_LK & blocks_L[:, None]
    counts[:, ~counts.any(axis=0)] = blocks_L[:, None]
    weights = counts / counts.sum(axis=0)
    return Counted(np.asarray(weights / weights.shape[1]))
