"""Where a video's tokens lie, and how large |h| is there: the only part of the hierarchy that reads hidden states.

A *region* is a set of places in one latent frame, the same in every frame. `boundary` and `interior` are the roles' (the
head and tail of the run, and the rest). Tokens at head and tail of a run in raster order are rows at the top and bottom of
the frame, and content may differ there whatever the sequence is; so the first and last tokens in *column* order serve as
control: the same set, transposed. Corners are in both and are left out of `row edge` and `column edge`.

Legend: S samples, L layers, T timesteps, K channels, F latent frames, N tokens, P places in a frame, R regions, O rotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.visits import Visits, decode_hidden
from workbench.errors import AnalysisError
from workbench.roles import grid_of, roles_of, width_of

REGIONS = ("all", "boundary", "interior", "row edge", "column edge", "inside")

MOST_ROTATIONS = 256
"""Where a frame has more places, so many of its rotations are looked at, evenly spaced."""


class Places(NamedTuple):
    """A video's token grid and the regions of its frames.

    Attributes
    ----------
    grid : (int, int, int)
        Latent frames, rows, columns.
    width, control_width : int
        Boundary width in tokens, at the head and as many at the tail; and that of the control in column order, which
        reaches as deep into the frame: width × rows / columns, rounded, at least 1.
    weights_PR : array
        Share of each place in the mean over a region; 0 throughout where a region has no place.
    absent_R : array of bool
        Regions without a place.
    """

    grid: tuple[int, int, int]
    width: int
    control_width: int
    weights_PR: NDArray[np.float64]
    absent_R: NDArray[np.bool_]


def places_of(recording: object, width: int | None = None) -> Places:
    """Regions of a recording's frames for a boundary width (default: the recording's).

    Raises
    ------
    RoleError
        If it is no video of two latent frames or more, or the width leaves no interior.
    """
    found = width_of(recording) if width is None else width  # type: ignore[arg-type]
    roles_of(recording, found)  # type: ignore[arg-type]  # refuses images and widths that do not fit
    frames, rows, columns = grid_of(recording)  # type: ignore[arg-type]
    size, control = rows * columns, max(1, round(found * rows / columns))
    place = np.arange(size)
    raster = (place < found) | (place >= size - found)
    across = (place % columns) * rows + place // columns  # where each place comes in column order
    column = (across < control) | (across >= size - control)
    masks = np.stack([np.full(size, True), raster, ~raster, raster & ~column, column & ~raster, ~raster & ~column], 1)
    counts = masks.sum(axis=0)
    return Places((frames, rows, columns), int(found), control, masks / np.maximum(counts, 1), counts == 0)


def rotations_of(places: Places) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rotations of the frame boundaries in tokens, 0 first; and the weights of the rotated boundary, (P, O).

    Later frames are one sequence of runs; moving all boundaries in it by r tokens makes the boundary set of a run the
    places p with (p - r) mod P at its head or tail. What lies where in a frame stays as it is.
    """
    size = places.grid[1] * places.grid[2]
    shifts = np.arange(0, size, -(-size // MOST_ROTATIONS))
    moved = (np.arange(size)[:, None] - shifts) % size
    edge = (moved < places.width) | (moved >= size - places.width)
    return shifts, edge / (2.0 * places.width)


class Measured(NamedTuple):
    """What was read.

    Attributes
    ----------
    logs_SLTKFR : array
        The ln of mean |h| over a region of one frame.
    rotated_SLTMO : array
        For the first M channels: ln mean |h| of the rotated boundary minus that of the rest, mean over later frames.
    """

    logs_SLTKFR: NDArray[np.float32]
    rotated_SLTMO: NDArray[np.float32]


def need_hidden(recording: xr.Dataset) -> None:
    """Raise `AnalysisError` unless the recording holds the hidden state of every token."""
    if "hidden" not in recording:
        raise AnalysisError(
            "the frame hierarchy needs the hidden state of every token, and this recording holds statistics only. Record "
            "again with --tier full (of chosen layers and steps, if it gets too large: --select)."
        )


def measure(visits: Visits, places: Places, at_K: NDArray[np.int64], massive: int) -> Measured:
    """Reduce the hidden states of chosen channels, a chunk of the store at a time.

    Parameters
    ----------
    visits : Visits
        Of complete samples.
    places : Places
    at_K : array of int
        Positions of the channels, the massive ones first.
    massive : int
        How many of them are rotated.

    Raises
    ------
    AnalysisError
        If the recording has no hidden states, some that are not finite, or a massive channel is 0 in a whole region.
    """
    need_hidden(visits.recording)
    order = ("sample", "layer", "timestep", "token", "channel")
    hidden = visits.recording["hidden"].transpose(*order).isel(channel=at_K)
    frames, shifts = places.grid[0], rotations_of(places)[0]
    shape = tuple(hidden.sizes[d] for d in order[:3])
    logs = np.empty((*shape, len(at_K), frames, len(REGIONS)), dtype=np.float32)
    rotated = np.empty((*shape, massive, len(shifts)), dtype=np.float32)
    for at in _chunks(hidden.chunksizes, shape):
        part = hidden.isel(dict(zip(order[:3], at, strict=True)))
        size = np.abs(decode_hidden(part))  # l, t, N, K of one sample
        if not np.isfinite(size).all():
            label = visits.samples[at[0].start]
            raise AnalysisError(
                f"hidden states of sample {label} are not finite; `workbench verify` says what is missing."
            )
        logs[at], rotated[at] = reduce_states(size, places, massive)
        if (logs[at][..., :massive, :, ~places.absent_R] <= _ln(np.zeros(1))[0] + 1.0).any():
            raise AnalysisError(
                f"in sample {visits.samples[at[0].start]} |h| of a channel that was asked for is 0 at all tokens of a region, so it "
                "has no logarithm. Choose channels that are not 0 with channels=[…]."
            )
    return Measured(logs, rotated)


def reduce_states(size_XNK: NDArray[np.float32], places: Places, massive: int) -> Measured:
    """Reduce |h| of visits, shape (…, N, K), to the means of `Measured`, with … in place of S, L, T."""
    frames, rows, columns = places.grid
    run = np.moveaxis(size_XNK.reshape(*size_XNK.shape[:-2], frames, rows * columns, size_XNK.shape[-1]), -1, -3)
    logs = _ln(run @ places.weights_PR)  # …, K, F, R
    later = run[..., :massive, 1:, :]
    on = later @ rotations_of(places)[1]
    rest = (later.sum(axis=-1, keepdims=True) - 2 * places.width * on) / (rows * columns - 2 * places.width)
    turned = (_ln(on) - _ln(rest)).mean(axis=-2)
    return Measured(logs.astype(np.float32), turned.astype(np.float32))


def _ln(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float32).tiny)))


def _chunks(
    chunksizes: object, shape: tuple[int, ...], dims: tuple[str, ...] = ("sample", "layer", "timestep")
) -> Iterator[tuple[slice, ...]]:
    """Slices over samples, layers and timesteps: one sample, and otherwise as the store is chunked, so that each chunk is
    read once and no more than one is in memory.
    """  # noqa: D205
    sizes = dict(chunksizes) if chunksizes else {}  # type: ignore[call-overload]
    cuts = []
    for dim, n in zip(dims, shape, strict=True):
        lengths = [1] * n if dim == "sample" else list(sizes.get(dim, (n,)))
        ends = np.cumsum(lengths)
        cuts.append([slice(int(e - length), int(e)) for e, length in zip(ends, lengths, strict=True)])
    for sample in cuts[0]:
        for steps in cuts[2]:
            for layers in cuts[1]:
                yield sample, layers, steps
