"""What the variance of the ln magnitude is made of: embedding, latent, prompt, seed and their interactions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.analysis.visits import too_few
from workbench.figures import style

SHOWN = ("embedding", "latent", "embedding:latent", "prompt", "seed")
"""Factors with a bar of their own; the rest are interactions with prompt and seed."""

OTHER = "other interactions"

LABELS = {"embedding": "embedding", "latent": "latent", "embedding:latent": "embedding × latent", "prompt": "prompt",
          "seed": "seed", OTHER: OTHER}  # fmt: skip

MOST = 6
"""How many channels get bars, strongest first."""


def _colours() -> dict[str, tuple[float, float, float]]:
    palette = dict(zip(SHOWN, style.colours(len(SHOWN)), strict=True))
    return {**palette, OTHER: (0.78, 0.78, 0.78)}


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate share of the variance and standard deviation.

    Returns
    -------
    DataFrame
        channel (``median`` for the median channel), layer (``overall`` for the mean over the blocks in which the channel is
        massive), factor, share, low, high (NaN for ``other interactions``, a sum), deviation (of all factors together, ln
        units).
    """
    rows: list[dict[str, object]] = []
    for channel in evidence["channel"].values:
        at = evidence.sel(channel=channel)
        rows += _rows(at, str(channel), "overall", "share_overall", "deviation_overall")
        for i, layer in enumerate(evidence["layer"].values):
            rows += _rows(at.isel(layer=i), str(channel), str(layer), "share", "deviation")
    if "control_share" in evidence:
        for i, layer in enumerate(evidence["layer"].values):
            rows += _rows(evidence.isel(layer=i), "median", str(layer), "control_share", "control_deviation")
    return pd.DataFrame(rows)


def _rows(at: xr.Dataset, channel: str, layer: str, share: str, deviation: str) -> list[dict[str, object]]:
    head = {"channel": channel, "layer": layer}
    total = float(np.sqrt(np.nansum(at[deviation].values ** 2)))
    rows: list[dict[str, object]] = []
    for factor in SHOWN:
        here = {end: at[share + end].sel(factor=factor) for end in ("", "_low", "_high")}
        values = {"share": float(here[""]), "low": float(here["_low"]), "high": float(here["_high"])}
        rows.append({**head, "factor": factor, **values, "deviation": total})
    rest = at[share].sel(factor=[f for f in at["factor"].values if str(f) not in SHOWN]).values
    summed = float(np.nansum(rest)) if np.isfinite(rest).any() else np.nan
    rows.append({**head, "factor": OTHER, "share": summed, "low": np.nan, "high": np.nan, "deviation": total})
    return rows


def draw(evidence: xr.Dataset) -> Figure:
    """Draw shares per channel with intervals, and for the strongest channel shares and standard deviation over blocks.

    Parameters
    ----------
    evidence : xr.Dataset
        What `causal` returned.
    """
    table = data(evidence)
    channels = [str(c) for c in evidence["channel"].values[:MOST]]
    palette = _colours()
    with style.paper():
        figure, _ = style.new(style.PAGE, 2.9)
        figure.clear()
        grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1.0], height_ratios=[0.55, 1.0])
        overall = figure.add_subplot(grid[:, 0])
        size, depth = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
        handles = _bars(overall, table, channels, palette)
        _depth(depth, evidence, table, channels[0], palette)
        _size(size, evidence, table, channels)
        figure.legend(
            handles, [LABELS[f] for f in palette], loc="outside lower center", ncols=len(palette), columnspacing=1.2
        )
    return figure


