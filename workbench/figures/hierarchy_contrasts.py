"""The contrasts of the frame hierarchy, averaged over the recording: massive beside ordinary channels, and the null of rotation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.figures import style
from workbench.figures.hierarchy_map import ln_labels, minus, short_verdict

KINDS = {"overall": "massive channels", "control": "ordinary channels"}
"""Variables that are drawn, and what they are of."""

GROUPS = {
    "the roles as they are": ("first - boundary", "boundary - interior", "first - interior"),
    "first frame, at the same places": (
        "first - boundary, same places",
        "first - interior, same places",
        "first - interior, drift taken out",
        "first - boundary, beyond a steep drift",
        "first - interior, beyond a steep drift",
    ),
    "boundary or image edge": (
        "row edge - inside",
        "column edge - inside",
        "row edge - column edge",
        "row edge - inside, later - first frame",
    ),
}
"""Contrasts by the question they answer, in the order of the rows."""

_SHORT = {
    "first - boundary, same places": "first - boundary",
    "first - interior, same places": "first - interior",
    "first - interior, drift taken out": "first - interior, no drift",
    "first - boundary, beyond a steep drift": "first - boundary, steep drift",
    "first - interior, beyond a steep drift": "first - interior, steep drift",
    "row edge - inside": "rows - inside",
    "column edge - inside": "columns - inside (control)",
    "row edge - column edge": "rows - columns",
    "row edge - inside, later - first frame": "rows, later - first frame",
}


def _shown(evidence: xr.Dataset) -> dict[str, list[str]]:
    """Contrasts of each group that the evidence has and that exist for its grid."""
    known = {
        str(name)
        for name, value in zip(evidence["contrast"].values, evidence["overall"].values, strict=True)
        if np.isfinite(value)
    }
    groups = {group: [name for name in names if name in known] for group, names in GROUPS.items()}
    return {group: names for group, names in groups.items() if names}


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate the contrasts of both kinds of channels, and the rotations.

    Returns
    -------
    DataFrame
        Columns what (``massive channels``, ``ordinary channels``, ``rotation``), contrast (or the rotation in tokens), decides,
        value, low, high (ln units), p_corrected (massive channels, contrasts that decide), verdict.
    """
    rows = []
    for name in (name for names in _shown(evidence).values() for name in names):
        at = evidence.sel(contrast=name)
        for kind, words in KINDS.items():
            if kind not in evidence:
                continue
            own = kind == "overall"
            rows.append(
                {
                    "what": words,
                    "contrast": name,
                    "decides": bool(at["decides"]),
                    **{column: float(at[f"{kind}{end}"]) for column, end in _ENDS.items()},
                    "p_corrected": float(at["overall_p_corrected"]) if own else np.nan,
                    "verdict": str(at["contrast_verdict"].values) if own else "",
                }
            )
    for r, tokens in enumerate(evidence["rotation"].values):
        at = evidence.isel(rotation=r)
        ends = {
            column: float(at[f"rotation_value{end}"]) if f"rotation_value{end}" in evidence else np.nan
            for column, end in _ENDS.items()
        }
        rows.append({"what": "rotation", "contrast": str(int(tokens)), "decides": False, **ends})
    return pd.DataFrame(rows)


_ENDS = {"value": "", "low": "_low", "high": "_high"}


