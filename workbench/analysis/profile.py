"""The profile of |h| over a video's flattened token index, and the boundary width that it proposes.

STAS (Cheng et al., arXiv 2603.17825) says that head and tail tokens of every latent frame's run are larger than those between,
and not how many they are. Here the width is read off the data, with its uncertainty, or said not to be there: see
`docs/profile.md` for the rule and its error rates.

Legend: S samples, P prompts, L layers, T timesteps, N tokens, K channels, W widths.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.hierarchy_choose import Chosen, choose, confounded, control_channels
from workbench.analysis.inference import Floats
from workbench.analysis.profile_read import read
from workbench.analysis.profile_rule import FOUND, TESTS, Proposal, Sampling, propose
from workbench.analysis.profile_step import fits
from workbench.analysis.profile_words import reason
from workbench.analysis.visits import TEXT, Visits
from workbench.roles import grid_of, with_roles

CONTROLS = 16
"""Ordinary channels whose profile stands beside that of the massive ones. A choice."""


def profile(
    recording: xr.Dataset,
    *,
    channels: Sequence[int] | None = None,
    criterion: str = "workbench",
    branch: str = "cond",
    width: int | None = None,
    controls: int = CONTROLS,
    smallest_effect: float = 0.1,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 2000,
    flips: int = 1999,
    seed: int = 0,
) -> xr.Dataset:
    """Average |h| of the massive channels by token, and propose a boundary width from it.

    Parameters
    ----------
    recording : xr.Dataset
        Of a video, tier `full`, as in `docs/schema.md`.
    channels : sequence of int, optional
        Channels by label. Default: those that `locate` finds.
    criterion : str
        Criterion of `locate`, which says what is massive, and in which blocks.
    branch : str
        Branch to look at.
    width : int, optional
        Boundary width that the proposal is compared with. Default: the recording's.
    controls : int
        Ordinary channels to set beside them; 0 leaves them out.
    smallest_effect : float
        Smallest step that counts, in ln units; a choice, as in `hierarchy`.
    alpha : float
        Level of the p-values.
    confidence, resamples, seed
        Of the bootstrap over prompts (over seeds, where there is one prompt only).
    flips : int
        Random flips of the prompts' signs, where there are too many to look at all.

    Returns
    -------
    xr.Dataset
        `magnitude(layer, timestep, token)`, mean |h| over channels and prompts in units of the hidden state, and over layers and
        timesteps `token_magnitude(token)` with `_low`, `_high`, and `ordinary_magnitude(token)` of the ordinary channels;
        `place_profile(place)` and `place_first(place)` (ln, mean over later frames, and of the first; each with bounds);
        `rise(width)`, the step at head and tail, with bounds, `p_value`, `p_corrected` and `explained` (share of the profile
        beyond content); its controls `column_rise(width)`, in column order, as deep into the frame, and `first_rise(width)`, in
        the first frame, with bounds; `check_rise(check)` with bounds and `check_p`, at the best width, see `profile_rule.TESTS`;
        `visit_rise(layer, timestep)` and `frame_rise(frame_index)`, the step at the best width by visit and in each latent
        frame; `ordinary_rise` with bounds, of the ordinary channels. Attributes as in `workbench.analysis`, and
        `proposed_width` (0: none), `best_width`, `best_width_low`, `best_width_high`, `plateau`, `boundary_width` (what it
        was compared with), `confound`.

    Raises
    ------
    RoleError
        If it is no video of two latent frames or more.
    AnalysisError
        If a channel or the branch does not exist, none is massive, no sample is complete, or there are no hidden states.
    """
    recording = with_roles(recording, width)
    grid = grid_of(recording)
    visits = Visits(recording, branch)
    chosen = choose(recording, visits, channels, branch, criterion)
    known = [int(label) for label in visits.recording["channel"].values]
    weights_LK = _weights(chosen, visits)
    counts = weights_LK.sum(axis=1) > 0
    got = read(visits, np.asarray([known.index(c) for c in chosen.labels]), weights_LK, grid[0])
    later_PS, first_PS = (visits.by_prompt(x[:, counts].mean(axis=(1, 2), dtype=np.float64)) for x in got[1:])
    by = Sampling(smallest_effect, alpha, confidence, resamples, flips, seed)
    found = propose(later_PS, first_PS, *grid[1:], by)

    ordinary = control_channels(visits, chosen.anywhere, chosen.labels, controls)
    result = xr.Dataset(coords={**visits.coords("layer", "timestep"), **visits.coords("token")})
    place = np.arange(grid[1] * grid[2])
    result = result.assign_coords(place=place, width=found.widths, check=np.asarray(TESTS, dtype=TEXT))
    result.coords["frame_index"] = np.arange(grid[0])
    layered = visits.average(got.magnitude_SLTN)
    result["magnitude"] = (("layer", "timestep", "token"), layered, {"long_name": "mean |h| over channels and prompts"})
    _add(result, "token_magnitude", ("token",), visits.by_prompt(got.magnitude_SLTN[:, counts].mean(axis=(1, 2))), by,
         "mean |h| over channels, the layers that count, timesteps and prompts")  # fmt: skip
    _add(result, "place_profile", ("place",), later_PS, by, "ln |h| over a run, mean over later frames")
    _add(result, "place_first", ("place",), first_PS, by, "ln |h| over the first frame's run")
    _add_steps(result, found)
    _add_where(result, visits, found, got.later_SLTP, got.magnitude_SLTN[:, counts], grid)
    if ordinary:
        _add_ordinary(result, visits, ordinary, counts, grid, found, by)
    result.attrs = {
        **visits.attrs("profile"),
        "channels": chosen.labels,
        "channels_source": chosen.source,
        "ordinary_channels": ordinary,
        "layers_counted": [name for name, counted in zip(visits.layers, counts, strict=True) if counted],
        "token_grid": list(grid),
        "boundary_width": int(recording.attrs["boundary_width"]),
        "boundary_width_source": recording.attrs["boundary_width_source"],
        "proposed_width": found.width if found.verdict == FOUND else 0,
        "best_width": found.width,
        "best_width_low": found.low,
        "best_width_high": found.high,
        "plateau": found.plateau,
        "confound": confounded(recording),
        "smallest_effect": smallest_effect,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
        "parameters": json.dumps(by._asdict() | {"controls": controls}, sort_keys=True),
        "verdict": found.verdict,
    }
    result.attrs["verdict_reason"] = reason(result, found, by, later_PS)
    return result


def _weights(chosen: Chosen, visits: Visits) -> Floats:
    """Weight of each channel in the mean of a layer: equal over those that count there.

    A channel counts where it is massive, and in all blocks if it is massive in none, as in `hierarchy`.
    """
    counted = chosen.massive_LK & visits.blocks[:, None]
    counted[:, ~counted.any(axis=0)] = visits.blocks[:, None]
    return np.asarray(counted / np.maximum(counted.sum(axis=1, keepdims=True), 1))


def _add(result: xr.Dataset, name: str, dims: tuple[str, ...], values_PX: Floats, by: Sampling, text: str) -> None:
    """Add the mean over prompts with its interval as `name`, `name_low`, `name_high`."""
    interval = inference.bootstrap_mean(values_PX, confidence=by.confidence, resamples=by.resamples, seed=by.seed)
    for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
        result[name + suffix] = (dims, values, {"long_name": text + suffix.replace("_", ", ")})


def _add_steps(result: xr.Dataset, found: Proposal) -> None:
    """`rise` of every width, and the `check_rise` at the best one."""
    text = "head and tail over the rest"
    intervals = (("rise", "width", found.step), ("column_rise", "width", found.across), ("first_rise", "width", found.first),
                 ("check_rise", "check", found.tests))  # fmt: skip
    for name, dim, interval in intervals:
        for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
            result[name + suffix] = ((dim,), values, {"long_name": text + suffix.replace("_", ", "), "units": "ln"})
    result["p_value"] = (("width",), found.p_value, {"long_name": "p of the step, signs of prompts flipped"})
    result["p_corrected"] = (("width",), found.p_corrected, {"long_name": "p, corrected for all widths"})
    result["explained"] = (("width",), found.explained, {"long_name": "share of the profile beyond content"})
    result["check_p"] = (("check",), found.tests_p, {"long_name": "p of the check, signs of prompts flipped"})


def _add_where(
    result: xr.Dataset,
    visits: Visits,
    found: Proposal,
    later_SLTP: Any,
    magnitude_SLTN: Any,
    grid: tuple[int, int, int],
) -> None:
    """The step at the best width by layer and timestep, and by latent frame; none where nothing could be fitted."""
    if not found.width:
        return
    own = fits(*grid[1:])
    step_S = own.step_WS[int(np.flatnonzero(own.widths == found.width)[0])]
    visit = visits.average(later_SLTP.astype(np.float64) @ step_S)
    result["visit_rise"] = (("layer", "timestep"), visit, {"long_name": "step at the best width", "units": "ln"})
    logs = np.log(magnitude_SLTN.reshape(*magnitude_SLTN.shape[:3], grid[0], -1).astype(np.float64))
    frame = visits.average((logs @ step_S).mean(axis=(1, 2)))
    text = "step at the best width in one latent frame, of ln mean |h| over channels"
    result["frame_rise"] = (("frame_index",), frame, {"long_name": text, "units": "ln"})


def _add_ordinary(
    result: xr.Dataset,
    visits: Visits,
    ordinary: list[int],
    counts: np.ndarray,
    grid: tuple[int, int, int],
    found: Proposal,
    by: Sampling,
) -> None:
    """What the ordinary channels do in the same layers."""
    known = [int(label) for label in visits.recording["channel"].values]
    weights = np.where(counts[:, None], 1.0 / len(ordinary), 0.0) * np.ones(len(ordinary))
    got = read(visits, np.asarray([known.index(c) for c in ordinary]), weights, grid[0])
    tokens = visits.by_prompt(got.magnitude_SLTN[:, counts].mean(axis=(1, 2)))
    _add(result, "ordinary_magnitude", ("token",), tokens, by, "mean |h| over ordinary channels")
    if not found.width:
        return
    own = fits(*grid[1:])
    step_S = own.step_WS[int(np.flatnonzero(own.widths == found.width)[0])]
    steps = visits.by_prompt(got.later_SLTP[:, counts].mean(axis=(1, 2), dtype=np.float64) @ step_S)
    _add(result, "ordinary_rise", (), steps, by, "step of the ordinary channels at the best width, ln units")
