"""What STAS and its controls change in the videos: a dot and an interval for each measure, from the same noise."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from workbench.analysis.clip_distance import DISTRIBUTION
from workbench.analysis.stas_rule import BETTER, EQUAL, LESS, MORE, MOTION, WORSE
from workbench.analysis.visits import too_few
from workbench.figures import style

SHOWN = (
    "temporal_flicker",
    "motion_smoothness",
    "frame_consistency",
    "first_frame_sharpness",
    "own_clip_distance",
    DISTRIBUTION,
    MOTION,
)
"""Measures that get a column, where the table has them; the table has all that were measured."""

HEADS = {
    "temporal_flicker": "temporal\nflicker",
    "motion_smoothness": "motion\nsmoothness",
    "frame_consistency": "frame-to-frame\nconsistency",
    "first_frame_sharpness": "first-frame\nsharpness",
    "own_clip_distance": "distance to\nown real clip",
    DISTRIBUTION: "distance to\nall real clips",
    MOTION: "slow\nchange",
}

SURE = (BETTER, WORSE, MORE, LESS)
"""Findings whose dot is filled: the difference is there, after correction."""

ROWS = {
    "low": "low channels",
    "matched": "channels as large",
    "all-tokens": "all tokens",
    "zero": "zeroed",
    "zero-all-tokens": "zeroed, all tokens",
    "late": "late steps",
}
"""Controls as they are called beside the rows: each differs from STAS in this one thing."""

GROUPS = {"control": "controls", "grid": "other settings"}

MOST_SETTINGS = 16
"""Rows of other settings; all are in the table."""


def _order(evidence: xr.Dataset) -> dict[str, list[int]]:
    """Positions of the conditions by group: plain and STAS, controls, other settings."""
    role = [str(r) for r in evidence["role"].values]
    return {
        "": [i for wanted in ("baseline", "stas") for i, r in enumerate(role) if r == wanted],
        **{GROUPS[name]: [i for i, r in enumerate(role) if r == name] for name in GROUPS},
    }


def _label(evidence: xr.Dataset, i: int) -> str:
    role, control = str(evidence["role"].values[i]), str(evidence["control"].values[i])
    name = str(evidence["condition"].values[i])
    if role == "control":
        number = name.removeprefix(control).strip("-")
        return ROWS.get(control, control) + (f" {int(number) + 1}" if number.isdigit() else "")
    return {"baseline": "plain", "stas": "STAS"}.get(role, name)


def _measures(evidence: xr.Dataset) -> list[str]:
    there = [str(m) for m in evidence["measure"].values]
    return [m for m in SHOWN if m in there and np.isfinite(evidence["difference"].sel(measure=m).values).any()]


def _against_plain(evidence: xr.Dataset, condition: str) -> xr.Dataset | None:
    """The contrast of a condition to plain; none of plain itself."""
    at = (evidence["contrast_one"].values == condition) & (evidence["question"].values != "selective")
    return evidence.isel(contrast=int(np.flatnonzero(at)[0])) if at.any() else None


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate for each condition and measure the mean and the paired difference to the videos without STAS.

    Returns
    -------
    DataFrame
        Columns condition, role, label, measure, unit, better (1: more is, −1: less is, 0: neither), margin (smallest difference that
        counts), mean, mean_low, mean_high, n (prompts), difference, low, high, low_all, high_all (these hold for all judged measures of
        the contrast together), in the measure's unit, p_corrected, finding, verdict (of the contrast, in all measures). All measures,
        not only those drawn; also, with the role ``selective``, STAS minus each control.
    """
    rows = []
    for i in (i for group in _order(evidence).values() for i in group):
        name = str(evidence["condition"].values[i])
        head = {"condition": name, "role": str(evidence["role"].values[i]), "label": _label(evidence, i)}
        rows += _rows(evidence.isel(condition=i), _against_plain(evidence, name), head)
    for c in np.flatnonzero(evidence["question"].values == "selective"):
        contrast = evidence.isel(contrast=int(c))
        label = str(contrast["contrast"].values)
        rows += _rows(None, contrast, {"condition": label, "role": "selective", "label": label})
    return pd.DataFrame(rows)


_MEANS = ("mean", "mean_low", "mean_high", "n")
_NUMBERS = ("difference", "low", "high", "low_all", "high_all", "p_corrected")


def _rows(own: xr.Dataset | None, contrast: xr.Dataset | None, head: dict[str, str]) -> list[dict[str, Any]]:
    """One row a measure: what a condition's videos are, and how they differ."""
    given = contrast if contrast is not None else own
    assert given is not None
    rows = []
    for m, measure in enumerate(given["measure"].values):
        cell = given.isel(measure=m)
        fixed = {"measure": str(measure), "unit": str(cell["unit"].values), "better": int(cell["better"])}
        means = {name: float(own[name].values[m]) if own is not None else np.nan for name in _MEANS}
        found = {name: float(contrast[name].values[m]) if contrast is not None else np.nan for name in _NUMBERS}
        words = {
            "finding": str(contrast["finding"].values[m]) if contrast is not None else "",
            "verdict": str(contrast["verdict"].values) if contrast is not None else "",
        }
        rows.append({**head, **fixed, "margin": float(cell["margin"]), **means, **found, **words})
    return rows


