"""|h| of the massive channels over the flattened token index, and the boundary width that it proposes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

from workbench.figures import style

MAGNITUDE = "mean |h| (units of the hidden state)"
MOST_FRAMES = 24
"""Above it not every frame is numbered."""


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate what is drawn: by token, by place in a frame's run, by width.

    Returns
    -------
    DataFrame
        Columns panel (``token``, ``place``, ``width``), index (of the token, of the place in the run, the width in tokens),
        line (``massive channels`` and ``ordinary channels`` by token, units of the hidden state; ``later frames`` and ``first
        frame`` by place, 1 = the mean of the later frames; by width the step of these and in ``column order``, ln units), value, low, high, and frame, row,
        column, role of a token, p_corrected of a width.
    """
    parts = [_table(evidence, "token", "massive channels", "token_magnitude", ("frame", "row", "column", "role"))]
    if "ordinary_magnitude" in evidence:
        ordinary = _table(
            evidence, "token", "ordinary channels", "ordinary_magnitude", ("frame", "row", "column", "role")
        )
        parts.append(ordinary)
    logs = [f"place_{name}{end}" for name in ("profile", "first") for end in _ENDS.values()]
    relative: xr.Dataset = evidence[logs].map(np.exp)
    parts.append(_table(relative, "place", "later frames", "place_profile"))
    parts.append(_table(relative, "place", "first frame", "place_first"))
    if evidence.sizes["width"]:
        parts.append(
            _table(evidence, "width", "later frames", "rise").assign(p_corrected=evidence["p_corrected"].values)
        )
        parts.append(_table(evidence, "width", "column order", "column_rise"))
        parts.append(_table(evidence, "width", "first frame", "first_rise"))
    return pd.concat(parts, ignore_index=True)


_ENDS = {"value": "", "low": "_low", "high": "_high"}


def _table(evidence: xr.Dataset, panel: str, line: str, name: str, beside: tuple[str, ...] = ()) -> pd.DataFrame:
    columns: dict[str, Any] = {"panel": panel, "index": evidence[panel].values, "line": line}
    columns |= {column: evidence[name + end].values for column, end in _ENDS.items()}
    return pd.DataFrame(columns | {label: evidence[label].values for label in beside})


def draw(evidence: xr.Dataset) -> Figure:
    """Draw |h| over all tokens with the frames marked; over the run of one frame; and the step by width.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.profile.profile` returned.
    """
    table = data(evidence)
    with style.paper():
        figure, grid = style.new(style.PAGE, 4.1, 2, 2, gridspec_kw={"height_ratios": [1.1, 1.0]})
        # One panel over the whole width above two.
        layout = grid[0, 0].get_subplotspec().get_gridspec()
        assert isinstance(layout, GridSpec)
        for axes in grid[0]:
            axes.remove()
        _tokens(figure.add_subplot(layout[0, :]), evidence, table)
        _places(grid[1, 0], evidence, table)
        _widths(grid[1, 1], evidence, table)
    return figure


