"""Which channels are massive activations, by every criterion side by side.

Legend: S samples, L layers, T timesteps, C channels.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import criteria, inference
from workbench.analysis.visits import TEXT, Visits, counted, divide, too_few
from workbench.errors import AnalysisError

SIGN_CONSISTENT = 0.9
"""From which share of its magnitude with one sign a channel is said to have that sign."""


def locate(
    recording: xr.Dataset,
    *,
    criterion: str = "workbench",
    branch: str = "cond",
    include_input: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    **params: Any,
) -> xr.Dataset:
    """Locate the massive channels of a recording.

    Parameters
    ----------
    recording : xr.Dataset
        As in `docs/schema.md`; statistics suffice. Only complete samples are used.
    criterion : str
        The criterion that decides the verdict; all others are computed with their defaults and reported
        beside it.
    branch : str
        Branch to look at.
    include_input : bool
        Count the layer `input`, which no block wrote, towards recurrence over layers.
    confidence, resamples, seed
        Of the bootstrap over prompts (over seeds, where there is one prompt only).
    **params
        Parameters of `criterion`; see `criteria.describe()`.

    Returns
    -------
    xr.Dataset
        `massive(criterion, layer, channel)` and `massive_channel(criterion, channel)`; `layer_recurrence`,
        `timestep_recurrence`, `sample_recurrence` and its lower bound `sample_recurrence_low` (criterion,
        channel), shares in [0, 1], the bound for prompts all of whose samples qualify; `magnitude(layer, channel)`, mean |h| over tokens, timesteps, samples,
        in units of the hidden state; `ratio_to_median` (layer, channel) with `_low` and `_high`,
        `ratio_to_mean(layer, channel)`, `ratio_by_timestep(timestep, layer, channel)`, dimensionless;
        `sign(layer, channel)` in {-1, 0, 1} and `sign_consistency(layer, channel)` in [0, 1];
        `dominance(layer, channel)`, the share of tokens whose largest channel it is;
        `token_share(layer, channel)`, the effective share of tokens that carry it. Attributes as in
        `workbench.analysis`.

    Raises
    ------
    AnalysisError
        If the criterion, a parameter, the branch or a variable does not exist, no sample is complete, or the
        recording is known to hold a part of the channels.
    """
    chosen = criteria.get(criterion)
    parameters = {name: c.parameters for name, c in criteria.CRITERIA.items()}
    parameters[criterion] = chosen.resolve(params)
    visits = Visits(recording, branch)
    counted_L = np.ones(len(visits.layers), dtype=bool) if include_input else visits.blocks
    if not counted_L.any():
        raise AnalysisError("the recording holds no block, only the layer `input`; record at least one block.")

    found = {name: _judge(visits, c, parameters[name], counted_L) for name, c in criteria.CRITERIA.items()}
    names = list(found)
    stacked = {
        part: np.stack([getattr(found[n], part) for n in names])
        for part in ("massive_LC", "massive_channel_C", "layer_C", "timestep_C")
    }
    alone_SKC = np.stack([found[n].alone_SC for n in names], axis=1)
    ratio = inference.bootstrap_mean(
        visits.by_prompt(visits.ratio_to_median_SLTC.mean(axis=2, dtype=np.float64)),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    sign_LC = _signed_share(visits)
    per = ("layer", "channel")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray, str]] = {
        "massive": (("criterion", *per), stacked["massive_LC"], "massive at this layer"),
        "massive_channel": (("criterion", "channel"), stacked["massive_channel_C"], "massive in the model"),
        "layer_recurrence": (("criterion", "channel"), stacked["layer_C"], "share of layers"),
        "timestep_recurrence": (("criterion", "channel"), stacked["timestep_C"], "share of timesteps"),
        "sample_recurrence": (
            ("criterion", "channel"),
            visits.average(alone_SKC),
            "share of samples alone",
        ),
        "sample_recurrence_low": (
            ("criterion", "channel"),
            inference.proportion_low(
                (visits.by_prompt(alone_SKC) == 1).sum(axis=0), visits.n_replicates, confidence=confidence
            ),
            f"lower bound of the share of {visits.replicate}s that qualify with all samples (Clopper-Pearson)",
        ),
        "magnitude": (
            per,
            visits.average(visits.mean_abs_SLTC.mean(axis=2)),
            "mean |h| over tokens, timesteps, samples",
        ),
        "ratio_to_median": (per, ratio.mean, "mean |h| over that of the median channel"),
        "ratio_to_median_low": (per, ratio.low, f"lower bound over {visits.replicate}s"),
        "ratio_to_median_high": (per, ratio.high, f"upper bound over {visits.replicate}s"),
        "ratio_to_mean": (
            per,
            visits.average(visits.ratio_to_mean_SLTC.mean(axis=2)),
            "mean |h| over the mean of all channels",
        ),
        "ratio_by_timestep": (
            ("timestep", *per),
            visits.average(visits.ratio_to_median_SLTC).swapaxes(0, 1),
            "mean |h| over that of the median channel, by timestep",
        ),
        "token_share": (per, visits.average(visits.token_share_SLTC.mean(axis=2)), "effective share of tokens"),
        "sign": (
            per,
            np.where(np.abs(sign_LC) >= SIGN_CONSISTENT, np.sign(sign_LC), 0).astype(np.int8),
            "sign of h, 0 where not consistent",
        ),
        "sign_consistency": (per, np.abs(sign_LC), "share of the magnitude that has one sign"),
        "dominance": (
            per,
            visits.average(visits.dominance_SLTC.mean(axis=2)),
            "share of tokens whose largest channel it is",
        ),
    }
    result = xr.Dataset(
        {name: (dims, values, {"long_name": text}) for name, (dims, values, text) in variables.items()},
        coords={"criterion": np.asarray(names, dtype=TEXT), **visits.coords("layer", "timestep", "channel")},
    )
    result.attrs = {
        **visits.attrs("locate"),
        "criterion": criterion,
        "criterion_version": chosen.version,
        "parameters": json.dumps(parameters[criterion], sort_keys=True),
        "parameters_by_criterion": json.dumps(parameters, sort_keys=True),
        "include_input": include_input,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
        "median_of_hidden_state": "exact" if visits.has_hidden else "normal mixture from h_mean and h_std",
    }
    silent = (visits.median_SLT1[:, counted_L] == 0).mean() if criterion == "workbench" else 0.0
    result.attrs.update(
        zip(("verdict", "verdict_reason"), _verdict(result, chosen, visits, float(silent)), strict=True)
    )
    return result


def _judge(
    visits: Visits, criterion: criteria.Criterion, parameters: dict[str, Any], counted_L: np.ndarray
) -> criteria.Recurrence:
    own = {name: parameters[name] for name in criterion.own_parameters}
    return criteria.recurrence(criterion.rule(visits, **own), counted_L, parameters)


def _signed_share(visits: Visits) -> np.ndarray:
    """Mean over visits of mean h / mean |h|: ±1 when every token of every visit has that sign; shape (L, C)."""
    return np.asarray(visits.average(divide(visits.mean_SLTC, visits.mean_abs_SLTC).mean(axis=2)))


def located_channels(result: xr.Dataset, *, criterion: str | None = None) -> list[int]:
    """Channels massive in the model by a criterion (default: the one that decided), strongest first.

    Parameters
    ----------
    result : xr.Dataset
        What `locate` returned.
    criterion : str, optional
        Name of a criterion.

    Returns
    -------
    list of int
        Labels of the channels, by falling ratio to the median, averaged over the blocks.
    """
    name = criterion or result.attrs["criterion"]
    criteria.get(name)
    blocks = result.isel(layer=np.flatnonzero(result["layer"].values != "input"))
    strength = blocks["ratio_to_median"].mean("layer").values
    mask = result["massive_channel"].sel(criterion=name).values
    order = np.argsort(-strength, kind="stable")
    return [int(result["channel"].values[i]) for i in order if mask[i]]


def table(result: xr.Dataset, *, criterion: str | None = None) -> list[dict[str, Any]]:
    """One row per located channel, strongest first, for printing.

    Parameters
    ----------
    result : xr.Dataset
        What `locate` returned.
    criterion : str, optional
        Rows for this criterion instead of the one that decided.

    Returns
    -------
    list of dict
        Channel, sign, where it is largest and how large there, recurrence, and which other criteria agree.
    """
    name = criterion or result.attrs["criterion"]
    rows = []
    for channel in located_channels(result, criterion=name):
        at = result.sel(channel=channel)
        here = at.sel(criterion=name)
        blocks = at.isel(layer=np.flatnonzero(at["layer"].values != "input"))
        peak = blocks.isel(layer=int(blocks["ratio_to_median"].values.argmax()))
        rows.append(
            {
                "channel": channel,
                "sign": {-1: "-", 0: "±", 1: "+"}[int(peak["sign"])],
                "layers": int(here["massive"].isel(layer=np.flatnonzero(here["layer"].values != "input")).sum()),
                "peak_layer": str(peak["layer"].values),
                "magnitude": float(peak["magnitude"]),
                "ratio_to_median": float(peak["ratio_to_median"]),
                "ratio_low": float(peak["ratio_to_median_low"]),
                "ratio_high": float(peak["ratio_to_median_high"]),
                "ratio_to_mean": float(peak["ratio_to_mean"]),
                "dominance": float(peak["dominance"]),
                "layer_recurrence": float(here["layer_recurrence"]),
                "timestep_recurrence": float(here["timestep_recurrence"]),
                "sample_recurrence": float(here["sample_recurrence"]),
                "also_by": ", ".join(
                    str(c)
                    for c in result["criterion"].values
                    if c != name and bool(at["massive_channel"].sel(criterion=c))
                ),
            }
        )
    return rows


def _verdict(result: xr.Dataset, chosen: criteria.Criterion, visits: Visits, silent: float) -> tuple[str, str]:
    """Verdict and reason; `silent` is the share of visits in which the median channel is exactly 0."""
    rows = table(result)
    said = f"by criterion {chosen.name} (version {chosen.version}) in {counted(result.attrs)}"
    if rows:
        listed = ", ".join(str(row["channel"]) for row in rows[:12]) + (", …" if len(rows) > 12 else "")
        reason = (
            f"{len(rows)} of {result.sizes['channel']} channels ({listed}) {'is' if len(rows) == 1 else 'are'} "
            f"massive {said}{_extent(result, chosen, rows)}."
        )
        verdict = "supported"
    else:
        reason = f"none of {result.sizes['channel']} channels is massive {said}{_extent(result, chosen, rows)}."
        verdict = "not supported"
    doubts = []
    if chosen.ranking:
        doubts.append("A ranking marks channels in any model, with massive activations or without.")
    if few := too_few(result.attrs):
        doubts.append(f"With fewer than {inference.MINIMUM_SAMPLES} {visits.replicate}s this may be chance ({few}).")
    if visits.blocks_missing:
        there, total = visits.blocks_missing
        doubts.append(f"Only {there} of the model's {total} blocks were recorded: of the rest nothing is known.")
    if silent and not rows:
        doubts.append(
            f"In {silent:.0%} of the visits more than half of the channels are exactly 0, so that there is no ratio to the "
            "median channel."
        )
    return ("undecided" if doubts else verdict), " ".join([reason, *doubts])


def _extent(result: xr.Dataset, chosen: criteria.Criterion, rows: list[dict[str, Any]]) -> str:
    """How far the largest channel stands out, in the quantity that the criterion itself uses, if it is reported."""
    quantity = {"workbench": "ratio_to_median", "stas": "ratio_to_mean"}.get(chosen.name)
    if quantity is None:
        return ""
    against = {"ratio_to_median": "the median channel", "ratio_to_mean": "the mean of all channels"}[quantity]
    if rows:
        top = max(rows, key=lambda row: row[quantity])
        values = result[quantity].sel(channel=top["channel"])
    else:
        values = result[quantity].max("channel")
    blocks = np.flatnonzero(result["layer"].values != "input")
    counted_layers = values.isel(layer=blocks) if blocks.size else values
    at = str(counted_layers["layer"].values[int(counted_layers.values.argmax())])
    if not rows:
        return f"; the largest is {float(counted_layers.max()):.1f} times {against}"
    interval = ""
    if quantity == "ratio_to_median" and not np.isnan(top["ratio_low"]):
        interval = f" ({result.attrs['confidence']:.0%} interval {top['ratio_low']:.1f} to {top['ratio_high']:.1f})"
    return f"; channel {top['channel']} reaches {float(counted_layers.max()):.1f} times {against}{interval} at {at}"
