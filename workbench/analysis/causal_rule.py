"""The rule of the causal verdict on arrays: `causal` and the benchmark that measures its error rates both call it.

``supported``
    the lower bound of the main effect, corrected for the number of channels (Bonferroni), lies above the margin, and prompts
    have a profile in common (permutation test, family-wise).
``not supported``
    the upper bound of the effect lies below the margin with *every* latent held and in *every* block counted. Being small
    in the mean over latents or blocks is not enough, since effects of opposite sign cancel there. All bounds must hold, so
    none is corrected (intersection-union, Berger 1982, *Technometrics* 24, 295-300).
``undecided``
    anything else.

Legend: P replicates, S the other kind of sample, T latents, E embeddings, L layers, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workbench.analysis import inference
from workbench.analysis.inference import Floats, Interval
from workbench.analysis.visits import TEXT


class Evidence(NamedTuple):
    """What the rule looks at, per channel, in ln units.

    Attributes
    ----------
    effect : Interval, shape (C,)
        Largest difference between two embeddings of the mean over latents and counted blocks.
    low_corrected : array, shape (C,)
        Its lower bound, family-wise over the channels.
    places : Interval, shape (T, L, C)
        The same with one latent held, after one layer. Each bound on its own.
    worst : tuple of arrays, shape (C,)
        Positions (latent, layer) of the counted place with the largest upper bound.
    worst_low_corrected : array, shape (C,)
        Largest lower bound over counted places, family-wise over places and channels.
    """

    effect: Interval
    low_corrected: Floats
    places: Interval
    worst: tuple[np.ndarray, np.ndarray]
    worst_low_corrected: Floats

    @property
    def at_worst(self) -> Interval:
        """Effect with its bounds at the place with the largest upper bound, shape (C,)."""
        columns = np.arange(self.places.mean.shape[-1])
        return Interval(*(part[(*self.worst, columns)] for part in self.places))


def gather(
    logs: Floats, counted_LC: np.ndarray, sigmas: Floats, *, confidence: float = 0.95, family: int | None = None
) -> Evidence:
    """Effects of the embedding with the bounds that the verdict needs.

    Parameters
    ----------
    logs : array, shape (P, S, T, E, L, C)
        The ln of mean |h|.
    counted_LC : array of bool, shape (L, C)
        Blocks that count for a channel, at least one each.
    sigmas : array, shape (E,)
        Noise that the embeddings stand for.
    confidence : float
        Of each interval.
    family : int, optional
        Channels that could be called; default: C.
    """
    channels = logs.shape[-1]
    family = max(channels if family is None else family, 1)
    weights_LC = counted_LC / counted_LC.sum(axis=0)

    def bounds(profile: Floats, tests: int) -> Interval:  # with so many tests in the family
        corrected = 1.0 - (1.0 - confidence) / tests
        return inference.largest_difference(profile, confidence=corrected, along=sigmas)

    main = np.einsum("pelc,lc->pec", logs.mean(axis=(1, 2)), weights_LC)
    inside = np.moveaxis(logs.mean(axis=1), 2, 1)  # P, E, T, L, C
    places = bounds(inside, 1)
    latents, layers = inside.shape[2:4]
    high = np.where(counted_LC, places.high, -np.inf).reshape(latents * layers, channels)
    most = np.where(np.isnan(high), -np.inf, high).argmax(axis=0)
    strict = bounds(inside, family * latents * int(counted_LC.sum(axis=0).max())).low
    return Evidence(
        bounds(main, 1),
        bounds(main, family).low,
        places,
        (most // layers, most % layers),
        np.where(counted_LC, strict, -np.inf).max(axis=(0, 1)),
    )


def words(evidence: Evidence, p_corrected: Floats, *, margin: float, alpha: float) -> np.ndarray:
    """Verdict of each channel, shape (C,); without bounds (too few replicates) it is `undecided`."""
    supported = (evidence.low_corrected > margin) & (np.asarray(p_corrected) <= alpha)
    absent = evidence.at_worst.high < margin
    return np.asarray(np.where(supported, "supported", np.where(absent, "not supported", "undecided"))).astype(TEXT)