def _bars(axes: Axes, table: pd.DataFrame, channels: list[str], palette: dict[str, tuple[float, float, float]]) -> list:
    """Dodged bars with intervals, one group a channel."""
    width, handles = 0.84 / len(palette), []
    for i, (factor, colour) in enumerate(palette.items()):
        of = table[(table["layer"] == "overall") & (table["factor"] == factor)].set_index("channel").loc[channels]
        x = np.arange(len(channels)) + (i - (len(palette) - 1) / 2) * width
        handles.append(axes.bar(x, of["share"], width=0.92 * width, color=colour, linewidth=0))
        known = of["low"].notna().to_numpy()
        if known.any():
            axes.vlines(x[known], of["low"][known], of["high"][known], color="0.15", linewidth=0.8)
    axes.set_xticks(np.arange(len(channels)), channels)
    axes.set(xlabel="channel", ylabel="share of the variance of ln mean |h|", ylim=(0, 1.02), title="overall")
    axes.yaxis.grid(True)
    axes.set_axisbelow(True)
    return handles


def _depth(
    axes: Axes, evidence: xr.Dataset, table: pd.DataFrame, channel: str, palette: dict[str, tuple[float, float, float]]
) -> None:
    """Stacked bars over blocks, of one channel."""
    layers = [str(layer) for layer in evidence["layer"].values]
    below = np.zeros(len(layers))
    for factor, colour in palette.items():
        of = table[(table["channel"] == channel) & (table["factor"] == factor)].set_index("layer").loc[layers]
        height = np.nan_to_num(of["share"].to_numpy())
        axes.bar(np.arange(len(layers)), height, bottom=below, color=colour, width=0.85, linewidth=0)
        below += height
    axes.set(ylim=(0, 1.0), xlim=(-0.6, len(layers) - 0.4), ylabel="share", title=f"channel {channel}, by block")
    style.layer_axis(axes, evidence)


def _size(axes: Axes, evidence: xr.Dataset, table: pd.DataFrame, channels: list[str]) -> None:
    """Standard deviation over blocks: a share of next to nothing is next to nothing."""
    layers = [str(layer) for layer in evidence["layer"].values]
    pairs = list(zip(channels, style.markers(len(channels)), strict=True))
    for channel, marker in pairs:
        of = table[(table["channel"] == channel) & (table["factor"] == OTHER)].set_index("layer").loc[layers]
        shade = "0.1" if channel == channels[0] else "0.45"
        axes.plot(of["deviation"].to_numpy(), color=shade, linewidth=0.9, marker=marker, markersize=2.2, label=channel)
    if (table["channel"] == "median").any():
        of = table[(table["channel"] == "median") & (table["factor"] == OTHER)].set_index("layer").loc[layers]
        axes.plot(
            of["deviation"].to_numpy(), color=style.ORDINARY, linewidth=0.9, linestyle=(0, (3, 2)), label="median"
        )
    axes.set(
        ylabel="SD, ln units",
        title="standard deviation of ln mean |h|",
        ylim=(0, None),
        xticks=[],
        xlim=(-0.6, len(layers) - 0.4),
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.4, labelspacing=0.2, title="channel",
                title_fontsize=6.5)  # fmt: skip


def _ranges(evidence: xr.Dataset) -> str:
    """Say what the thin lines are: they describe, and hold the truth less often than a confidence interval would."""
    if few := too_few(evidence.attrs):
        return f"no ranges ({few})"
    attrs = evidence.attrs
    return f"lines are {attrs['confidence']:.0%} bootstrap ranges over {attrs['replicate']}s, which hold the truth less often than that"


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    blocks = "the mean of ln mean |h| over the blocks in which the channel is massive (all blocks, if in none)"
    shown, total = min(MOST, evidence.sizes["channel"]), evidence.sizes["channel"]
    part = f"the {shown} strongest of {total} channels" if total > shown else "all channels looked at"
    return (
        "Variance of ln mean |h| over all combinations of prompt, seed, latent and timestep embedding, split by a balanced "
        f"analysis of variance; each with each, so embedding and latent are not confounded. Left: of {blocks}, {part}; right: "
        "standard deviation over all combinations, with that of the median channel, and shares by block for the strongest "
        "channel. A factor without effect still has the share that prompts disagree on, divided by their number. Other "
        f"interactions are those with prompt or seed. {style.sampled(evidence.attrs)}; "
        f"{_ranges(evidence)}. Verdict: {evidence.attrs['verdict']}."
    )
