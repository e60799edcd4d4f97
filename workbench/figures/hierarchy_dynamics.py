"""How the contrasts of the frame hierarchy move while a video is made, on which the papers disagree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.figures import style
from workbench.figures.hierarchy_map import ln_labels, minus, short_verdict

_ENDS = {"value": "", "low": "_low", "high": "_high"}


def _shown(evidence: xr.Dataset) -> list[str]:
    """Contrasts that decide and exist for this grid."""
    return [
        str(name)
        for name in evidence["contrast"].values
        if bool(evidence["decides"].sel(contrast=name)) and np.isfinite(float(evidence["overall"].sel(contrast=name)))
    ]


def _blocks(evidence: xr.Dataset) -> list[int]:
    """Positions of the blocks that count for some channel."""
    return [int(i) for i in np.flatnonzero(evidence["counts"].any("channel").values)]


def data(evidence: xr.Dataset) -> pd.DataFrame:
    """Tabulate each contrast along the trajectory, and its halves and slope.

    Returns
    -------
    DataFrame
        Columns contrast, what (``step``, ``block``, ``early``, ``late``, ``early − late``, ``slope``), layer (of ``block``), timestep,
        sigma (NaN but for steps), value, low, high (ln units; the slope in ln units per unit of σ), words (of ``early − late``).
    """
    sigma, _ = style.noise_axis(evidence)
    rows = []
    for name in _shown(evidence):
        at = evidence.sel(contrast=name)
        for t in range(evidence.sizes["timestep"]):
            ends = {column: float(at[f"{ALONG}{end}"].isel(timestep=t)) for column, end in _ENDS.items()}
            place = {"timestep": float(evidence["timestep"].values[t]), "sigma": float(sigma[t])}
            rows.append({"contrast": name, "what": "step", "layer": "", **place, **ends})
        for i in _blocks(evidence):
            for t in range(evidence.sizes["timestep"]):
                rows.append(
                    {
                        "contrast": name,
                        "what": "block",
                        "layer": str(evidence["layer"].values[i]),
                        "timestep": float(evidence["timestep"].values[t]),
                        "sigma": float(sigma[t]),
                        **{c: float(at[f"contrast_value{end}"].isel(layer=i, timestep=t)) for c, end in _ENDS.items()},
                    }
                )
        for what, variable in SUMMARIES.items():
            ends = {column: float(at[f"{variable}{end}"]) for column, end in _ENDS.items()}
            words = str(at["dynamics"].values) if what == "early − late" else ""
            rows.append({"contrast": name, "what": what, "timestep": np.nan, "sigma": np.nan, **ends, "words": words})
    return pd.DataFrame(rows)


ALONG = "contrast_by_step"
"""Variable (contrast, timestep): mean over channels and the blocks in which they are massive."""

SUMMARIES = {"early": "early", "late": "late", "early − late": "early_minus_late", "slope": "sigma_slope"}


def draw(evidence: xr.Dataset) -> Figure:
    """Draw the contrasts that decide against the noise level, one panel each; time runs from left to right.

    Parameters
    ----------
    evidence : xr.Dataset
        What `workbench.analysis.hierarchy.hierarchy` returned.
    """
    table, names = data(evidence), _shown(evidence)
    sigma, label = style.noise_axis(evidence)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    least = float(evidence.attrs["smallest_effect"])
    with style.paper():
        figure, grid = style.new(style.PAGE, 0.6 + 1.55 * rows, rows, columns, sharex=True, sharey=True)
        for axes, name in zip(grid.ravel(), names, strict=False):
            part = table[table["contrast"] == name]
            axes.axhspan(-least, least, color="0.94", lw=0, zorder=0)
            axes.axhline(0, color="0.6", lw=0.6, zorder=1)
            steps = part[part["what"] == "step"]
            _halves(axes, part, sigma)
            for i, (_, block) in enumerate(part[part["what"] == "block"].groupby("layer", sort=False)):
                axes.plot(sigma, block["value"], color="0.72", lw=0.5, zorder=1, label="" if i else "single blocks")
            style.band(
                axes, sigma, *(steps[c].to_numpy() for c in ("value", "low", "high")), color=style.colours(1)[0], marker="o",
                markevery=max(1, len(sigma) // 10), label="mean over blocks and channels", zorder=3,
            )  # fmt: skip
            words = part.loc[part["what"] == "early − late", "words"].iloc[0]
            axes.set_title(f"{minus(name)}\n{words}", fontsize=6.8)
        for axes in grid.ravel()[len(names) :]:
            axes.set_visible(False)
        axes = grid[0, 0]
        axes.yaxis.set_major_locator(MaxNLocator(5))
        ln_labels(axes.yaxis)
        if len(sigma) > 1:
            pad = 0.03 * float(np.ptp(sigma))
            axes.set_xlim(sigma.max() + pad, sigma.min() - pad)  # noise on the left, the video on the right
        figure.supxlabel(f"{label}  (noise → video)", fontsize=7.5)
        figure.supylabel("contrast of ln mean |h|, ln units", fontsize=7.5)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _halves(axes: Axes, part: pd.DataFrame, sigma: np.ndarray) -> None:
    """Means of the first and last half of the steps, as bars over their noise levels, with intervals at their middle."""
    order, half = np.argsort(-sigma, kind="stable"), len(sigma) // 2
    if not half:
        return
    colour = style.colours(2)[1]
    for what, at in (("early", order[:half]), ("late", order[-half:])):
        row = part[part["what"] == what].iloc[0]
        middle = float(sigma[at].mean())
        axes.plot(
            [sigma[at].max(), sigma[at].min()], [row["value"]] * 2, color=colour, lw=1.0, ls="--", zorder=2,
            label="first and last half of the steps" if what == "early" else None,
        )  # fmt: skip
        axes.plot([middle] * 2, [row["low"], row["high"]], color=colour, lw=1.6, zorder=2)


def caption(evidence: xr.Dataset) -> str:
    """Caption of the figure."""
    attrs = evidence.attrs
    sigma, label = style.noise_axis(evidence)
    slopes = "; ".join(
        f"{minus(name)} {style.signed(float(at['sigma_slope']))} [{style.signed(float(at['sigma_slope_low']))}, "
        f"{style.signed(float(at['sigma_slope_high']))}]"
        for name in _shown(evidence)
        for at in [evidence.sel(contrast=name)]
    )
    return (
        f"The contrasts that decide, averaged over massive channels and the blocks in which they are massive, against {label}, over "
        f"{len(sigma)} steps from {sigma.max():.2f} to {sigma.min():.2f}; {style.intervals(attrs, attrs['confidence'])}. thin lines are single blocks. Dashed, with "
        "their intervals: means of the first and of the last half of the steps; in words above each panel whether they differ. Slope per "
        f"unit of σ: {slopes}. Grey: contrasts that do not count (± {attrs['smallest_effect']:g}). Observed, not causal: an early step "
        f"always comes with a noisy latent. {style.sampled(attrs)}. {short_verdict(evidence)}"
    )