def _tokens(axes: Axes, evidence: xr.Dataset, table: pd.DataFrame) -> None:
    frames, rows, columns = evidence.attrs["token_grid"]
    size, width = rows * columns, _width(evidence)
    for frame in range(frames):
        axes.axvline(frame * size - 0.5, color="0.6", lw=0.5, zorder=0)
        if frame:
            for start in (frame * size, (frame + 1) * size - width):
                axes.axvspan(start - 0.5, start + width - 0.5, color="0.92", lw=0, zorder=-1)
    lines = (("massive channels", style.colours(1)[0], "-"), ("ordinary channels", style.ORDINARY, "--"))
    for line, colour, dashes in lines:
        rows_of = table[table["line"] == line]
        if len(rows_of):
            values = (rows_of[name].to_numpy() for name in _ENDS)
            style.band(axes, rows_of["index"].to_numpy(), *values, color=colour, ls=dashes, lw=0.8, label=line)
    style.log_axis(axes.yaxis)
    axes.set_xlim(-0.5, frames * size - 0.5)
    axes.set_xlabel("token index in the flattened sequence (lines: where a latent frame begins)")
    axes.set_ylabel(MAGNITUDE)
    every = -(-frames // MOST_FRAMES)
    top = axes.secondary_xaxis("top")
    top.set_xticks([(f + 0.5) * size - 0.5 for f in range(0, frames, every)], [str(f) for f in range(0, frames, every)])
    top.tick_params(length=0)
    top.set_xlabel("latent frame")
    axes.legend(loc="best", ncols=2)


def _places(axes: Axes, evidence: xr.Dataset, table: pd.DataFrame) -> None:
    _, rows, columns = evidence.attrs["token_grid"]
    size, width = rows * columns, _width(evidence)
    for start in (0, size - width):
        axes.axvspan(start - 0.5, start + width - 0.5, color="0.92", lw=0, zorder=-1)
    for row in range(1, rows):
        axes.axvline(row * columns - 0.5, color="0.85", lw=0.4, zorder=0)
    for line, colour, dashes in (("first frame", style.ORDINARY, "--"), ("later frames", style.colours(1)[0], "-")):
        rows_of = table[(table["panel"] == "place") & (table["line"] == line)]
        values = (rows_of[name].to_numpy() for name in _ENDS)
        style.band(axes, rows_of["index"].to_numpy(), *values, color=colour, ls=dashes, lw=0.9, label=line)
    style.log_axis(axes.yaxis)
    low, high = axes.get_ylim()
    if high < 5 * low:  # less than a decade: its own ticks would be one or two
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_xlabel("place in the frame's run, tokens (lines: rows)")
    axes.set_ylabel("|h| / mean of later frames")
    axes.legend(loc="best")


def _widths(axes: Axes, evidence: xr.Dataset, table: pd.DataFrame) -> None:
    rows_of = table[(table["panel"] == "width") & (table["line"] == "later frames")]
    least, columns = _smallest(evidence), evidence.attrs["token_grid"][2]
    axes.axhspan(-least, least, color="0.94", lw=0, zorder=-1)
    axes.axhline(0, color="0.6", lw=0.6, zorder=0)
    axes.axvline(columns, color="0.7", lw=0.6, ls=":", zorder=0)
    axes.annotate("one row", (columns, 1.0), (2, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                  fontsize=6, va="top", color="0.4")  # fmt: skip
    if len(rows_of):
        for line, dashes in (("column order", ":"), ("first frame", "--")):
            control = table[(table["panel"] == "width") & (table["line"] == line)]
            axes.plot(control["index"], control["value"], color=style.ORDINARY, ls=dashes, lw=0.9, label=line)
        colour = style.colours(1)[0]
        x, *values = (rows_of[name].to_numpy() for name in ("index", *_ENDS))
        style.band(axes, x, *values, color=colour, lw=0.9, label="later frames")
        axes.legend(loc="best")
        best = rows_of[rows_of["index"] == evidence.attrs["best_width"]].iloc[0]
        axes.plot([best["index"]], [best["value"]], marker="o", ms=4.0, color=colour, ls="", zorder=3)
        found = evidence.attrs["proposed_width"]
        text = f"{found} tokens" if found else evidence.attrs["verdict"]
        axes.annotate(
            text, (best["index"], best["value"]), (5, 3), textcoords="offset points", fontsize=6, color=colour
        )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(y=0.15)
    axes.set_xlabel("width tried, tokens at each end")
    axes.set_ylabel("step at head and tail, ln units")


def _width(evidence: xr.Dataset) -> int:
    """Width that is shaded: the one proposed, else the one of the recording's roles."""
    return int(evidence.attrs["proposed_width"] or evidence.attrs["boundary_width"])


def _smallest(evidence: xr.Dataset) -> float:
    return float(evidence.attrs["smallest_effect"])


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    frames, rows, columns = attrs["token_grid"]
    channels, layers = attrs["channels"], attrs["layers_counted"]
    ordinary = len(attrs["ordinary_channels"])
    shaded = (
        "the width proposed"
        if attrs["proposed_width"]
        else f"that of the recording's roles, {attrs['boundary_width_source']}"
    )
    beside = f" and over {ordinary} ordinary channels (dashed)" if ordinary else ""
    return (
        f"Top: |h| of every token, mean over the massive channel{'s' if len(channels) != 1 else ''} "
        f"{style.listed(channels)}{beside}, {evidence.sizes['timestep']} timesteps and {len(layers)} blocks, against its index in "
        f"the flattened sequence of {frames} latent frames of {rows} × {columns} tokens. Grey: first and last {_width(evidence)} tokens "
        f"of later frames ({shaded}). Bottom left: the run of one latent frame, mean over later frames, 1 = their mean, and the first "
        "frame at the same places. Bottom right: the step at head and tail for every width, beyond what rows and columns of an "
        f"image explain, and two controls: in column order, as deep into the frame, and in the first frame; band around 0: steps that do not count (± {_smallest(evidence):g}). "
        f"{style.intervals(attrs, attrs['confidence'])}. {style.sampled(attrs)}. {style.verdict(evidence)}"
    )
