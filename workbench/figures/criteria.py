"""What each criterion calls massive, side by side: channels by layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from workbench.analysis.criteria import CRITERIA
from workbench.figures import style

MOST = 12
"""How many channels get a column."""


def _channels(evidence: xr.Dataset) -> list[int]:
    """Positions of the channels shown: those that some criterion calls massive somewhere, the strongest of them."""
    blocks = evidence["layer"].values != "input"
    strength = evidence["ratio_to_median"].transpose("layer", "channel").values[blocks].mean(axis=0)
    tests = [
        name for name, criterion in CRITERIA.items() if not criterion.ranking and name in evidence["criterion"].values
    ]
    marked = evidence["massive"].sel(criterion=tests).any(["criterion", "layer"]).values
    order = np.argsort(-strength, kind="stable")
    # Channels that only a ranking marks fill up the rest: a ranking marks some in every model.
    return [int(i) for i in [*order[marked[order]], *order[~marked[order]]][:MOST]]


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate per criterion, layer and channel whether it is massive, and the ratio to the median channel."""
    columns = _channels(evidence)
    part = evidence[["massive", "massive_channel", "ratio_to_median"]].isel(channel=columns)
    return (
        part.drop_vars([name for name in part.coords if name not in part.dims])
        .to_dataframe()
        .reset_index()[["criterion", "layer", "channel", "massive", "massive_channel", "ratio_to_median"]]
    )


def draw(evidence: xr.Dataset) -> Figure:
    """Draw one panel a criterion: a filled cell is a channel massive at that layer, coloured by ratio to the median.

    Parameters
    ----------
    evidence : xr.Dataset
        What `locate` returned.
    """
    columns, names = _channels(evidence), [str(name) for name in evidence["criterion"].values]
    part = evidence.isel(channel=columns).transpose("criterion", "layer", "channel", ...)
    ratio, labels = part["ratio_to_median"].values, [str(channel) for channel in part["channel"].values]
    layers = len(ratio)
    with style.paper():
        figure, grid = style.new(style.PAGE, min(4.0, 1.2 + 0.13 * layers), 1, len(names), sharey=True)
        norm = LogNorm(1.0, max(10.0, float(ratio.max())))
        for axes, name in zip(grid[0], names, strict=True):
            massive = part["massive"].sel(criterion=name).values
            image = axes.pcolormesh(
                np.where(massive, np.maximum(ratio, 1.0), np.nan),
                cmap=style.SEQUENTIAL,
                norm=norm,
                edgecolors="0.92",
                linewidth=0.3,
            )
            decides = "bold" if name == evidence.attrs["criterion"] else "normal"
            title = axes.set_title(f"{name}: {_count(evidence, name)}", fontweight=decides, fontsize=6.8)
            title.set_in_layout(False)  # a long name may reach over its panel, it must not squeeze the others
            axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=90, fontsize=5.5)
            for text, overall in zip(
                axes.get_xticklabels(), part["massive_channel"].sel(criterion=name).values, strict=True
            ):
                text.set(color="black" if overall else "0.6", fontweight="bold" if overall else "normal")
            if not massive.any():
                axes.text(0.5, 0.5, "none", color="0.6", ha="center", va="center", transform=axes.transAxes)
            axes.tick_params(length=0, pad=1.5)
            for spine in axes.spines.values():
                spine.set_visible(True)
        every = -(-layers // 20)
        shown = [i for i in range(layers) if i % every == (layers - 1) % every or i == 0]
        grid[0, 0].set_yticks(np.asarray(shown) + 0.5, [style.tick(part, i) for i in shown])
        grid[0, 0].set_ylim(0, layers)
        grid[0, 0].set_ylabel("block")
        figure.supxlabel(
            "channel: those some test marks, then others; each by falling ratio to the median channel", fontsize=7.5
        )
        bar = figure.colorbar(image, ax=list(grid[0]), label="ratio to the median channel", aspect=22, pad=0.01)
        style.log_axis(bar.ax.yaxis)
    return figure


def _count(evidence: xr.Dataset, name: str) -> int:
    return int(evidence["massive_channel"].sel(criterion=name).sum())


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    counts = "; ".join(f"{name} {_count(evidence, name)}" for name in map(str, evidence["criterion"].values))
    return (
        "Filled: the channel is massive at that layer by the criterion named above the panel, coloured by mean |h| "
        f"over that of the median channel (mean over {evidence.sizes['timestep']} timesteps). Bold channels, and "
        f"the number above the panel: massive in the model. Of {evidence.sizes['channel']} channels: {counts}; top_k "
        "and top_k_abs_mean are rankings that mark channels in any model. "
        f"{style.sampled(evidence.attrs)}. {style.verdict(evidence)}"
    )
