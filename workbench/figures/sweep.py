"""The sweep of Detail Guidance: gain by layer and weight, and gain against content kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workbench.analysis.visits import too_few
from workbench.figures import style

SERIES = 8
"""Series that get a colour; of more, those with the largest lower bounds of the gain, and the others are small grey dots."""

HEADINGS = {"dg": "without CFG (against plain)", "cfg+dg": "with CFG (against CFG alone)"}

_OWN = ("mode", "role", "guidance_scale", "weight", "n_channels")


def _axes_of(evidence: xr.Dataset) -> list[str]:
    """Factors besides the weight that vary over the settings."""
    factors = [str(name) for name in evidence.attrs.get("factors", []) if name in evidence.coords]
    settings = evidence.isel(condition=_settings(evidence))
    return [f for f in factors if f not in _OWN and len(set(map(str, settings[f].values))) > 1]


def _settings(evidence: xr.Dataset) -> np.ndarray:
    """Positions of the settings; the others are baselines."""
    return np.flatnonzero(evidence["baseline"].values != evidence["condition"].values)


def _name(evidence: xr.Dataset, i: int, axes: list[str]) -> str:
    parts = []
    for axis in axes:
        value = evidence[axis].values[i]
        if axis == "layer":
            parts.append(style.short(str(value)))
        elif str(value) not in ("", "nan"):
            parts.append(f"{axis} {value:g}" if isinstance(value, float) else f"{axis} {value}")
    return ", ".join(parts) or "the spec"


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate each setting: gain and similarity with intervals, whether content is kept, whether it was chosen."""
    best = {mode: one["choice"] for mode, one in json.loads(evidence.attrs["best"]).items()}
    axes = _axes_of(evidence)
    similar = evidence.sel(measure="low_pass_similarity")
    rows = []
    for i in _settings(evidence):
        name, mode = str(evidence["condition"].values[i]), str(evidence["mode"].values[i])
        rows.append(
            {
                "condition": name,
                "mode": mode,
                "series": _name(evidence, i, axes),
                "weight": float(evidence["weight"].values[i]) if evidence["weight"].dtype.kind == "f" else np.nan,
                **{key: float(evidence[key].values[i]) for key in ("gain", "gain_low", "gain_high")},
                "similarity": float(similar["mean"].values[i]),
                "similarity_low": float(similar["mean_low"].values[i]),
                "similarity_high": float(similar["mean_high"].values[i]),
                "content_kept": bool(evidence["content_kept"].values[i]),
                "chosen": best.get(mode) == name,
            }
        )
    return pd.DataFrame(rows)


def _shown(rows: pd.DataFrame) -> list[str]:
    """Series that get a colour, in the order of the sweep; one that was chosen always does."""
    series = list(dict.fromkeys(rows["series"]))
    if len(series) <= SERIES:
        return series
    low = rows["gain_low"].fillna(rows["gain"])
    # Above all what was chosen, then what keeps the content; gains are far below these.
    rank = low + np.where(rows["chosen"], 2e9, np.where(rows["content_kept"], 1e9, 0))
    score = rows.assign(rank=rank).groupby("series")["rank"]
    best = set(score.max().sort_values(ascending=False, kind="stable").index[:SERIES])
    return [name for name in series if name in best]


def draw(evidence: xr.Dataset) -> Figure:
    """Draw, for each mode, the gain of every setting with its interval, and the plane of gain and content.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.sweep.sweep` returned.
    """
    rows = data(evidence)
    modes, series = list(dict.fromkeys(rows["mode"])), _shown(rows)
    palette = dict(zip(series, style.colours(len(series)), strict=True))
    shapes = dict(zip(series, style.markers(len(series)), strict=True))
    with style.paper():
        figure, grid = style.new(style.PAGE if len(modes) > 1 else style.COLUMN, 4.6, 2, len(modes))
        for column, mode in enumerate(modes):
            part = rows[rows["mode"] == mode]
            others = part[~part["series"].isin(series)]
            part = part[part["series"].isin(series)]
            _by_weight(grid[0, column], part, series, palette, shapes)
            grid[1, column].scatter(others["similarity"], others["gain"], s=3, color="0.7", zorder=1)
            _plane(grid[1, column], part, palette, shapes, float(evidence.attrs["similarity_margin"]), others)
            grid[0, column].set_title(HEADINGS.get(mode, mode))
        figure.supylabel(_gain_label(evidence), fontsize=7.5)
        handles = [
            Line2D([], [], color=palette[name], marker=shapes[name], ls="none", label=name) for name in series
        ] if len(series) > 1 else []  # fmt: skip
        handles.append(Line2D([], [], color="0.3", marker="o", mfc="white", ls="none", label="content not kept"))
        if rows["chosen"].any():
            handles.append(
                Line2D(
                    [], [], color="0.1", marker="o", ms=9, mfc="none", mew=0.9, ls="none", label="chosen by the rule"
                )
            )
        longest = max(len(str(handle.get_label())) for handle in handles)
        across = int(figure.get_figwidth() * 17 / (longest + 6))  # about 17 letters an inch at 6.5 points
        figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(len(handles), across, 6)))
    return figure


