"""What disrupting each layer loses: detail and content, massive channels against their controls."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.figures import style

ASPECTS = ("detail", "content")
WHOLE = "whole"

_NAMES = {
    "massive": "massive channels, zeroed",
    "random": "as many random channels, zeroed",
    "matched_random": "random channels of equal norm, shrunk",
    "low": "as many low channels, zeroed",
    "noise": "noise of equal norm",
    "shift": "shift of equal norm",
}
_MARKERS = {"massive": "o", "random": "^", "matched_random": "s", "low": "v", "noise": "D", "shift": "P"}


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate the loss of detail and content with its interval, per layer, window and kind of disruption.

    Returns
    -------
    DataFrame
        Columns layer, window, kind, aspect, loss, low, high (share of the difference to another prompt's picture), norm (L2,
        removed or added per token), loss_per_norm, and for controls the corrected p-value of the massive channels losing
        more.
    """
    rows = []
    for e, cell in enumerate(evidence["cell"].values):
        for kind in evidence["kind"].values:
            at = evidence.isel(cell=e).sel(kind=kind)
            for aspect in ASPECTS:
                here = at.sel(measure=aspect)
                p = np.nan
                if kind in evidence["control"].values:
                    p = float(evidence["p_corrected"].isel(cell=e).sel(control=kind, measure=aspect))
                rows.append(
                    {
                        "cell": str(cell),
                        "layer": str(evidence["layer"].values[e]),
                        "window": str(evidence["window"].values[e]),
                        "kind": str(kind),
                        "aspect": aspect,
                        "loss": float(here["loss"]),
                        "low": float(here["loss_low"]),
                        "high": float(here["loss_high"]),
                        "norm": float(at["norm"]),
                        "loss_per_norm": float(here["loss_per_norm"]),
                        "p_corrected": p,
                    }
                )
    return pd.DataFrame(rows)


def draw(evidence: xr.Dataset) -> Figure:
    """Draw losses over layers (and over the windows of one layer) with intervals, detail above content.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.disruption.disruption` returned.
    """
    table = data(evidence)
    whole = list(dict.fromkeys(table.loc[table["window"] == WHOLE, "layer"]))
    windows = list(dict.fromkeys(zip(table["layer"], table["window"], strict=True)))
    windows = [cell for cell in windows if cell[1] != WHOLE]
    # With all windows at every layer there is no room for them; the table has them.
    single = {layer for layer, _ in windows}
    windows = windows if len(single) == 1 else []
    kinds = [str(kind) for kind in evidence["kind"].values]
    smallest = json.loads(evidence.attrs["parameters"])["smallest"]
    with style.paper():
        ratios = [max(len(whole), 2), max(len(windows), 2)] if windows else [1]
        figure, grid = style.new(
            style.PAGE, 4.1, 2, len(ratios), sharey=True, sharex="col", gridspec_kw={"width_ratios": ratios}
        )
        for r, aspect in enumerate(ASPECTS):
            part = table[table["aspect"] == aspect]
            _panel(grid[r, 0], part[part["window"] == WHOLE], "layer", whole, kinds, smallest)
            grid[r, 0].set_ylabel(f"loss of {aspect}\n(1: another prompt's picture)")
            if windows:
                rows = part[(part["window"] != WHOLE)]
                _panel(grid[r, 1], rows, "window", [window for _, window in windows], kinds, smallest)
        grid[0, 0].set_title("over the whole trajectory, by layer")
        grid[1, 0].set_xticks(range(len(whole)), [_short(layer) for layer in whole])
        grid[1, 0].set_xlabel("disrupted state: the one that enters this block")
        if windows:
            grid[0, 1].set_title(f"in a window, before {style.short(windows[0][0])}")
            grid[1, 1].set_xticks(range(len(windows)), [_span(evidence, *cell) for cell in windows])
            grid[1, 1].set_xlabel("noise level σ  (noise → image)")
        handles, kinds = grid[0, 0].get_legend_handles_labels()
        names = [_name(evidence, kind) for kind in kinds]
        figure.legend(handles, names, loc="outside upper center", ncols=3)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, by: str, order: list[str], kinds: list[str], smallest: float) -> None:
    """One aspect: a point with an interval for each kind, side by side at each layer or window."""
    axes.axhspan(-smallest, smallest, color="0.94", linewidth=0, zorder=0)
    axes.axhline(0.0, color="0.6", linewidth=0.6, zorder=1)
    shades = style.colours(len(kinds))
    step = 0.72 / max(len(kinds), 1)
    for i, kind in enumerate(kinds):
        part = rows[rows["kind"] == kind]
        x = np.array([order.index(value) for value in part[by]]) + (i - (len(kinds) - 1) / 2) * step
        mean, low, high = (part[name].to_numpy() for name in ("loss", "low", "high"))
        colour = "black" if kind == "massive" else shades[i]
        if np.isfinite(low).any():
            axes.vlines(x, low, high, color=colour, linewidth=1.0, zorder=2)
        axes.plot(
            x, mean, ls="", marker=_MARKERS.get(kind, "X"), color=colour, markersize=4.2 if kind == "massive" else 3.2,
            markerfacecolor=colour if kind == "massive" else "white", label=kind, zorder=3,
        )  # fmt: skip
    for edge in range(1, len(order)):
        axes.axvline(edge - 0.5, color="0.9", linewidth=0.5, zorder=0)
    axes.set_xlim(-0.5, len(order) - 0.5)


