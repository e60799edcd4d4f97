"""Magnitude of the massive channels along the trajectory, one panel a layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.figures import style

MOST_PANELS = 12
MOST_CHANNELS = 9
"""Channels drawn, the first of the evidence (the strongest): more lines can't be told apart."""


def _layers(evidence: xr.Dataset) -> list[int]:
    """Positions of the blocks that get a panel: all, or evenly spread ones, always with the last."""
    blocks = np.flatnonzero(evidence["layer"].values != "input")
    if len(blocks) > MOST_PANELS:
        blocks = blocks[np.unique(np.linspace(0, len(blocks) - 1, MOST_PANELS).round().astype(int))]
    return [int(i) for i in blocks]


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate magnitude with its interval, and the median channel's, per layer, timestep and channel."""
    x, label = style.noise_axis(evidence)
    evidence = evidence.isel(channel=slice(MOST_CHANNELS))
    rows = []
    for i in _layers(evidence):
        for t in range(evidence.sizes["timestep"]):
            base = {"layer": str(evidence["layer"].values[i]), "timestep": float(evidence["timestep"].values[t])}
            base["sigma" if "σ" in label else "x"] = x[t]
            base["median_magnitude"] = float(evidence["median_magnitude"].values[i, t])
            for k, channel in enumerate(evidence["channel"].values):
                at = {"layer": i, "timestep": t, "channel": k}
                rows.append(
                    {
                        **base,
                        "channel": int(channel),
                        "magnitude": float(evidence["magnitude"].isel(at)),
                        "low": float(evidence["magnitude_low"].isel(at)),
                        "high": float(evidence["magnitude_high"].isel(at)),
                    }
                )
    return pd.DataFrame(rows)


def draw(evidence: xr.Dataset) -> Figure:
    """Draw magnitude against noise level for each channel, one panel a layer; time runs from left to right.

    Parameters
    ----------
    evidence : xr.Dataset
        What `modulation` returned.
    """
    evidence = evidence.isel(channel=slice(MOST_CHANNELS))
    layers, channels = _layers(evidence), [int(c) for c in evidence["channel"].values]
    x, label = style.noise_axis(evidence)
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    part = evidence.transpose("layer", "timestep", "channel", ...)
    with style.paper():
        width = style.PAGE if columns > 2 else style.COLUMN
        figure, grid = style.new(width, 0.45 + 1.25 * rows, rows, columns, sharex=True, sharey=True)
        for axes, i in zip(grid.ravel(), layers, strict=False):
            axes.plot(x, part["median_magnitude"].values[i], color=style.ORDINARY, ls="--", label="median channel")
            for k, (colour, marker) in enumerate(
                zip(style.colours(len(channels)), style.markers(len(channels)), strict=True)
            ):
                style.band(
                    axes,
                    x,
                    part["magnitude"].values[i, :, k],
                    part["magnitude_low"].values[i, :, k],
                    part["magnitude_high"].values[i, :, k],
                    color=colour,
                    marker=marker,
                    markevery=max(1, len(x) // 6),
                    label=f"channel {channels[k]}",
                )
            axes.set_title(style.short(str(part["layer"].values[i])))
            axes.grid(axis="y")
        style.log_axis(grid[0, 0].yaxis)
        for axes in grid.ravel()[len(layers) :]:
            axes.set_visible(False)
        if len(x) > 1:
            grid[0, 0].xaxis.set_major_locator(MaxNLocator(3))
            pad = 0.03 * float(np.ptp(x))
            grid[0, 0].set_xlim(x.max() + pad, x.min() - pad)  # noise on the left, the image on the right
        figure.supxlabel(f"{label}  (noise → image)", fontsize=7.5)
        figure.supylabel(style.MAGNITUDE, fontsize=7.5)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles[1:] + handles[:1], names[1:] + names[:1], loc="outside upper center", ncols=min(len(names), 6)
        )
    return figure


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    x, label = style.noise_axis(evidence)
    channels, total = list(evidence["channel"].values)[:MOST_CHANNELS], evidence.sizes["channel"]
    drawn, blocks = len(_layers(evidence)), int((evidence["layer"].values != "input").sum())
    after = "each block" if drawn == blocks else f"{drawn} of {blocks} blocks, evenly spread,"
    return (
        f"Mean |h| over image tokens of channel{'s' if len(channels) != 1 else ''} "
        f"{style.listed(channels, most=MOST_CHANNELS)}{f', the first of {total}' if total > len(channels) else ''} "
        f"(dashed: the median channel) after {after} against {label}, over {len(x)} steps from {x.max():.2f} to {x.min():.2f}; "
        f"{style.intervals(evidence.attrs, evidence.attrs['confidence'])}. {style.sampled(evidence.attrs)}. {style.verdict(evidence)}"
    )
