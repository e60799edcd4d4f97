"""The frame hierarchy over depth and denoising: magnitude by role, and the contrasts between roles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from workbench.figures import style

CONTRASTS = ("first - boundary", "boundary - interior", "row edge - column edge")
"""Contrasts that are drawn: the two of the hierarchy, and what the boundary has beyond an edge of the image (the control)."""

DIVERGING = "vlag"
"""Colour map for contrasts: white is 0, blue below, red above; the two ends differ for the colour-blind, too."""

_LEAST = 0.05
"""Ends of the scale of contrasts, in ln units, where all are smaller: noise should not look like an effect."""


_TITLES = {
    "first": "mean |h|: first frame",
    "boundary": "mean |h|: boundary",
    "interior": "mean |h|: interior",
    "row edge - column edge": "row edge - column edge (control)",
}


def short_verdict(evidence: xr.Dataset) -> str:
    """Give the verdict without its reason, which fills a paragraph and stands beside the figures."""
    return f"Verdict (hierarchy): {evidence.attrs['verdict']} ({evidence.attrs['levels']})."


def ln_labels(axis: Axis) -> None:
    """Label an axis of contrasts with signs, as few digits as will do, and a plain zero."""

    def label(value: float, _: object) -> str:
        return "0" if abs(value) < 1e-9 else f"{value:+.2g}".replace("-", "−")

    axis.set_major_formatter(FuncFormatter(label))


def minus(text: str) -> str:
    """Write a contrast's name with a real minus sign."""
    return text.replace(" - ", " − ")


