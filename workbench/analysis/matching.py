"""Ordinary channels that hold as much as the massive ones: the fair control of anything that removes massive channels.

Setting as many ordinary channels to zero removes far less; what then differs may be the amount and not the kind of channel.
Here random ordinary channels are taken until what they hold, the root of the summed mean squares √(Σ E h²), comes nearest to
what the massive ones hold.

Legend: C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.visits import INPUT, require, select_branch
from workbench.errors import AnalysisError

EVERYWHERE = (0.0, 1.0)
_ROUNDING = 1e-6  # schedulers keep noise levels in float32


class Matched(NamedTuple):
    """A matched set.

    Attributes
    ----------
    channels : tuple of int
        Ascending.
    coverage : float
        What they hold over what the massive channels hold, root of the ratio of mean squares; below 1 where all ordinary
        channels together hold less.
    everything : bool
        Whether these are all ordinary channels, so that another draw would be the same set.
    """

    channels: tuple[int, ...]
    coverage: float
    everything: bool


def mean_square(
    recording: xr.Dataset, layer: str, *, window: tuple[float, float] = EVERYWHERE, branch: str = "cond"
) -> NDArray[np.float64]:
    """E[h²] of every channel in the state that enters a block, over tokens, steps and samples.

    Exact from the recorded statistics: mean h² = (mean h)² + std².

    Parameters
    ----------
    recording : xr.Dataset
        With `h_mean` and `h_std` of the layer before `layer`.
    layer : str
        Path of the block.
    window : (float, float)
        Noise levels, both ends included.
    branch : str
        Of the recording.

    Returns
    -------
    array, shape (C,)

    Raises
    ------
    AnalysisError
        If the state that enters the block was not recorded, or no recorded step is in the window.
    """
    require(recording, "h_mean", "h_std")
    part = select_branch(recording, branch)
    part = part.isel(layer=entering(part, layer))
    if window != EVERYWHERE:
        sigma = part["sigma"].values
        inside = np.flatnonzero((sigma >= window[0] - _ROUNDING) & (sigma <= window[1] + _ROUNDING))
        if not len(inside):
            raise AnalysisError(
                f"no recorded step has a noise level in {window}; they are {sigma.min():g} to {sigma.max():g}."
            )
        part = part.isel(timestep=inside)
    square = part["h_mean"].astype(np.float64) ** 2 + part["h_std"].astype(np.float64) ** 2
    over = [dim for dim in square.dims if dim != "channel"]
    return np.asarray(square.mean(over, skipna=True).values, dtype=np.float64)


def entering(recording: xr.Dataset, layer: str) -> int:
    """Position of the recorded layer whose output enters the block.

    Raises
    ------
    AnalysisError
        If the block does not exist or the layer before it was not recorded.
    """
    names = [str(name) for name in recording["layer"].values]
    blocks = [int(block) for block in recording["block"].values]
    if layer not in names or layer == INPUT:
        there = [name for name in names if name != INPUT]
        raise AnalysisError(
            f"the recording has no block {layer!r}; it has {there[0]} … {there[-1]} ({len(there)} blocks)."
        )
    before = blocks[names.index(layer)] - 1
    if before not in blocks:
        raise AnalysisError(f"the state that enters {layer} was not recorded; record all layers.")
    return blocks.index(before)


def matched(
    square_C: NDArray[Any], channels: Sequence[int], *, excluded: Sequence[int] = (), seed: int | Sequence[int] = 0
) -> Matched:
    """Draw random ordinary channels, as many as come nearest to what `channels` hold.

    Parameters
    ----------
    square_C : array (C,)
        Mean square of every channel.
    channels : sequence of int
        The massive ones.
    excluded : sequence of int
        Not ordinary either: massive elsewhere in the model.
    seed : int or sequence of int
        Of the order in which ordinary channels are taken.

    Returns
    -------
    Matched

    Raises
    ------
    AnalysisError
        If there is no massive or no ordinary channel, or a mean square is not finite.
    """
    square = np.asarray(square_C, dtype=np.float64)
    chosen = sorted({int(channel) for channel in channels})
    taken = {*chosen, *map(int, excluded)}
    ordinary = np.array([c for c in range(len(square)) if c not in taken], dtype=np.int64)
    if not chosen or not len(ordinary):
        raise AnalysisError(
            f"{len(chosen)} massive and {len(ordinary)} ordinary channels can't be matched; name others."
        )
    if chosen[0] < 0 or chosen[-1] >= len(square):
        raise AnalysisError(f"channels {chosen} are not all among the {len(square)} that there are.")
    if not np.isfinite(square).all():
        raise AnalysisError("the statistics of this layer are not finite in some channel; record again.")
    target = square[chosen].sum()
    order = np.random.default_rng(seed).permutation(ordinary)
    held = np.sqrt(np.cumsum(square[order]))
    count = int(np.abs(held - np.sqrt(target)).argmin()) + 1
    picked = tuple(sorted(int(c) for c in order[:count]))
    ratio = square[list(picked)].sum() / target if target > 0 else np.nan
    return Matched(picked, float(np.sqrt(ratio)), bool(held[-1] < np.sqrt(target)))


def matched_channels(
    recording: xr.Dataset,
    layer: str,
    channels: Sequence[int],
    seed: int = 0,
    *,
    excluded: Sequence[int] = (),
    window: tuple[float, float] = EVERYWHERE,
) -> Matched:
    """Draw ordinary channels that hold as much as `channels` in the state that enters `layer`; see `matched`."""
    return matched(mean_square(recording, layer, window=window), channels, excluded=excluded, seed=seed)
