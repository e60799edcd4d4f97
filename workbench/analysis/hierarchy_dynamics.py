"""How the hierarchy moves over the denoising, on which the papers disagree (`docs/hierarchy.md`).

The steps of a sample are one observation: its slope, or its difference of halves. Observed, not causal: along a trajectory
an early step always comes with a noisy latent.

Legend: P prompts, T timesteps, X anything else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.inference import Floats

EARLY, LATE, STEADY, OPEN = "stronger early", "stronger late", "steady", "undecided"


class Dynamics(NamedTuple):
    """Per prompt, shape (P, X); NaN with one timestep.

    Attributes
    ----------
    slope : array
        Least squares, per unit of sigma: above 0 where a contrast grows with the noise.
    early, late : array
        Mean over the first and over the last half of the steps; the one in the middle of an odd number is in neither.
    """

    slope: Floats
    early: Floats
    late: Floats


def dynamics(values_PTX: NDArray[np.floating], sigma_T: NDArray[np.floating]) -> Dynamics:
    """Slope and halves of contrasts over the trajectory."""
    values, sigma = np.asarray(values_PTX, dtype=np.float64), np.asarray(sigma_T, dtype=np.float64)
    centred = sigma - sigma.mean()
    if len(sigma) < 2 or not np.any(centred):
        nothing = np.full(np.delete(values.shape, 1), np.nan)
        return Dynamics(nothing, nothing, nothing)
    slope = np.tensordot(values, centred, axes=(1, 0)) / (centred**2).sum()
    order, half = np.argsort(-sigma, kind="stable"), len(sigma) // 2
    return Dynamics(slope, values[:, order[:half]].mean(axis=1), values[:, order[-half:]].mean(axis=1))


def words(low: Floats, high: Floats, p: Floats, *, margin: float, alpha: float) -> NDArray[np.str_]:
    """What an interval of early - late says; `p` is corrected over the contrasts that are judged."""
    sure = np.asarray(p) <= alpha
    return np.where(
        sure & (low > margin),
        EARLY,
        np.where(sure & (high < -margin), LATE, np.where((low > -margin) & (high < margin), STEADY, OPEN)),
    )
