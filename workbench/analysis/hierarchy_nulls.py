"""Null models that keep the structure of position: frame boundaries rotated in the sequence, frames shuffled.

Both say where a raise lies, not why: that the boundary is raised more than any other place of the sequence does not tell it
from an edge of the image, which lies at the same place (`hierarchy_contrasts.ROWS_COLUMNS` does).

Legend: P prompts, F latent frames, O rotations, X anything else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.inference import Floats, Permuted


def shuffled(frames_PFX: NDArray[np.floating], *, permutations: int, seed: int) -> Permuted:
    """Frame labels permuted inside each prompt: whether the first frame is another than any frame.

    Null: the frames of a prompt are exchangeable. Frames are few, so one prompt allows no p below 1 / F; the prompts are
    permuted independently of each other, which allows 1 / F^P.

    Parameters
    ----------
    frames_PFX : array
        ln magnitude of every frame at the same places.
    permutations, seed
        Where not all permutations can be looked at.

    Returns
    -------
    Permuted
        Of |first - mean of the others|, two-sided, corrected over X.
    """

    def away(means_MKX: Floats) -> Floats:
        return np.abs(means_MKX[:, 0] - means_MKX[:, 1:].mean(axis=1))

    return inference.permute_within(frames_PFX, function=away, resamples=permutations, seed=seed)


def rotated(values_POX: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """All frame boundaries rotated by as many tokens in all prompts: whether what is raised lies where frames end.

    Null: the boundary might as well lie anywhere in the sequence. Prompts are rotated together, because what they have in
    common by place (a subject in the middle) would otherwise count as many times as there are prompts. All rotations are
    looked at, so p is at least 1 / O, however many prompts there are. A boundary that is in truth narrower than the width
    is raised as much after small rotations, and so are the rows of an image edge.

    Parameters
    ----------
    values_POX : array
        Boundary minus rest after each rotation, the first of which is none.

    Returns
    -------
    p_value, p_corrected : array, shape X
        One-sided (greater); corrected over X by the largest standardised statistic.
    """
    mean_OX = np.asarray(values_POX, dtype=np.float64).mean(axis=0)
    spread = mean_OX.std(axis=0)
    score = np.divide(mean_OX - mean_OX.mean(axis=0), spread, out=np.zeros_like(mean_OX), where=spread > 1e-6)
    flat = score.reshape(len(score), -1)
    p = (flat >= flat[0] - 1e-9).mean(axis=0)
    corrected = inference.max_statistic(flat[0], flat, exact=True)
    return p.reshape(score.shape[1:]), corrected.reshape(score.shape[1:])
