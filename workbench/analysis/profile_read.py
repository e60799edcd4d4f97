"""Reading |h| token by token for `profile`: the only part of it that knows hidden states.

Legend: S samples, L layers, T timesteps, N tokens, K channels, P places of a run, F latent frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.inference import Floats
from workbench.analysis.visits import Visits, decode_hidden
from workbench.errors import AnalysisError


class Read(NamedTuple):
    """What was read.

    Attributes
    ----------
    magnitude_SLTN : array
        Mean |h| over the channels that count in the layer, in units of the hidden state; NaN in layers that don't.
    later_SLTP, first_SLTP : array
        The ln of |h| over the places of a run, each channel divided by its own mean over the tokens of the later frames; mean
        over channels and over the later frames before the logarithm; and of the first frame.
    """

    magnitude_SLTN: NDArray[np.float32]
    later_SLTP: NDArray[np.float32]
    first_SLTP: NDArray[np.float32]


def read(visits: Visits, at_K: NDArray[np.int64], weights_LK: Floats, frames: int) -> Read:
    """Reduce the hidden states of chosen channels, a chunk of the store at a time.

    Parameters
    ----------
    visits : Visits
        Of complete samples.
    at_K : array of int
        Positions of the channels.
    weights_LK : array
        Weight of each channel in the mean of a layer; a row sums to 1, or to 0 where the layer does not count.
    frames : int
        Latent frames of the video.

    Raises
    ------
    AnalysisError
        If the recording has no hidden states, some are not finite, or a place is 0 throughout.
    """
    if not visits.has_hidden:
        raise AnalysisError(
            "the profile over tokens needs the hidden state of every token, and this recording holds statistics only. Record "
            "again with --tier full (of chosen layers and steps, if it gets too large)."
        )
    order = ("sample", "layer", "timestep", "token", "channel")
    hidden = visits.recording["hidden"].transpose(*order).isel(channel=at_K)
    shape = tuple(hidden.sizes[dim] for dim in order[:4])
    size = shape[3] // frames
    magnitude = np.full(shape, np.nan, dtype=np.float32)
    later, first = (np.full((*shape[:3], size), np.nan, dtype=np.float32) for _ in range(2))
    counts = np.flatnonzero(weights_LK.sum(axis=1) > 0)
    for sample, steps in _parts(hidden):
        part = hidden.isel(sample=sample, timestep=steps, layer=counts)
        absolute = np.abs(decode_hidden(part)).astype(np.float64)  # L, t, N, K
        if not np.isfinite(absolute).all():
            label = visits.samples[sample]
            raise AnalysisError(
                f"hidden states of sample {label} are not finite; `workbench verify` says what is missing."
            )
        run = absolute.reshape(*absolute.shape[:2], frames, size, len(at_K))
        whole = run[:, :, 1:].mean(axis=(2, 3), keepdims=True)
        relative = np.divide(run, whole, out=np.zeros_like(run), where=whole > 0)
        weights = weights_LK[counts]
        with np.errstate(divide="ignore"):
            later_LTP = np.log(np.einsum("ltpk,lk->ltp", relative[:, :, 1:].mean(axis=2), weights))
            first_LTP = np.log(np.einsum("ltpk,lk->ltp", relative[:, :, 0], weights))
        if not (np.isfinite(later_LTP).all() and np.isfinite(first_LTP).all()):
            raise AnalysisError(
                f"in sample {visits.samples[sample]} |h| is 0 at a token in all of these channels, so it has no logarithm. "
                "Choose channels that are not 0 with channels=[…]."
            )
        later[sample, counts, steps], first[sample, counts, steps] = later_LTP, first_LTP
        magnitude[sample, counts, steps] = np.einsum("ltnk,lk->ltn", absolute, weights)
    return Read(magnitude, later, first)


def _parts(hidden: xr.DataArray) -> Iterator[tuple[int, slice]]:
    """Samples and stretches of timesteps as the store is chunked, so that each chunk is read once."""
    lengths = dict(hidden.chunksizes).get("timestep", (hidden.sizes["timestep"],)) if hidden.chunksizes else None
    ends = np.cumsum(lengths if lengths is not None else (hidden.sizes["timestep"],))
    for sample in range(hidden.sizes["sample"]):
        for start, end in zip((0, *ends[:-1]), ends, strict=True):
            yield sample, slice(int(start), int(end))