def draw(evidence: xr.Dataset) -> Figure:
    """Draw a dot and an interval for each contrast, and beside them the boundary's raise when boundaries are rotated.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.hierarchy.hierarchy` returned.
    """
    table, groups = data(evidence), _shown(evidence)
    total = sum(map(len, groups.values()))
    rotations = table[table["what"] == "rotation"]
    with style.paper():
        columns = 2 if len(rotations) > 1 and rotations["value"].notna().any() else 1
        ratios = [1.35, 1.0][:columns]
        height = 1.0 + 0.2 * (total + len(groups))
        figure, grid = style.new(style.PAGE, height, 1, columns, gridspec_kw={"width_ratios": ratios})
        _forest(grid[0, 0], evidence, table, groups)
        if columns == 2:
            _rotations(grid[0, 1], evidence, rotations)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _forest(axes: Axes, evidence: xr.Dataset, table: pd.DataFrame, groups: dict[str, list[str]]) -> None:
    least = float(evidence.attrs["smallest_effect"])
    axes.axvspan(-least, least, color="0.94", lw=0, zorder=0)
    axes.axvline(0, color="0.6", lw=0.6, zorder=1)
    ours = style.colours(1)[0]
    ticks, labels, y = [], [], 0.0
    for group, names in groups.items():
        ticks.append(y)
        labels.append(group)
        y += 1.0
        for name in names:
            ticks.append(y)
            labels.append(name)
            for kind, shift in (("massive channels", -0.14), ("ordinary channels", 0.2)):
                row = table[(table["what"] == kind) & (table["contrast"] == name)]
                if row.empty:
                    continue
                one, massive = row.iloc[0], kind == "massive channels"
                colour = ours if massive else "0.45"
                axes.plot(
                    [one["low"], one["high"]], [y + shift] * 2, color=colour, lw=1.2 if massive else 0.8, zorder=2
                )
                axes.plot(
                    [one["value"]], [y + shift], ls="", marker="o" if massive else "s", ms=4.0 if massive else 2.8, color=colour,
                    mfc=colour if massive else "white", mew=0.8, zorder=3, label=kind if len(ticks) == 2 else None,
                )  # fmt: skip
            y += 1.0
        y += 0.25
    axes.set_yticks(ticks, [minus(_SHORT.get(name, name)) for name in labels])
    for text, name in zip(axes.get_yticklabels(), labels, strict=True):
        if name in groups:
            text.set(style="italic", color="0.4")
        else:
            text.set_fontweight("bold" if bool(evidence["decides"].sel(contrast=name)) else "normal")
    axes.set_ylim(y - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    ln_labels(axes.xaxis)
    axes.margins(x=0.06)
    axes.set_xlabel("contrast of ln mean |h|, ln units")
    _words(axes, evidence, ticks, labels)


def _words(axes: Axes, evidence: xr.Dataset, ticks: list[float], labels: list[str]) -> None:
    """What is said of each contrast that decides, at the right margin."""
    names = set(map(str, evidence["contrast"].values))
    for y, name in zip(ticks, labels, strict=True):
        if name in names and bool(evidence["decides"].sel(contrast=name)):
            word = str(evidence["contrast_verdict"].sel(contrast=name).values)
            axes.annotate(
                word, (1.01, y), xycoords=("axes fraction", "data"), fontsize=6, va="center", annotation_clip=False, color="0.2"
            )  # fmt: skip


def _rotations(axes: Axes, evidence: xr.Dataset, rows: pd.DataFrame) -> None:
    """The boundary's raise against how far all boundaries were rotated; at 0 they are where the frames end."""
    tokens = rows["contrast"].astype(int).to_numpy()
    size = int(evidence.attrs["token_grid"][1]) * int(evidence.attrs["token_grid"][2])
    around = np.where(
        tokens > size // 2, tokens - size, tokens
    )  # a frame's run is a ring: the last is next to the first
    order = np.argsort(around)
    columns = (rows[name].to_numpy()[order] for name in ("value", "low", "high"))
    axes.axhline(0, color="0.6", lw=0.6)
    style.band(axes, around[order], *columns, color="0.35", lw=0.9)
    at = rows[tokens == 0].iloc[0]
    axes.plot([0], [at["value"]], marker="o", ms=4.0, color=style.colours(1)[0], zorder=3)
    axes.annotate(
        "as it is", (0, at["value"]), (4, 3), textcoords="offset points", fontsize=6, color=style.colours(1)[0]
    )
    axes.margins(x=0.02, y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    ln_labels(axes.yaxis)
    axes.set_xlabel("boundaries rotated by, tokens")
    axes.set_ylabel("boundary − rest, ln units")
    axes.set_title("null: frame boundaries rotated")


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    few = style.too_few(attrs)
    bars = (
        f"no intervals ({few})"
        if few
        else f"bars: {attrs['confidence']:.0%} bootstrap intervals over {attrs['replicate']}s"
    )
    width, grid = attrs["boundary_width"], attrs["token_grid"]
    ordinary = evidence.sizes.get("control_channel", 0)
    return (
        "Differences of ln mean |h| between regions of the frames, averaged over the timesteps and over the blocks in which a channel "
        f"is massive ({'channel' if evidence.sizes['channel'] == 1 else 'channels'} "
        f"{style.listed([int(c) for c in evidence['channel'].values])}), and over {ordinary} ordinary channels beside them; {bars}. "
        "Bold: the contrasts on which the verdict rests, with what is said of each. Grey: contrasts that do not count (± "
        f"{attrs['smallest_effect']:g}, about that share). Rows and columns: the edges of later frames without corners; a boundary "
        f"that is more than an image edge has rows above columns. Right: what the boundary would be if the frames of {grid[1]} × "
        f"{grid[2]} tokens began elsewhere in the sequence; width {width} tokens. {style.sampled(attrs)}. {short_verdict(evidence)}"
    )