def _by_weight(axes: Axes, part: pd.DataFrame, series: list[str], palette: dict, shapes: dict) -> None:
    """Gain against weight, which are few and uneven: evenly spaced, series beside each other."""
    weights = sorted(set(part["weight"].dropna())) or [np.nan]
    step = min(0.8 / max(len(series), 1), 0.16)
    axes.axhline(0, color="0.6", lw=0.7, zorder=0)
    for k, name in enumerate(series):
        own = part[part["series"] == name]
        place = [weights.index(w) if w in weights else 0 for w in own["weight"]]
        x = np.asarray(place, dtype=float) + step * (k - (len(series) - 1) / 2)
        _points(axes, x, own, palette[name], shapes[name])
    axes.set_xticks(range(len(weights)), ["" if np.isnan(w) else f"{w:g}" for w in weights])
    axes.set_xlim(-0.6, len(weights) - 0.4)
    axes.set_xlabel("weight w" if not np.isnan(weights[0]) else "settings")
    axes.grid(axis="y")


def _plane(axes: Axes, part: pd.DataFrame, palette: dict, shapes: dict, margin: float, others: pd.DataFrame) -> None:
    axes.axhline(0, color="0.6", lw=0.7, zorder=0)
    axes.axvline(margin, color="0.4", lw=0.7, ls="--", zorder=0)
    for name, own in part.groupby("series", sort=False):
        _points(axes, own["similarity"].to_numpy(), own, palette[name], shapes[name], across=True)
    low = min(float(part[["similarity", "similarity_low"]].min().min()), float(others["similarity"].min()), margin)
    low = min(margin, low) if np.isfinite(low) else margin
    pad = 0.04 * (1 - low)
    axes.set_xlim(low - pad, 1 + pad)
    axes.set_xlabel("content kept (low-pass similarity)")
    axes.annotate(
        f"kept: above {margin:g}", (margin, 0), (2, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
        fontsize=6, color="0.4", va="bottom",
    )  # fmt: skip
    axes.grid(axis="y")


def _points(axes: Axes, x: np.ndarray, own: pd.DataFrame, colour: Any, shape: str, *, across: bool = False) -> None:
    y = own["gain"].to_numpy()
    lows = np.nan_to_num(y - own["gain_low"].to_numpy()).clip(0)
    highs = np.nan_to_num(own["gain_high"].to_numpy() - y).clip(0)
    bars: dict[str, Any] = {"yerr": [lows, highs]}
    if across:
        bars["xerr"] = [
            np.nan_to_num(x - own["similarity_low"].to_numpy()).clip(0),
            np.nan_to_num(own["similarity_high"].to_numpy() - x).clip(0),
        ]
    axes.errorbar(x, y, **bars, fmt="none", ecolor=colour, elinewidth=0.9)
    kept = own["content_kept"].to_numpy(dtype=bool)
    options: dict[str, Any] = {"s": 14, "marker": shape, "edgecolors": [colour], "linewidths": 0.9, "zorder": 3}
    axes.scatter(x[kept], y[kept], facecolors=[colour], **options)
    axes.scatter(x[~kept], y[~kept], facecolors="white", **options)
    chosen = own["chosen"].to_numpy(dtype=bool)
    axes.scatter(x[chosen], y[chosen], s=70, facecolors="none", edgecolors="0.1", linewidths=0.9, zorder=4)


def _gain_label(evidence: xr.Dataset) -> str:
    unit = str(evidence.attrs["gauge_unit"])
    return f"gain: {evidence.attrs['gauge_words']}" + (f"  ({unit})" if unit else "")


def _warned(attrs: Mapping[Any, Any]) -> str:
    """The gauge's warning as a sentence; empty without one."""
    text = str(attrs.get("warning", ""))
    return f"{text[0].upper()}{text[1:]}. " if text else ""


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    few = too_few(attrs)
    bars = (
        f"no intervals ({few})"
        if few
        else f"bars: {attrs['confidence']:.0%} bootstrap intervals over {attrs['replicate']}s"
    )
    axes = _axes_of(evidence)
    over = f", for each {', '.join(axes)}" if axes else ""
    rows = data(evidence)
    shown, total = len(_shown(rows)), rows["series"].nunique()
    some = (
        f" In colour the {shown} of {total} with the largest lower bounds that keep the content; grey dots: all others."
        if shown < total
        else ""
    )
    return (
        f"Detail Guidance against the same samples without it, from the same noise. Top: gain by weight{over}; bottom: gain "
        f"against how much of the content is kept. {bars[0].upper()}{bars[1:]}. Hollow: content not shown to be kept, by similarity or by the judge.{some} "
        f"n = {attrs['replication']}. {_warned(attrs)}Verdict ({attrs['analysis']}): {attrs['verdict']}."
    )
