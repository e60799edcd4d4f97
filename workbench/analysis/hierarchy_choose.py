"""Which channels the hierarchy is about, which ordinary ones stand beside them, and what confounds it.

Legend: L layers, K chosen channels, C all channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.locate import locate, located_channels
from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError

PER_TOKEN = "timesteps differ between the tokens of one call (coordinate `token_timestep`)"


class Chosen(NamedTuple):
    """Massive channels of the analysis.

    Attributes
    ----------
    labels : list of int
        Strongest first, or as the caller gave them.
    massive_LK : array of bool
        Where they are massive, by the criterion; all False where that is not known.
    anywhere : set of int
        All channels that are massive at some layer, chosen or not: none of them is ordinary.
    source : str
        Where they come from.
    """

    labels: list[int]
    massive_LK: NDArray[np.bool_]
    anywhere: set[int]
    source: str


def choose(
    recording: xr.Dataset, visits: Visits, channels: Sequence[int] | None, branch: str, criterion: str
) -> Chosen:
    """Channels given by the caller, or those that `locate` finds by the criterion.

    Raises
    ------
    AnalysisError
        If a given channel is not there, or none is given and none is massive.
    """
    known = [int(label) for label in visits.recording["channel"].values]
    given = None if channels is None else [int(channel) for channel in channels]
    if given is not None:
        unknown = [channel for channel in given if channel not in known]
        if unknown or not given or len(set(given)) != len(given):
            raise AnalysisError(
                f"channels={given}: give each channel once, from {known[0]} to {known[-1]} as recorded"
                + (f"; unknown: {unknown}." if unknown else ".")
            )
        if visits.channels_missing:  # no ratio to the median channel, so none can be said to be massive
            nowhere = np.zeros((len(visits.layers), len(given)), dtype=bool)
            return Chosen(given, nowhere, set(given), "channels given by the caller")
    # Statistics suffice for the default; with hidden states, others would read all of them.
    read = recording.drop_vars("hidden", errors="ignore") if criterion == "workbench" else recording
    found = locate(read, criterion=criterion, branch=branch, resamples=1)
    at = found["massive"].sel(criterion=found.attrs["criterion"]).transpose("layer", "channel")
    anywhere = {int(c) for c in found["channel"].values[at.values.any(axis=0)]}
    source = f"{found.attrs['criterion']} (version {found.attrs['criterion_version']})"
    if given is None:
        given = located_channels(found)
        if not given:
            raise AnalysisError(
                f"no channel is massive by criterion {source}, so there is no hierarchy of massive activations. Name "
                "channels to look at with channels=[…]; `workbench locate` shows how far the largest stand out."
            )
    else:
        source = "channels given by the caller"
    return Chosen(given, np.asarray(at.sel(channel=given).values, dtype=bool), anywhere, source)


def control_channels(visits: Visits, massive: set[int], chosen: Sequence[int], count: int) -> list[int]:
    """Ordinary channels, evenly spaced by rank of mean |h| over blocks: from small ones to nearly massive ones.

    Fewer where there are fewer. A channel that is 0 throughout has no logarithm and is none of them.
    """
    size_C = visits.average(visits.mean_abs_SLTC.mean(axis=2))[visits.blocks].mean(axis=0)
    labels = visits.recording["channel"].values
    pool = [i for i in np.argsort(size_C, kind="stable") if size_C[i] > 0 and int(labels[i]) not in {*massive, *chosen}]
    if not pool or not count:
        return []
    every = np.arange(len(pool))
    ranks = (
        every if count >= len(pool) else np.unique(np.linspace(0, len(pool) - 1, count + 2).round()[1:-1].astype(int))
    )
    return [int(labels[pool[rank]]) for rank in ranks]


def confounded(recording: xr.Dataset) -> str:
    """What besides the latent frame differs between the roles; empty if nothing is known to.

    Where the first frame is given (image to video), its tokens are told another timestep, most often 0, and what is
    modulated by the timestep then differs by role for that reason alone.
    """
    if "token_timestep" not in recording.variables:
        return ""
    values = recording["token_timestep"]
    if "token" not in values.dims:
        return ""
    spread = values.max("token") - values.min("token")
    return PER_TOKEN if bool((spread > 0).any()) else ""
