"""How massive activations move along the trajectory, and what the block that writes them was told by its timestep.

Observed, not causal: along a trajectory a late timestep always comes with a clean latent, so nothing here
can say which of the two moves the magnitude. The verdict is therefore always `undecided`; what is decided
is the direction, about which the papers disagree (`docs/methods.md`).

Legend: S samples, L layers, T timesteps, M modulation terms, C all channels, K chosen channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from workbench.analysis import inference
from workbench.analysis.criteria import CRITERIA, recurrence
from workbench.analysis.locate import SIGN_CONSISTENT, locate, located_channels
from workbench.analysis.visits import TEXT, Visits, counted, divide, require, too_few
from workbench.errors import AnalysisError

CONFOUNDED = (
    "along a trajectory timestep and noise level of the latent are confounded; the causal test is the "
    "timestep-swap experiment"
)
SHOWN_IF_NONE = 3
"""How many of the largest channels are described when none is massive: something has to be drawn."""


Put = Callable[[str, tuple[str, ...], np.ndarray, str], None]
"""Adds a variable with its interval over prompts: name, dimensions without `sample`, values per sample, description."""


def modulation(
    recording: xr.Dataset,
    *,
    channels: Sequence[int] | None = None,
    branch: str = "cond",
    smallest_slope: float = 0.1,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Magnitude along the trajectory, and against AdaLN gate, scale and shift of the writing block.

    Parameters
    ----------
    recording : xr.Dataset
        As in `docs/schema.md`; statistics suffice. Without `modulation` the relation to the AdaLN terms is
        left out.
    channels : sequence of int, optional
        Channels by label. Default: those that `locate` finds; if it finds none, the largest three.
    branch : str
        Branch to look at.
    smallest_slope : float
        Smallest slope of ln magnitude per unit of sigma that is called a direction: with many samples any
        slope differs from 0, and one of 0.1 is a change by a tenth from pure noise to the image.
    confidence, resamples, seed
        Of the bootstrap over prompts (over seeds, where there is one prompt only).

    Returns
    -------
    xr.Dataset
        Per (layer, timestep, channel), in units of the hidden state: `magnitude`, mean |h| over tokens; and
        `ratio_to_median`. `median_magnitude(layer, timestep)`: the median channel. Per (layer, channel):
        `sigma_slope`, slope of ln magnitude per unit of sigma; `step_slope`, the same per whole trajectory
        of steps; `ratio_sigma_slope`, of ln ratio to the median; `sigma_correlation`, Spearman's rho of
        magnitude and sigma, per sample, averaged; `direction`, +1 grows with noise, -1 grows
        as the noise falls, 0 neither (the interval of `sigma_slope` reaches into ±`smallest_slope`). What
        is written: `write(layer, timestep, channel)`, the change of mean h over the block;
        `write_share(layer, channel)`, its share of all change in the direction of the channel's sign after
        the last recorded block; `writer(channel)`, the name of the block with the largest share, empty if
        none can be told (`_writers` says when). `massive(layer, channel)`, by `workbench`. With
        AdaLN terms: `spike(modulation_term, layer, channel)`, |term| over the median channel's |term|;
        `term(modulation_term, layer, timestep, channel)`, |term|; `term_all(modulation_term, layer,
        all_channel)`, |term| of every channel; `term_correlation(modulation_term, layer, channel)`,
        Spearman's rho over timesteps between |term| and magnitude, per sample, averaged;
        `writer_correlation(modulation_term, channel)`, the same at the writer. All but `direction`,
        `writer`, `massive` and `term_all` have `_low` and `_high`. Of a recording of some channels only,
        ratios and the median channel are NaN.

    Raises
    ------
    AnalysisError
        If a channel, the branch or the statistics do not exist, or no sample is complete.
    """
    require(recording, "h_mean_abs", "h_mean")
    visits = Visits(recording, branch, adaln=True)
    if not smallest_slope >= 0:
        raise AnalysisError(f"smallest_slope={smallest_slope!r} must be 0 or more.")
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    chosen, source = _choose(recording, visits, channels, branch)
    labels = visits.recording["channel"].values
    at_K = np.asarray([int(np.flatnonzero(labels == channel)[0]) for channel in chosen])
    coords = visits.coords("layer", "timestep", "modulation_term")
    result = xr.Dataset(coords={**coords, "channel": np.asarray(chosen, dtype=np.int64)})

    def put(name: str, dims: tuple[str, ...], values_SX: np.ndarray, text: str) -> None:
        interval = inference.bootstrap_mean(
            visits.by_prompt(values_SX), confidence=confidence, resamples=resamples, seed=seed
        )
        for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
            result[name + suffix] = (dims, values, {"long_name": text + suffix.replace("_", ", ")})

    magnitude_SLTK = visits.mean_abs_SLTC[..., at_K].astype(np.float64)
    if visits.channels_missing:  # then the median channel of the model is not known
        ratio_SLTK, median_SLT = np.full_like(magnitude_SLTK, np.nan), np.full(magnitude_SLTK.shape[:3], np.nan)
        massive_LK = np.zeros(magnitude_SLTK.shape[1::2], dtype=bool)
    else:
        ratio_SLTK = visits.ratio_to_median_SLTC[..., at_K].astype(np.float64)
        median_SLT = visits.median_SLT1[..., 0].astype(np.float64)
        rule = CRITERIA["workbench"]
        massive_LK = recurrence(rule.rule(visits), visits.blocks, rule.parameters).massive_LC[:, at_K]
    result["massive"] = (("layer", "channel"), massive_LK, {"long_name": "massive at this layer, by workbench"})
    put("magnitude", ("layer", "timestep", "channel"), magnitude_SLTK, "mean |h| over tokens")
    put(
        "ratio_to_median",
        ("layer", "timestep", "channel"),
        ratio_SLTK,
        "mean |h| over that of the median channel",
    )
    put(
        "median_magnitude",
        ("layer", "timestep"),
        median_SLT,
        "mean |h| of the median channel",
    )
    _trends(visits, magnitude_SLTK, ratio_SLTK, put, smallest_slope, result)
    writer_K = _writers(visits, at_K, put, result)
    if "modulation" in visits.recording and "modulation_term" in visits.recording.coords:
        _terms(visits, at_K, magnitude_SLTK, writer_K, put, result)

    result.attrs = {
        **visits.attrs("modulation"),
        **options,
        "criterion": source,
        "parameters": json.dumps(
            {"channels": [int(c) for c in chosen], "smallest_slope": smallest_slope}, sort_keys=True
        ),
    }
    result.attrs["verdict"] = "undecided"
    result.attrs["verdict_reason"] = _reason(result)
    return result


