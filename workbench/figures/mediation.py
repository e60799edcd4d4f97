"""How much of the embedding's effect goes with the gate, or shift and scale, of one block."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.errors import AnalysisError
from workbench.figures import style

MOST = 3
"""How many channels get a panel, strongest first."""

LABELS = {"gate": "gate", "shift_scale": "shift and scale", "modulation": "gate, shift and scale"}
PLACES = {"last": "after the last block", "block": "after the block itself"}


def _check(evidence: xr.Dataset, at: str) -> None:
    if "mediated" not in evidence:
        raise AnalysisError(
            "the experiment holds no mediation cells. Record it with mediate=… (--mediate all, or the block that writes the "
            "channel), or leave the figure `mediation` out."
        )
    if at not in PLACES:
        raise AnalysisError(f"at={at!r}: choose one of {', '.join(PLACES)}.")


def data(evidence: xr.Dataset, *, at: str = "last") -> pd.DataFrame:
    """Tabulate shares of the effect.

    Returns
    -------
    DataFrame
        channel, swap_block, block (its number), swap, mediated, low, high, total (largest difference between two embeddings,
        ln units), reason (why there is no share).
    """
    _check(evidence, at)
    names = [str(name) for name in evidence["layer"].values]
    rows = []
    for channel in evidence["channel"].values[:MOST]:
        for block in evidence["swap_block"].values:
            here = evidence.sel(at=at, swap_block=block, channel=channel)
            number = style.block_number(evidence, names.index(str(block))) if str(block) in names else -1
            head = {"channel": int(channel), "swap_block": str(block), "block": number}
            tail = {"total": float(here["mediated_total"]), "reason": str(here["mediated_reason"].values)}
            for swap in evidence["swap"].values:
                values = [float(here[f"mediated{end}"].sel(swap=swap)) for end in ("", "_low", "_high")]
                rows.append(
                    {**head, "swap": str(swap), **dict(zip(("mediated", "low", "high"), values, strict=True)), **tail}
                )
    return pd.DataFrame(rows)


def draw(evidence: xr.Dataset, *, at: str = "last") -> Figure:
    """Draw one panel a channel: bars of the mediated share with intervals, by block.

    Parameters
    ----------
    evidence : xr.Dataset
        What `causal` returned for an experiment with mediation cells.
    at : {"last", "block"}
        Where the effect is measured.
    """
    table = data(evidence, at=at)
    channels = list(dict.fromkeys(table["channel"]))
    swaps = [swap for swap in LABELS if swap in set(table["swap"])]
    blocks = [str(block) for block in dict.fromkeys(table["swap_block"])]
    with style.paper():
        width = min(style.PAGE, 0.9 + len(channels) * max(1.5, 0.42 * len(blocks)))
        figure, grid = style.new(max(width, style.COLUMN), 2.3, 1, len(channels), sharey=True)
        handles: list = []
        for k, channel in enumerate(channels):
            handles = _panel(grid[0, k], table[table["channel"] == channel], swaps, blocks)
            grid[0, k].set_title(f"channel {channel}")
        low, high = grid[0, 0].get_ylim()
        grid[0, 0].set_ylim(min(low, -0.05), max(high, 1.08))
        grid[0, 0].set_ylabel("share of the embedding's effect")
        figure.supxlabel("block that is told another timestep", fontsize=7.5)
        figure.legend(handles, [LABELS[swap] for swap in swaps], loc="outside upper center", ncols=len(swaps))
    return figure


def _panel(axes: Axes, table: pd.DataFrame, swaps: list[str], blocks: list[str]) -> list:
    handles, width = [], 0.8 / len(swaps)
    for i, (swap, colour) in enumerate(zip(swaps, style.colours(len(swaps)), strict=True)):
        of = table[table["swap"] == swap].set_index("swap_block").loc[blocks]
        x = np.arange(len(blocks)) + (i - (len(swaps) - 1) / 2) * width
        handles.append(axes.bar(x, of["mediated"], width=0.92 * width, color=colour, linewidth=0))
        known = of["low"].notna().to_numpy()
        if known.any():
            axes.vlines(x[known], of["low"][known], of["high"][known], color="0.15", linewidth=0.8)
    numbers = table.drop_duplicates("swap_block").set_index("swap_block").loc[blocks]
    axes.set_xticks(
        np.arange(len(blocks)), [str(n) if n >= 0 else b for b, n in zip(blocks, numbers["block"], strict=True)]
    )
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    for y, shade in ((0.0, "0.3"), (1.0, "0.7")):
        axes.axhline(y, color=shade, linewidth=0.6, zorder=0)
    if table["mediated"].isna().all():
        axes.text(0.5, 0.5, "no effect to share out", color="0.5", ha="center", va="center", transform=axes.transAxes)
    return handles


def caption(evidence: xr.Dataset, *, at: str = "last") -> str:
    """Caption of the figure."""
    _check(evidence, at)
    reasons = [str(r) for r in np.unique(evidence["mediated_reason"].sel(at=at).values) if str(r)]
    none = f" Where no bar is drawn: {reasons[0]}." if reasons else ""
    return (
        "Everything sees the timestep's own embedding, but in one block some AdaLN terms are those that another timestep would "
        "give: the change of ln mean |h| this makes, over the change when the whole embedding is exchanged (slope through the "
        f"origin over all pairs of timesteps), {PLACES[at]}. 1: these terms alone do what the embedding does.{none} "
        f"{style.sampled(evidence.attrs)}; {style.intervals(evidence.attrs, evidence.attrs['confidence'])}. "
        f"Verdict: {evidence.attrs['verdict']}."
    )
