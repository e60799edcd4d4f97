"""Detail Guidance among the other guidances: a dot and an interval for each measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.analysis.visits import too_few
from workbench.figures import style

SHOWN = ("edge_energy", "band_power_4", "own_spectral_distance", "low_pass_similarity", "recognised")
"""Measures that get a column, where the table has them: detail, distance to the own training picture's spectrum, content."""

SHORT = {
    "edge_energy": "edge energy",
    "band_power_4": "power > ¼ cyc/px",
    "own_spectral_distance": "distance to own",
    "low_pass_similarity": "similarity",
    "recognised": "recognised",
}

ARROWS = {"detail": "more →", "distance": "← closer", "content": "kept →"}

SECONDS = "seconds_per_step"


def _rows(evidence: xr.Dataset) -> list[int]:
    """Conditions in the order of the figure: without CFG, then with; the baseline first in each."""
    scale = evidence["guidance_scale"].values.astype(float) > 1
    own = evidence["baseline"].values == evidence["condition"].values
    return sorted(range(evidence.sizes["condition"]), key=lambda i: (scale[i], not own[i]))


def _label(evidence: xr.Dataset, i: int) -> str:
    method, scale = str(evidence["method"].values[i]), float(evidence["guidance_scale"].values[i])
    if method == "none":
        return "no guidance"
    if method.startswith("CFG"):
        return f"CFG s = {scale:g}"
    return f"CFG + {method}" if scale > 1 else method


def _measures(evidence: xr.Dataset) -> list[str]:
    there = [str(m) for m in evidence["measure"].values]
    return [m for m in SHOWN if m in there and np.isfinite(evidence["mean"].sel(measure=m).values).any()]


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate for each guidance and measure the mean, the paired difference to its baseline, and seconds a step."""
    rows = []
    for i in _rows(evidence):
        at = evidence.isel(condition=i)
        head = {
            "condition": str(at["condition"].values),
            "guidance": _label(evidence, i),
            "against": str(at["baseline"].values),
        }
        for measure in _measures(evidence):
            cell = at.sel(measure=measure)
            numbers = ("mean", "mean_low", "mean_high", "effect", "effect_low", "effect_high", "p_corrected", "n")
            rows.append({**head, "measure": measure, **{name: float(cell[name]) for name in numbers}})
        if SECONDS in evidence:
            spread = {"mean_low": float(at[f"{SECONDS}_low"]), "mean_high": float(at[f"{SECONDS}_high"])}
            rows.append({**head, "measure": SECONDS, "mean": float(at[SECONDS]), **spread})
    return pd.DataFrame(rows)


def draw(evidence: xr.Dataset) -> Figure:
    """Draw one row a guidance and one column a measure: paired difference to the baseline of its group.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.baselines.baselines` returned.
    """
    order, measures, table = _rows(evidence), _measures(evidence), data(evidence)
    places, groups = _places(evidence, order)
    columns = [*measures, *([SECONDS] if SECONDS in evidence else [])]
    with style.paper():
        figure, grid = style.new(style.PAGE, 0.75 + 0.19 * (max(places) + 1), 1, len(columns), sharey=True)
        for axes, measure in zip(grid[0], columns, strict=True):
            own = table[table["measure"] == measure].set_index("condition")
            for i, y in zip(order, places, strict=True):
                name, base = str(evidence["condition"].values[i]), str(evidence["baseline"].values[i])
                _cell(axes, own.loc[name], y, base == name, measure, _colour(_label(evidence, i)))
            if measure != SECONDS:
                axes.axvline(0, color="0.6", lw=0.7, zorder=0)
                kind = str(evidence["kind"].sel(measure=measure).values) if "kind" in evidence.coords else ""
                axes.set_title(f"{SHORT[measure]}\n{ARROWS.get(kind, '')}", fontsize=6.8, loc="center")
            else:
                axes.set_title("seconds\na step", fontsize=6.8, loc="center")
                axes.set_xlim(0, None)
            for low, high in groups:
                axes.axhspan(low - 0.5, high + 0.5, color="0.965", zorder=-1, lw=0)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.margins(x=0.18)
            axes.tick_params(axis="y", length=0)
            axes.tick_params(axis="x", labelsize=5.8)
            axes.spines["left"].set_visible(False)
        labels = [_label(evidence, i) for i in order]
        grid[0, 0].set_yticks(places, labels)
        for text, label in zip(grid[0, 0].get_yticklabels(), labels, strict=True):
            text.set_fontweight("bold" if label in ("DG", "CFG + DG") else "normal")
        grid[0, 0].set_ylim(max(places) + 0.7, -0.7)
        figure.supxlabel("paired difference to the first row of each group; seconds as measured", fontsize=7)
    return figure


def _places(evidence: xr.Dataset, order: list[int]) -> tuple[list[float], list[tuple[float, float]]]:
    """Heights of the rows, with a gap between the groups, and where each group begins and ends."""
    places: list[float] = []
    starts: list[float] = []
    last = None
    for i in order:
        group = float(evidence["guidance_scale"].values[i]) > 1
        y = 0.0 if not places else places[-1] + (1.6 if group != last else 1.0)
        if group != last:
            starts.append(y)
        places.append(y)
        last = group
    ends = [places[places.index(start) - 1] for start in starts[1:]] + [places[-1]]
    return places, list(zip(starts, ends, strict=True))


def _colour(label: str) -> Any:
    """Detail Guidance, its control, all others."""
    ours, control = style.colours(2)
    return control if "matched" in label else ours if "DG" in label else "0.35"


def _cell(axes: Axes, row: Any, y: float, base: bool, measure: str, colour: Any) -> None:
    if measure == SECONDS:
        axes.plot([row["mean_low"], row["mean_high"]], [y, y], color=colour, lw=1.0)
        axes.plot([row["mean"]], [y], marker="o", color=colour, ms=3.2)
        return
    if base:
        axes.annotate(
            f"{row['mean']:.3g}".replace("-", "−"), (0, y), (0, 0), textcoords="offset points", fontsize=5.8, color="0.25", ha="center",
            va="center", bbox={"boxstyle": "round,pad=0.15", "fc": "0.965", "ec": "none"},
        )  # fmt: skip
        return
    axes.plot([row["effect_low"], row["effect_high"]], [y, y], color=colour, lw=1.0)
    # Filled where the difference is there after correction for the number of guidances.
    known = np.isfinite(row["p_corrected"]) and row["p_corrected"] < 0.05
    axes.plot([row["effect"]], [y], marker="o", color=colour, mfc=colour if known else "white", mew=0.9, ms=3.4)


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    few = too_few(attrs)
    bars = (
        f"no intervals ({few})"
        if few
        else f"bars: {attrs['confidence']:.0%} bootstrap intervals over {attrs['replicate']}s"
    )
    left = [str(line) for line in attrs.get("left_out", []) if "matched" in str(line) or "guidance" in str(line)]
    return (
        f"Guidances from the same noise, as paired differences to no guidance (upper group) and to CFG (lower group), whose means stand "
        f"in its first row; {bars}; filled dots: p < 0.05 after correction for the number of guidances. Seconds a step: median and "
        f"quartiles, measured in this run, of one sample in a batch. n = {attrs['replication']}."
        + (f" Left out: {'; '.join(left)}." if left else "")
        + f" Verdict ({attrs['analysis']}): {attrs['verdict']}."
    )
