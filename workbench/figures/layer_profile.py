"""The largest channels and the median channel over depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from workbench.analysis import inference
from workbench.analysis.visits import Visits
from workbench.figures import style

TOP = 3


def data(recording: xr.Dataset, *, branch: str = "cond", confidence: float = 0.95) -> pd.DataFrame:
    """Tabulate mean |h| of the largest, second, third and median channel of every layer.

    Channels are ranked anew at every visit, then averaged over timesteps in each sample, over the samples
    of a prompt, and over prompts.

    Returns
    -------
    DataFrame
        Columns layer, block, line (``top-1`` … ``median``), magnitude, low, high (units of the hidden state), and for
        top-1 the channel it most often is, with the share of visits.
    """
    visits = Visits(recording, branch)
    ranked_SLTC = np.sort(visits.mean_abs_SLTC, axis=-1)[..., ::-1]
    lines = {f"top-{r + 1}": ranked_SLTC[..., r] for r in range(min(TOP, ranked_SLTC.shape[-1]))}
    lines["median"] = visits.median_SLT1[..., 0]
    labels = visits.recording["channel"].values
    first_SLT = visits.mean_abs_SLTC.argmax(axis=-1)
    rows = []
    for line, values_SLT in lines.items():
        interval = inference.bootstrap_mean(visits.by_prompt(values_SLT.mean(axis=2)), confidence=confidence)
        for i, layer in enumerate(visits.layers):
            row = {"layer": layer, "position": i, "line": line, "magnitude": interval.mean[i]}
            row |= {"low": interval.low[i], "high": interval.high[i], "channel": -1, "share": np.nan}
            if line == "top-1":
                counts = np.bincount(first_SLT[:, i].ravel(), minlength=len(labels))
                row |= {"channel": int(labels[counts.argmax()]), "share": counts.max() / counts.sum()}
            rows.append(row)
    return pd.DataFrame(rows)


def draw(recording: xr.Dataset, *, branch: str = "cond", confidence: float = 0.95) -> Figure:
    """Draw mean |h| of the three largest and of the median channel over layers, on a log axis.

    Parameters
    ----------
    recording : xr.Dataset
        A recording, statistics suffice.
    branch : str
        Branch.
    confidence : float
        Of the bands over prompts.
    """
    table = data(recording, branch=branch, confidence=confidence)
    with style.paper():
        figure, grid = style.new(style.COLUMN, 2.4)
        axes = grid[0, 0]
        named = list(zip(style.colours(TOP), style.markers(TOP), strict=True))
        for i, (line, part) in enumerate(table.groupby("line", sort=False)):
            colour, marker = named[i] if line != "median" else (style.ORDINARY, "")
            style.band(
                axes,
                part["position"].to_numpy(),
                part["magnitude"].to_numpy(),
                part["low"].to_numpy(),
                part["high"].to_numpy(),
                color=colour,
                marker=marker,
                label=f"{line} channel",
                linestyle="-" if line != "median" else "--",
            )
        top = table[table["line"] == "top-1"]
        changed = top["channel"].to_numpy() != np.r_[-1, top["channel"].to_numpy()[:-1]]
        for _, row in top[changed].iterrows():  # which channel it is, where that changes
            axes.annotate(
                f"{row['channel']}",
                (row["position"], row["magnitude"]),
                textcoords="offset points",
                xytext=(0, 4),
                ha="center",
                fontsize=6,
                color=style.colours(1)[0],
            )
        style.log_axis(axes.yaxis)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 1.35)
        axes.set_ylabel(style.MAGNITUDE)
        axes.grid(axis="y", which="major")
        style.layer_axis(axes, recording)
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def caption(recording: xr.Dataset, *, branch: str = "cond", confidence: float = 0.95) -> str:
    """Caption of the figure."""
    visits = Visits(recording, branch)
    table = data(recording, branch=branch, confidence=confidence)
    blocks = table[table["layer"] != "input"]
    top, median = (blocks[blocks["line"] == line]["magnitude"].to_numpy() for line in ("top-1", "median"))
    ratio = top / median
    steps = visits.mean_abs_SLTC.shape[2]
    attrs = visits.attrs("layer_profile")
    share = blocks[blocks["line"] == "top-1"]["share"].min()
    return (
        "Mean |h| over image tokens of the three largest channels and of the median channel after each block, "
        f"averaged over {steps} timestep{'s' if steps != 1 else ''}; {style.intervals(attrs, confidence)}; numbers name the "
        f"channel that is most often the largest, where that changes (at each block in at least {share:.0%} of the visits). "
        f"The largest channel is {ratio.min():.1f} to {ratio.max():.1f} times the median "
        f"channel. {style.sampled(attrs)}. Descriptive: the verdict is that of locate."
    )
