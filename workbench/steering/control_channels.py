"""Which channels are disrupted: the massive ones, and those that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from workbench.analysis.matching import matched
from workbench.errors import SpecError

KINDS = ("massive", "random", "matched_random", "low", "noise")
"""What is disrupted by default: see `channel_sets`."""

DRAWN = ("random", "matched_random", "noise", "shift")
"""Kinds that depend on a draw. ``shift`` is not among the defaults: noise that is the same on every token."""


class ChannelSet(NamedTuple):
    """Channels of one kind at one layer.

    Attributes
    ----------
    channels, into : tuple of int
        As in `Disruption`.
    coverage : float
        Expected L2 norm, per token, over that of the massive channels; root of the ratio of mean squares.
    draw : int
        Which draw; 0 where the kind has none.
    seed : int
        Of the noise.
    """

    channels: tuple[int, ...]
    into: tuple[int, ...]
    coverage: float
    draw: int
    seed: int


def channel_sets(
    mean_square_C: np.ndarray,
    massive: Sequence[int],
    kind: str,
    *,
    excluded: Sequence[int] = (),
    draws: int = 2,
    seed: int = 0,
) -> list[ChannelSet]:
    """Choose the channels of a kind, from the mean square of every channel at this layer and window.

    Parameters
    ----------
    mean_square_C : array (C,)
        E[h²] over tokens, steps and samples: mean² + std² of the recorded statistics.
    massive : sequence of int
        Channels set to zero by ``massive``.
    kind : str
        ``massive``; ``random``: as many ordinary channels; ``matched_random``: random ordinary channels, as many as come
        nearest to holding the norm of the massive ones; ``low``: as many channels of the lowest mean square; ``noise`` and
        ``shift``: all ordinary channels get a vector of the massive channels' norm.
    excluded : sequence of int
        Channels that are no ordinary ones either: massive elsewhere in the model.
    draws : int
        Draws of a random kind. Where all ordinary channels together hold less than the massive ones, ``matched_random``
        is all of them: there is one such set, and its `coverage` is below 1.
    seed : int
        The draws of all windows of a layer share it.

    Returns
    -------
    list of ChannelSet

    Raises
    ------
    SpecError
        If no massive channel is given, or there are too few ordinary ones.
    """
    square = np.asarray(mean_square_C, dtype=np.float64)
    chosen = sorted({int(c) for c in massive})
    if not chosen:
        raise SpecError("no massive channel is left after filtering; name `channels`, or another criterion.")
    if draws < 1:
        raise SpecError(f"draws={draws} must be at least 1.")
    if not np.isfinite(square).all():
        raise SpecError("the recorded statistics of this layer are not finite; record again.")
    taken = {*chosen, *map(int, excluded)}
    ordinary = np.array([c for c in range(len(square)) if c not in taken])
    if len(ordinary) < len(chosen):
        raise SpecError(
            f"{len(ordinary)} ordinary channels are too few as controls of {len(chosen)} massive ones; name fewer."
        )
    target = square[chosen].sum()

    def made(channels: Any, draw: int = 0, into: Sequence[int] = (), noise: int = 0) -> ChannelSet:
        picked = tuple(sorted(int(c) for c in channels))
        ratio = square[list(picked)].sum() / target if target > 0 else np.nan
        return ChannelSet(picked, tuple(int(c) for c in into), float(np.sqrt(ratio)), draw, noise)

    if kind == "massive":
        return [made(chosen)]
    if kind == "low":
        return [made(ordinary[np.argsort(square[ordinary], kind="stable")[: len(chosen)]])]
    sets = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(ordinary)
        if kind == "random":
            sets.append(made(order[: len(chosen)], draw))
        elif kind == "matched_random":
            fair = matched(square, chosen, excluded=excluded, seed=[seed, draw])
            sets.append(made(fair.channels, draw))
            if fair.everything:
                break  # another draw would be the same set
        elif kind in ("noise", "shift"):
            noise = int(np.random.default_rng([seed, draw, 1]).integers(1 << 31))
            sets.append(made(chosen, draw, ordinary.tolist(), noise))
        else:
            raise SpecError(f"kind {kind!r} is unknown; choose one of {', '.join((*KINDS, 'shift'))}.")
    return sets


__all__ = ["DRAWN", "KINDS", "ChannelSet", "channel_sets"]