def _choose(
    recording: xr.Dataset, visits: Visits, channels: Sequence[int] | None, branch: str
) -> tuple[list[int], str]:
    """Labels of the channels to describe, and where they come from."""
    labels = [int(label) for label in visits.recording["channel"].values]
    if channels is not None:
        given = [int(channel) for channel in channels]
        unknown = [channel for channel in given if channel not in labels]
        if unknown or not given or len(set(given)) != len(given):
            raise AnalysisError(
                f"channels={given}: give each channel once, from {labels[0]} to {labels[-1]} as recorded"
                + (f"; unknown: {unknown}." if unknown else ".")
            )
        return given, "channels given by the caller"
    found = locate(recording, branch=branch, resamples=1)
    located = located_channels(found)
    if located:
        return located, f"{found.attrs['criterion']} (version {found.attrs['criterion_version']})"
    order = np.argsort(-found["ratio_to_median"].values[visits.blocks].mean(axis=0), kind="stable")
    return [labels[i] for i in order[:SHOWN_IF_NONE]], "none massive; the largest are shown"


def _slope(values_SLTK: np.ndarray, x_T: np.ndarray) -> np.ndarray:
    """Least-squares slope of ln(values) on x over timesteps, per sample; shape (S, L, K), NaN with one timestep."""
    centred = x_T - x_T.mean()
    if len(x_T) < 2 or not np.any(centred):
        return np.full((values_SLTK.shape[0], values_SLTK.shape[1], values_SLTK.shape[3]), np.nan)
    logs = np.log(np.maximum(values_SLTK, np.finfo(np.float32).tiny))
    return np.asarray(np.einsum("sltk,t->slk", logs, centred) / (centred**2).sum())


