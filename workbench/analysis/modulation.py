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
from workbench.analysis.locate import locate, located_channels
from workbench.analysis.visits import TEXT, Visits, divide, require
from workbench.errors import AnalysisError

CONFOUNDED = (
    "along a trajectory timestep and noise level of the latent are confounded; the causal test is the "
    "timestep-swap experiment"
)
SHOWN_IF_NONE = 3
"""How many of the largest channels are described when none is massive: something has to be drawn."""


Put = Callable[[str, tuple[str, ...], np.ndarray, str], None]
"""Adds a variable with its interval: name, dimensions without `sample`, values per sample, description."""


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
        Of the bootstrap over samples.

    Returns
    -------
    xr.Dataset
        Per (layer, timestep, channel), in units of the hidden state: `magnitude`, mean |h| over tokens; and
        `ratio_to_median`. `median_magnitude(layer, timestep)`: the median channel. Per (layer, channel):
        `sigma_slope`, slope of ln magnitude per unit of sigma; `step_slope`, the same per whole trajectory
        of steps; `ratio_sigma_slope`, of ln ratio to the median; `sigma_correlation`, Spearman's rho of
        magnitude and sigma, per sample, averaged over samples; `direction`, +1 grows with noise, -1 grows
        as the noise falls, 0 neither (the interval of `sigma_slope` reaches into ±`smallest_slope`). What
        is written: `write(layer, timestep, channel)`, the change of mean h over the block;
        `write_share(layer, channel)`, its share of all change in the direction of the channel's sign;
        `writer(channel)`, the name of the layer with the largest share, empty if none can be told. With
        AdaLN terms: `spike(modulation_term, layer, channel)`, |term| over the median channel's |term|;
        `term(modulation_term, layer, timestep, channel)`, |term|; `term_all(modulation_term, layer,
        all_channel)`, |term| of every channel; `term_correlation(modulation_term, layer, channel)`,
        Spearman's rho over timesteps between |term| and magnitude, per sample, averaged over samples;
        `writer_correlation(modulation_term, channel)`, the same at the writer. All but `direction`,
        `writer` and `term_all` have `_low` and `_high` where they are inferred from samples.

    Raises
    ------
    AnalysisError
        If a channel, the branch or the statistics do not exist, or no sample is complete.
    """
    require(recording, "h_mean_abs", "h_mean")
    visits = Visits(recording, branch)
    if not smallest_slope >= 0:
        raise AnalysisError(f"smallest_slope={smallest_slope!r} must be 0 or more.")
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    chosen, source = _choose(recording, visits, channels, branch)
    labels = visits.recording["channel"].values
    at_K = np.asarray([int(np.flatnonzero(labels == channel)[0]) for channel in chosen])
    coords = visits.coords("layer", "timestep", "modulation_term")
    result = xr.Dataset(coords={**coords, "channel": np.asarray(chosen, dtype=np.int64)})

    def put(name: str, dims: tuple[str, ...], values_SX: np.ndarray, text: str) -> None:
        interval = inference.bootstrap_mean(values_SX, confidence=confidence, resamples=resamples, seed=seed)
        for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
            result[name + suffix] = (dims, values, {"long_name": text + suffix.replace("_", ", ")})

    magnitude_SLTK = visits.mean_abs_SLTC[..., at_K].astype(np.float64)
    ratio_SLTK = visits.ratio_to_median_SLTC[..., at_K].astype(np.float64)
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
        visits.median_SLT1[..., 0].astype(np.float64),
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

    Only layers whose predecessor on the residual stream was recorded can be judged. Returns positions, -1
    if none.
    """
    mean_SLTK = visits.mean_SLTC[..., at_K].astype(np.float64)
    blocks = (
        np.asarray(visits.recording["block"].values)
        if "block" in visits.recording.coords
        else np.arange(-1 if visits.layers[0] == "input" else 0, len(visits.layers) - (visits.layers[0] == "input"))
    )
    write = np.full_like(mean_SLTK, np.nan)
    for layer in range(1, len(blocks)):
        if blocks[layer] == blocks[layer - 1] + 1:
            write[:, layer] = mean_SLTK[:, layer] - mean_SLTK[:, layer - 1]
    put("write", ("layer", "timestep", "channel"), write, "change of mean h over the block")
    # Only what is written in the direction the channel ends up in makes it massive; a correction back does
    # not.
    sign_K = np.sign(mean_SLTK[:, visits.blocks].mean(axis=(0, 1, 2)))
    towards = np.maximum(np.nan_to_num(write) * sign_K, 0.0).mean(axis=2)
    total = towards.sum(axis=1, keepdims=True)
    share_SLK = divide(towards, total)
    put(
        "write_share",
        ("layer", "channel"),
        share_SLK,
        "share of what is written in the direction of the sign",
    )
    share_LK = share_SLK.mean(axis=0)
    writer = np.where(share_LK.max(axis=0) > 0, share_LK.argmax(axis=0), -1)
    names = [visits.layers[i] if i >= 0 else "" for i in writer]
    result["writer"] = (
        "channel",
        np.asarray(names, dtype=TEXT),
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
    chosen_SLTMK = terms_SLTMC[..., at_K]
    put("spike", names, np.moveaxis(spike.mean(axis=2), 2, 1), "|term| over that of the median channel")
    put("term", ("modulation_term", "layer", "timestep", "channel"), np.moveaxis(chosen_SLTMK, 3, 1), "|term|")
    result["term_all"] = (
        ("modulation_term", "layer", "all_channel"),
        np.moveaxis(terms_SLTMC.mean(axis=(0, 2)), 1, 0),
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
    layers, blocks = list(result["layer"].values), result["layer"].values != "input"
    parts = []
    for k, channel in enumerate(result["channel"].values):
        writer = str(result["writer"].values[k])
        counted = np.flatnonzero(blocks & (np.arange(len(layers)) >= (layers.index(writer) if writer else 0)))
        at = result["direction"].isel(channel=k, layer=counted)
        up, down, n = int((at > 0).sum()), int((at < 0).sum()), at.size
        since = f" from its writer {writer} on" if writer else ""
        parts.append(f"channel {channel} grows with noise in {up} and as noise falls in {down} of {n} blocks{since}")
    listed = "; ".join(parts[:4]) + ("; …" if len(parts) > 4 else "")
    n = result.attrs["n_samples"]
    few = (
        ""
        if n >= inference.MINIMUM_SAMPLES
        else (f" (with {n} of at least {inference.MINIMUM_SAMPLES} samples no interval and no direction is given)")
    )
    none = "no channel is massive, the largest are described: " if result.attrs["criterion"].startswith("none") else ""
    return f"In {n} complete sample{'s' if n != 1 else ''} {none}{listed}{few}; but {CONFOUNDED}."
