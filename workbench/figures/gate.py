"""An AdaLN term of the block that writes a massive channel, against the channel's magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from workbench.errors import AnalysisError
from workbench.figures import style

MOST = 4
"""How many channels get a panel, strongest first."""


def _check(evidence: xr.Dataset) -> None:
    if "spike" not in evidence:
        raise AnalysisError(
            "no AdaLN terms in this evidence: the recording it came from holds no `modulation`. Record a family that "
            "has AdaLN terms, or leave the figure `gate` out."
        )


def _writer(evidence: xr.Dataset, k: int) -> int:
    """Position of the block that writes the k-th channel; where none is known, of that with the largest share."""
    name = str(evidence["writer"].values[k])
    layers = [str(layer) for layer in evidence["layer"].values]
    if name:
        return layers.index(name)
    share = np.nan_to_num(evidence["write_share"].transpose("layer", "channel").values[:, k])
    return int(share.argmax()) if share.any() else len(layers) - 1


def _role(evidence: xr.Dataset, k: int) -> str:
    """What the block that is shown is to the k-th channel."""
    if str(evidence["writer"].values[k]):
        return "writes"
    return "largest write to" if np.nan_to_num(evidence["write_share"].isel(channel=k)).any() else "last, for"


def _term(evidence: xr.Dataset, k: int, term: str | None) -> str:
    """Term to show: the gate that spikes most at the channel in its writer."""
    names = [str(name) for name in evidence["modulation_term"].values]
    if term is not None:
        if term not in names:
            raise AnalysisError(f"there is no modulation term {term!r}; there are {', '.join(names)}.")
        return term
    gates = [name for name in names if name.startswith("gate")] or names
    spike = evidence["spike"].isel(layer=_writer(evidence, k), channel=k)
    return max(gates, key=lambda name: float(np.nan_to_num(spike.sel(modulation_term=name))))


def data(evidence: xr.Dataset, *, term: str | None = None) -> pd.DataFrame:
    """Tabulate |term| of the writing block and magnitude, per channel and timestep.

    Returns
    -------
    DataFrame
        channel, block, role (``writes``, or ``largest write to`` where no writer can be named), term, timestep, noise,
        term_abs, magnitude (both with low and high), times_median (mean |term| over that of the median channel, as drawn),
        rank (of mean |term| among all channels, 1 the largest), correlation (Spearman's rho over timesteps, averaged).
    """
    _check(evidence)
    noise, _ = style.noise_axis(evidence)
    rows = []
    for k, channel in enumerate(evidence["channel"].values):
        layer, name = _writer(evidence, k), _term(evidence, k, term)
        at = evidence.isel(layer=layer, channel=k).sel(modulation_term=name)
        heights = at["term_all"].values
        height = float(at["term_all"].sel(all_channel=channel))
        median = float(np.median(heights))
        drawn = {"times_median": height / median if median > 0 else np.nan, "rank": 1 + int((heights > height).sum())}
        for t, timestep in enumerate(evidence["timestep"].values):
            now = at.isel(timestep=t)
            row = {"channel": int(channel), "block": str(at["layer"].values), "role": _role(evidence, k), "term": name}
            row |= {"timestep": float(timestep), "noise": noise[t]}
            for variable, column in (("term", "term_abs"), ("magnitude", "magnitude")):
                for suffix in ("", "_low", "_high"):
                    row[column + suffix] = float(now[variable + suffix])
            row |= {**drawn, "correlation": float(at["term_correlation"])}
            rows.append(row)
    return pd.DataFrame(rows)


def draw(evidence: xr.Dataset, *, term: str | None = None) -> Figure:
    """Draw |gate| of all channels with the massive ones marked, and gate against magnitude along the trajectory.

    Parameters
    ----------
    evidence : xr.Dataset
        What `modulation` returned, of a recording with AdaLN terms.
    term : str, optional
        Term to show instead of the gate that spikes most.
    """
    table = data(evidence, term=term)
    channels = list(dict.fromkeys(table["channel"]))[:MOST]
    everything = [int(c) for c in evidence["channel"].values]
    looks = zip(style.colours(len(everything)), style.markers(len(everything)), strict=True)
    named = dict(zip(everything, looks, strict=True))
    with style.paper():
        figure, grid = style.new(
            style.PAGE, 0.35 + 1.45 * len(channels), len(channels), 2, gridspec_kw={"width_ratios": [1.9, 1.0]}
        )
        for axes, channel in zip(list(grid), channels, strict=True):
            part = table[table["channel"] == channel]
            _profile(axes[0], evidence, part, named)
            points = _path(axes[1], part, named[channel][0])
        figure.colorbar(
            points, ax=list(grid[:, 1]), label=style.noise_axis(evidence)[1], aspect=18 * len(channels), pad=0.03
        )
    return figure


def _profile(axes: Axes, evidence: xr.Dataset, part: pd.DataFrame, named: dict[int, tuple[Any, str]]) -> None:
    """Draw |term| of every channel at the block that is shown."""
    block, term = part["block"].iloc[0], part["term"].iloc[0]
    values = evidence["term_all"].sel(modulation_term=term, layer=block)
    x, y = values["all_channel"].values, values.values
    axes.vlines(x, 0, y, color="0.75", linewidth=max(0.3, min(0.8, 120 / len(x))))
    axes.axhline(float(np.median(y)), color=style.ORDINARY, linestyle="--", linewidth=0.8)
    for channel, (colour, marker) in named.items():
        height = float(values.sel(all_channel=channel))
        mine = channel == part["channel"].iloc[0]
        axes.vlines(channel, 0, height, color=colour, linewidth=1.2)
        axes.plot([channel], [height], color=colour, marker=marker, markersize=4.5 if mine else 3)
        if mine:
            axes.annotate(
                f"{channel}",
                (channel, height),
                xytext=(4, 1),
                textcoords="offset points",
                color=colour,
                fontsize=6.5,
                fontweight="bold",
            )
    axes.set_xlim(x.min() - 1, x.max() + 1)
    axes.set_ylim(0, float(y.max()) * 1.15)
    axes.set_xlabel("channel")
    axes.set_ylabel(f"|{term}|")
    axes.set_title(f"{style.short(block)}, {part['role'].iloc[0]} channel {part['channel'].iloc[0]}")


def _path(axes: Axes, part: pd.DataFrame, colour: Any) -> PathCollection:
    """Draw magnitude against |term|, one point a timestep."""
    x, y = part["term_abs"].to_numpy(), part["magnitude"].to_numpy()
    axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.6, zorder=1)
    error = np.abs(np.stack([part["magnitude_low"], part["magnitude_high"]]) - y)
    if np.isfinite(error).all():
        axes.errorbar(x, y, yerr=error, fmt="none", ecolor=colour, elinewidth=0.6, zorder=1)
    points = axes.scatter(x, y, c=part["noise"], cmap="cividis", s=11, zorder=2, edgecolors="none")
    rho = part["correlation"].iloc[0]
    axes.set_title("no correlation: the term does not vary" if np.isnan(rho) else f"ρ = {style.signed(rho)}")
    axes.set_xlabel(f"|{part['term'].iloc[0]}| at channel {part['channel'].iloc[0]}")
    axes.set_ylabel("mean |h|")
    axes.margins(0.12)
    return points


def caption(evidence: xr.Dataset, *, term: str | None = None) -> str:
    """Caption of the figure."""
    table = data(evidence, term=term)
    first = table.groupby("channel", sort=False).first()
    shown, total = list(first.iterrows())[:MOST], evidence.sizes["all_channel"]
    spikes = "; ".join(
        f"channel {channel}: {row['term']} of {style.short(row['block'])} is {row['times_median']:.1f} × the median "
        f"channel's, rank {row['rank']} of {total} recorded"
        for channel, row in shown
    )
    unknown = [channel for channel, row in shown if row["role"] != "writes"]
    which = (
        f" For channel{'s' if len(unknown) != 1 else ''} {style.listed(unknown)} no one block can be named as the writer: "
        "shown is the block with the largest share of what is written."
        if unknown
        else ""
    )
    what = "the gate with the largest spike at the channel, chosen for that," if term is None else f"{term}"
    steps = evidence.sizes["timestep"]
    return (
        f"Left: size of {what} for every channel in the block that writes the channel, mean over {steps} timesteps; "
        f"dashed: the median channel.{which} Right: the channel's mean |h| after that block against that term, one point a "
        f"timestep, with Spearman's ρ over timesteps, averaged. {spikes}. "
        f"{f'The first {len(shown)} of {len(first)} channels. ' if len(first) > len(shown) else ''}"
        f"{style.sampled(evidence.attrs)}. {style.verdict(evidence)}"
    )