def _trends(
    visits: Visits,
    magnitude_SLTK: np.ndarray,
    ratio_SLTK: np.ndarray,
    put: Put,
    smallest_slope: float,
    result: xr.Dataset,
) -> None:
    """Trend of ln magnitude against noise and against steps. The steps of a sample are one observation: its slope."""
    coords, per = visits.recording.coords, ("layer", "channel")
    n_steps = magnitude_SLTK.shape[2]
    order = np.asarray(coords["step"].values, dtype=float) if "step" in coords else np.arange(n_steps, dtype=float)
    span = max(float(np.ptp(order)), 1.0)
    sigma = coords["sigma"].values if "sigma" in coords else coords["timestep"].values / 1000.0
    sigma = np.asarray(sigma, dtype=float)
    put("sigma_slope", per, _slope(magnitude_SLTK, sigma), "slope of ln mean |h| per unit of sigma")
    put("ratio_sigma_slope", per, _slope(ratio_SLTK, sigma), "slope of ln (ratio to median) per unit of sigma")
    put(
        "step_slope",
        per,
        _slope(magnitude_SLTK, order / span),
        "slope of ln mean |h| over the whole trajectory",
    )
    put(
        "sigma_correlation",
        per,
        _spearman(magnitude_SLTK, sigma[:, None]),
        "Spearman's rho of mean |h| and sigma",
    )
    up, down = result["sigma_slope_low"] > smallest_slope, result["sigma_slope_high"] < -smallest_slope
    result["direction"] = (up.astype(np.int8) - down.astype(np.int8)).assign_attrs(
        long_name="+1 grows with noise, -1 grows as noise falls, 0 neither"
    )


def _writers(visits: Visits, at_K: np.ndarray, put: Put, result: xr.Dataset) -> np.ndarray:
    """Which block writes each channel, from the change of mean h over it: h_out = h_in + what the block writes.

    A block is named only where that can be known:

    * the state after the last recorded block has one sign (h_mean would cancel otherwise);
    * of all that makes up that state in the direction of its sign, the block's share is apart from every other
      share: its lower bound is above the upper bound of each other block, of what was there in the first recorded
      state, and of what changed across blocks that were not recorded.

    Returns positions, -1 where no block is named.
    """
    mean_SLTK = visits.mean_SLTC[..., at_K].astype(np.float64)
    blocks = (
        np.asarray(visits.recording["block"].values)
        if "block" in visits.recording.coords
        else np.arange(-1 if visits.layers[0] == "input" else 0, len(visits.layers) - (visits.layers[0] == "input"))
    )
    known_L = np.r_[False, np.diff(blocks) == 1]
    change = np.concatenate([mean_SLTK[:, :1], np.diff(mean_SLTK, axis=1)], axis=1)
    write = np.where(known_L[:, None, None], change, np.nan)
    put("write", ("layer", "timestep", "channel"), write, "change of mean h over the block")
    last = int(np.flatnonzero(visits.blocks)[-1]) if visits.blocks.any() else len(blocks) - 1
    signed_SK = divide(mean_SLTK[:, last], visits.mean_abs_SLTC[:, last][..., at_K].astype(np.float64)).mean(axis=1)
    sign_K = visits.average(signed_SK)
    # Only what is written in the direction the channel ends up in makes it massive; a correction back does
    # not.
    towards_SLK = np.maximum(change * np.sign(sign_K), 0.0).mean(axis=2)
    written_SLK = np.where(known_L[:, None], towards_SLK, 0.0)
    put(
        "write_share",
        ("layer", "channel"),
        divide(written_SLK, written_SLK.sum(axis=1, keepdims=True)),
        "share of what is written in the direction of the sign",
    )
    put(
        "_origin",
        ("layer", "channel"),
        divide(towards_SLK, towards_SLK.sum(axis=1, keepdims=True)),
        "share of the last state, in the direction of its sign",
    )
    mean_LK, low_LK, high_LK = (result[f"_origin{end}"].values for end in ("", "_low", "_high"))
    writer = np.full(len(at_K), -1)
    for k in range(len(at_K)):
        best = int(mean_LK[:, k].argmax())
        apart = low_LK[best, k] > np.delete(high_LK[:, k], best).max(initial=0.0)
        if known_L[best] and apart and abs(sign_K[k]) >= SIGN_CONSISTENT:
            writer[k] = best
    for end in ("", "_low", "_high"):
        del result[f"_origin{end}"]
    result["writer"] = (
        "channel",
        np.asarray([visits.layers[i] if i >= 0 else "" for i in writer], dtype=TEXT),
        {"long_name": "block that writes the channel"},
    )
    return writer