def _name(evidence: xr.Dataset, kind: str) -> str:
    """Name a kind for the legend; one that missed the norm it should have says so."""
    if kind in ("matched_random", "noise", "shift"):
        ratio = evidence["norm_ratio"].sel(control=kind)
        tolerance = json.loads(evidence.attrs["parameters"])["norm_tolerance"]
        if float(np.abs(ratio - 1).max()) > tolerance:
            return _NAMES[kind].replace("equal norm", f"{_span_of(ratio)} × the norm")
    return _NAMES.get(kind, kind)


def _span_of(values: xr.DataArray) -> str:
    low, high = f"{float(values.min()):.2f}", f"{float(values.max()):.2f}"
    return low if low == high else f"{low} to {high}"


def _short(layer: str) -> str:
    return style.short(layer).removeprefix("block ")


def _span(evidence: xr.Dataset, layer: str, window: str) -> str:
    """Name a window by its bounds where these are known."""
    if "sigma_low" not in evidence.coords:
        return window
    cells = list(zip(evidence["layer"].values.tolist(), evidence["window"].values.tolist(), strict=True))
    at = cells.index((layer, window))
    low, high = float(evidence["sigma_low"].values[at]), float(evidence["sigma_high"].values[at])
    return f"{window}\n{high:.2g} … {low:.2g}"


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    parameters = json.loads(attrs["parameters"])
    massive = json.loads(attrs.get("massive_channels", "{}"))
    sets = {str(channels) for channels in massive.values()}
    channels = f" (channels {sets.pop().strip('[]')})" if len(sets) == 1 else ""
    ratios = ", ".join(f"{c} {_span_of(evidence['norm_ratio'].sel(control=c))}" for c in evidence["control"].values)
    lost = float(evidence["collapsed"].max())
    collapsed = f"Pictures that are not finite (up to {lost:.0%} of a kind) count as 1. " if lost > 0 else ""
    listed = {"detail": parameters["detail"], "content": list(parameters["margins"])}
    return (
        f"Loss of detail (mean of {', '.join(listed['detail'])}) and of content (mean of {', '.join(listed['content'])}) when "
        f"the massive channels{channels} of the state that enters a block are set to zero, and under the controls; 0: as "
        "undisturbed from the same seed, 1: as different as another prompt's picture (below 0: gained). Left: at every "
        f"step; right, where windows were run: in a window of the noise level σ only. Norm against the massive channels': {ratios or 'no control'}. Grey: "
        f"losses that do not count (±{parameters['smallest']:g}); "
        f"{style.intervals(attrs, attrs['confidence']).replace('bands', 'bars')}. "
        f"n = {attrs['replication']}; branches {attrs['branch']} (cond and uncond where there are both). "
        f"{collapsed}Verdict: {attrs['verdict']} against equal norm, {attrs['verdict_equal_number']} against equal number."
    )
