"""Whether massive activations follow a video's latent frames: first frame > boundary of a later frame > its interior (STAS).

What is measured is ln mean |h| of a channel over the tokens of a region of one latent frame; everything said is a difference
of these, in ln units (0.1 is a tenth). Image content depends on place, and the first latent frame encodes one pixel frame
where others encode several, so no difference counts by itself: the boundary has to exceed the edge of the image, the first
frame is compared at the same places, and ordinary channels stand beside all of it. `docs/hierarchy.md` has the method and its
error rates.

Legend: S samples, P prompts, L layers, T timesteps, K channels (massive ones first), M massive, F frames, R regions, D contrasts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.hierarchy_channels import add_channels
from workbench.analysis.hierarchy_choose import choose, confounded, control_channels
from workbench.analysis.hierarchy_contrasts import CONTRASTS, DECIDING, apply_weights, contrast_weights, counted
from workbench.analysis.hierarchy_parts import (
    Sampling,
    add_dynamics,
    add_magnitudes,
    add_nulls,
    add_overall,
    add_visits,
)
from workbench.analysis.hierarchy_regions import measure, need_hidden, places_of, rotations_of
from workbench.analysis.hierarchy_verdict import judge
from workbench.analysis.visits import TEXT, Visits
from workbench.errors import AnalysisError

SMALLEST_EFFECT = 0.1
"""In ln units, about a tenth. A choice of this workbench, as in `causal`: the paper gives no magnitudes."""

CONTROLS = 16
"""Ordinary channels that stand beside the massive ones. A choice."""


def hierarchy(
    recording: xr.Dataset,
    *,
    channels: Sequence[int] | None = None,
    criterion: str = "workbench",
    branch: str = "cond",
    width: int | None = None,
    controls: int = CONTROLS,
    smallest_effect: float = SMALLEST_EFFECT,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 2000,
    permutations: int = 1999,
    seed: int = 0,
) -> xr.Dataset:
    """Test the frame hierarchy of massive activations: which of its levels hold, where, and when.

    Parameters
    ----------
    recording : xr.Dataset
        Of a video, tier `full`, as in `docs/schema.md`; read chunk by chunk, so it may be larger than memory.
    channels : sequence of int, optional
        Massive channels by label. Default: those that `locate` finds.
    criterion : str
        Criterion of `locate`, which says what is massive, and in which blocks.
    branch : str
        Branch to look at.
    width : int, optional
        Boundary width in tokens at the head and as many at the tail of a later frame's run. Default: the recording's.
    controls : int
        Ordinary channels to set beside them, evenly spaced by rank of mean |h|; 0 leaves them out.
    smallest_effect : float
        Smallest contrast that counts, in ln units.
    alpha : float
        Level of the corrected p-values.
    confidence, resamples, seed
        Of the bootstrap over prompts (over seeds, where there is one prompt only).
    permutations : int
        Sign flips of prompts, and shuffles of frames, where there are too many to look at all.

    Returns
    -------
    xr.Dataset
        In ln units. `magnitude(role, layer, timestep, channel)`, ln mean |h| over the role's tokens, averaged over later
        frames; `contrast_value(contrast, layer, timestep)`, mean over the channels that are massive at the layer, with
        `p_value` and `p_corrected` (all layers, timesteps and contrasts together), and `channel_contrast` of each channel.
        `overall(contrast)`, mean over timesteps, channels and the blocks in which they are massive (`counts(layer,
        channel)`): on it rests the verdict, with `overall_p` and `overall_p_corrected` over the contrasts that decide
        (`decides(contrast)`), the same of the ordinary channels (`control`) and the difference of both (`specific`);
        `overall_by_channel(contrast, channel)` and `channel_levels(channel)`, corrected over channels. `contrast_verdict`, `contrast_reason`, `contrast_specific` (yes, no, not
        known, not asked). `trend`: ln units per level of the roles; `ordered_share`: share of prompts with the whole order.
        Nulls: `shuffle_p(contrast)`, `rotation_value(rotation)` the boundary minus the rest after each rotation,
        `rotation_p(layer, timestep)` and `_corrected`. `frame_magnitude(frame, place)`. Dynamics: `sigma_slope(contrast)`,
        also `_by_layer`; `early`, `late`, `early_minus_late`, `dynamics(contrast)` in words; `magnitude_sigma_slope(role)`.
        All but p-values and words have `_low` and `_high`. Attributes: `verdict` (is it first > boundary > interior, of massive channels?),
        `levels` (one of `hierarchy_rule.LEVELS`), `verdict_reason`, `specific`, `control_levels`, `rotation_p`, and what was asked.

    Raises
    ------
    AnalysisError
        If the recording has no hidden states, no channel is massive, or a channel, the branch or an option is not there.
    RoleError
        If it is no video of two latent frames or more, or the width does not fit.
    """
    if not (smallest_effect > 0 and 0.0 < alpha < 1.0 and controls >= 0):
        raise AnalysisError(
            f"smallest_effect={smallest_effect!r} must be above 0, alpha={alpha!r} between 0 and 1, controls={controls!r} 0 or more."
        )
    by = _sampling(confidence, resamples, permutations, seed)
    places = places_of(recording, width)
    need_hidden(recording)
    visits = Visits(recording, branch)
    chosen = choose(recording, visits, channels, branch, criterion)
    ordinary = control_channels(visits, chosen.anywhere, chosen.labels, controls)
    labels = visits.recording["channel"].values
    at_K = np.asarray([int(np.flatnonzero(labels == c)[0]) for c in (*chosen.labels, *ordinary)], dtype=np.int64)
    found = measure(visits, places, at_K, len(chosen.labels))

    result = xr.Dataset(
        coords={
            **visits.coords("layer", "timestep"),
            "contrast": np.asarray(list(CONTRASTS), dtype=TEXT),
            "channel": np.asarray(chosen.labels, dtype=np.int64),
            "control_channel": np.asarray(ordinary, dtype=np.int64),
            "rotation": rotations_of(places)[0],
            "frame": np.arange(places.grid[0]),
        }
    )
    result.coords["decides"] = ("contrast", np.asarray([name in DECIDING for name in CONTRASTS]))
    result.coords["meaning"] = ("contrast", np.asarray(list(CONTRASTS.values()), dtype=TEXT))
    boundary_source = "given" if width is not None else str(recording.attrs.get("boundary_width_source", "default"))
    result.attrs = {
        **visits.attrs("hierarchy"),
        "criterion": chosen.source,
        "boundary_width": places.width,
        "boundary_width_source": boundary_source,
        "control_width": places.control_width,
        "token_grid": list(places.grid),
        "confidence": confidence,
        "resamples": resamples,
        "permutations": permutations,
        "seed": seed,
        "smallest_effect": smallest_effect,
        "alpha": alpha,
        "confound": confounded(recording),
        "parameters": json.dumps({"channels": list(chosen.labels), "controls": list(ordinary)}, sort_keys=True),
    }
    counts = counted(chosen.massive_LK, visits.blocks)
    result["counts"] = (("layer", "channel"), counts.weights_LK > 0, {"long_name": "block counts for the channel"})

    by_prompt = visits.by_prompt(found.logs_SLTKFR)  # P, L, T, K, F, R
    contrasts = apply_weights(by_prompt, contrast_weights(places))  # P, L, T, K, D
    add_magnitudes(result, by_prompt, counts, by)
    add_visits(result, contrasts, counts, by)
    add_overall(result, contrasts, counts, by)
    add_channels(result, by_prompt, contrasts, counts, by)
    add_nulls(result, by_prompt, visits.by_prompt(found.rotated_SLTMO), counts, by)
    add_dynamics(result, contrasts, counts, by)
    judge(result)
    return result


def _sampling(confidence: float, resamples: int, permutations: int, seed: int) -> Sampling:
    """Options of resampling, refused by name before anything large is read."""
    inference.bootstrap_mean(np.zeros((1, 1)), confidence=confidence, resamples=resamples, seed=seed)
    inference.sign_flip(np.ones((1, 1)), resamples=permutations, seed=seed)
    return Sampling(confidence, resamples, permutations, seed)