def _terms(
    visits: Visits,
    at_K: np.ndarray,
    magnitude_SLTK: np.ndarray,
    writer_K: np.ndarray,
    put: Put,
    result: xr.Dataset,
) -> None:
    """Compare AdaLN terms of each block: whether they spike at the channels and move with the magnitude."""
    names = ("modulation_term", "layer", "channel")
    array = visits.recording["modulation"].transpose("sample", "layer", "timestep", "modulation_term", "channel")
    terms_SLTMC = np.abs(np.asarray(array.values, dtype=np.float64))
    median = np.median(terms_SLTMC, axis=-1, keepdims=True)
    spike = divide(terms_SLTMC, median, np.nan)[..., at_K]
    if visits.channels_missing:
        spike = np.full_like(spike, np.nan)
    chosen_SLTMK = terms_SLTMC[..., at_K]
    put("spike", names, np.moveaxis(spike.mean(axis=2), 2, 1), "|term| over that of the median channel")
    put("term", ("modulation_term", "layer", "timestep", "channel"), np.moveaxis(chosen_SLTMK, 3, 1), "|term|")
    result["term_all"] = (
        ("modulation_term", "layer", "all_channel"),
        np.moveaxis(visits.average(terms_SLTMC.mean(axis=2)), 1, 0),
        {"long_name": "|term|, mean over timesteps"},
    )
    result.coords["all_channel"] = visits.recording["channel"].values
    rho_SLMK = _spearman(chosen_SLTMK, magnitude_SLTK[:, :, :, None, :])
    put(
        "term_correlation",
        names,
        np.moveaxis(rho_SLMK, 2, 1),
        "Spearman's rho over timesteps, |term| and mean |h|",
    )
    at_writer = np.stack([rho_SLMK[:, max(layer, 0), :, k] for k, layer in enumerate(writer_K)], axis=-1)
    at_writer[..., writer_K < 0] = np.nan
    put("writer_correlation", ("modulation_term", "channel"), at_writer, "term_correlation at the writer")


def _spearman(a_SLTMK: np.ndarray, b_SLTMK: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation over timesteps (axis 2); NaN where either does not vary or is absent."""
    ranks = []
    for values in np.broadcast_arrays(a_SLTMK, b_SLTMK):
        rank = rankdata(values, axis=2, nan_policy="propagate")
        ranks.append(rank - rank.mean(axis=2, keepdims=True))
    covariance = (ranks[0] * ranks[1]).sum(axis=2)
    scale = np.sqrt((ranks[0] ** 2).sum(axis=2) * (ranks[1] ** 2).sum(axis=2))
    return divide(covariance, scale, np.nan)


def _reason(result: xr.Dataset) -> str:
    """Say in words which direction was found, and why it decides nothing."""
    blocks = result["layer"].values != "input"
    parts = []
    for k, channel in enumerate(result["channel"].values):
        massive = blocks & result["massive"].isel(channel=k).values
        at = result["direction"].isel(channel=k, layer=np.flatnonzero(massive if massive.any() else blocks))
        up, down, n = int((at > 0).sum()), int((at < 0).sum()), at.size
        where = " in which it is massive" if massive.any() else ""
        writer = str(result["writer"].values[k])
        by = f"written by {writer}" if writer else "no one block can be named as its writer"
        parts.append(
            f"channel {channel} grows with noise in {up} and as noise falls in {down} of {n} "
            f"block{'s' if n != 1 else ''}{where} ({by})"
        )
    listed = "; ".join(parts[:4]) + ("; …" if len(parts) > 4 else "")
    few = too_few(result.attrs)
    few = f" (with {few}, no interval, no direction and no writer is given)" if few else ""
    none = "no channel is massive, the largest are described: " if result.attrs["criterion"].startswith("none") else ""
    return f"In {counted(result.attrs)} {none}{listed}{few}; but {CONFOUNDED}."