def magnitudes(evidence: xr.Dataset) -> xr.DataArray:
    """Geometric mean of mean |h| over the channels that are massive at a layer, (role, layer, timestep).

    Where none is (as in the state that enters the first block), over all channels of the evidence.
    """
    counts = evidence["counts"].astype(bool)
    counts = counts | ~counts.any("channel")
    weights = counts / counts.sum("channel")
    logs: xr.DataArray = (evidence["magnitude"] * weights).sum("channel")
    logs = logs.transpose("role", "layer", "timestep")
    return logs.copy(data=np.exp(logs.values))


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate every cell that is drawn.

    Returns
    -------
    DataFrame
        Columns what (``magnitude`` or ``contrast``), of (role or contrast), layer, block, timestep, sigma, value (units of the
        hidden state; of contrasts ln units), low, high, p_corrected (of contrasts; else NaN).
    """
    sigma, _ = style.noise_axis(evidence)
    size = magnitudes(evidence)
    rows = []

    def add(what: str, of: str, values: np.ndarray, low: Any, high: Any, p: Any) -> None:
        for i, t in np.ndindex(values.shape):
            rows.append(
                {
                    "what": what,
                    "of": of,
                    "layer": str(evidence["layer"].values[i]),
                    "block": style.block_number(evidence, i),
                    "timestep": float(evidence["timestep"].values[t]),
                    "sigma": float(sigma[t]),
                    "value": float(values[i, t]),
                    "low": float(low[i, t]) if low is not None else np.nan,
                    "high": float(high[i, t]) if high is not None else np.nan,
                    "p_corrected": float(p[i, t]) if p is not None else np.nan,
                }
            )

    for role in size["role"].values:
        add("magnitude", str(role), size.sel(role=role).values, None, None, None)
    for name in CONTRASTS:
        at = evidence.sel(contrast=name).transpose("layer", "timestep", ...)
        add(
            "contrast",
            name,
            *(at[v].values for v in ("contrast_value", "contrast_value_low", "contrast_value_high", "p_corrected")),
        )
    return pd.DataFrame(rows)


def draw(evidence: xr.Dataset) -> Figure:
    """Draw layer by timestep: magnitude of each role above, contrasts of the roles below.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.hierarchy.hierarchy` returned.
    """
    table = data(evidence)
    sigma, label = style.noise_axis(evidence)
    shape = evidence.sizes["layer"], evidence.sizes["timestep"]
    roles = [str(role) for role in evidence["role"].values]

    def cells(what: str, of: str, column: str = "value") -> np.ndarray:
        return table.loc[(table["what"] == what) & (table["of"] == of), column].to_numpy().reshape(shape)

    # The state that enters the first block is far smaller; on its scale the blocks could not be told apart.
    blocks = table["layer"] != "input" if shape[0] > 1 else table["layer"] == table["layer"]
    size = table.loc[(table["what"] == "magnitude") & blocks, "value"]
    contrasts = table.loc[table["what"] == "contrast", "value"].to_numpy()
    reach = max(float(np.nanmax(np.abs(contrasts))) if np.isfinite(contrasts).any() else 0.0, _LEAST)
    alpha = float(evidence.attrs["alpha"])
    with style.paper():
        tall = 0.35 + 0.13 * shape[0]
        figure, grid = style.new(style.PAGE, 1.0 + 2 * max(tall, 1.2), 2, len(roles), sharex=True, sharey=True)
        for axes, role in zip(grid[0], roles, strict=True):
            low, high = float(size.min()), float(size.max())
            norm = LogNorm(low, max(high, low * 1.05))
            above = axes.pcolormesh(cells("magnitude", role), cmap=style.SEQUENTIAL, norm=norm, rasterized=True)
            axes.set_title(_TITLES.get(role, role))
        for axes, name in zip(grid[1], CONTRASTS, strict=True):
            values = cells("contrast", name)
            below = axes.pcolormesh(
                np.ma.masked_invalid(values), cmap=DIVERGING, norm=TwoSlopeNorm(0.0, -reach, reach), rasterized=True
            )
            axes.set_facecolor("0.9")
            known = cells("contrast", name, "p_corrected") <= alpha
            y, x = np.nonzero(known)
            axes.plot(x + 0.5, y + 0.5, ls="", marker="o", ms=1.5, mew=0, color="black")
            axes.set_title(minus(_TITLES.get(name, name)))
        for axes in grid.ravel():
            axes.tick_params(length=0)
            for side in axes.spines.values():
                side.set_visible(False)
        _axes(grid[0, 0], evidence, sigma)
        figure.supxlabel(f"{label}  (noise → video)", fontsize=7.5)
        for row in grid:
            row[0].set_ylabel("block")
        bar = figure.colorbar(
            above, ax=list(grid[0]), aspect=14, pad=0.015, label=f"mean |h|, {_channels(evidence)}", extend="min"
        )
        _plain_log(bar)
        bar = figure.colorbar(below, ax=list(grid[1]), aspect=14, pad=0.015, label="contrast, ln units")
        ln_labels(bar.ax.yaxis)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _channels(evidence: xr.Dataset) -> str:
    number = evidence.sizes["channel"]
    return f"channel {int(evidence['channel'].values[0])}" if number == 1 else f"{number} channels"


def _axes(axes: Axes, evidence: xr.Dataset, sigma: np.ndarray) -> None:
    """Blocks upwards, noise levels to the right, as many labels as can be read."""
    layers, steps = evidence.sizes["layer"], len(sigma)
    every = max(1, -(-layers // 10))
    shown = [i for i in range(layers) if i == 0 or style.block_number(evidence, i) % every == 0]
    axes.set_yticks([i + 0.5 for i in shown], [style.tick(evidence, i) for i in shown])
    at = sorted(set(np.linspace(0, steps - 1, min(5, steps)).round().astype(int).tolist()))
    axes.set_xticks([t + 0.5 for t in at], [f"{sigma[t]:.2g}" for t in at])


def _plain_log(bar: Colorbar) -> None:
    """Numbers instead of powers of ten: a colour bar seldom spans more than two decades."""
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.outline.set_visible(False)  # type: ignore[operator]


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    p = evidence["p_corrected"].sel(contrast=list(CONTRASTS))
    marked = int((p <= attrs["alpha"]).sum())
    return (
        f"Above: mean |h| of the massive channels ({style.listed([int(c) for c in evidence['channel'].values])}; geometric mean) "
        "over the tokens of each role, after each block (in: the state that enters the first, often below the scale) at each denoising step. Below: "
        "contrasts, differences of ln mean |h| (0 white; 0.1 is a tenth): the first frame against the boundary, the boundary "
        "against the interior, and, as the control, the rows against the columns at the edges of later frames, which is 0 where a "
        f"raised boundary is only an edge of the image. Dots: p ≤ {attrs['alpha']:g}, corrected over all cells and contrasts "
        f"({marked} of {int(np.isfinite(p).sum())} cells). Boundary: {attrs['boundary_width']} tokens at the head and as many at the "
        f"tail of a frame ({attrs['boundary_width_source']}). {style.sampled(attrs)}. {short_verdict(evidence)}"
    )
