"""Magnitude of a massive channel over the noise of the latent and the noise the embedding stands for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from workbench.errors import AnalysisError
from workbench.figures import style

MOST = 3
"""How many channels get a column, strongest first."""

BY = {"embedding": "by embedding, over latents", "latent": "by latent, over embeddings"}


def _layer(evidence: xr.Dataset, k: int, layer: str | None) -> int:
    """Position of the layer shown: the last in which the channel is massive, or the last there is."""
    names = [str(name) for name in evidence["layer"].values]
    if layer is not None:
        if layer not in names:
            raise AnalysisError(f"there is no layer {layer!r}; there are {style.listed(names)}.")
        return names.index(layer)
    massive = evidence["massive"].transpose("layer", "channel").values[:, k] & (evidence["layer"].values != "input")
    return int(np.flatnonzero(massive)[-1]) if massive.any() else len(names) - 1


def data(evidence: xr.Dataset, *, layer: str | None = None) -> pd.DataFrame:
    """Tabulate what is drawn, relative to the channel's geometric mean over all cells.

    Returns
    -------
    DataFrame
        channel, block, what (``surface``, ``embedding``, ``latent``, ``trajectory``), latent_sigma, embedding_sigma (NaN
        where averaged over), relative, low, high (NaN for surface and trajectory).
    """
    rows = []
    sigma = evidence["latent_sigma"].values
    for k, channel in enumerate(evidence["channel"].values[:MOST]):
        at = evidence.isel(channel=k, layer=_layer(evidence, k, layer))
        surface = at["surface"].transpose("latent_sigma", "embedding_sigma").values
        level = surface.mean()
        head = {"channel": int(channel), "block": str(at["layer"].values)}

        def row(what: str, latent: float, embedding: float, *values: float, level: float = level, head=head) -> None:
            shown = dict(zip(("relative", "low", "high"), [float(np.exp(v - level)) for v in values], strict=False))
            rows.append({**head, "what": what, "latent_sigma": latent, "embedding_sigma": embedding, **shown})

        for i, t in enumerate(sigma):
            for j, e in enumerate(sigma):
                row("surface", t, e, surface[i, j])
        for i, s in enumerate(sigma):
            for what, place in (("embedding", (np.nan, s)), ("latent", (s, np.nan))):
                ends = (float(at[f"{what}_profile{end}"].values[i]) for end in ("", "_low", "_high"))
                row(what, *place, *ends)
            row("trajectory", s, s, surface[i, i])
    return pd.DataFrame(
        rows, columns=[*["channel", "block", "what", "latent_sigma", "embedding_sigma", "relative", "low", "high"]]
    )


def draw(evidence: xr.Dataset, *, layer: str | None = None) -> Figure:
    """Draw one column a channel: the surface above, its two marginal curves and the trajectory below.

    Parameters
    ----------
    evidence : xr.Dataset
        What `causal` returned.
    layer : str, optional
        Layer to show instead of the last in which the channel is massive.
    """
    table = data(evidence, layer=layer)
    channels = list(dict.fromkeys(table["channel"]))
    sigma = np.asarray(evidence["latent_sigma"].values, dtype=float)
    at = np.arange(len(sigma))  # cells of one size: schedules crowd their steps at one end
    values = table["relative"]
    reach = max(float(values.max()), 1.0 / float(values.min()), 1.05)
    palette = dict(zip(BY, style.colours(2), strict=True))
    with style.paper():
        width = min(style.PAGE, 1.0 + 2.1 * len(channels))
        figure, grid = style.new(width, 4.0, 2, len(channels), sharey="row", height_ratios=[1.15, 1.0])
        for k, channel in enumerate(channels):
            of = table[table["channel"] == channel]
            surface = of[of["what"] == "surface"]["relative"].to_numpy().reshape(len(sigma), len(sigma))
            image = grid[0, k].pcolormesh(
                at,
                at,
                surface.T,
                cmap="vlag",
                norm=LogNorm(1.0 / reach, reach),
                edgecolors="white",
                linewidth=0.4,
            )
            grid[0, k].plot(at, at, color="0.15", linewidth=0.8, linestyle=(0, (1, 2)), marker="o", markersize=1.8)
            grid[0, k].set(title=f"channel {channel}, {style.short(of['block'].iloc[0])}", xlabel="σ of the latent")
            grid[0, k].set_box_aspect(1.0)
            grid[0, k].set_xticks(at, [f"{s:.2f}" for s in sigma])
            grid[0, k].tick_params(length=0)
            for what, colour in palette.items():
                line = of[of["what"] == what]
                style.band(
                    grid[1, k],
                    sigma,
                    *(line[c].to_numpy() for c in ("relative", "low", "high")),
                    color=colour,
                    marker="o" if what == "embedding" else "s",
                    label=BY[what],
                )
            own = of[of["what"] == "trajectory"]["relative"]
            grid[1, k].plot(
                sigma, own, color="0.15", linewidth=0.8, linestyle=(0, (1, 2)), label="both: the trajectory"
            )
            grid[1, k].axhline(1.0, color="0.85", linewidth=0.6, zorder=0)
            grid[1, k].set(xlabel="σ")
        grid[0, 0].set_ylabel("σ of the embedding")
        grid[0, 0].set_yticks(at, [f"{s:.2f}" for s in sigma])
        grid[1, 0].set_ylabel("mean |h|, relative")
        _ratio_axis(grid[1, 0].yaxis, reach)
        bar = figure.colorbar(image, ax=list(grid[0]), label="mean |h|, relative", aspect=18, pad=0.02)
        _ratio_axis(bar.ax.yaxis, reach)
        figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _ratio_axis(axis: Axis, reach: float) -> None:
    """Label a log axis of ratios around 1 with as many plain numbers as fit."""
    axis.axes.set_yscale("log")
    steps = (1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0)
    above = [step for step in steps if step <= reach][-2:] or [steps[0]]
    axis.set_major_locator(FixedLocator([1.0 / step for step in reversed(above)] + [1.0, *above]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axis.set_minor_locator(NullLocator())


def caption(evidence: xr.Dataset, *, layer: str | None = None) -> str:
    """Caption of the figure."""
    shown, total = min(MOST, evidence.sizes["channel"]), evidence.sizes["channel"]
    part = f" The {shown} strongest of {total} channels." if total > shown else ""
    return (
        "Geometric mean over samples of mean |h| over tokens, relative to its mean over all cells, when the timestep embedding "
        "of one step goes in with the latent of another. Above: every embedding with every latent; the dotted diagonal is the "
        "ordinary trajectory. Below: the means over latents and over embeddings, and the trajectory, in which both change "
        f"together.{part} {style.sampled(evidence.attrs)}; {style.intervals(evidence.attrs, evidence.attrs['confidence'])}. "
        f"Verdict: {evidence.attrs['verdict']}."
    )