def draw(evidence: xr.Dataset) -> Figure:
    """Draw one row a condition and one column a measure: the paired difference to the videos without STAS.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.stas.stas` returned.
    """
    table, measures = data(evidence), _measures(evidence)
    places, labels, baseline = _places(evidence)
    with style.paper():
        figure, grid = style.new(
            style.PAGE, 1.0 + 0.19 * (max(places.values()) + 1), 1, max(len(measures), 1), sharey=True
        )
        for axes, measure in zip(grid[0], measures, strict=False):
            rows = {row["condition"]: row for row in table[table["measure"] == measure].to_dict("records")}
            margin = rows[baseline]["margin"]
            if np.isfinite(margin):
                axes.axvspan(-margin, margin, color="0.95", lw=0, zorder=-1)
            axes.axvline(0, color="0.6", lw=0.7, zorder=0)
            for name, y in places.items():
                _cell(axes, rows[name], y, name == baseline)
            better, unit = rows[baseline]["better"], rows[baseline]["unit"]
            arrow = {1: "better →", -1: "← better", 0: ""}[better]
            axes.set_title(f"{HEADS[measure]}\n{arrow}", fontsize=6.4, loc="center")
            axes.set_xlabel(unit or "no unit", fontsize=6, color="0.35")
            _frame(axes)
        first = grid[0, 0]
        first.set_yticks(list(labels.values()), list(labels))
        groups = set(GROUPS.values())
        for text in first.get_yticklabels():
            if text.get_text() in groups:
                text.set(style="italic", color="0.4")
            elif text.get_text() == "STAS":
                text.set(fontweight="bold")
        verdicts = dict(zip(table["condition"], table["verdict"], strict=True))
        for name, y in places.items():
            grid[0, -1].annotate(
                verdicts[name], (1.04, y), xycoords=("axes fraction", "data"), fontsize=5.8, va="center", color="0.3",
                annotation_clip=False,
            )  # fmt: skip
        first.set_ylim(max(places.values()) + 0.6, -0.6)
        figure.supxlabel("paired difference to plain, from the same noise (first row: mean of plain)", fontsize=7)
    return figure


def _places(evidence: xr.Dataset) -> tuple[dict[str, float], dict[str, float], str]:
    """Heights of the conditions and of all labels (groups have one), and which condition is plain."""
    places: dict[str, float] = {}
    labels: dict[str, float] = {}
    y, baseline = 0.0, ""
    for group, members in _order(evidence).items():
        if group and members:
            y += 0.3
            labels[group] = y
            y += 1.0
        for i in members[: MOST_SETTINGS if group == GROUPS["grid"] else None]:
            name, label = str(evidence["condition"].values[i]), _label(evidence, i)
            baseline = name if str(evidence["role"].values[i]) == "baseline" else baseline
            places[name] = y
            labels[textwrap.shorten(label, 30, placeholder=" …") if label not in labels else f"{label} ({name})"] = y
            y += 1.0
    return places, labels, baseline


def _frame(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", "−")))
    axes.margins(x=0.16)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=5.6)
    axes.spines["left"].set_visible(False)


def _cell(axes: Axes, row: Mapping[Any, Any], y: float, base: bool) -> None:
    """The mean of plain in words; of any other condition its difference, filled where it is sure, grey where it is equal."""
    if base:
        text = f"{row['mean']:.3g}".replace("-", "−") if np.isfinite(row["mean"]) else ""
        axes.annotate(
            text, (0, y), (0, 0), textcoords="offset points", fontsize=5.8, color="0.25",
            ha="center", va="center", bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"},
        )  # fmt: skip
        return
    ours, control = style.colours(2)
    colour = {"stas": ours, "control": control}.get(row["role"], "0.45")
    axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.1, solid_capstyle="butt")
    fill = colour if row["finding"] in SURE else "0.85" if row["finding"] == EQUAL else "white"
    marker = {"stas": "o", "control": "s"}.get(row["role"], "D")
    axes.plot([row["difference"]], [y], marker=marker, color=colour, mfc=fill, mew=0.9, ms=3.4)


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    few = too_few(attrs)
    bars = (
        f"no intervals ({few})"
        if few
        else f"bars: {attrs['confidence']:.0%} bootstrap intervals over {attrs['replicate']}s"
    )
    settings = _order(evidence)[GROUPS["grid"]]
    some = f" {MOST_SETTINGS} of {len(settings)} other settings are drawn." if len(settings) > MOST_SETTINGS else ""
    left = [str(line) for line in attrs.get("left_out", []) if any(str(line).startswith(kind) for kind in ROWS)]
    return (
        f"Videos with STAS, and with each control, minus those without from the same noise, whose means stand in the first row; {bars}. "
        "Filled: the difference is there (corrected over the judged measures); grey: shown to be smaller than what counts (band); open: "
        "undecided. At the right, in words, all measures of a row together. A control differs from STAS in one thing: other channels (the "
        "lowest, or ordinary ones that together hold as much), all tokens, zeroed instead of steered, late steps. A video that stands still "
        f"has no flicker and is perfectly consistent: the slow change (below 1/8 cycles a frame) says whether it does. n = {attrs['replication']}.{some}"
        + (f" Left out: {'; '.join(left)}." if left else "")
        + f" Verdict ({attrs['analysis']}): {attrs['verdict']}; better than every control: {attrs['selective']}."
    )
