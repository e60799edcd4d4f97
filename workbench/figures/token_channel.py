"""One hidden state, token by channel: as a heat map, or as a landscape as in the papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from workbench.analysis.criteria import CRITERIA
from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError
from workbench.figures import style

WIDEST = 640
"""Columns drawn at most; more channels are pooled by their maximum, so that none can vanish between pixels."""

LANDSCAPE = (48, 160)
"""Tokens and channels drawn in the landscape at most."""


class Visit(NamedTuple):
    """Which visit is drawn, by position among the complete samples, and the channels that are massive in it."""

    visits: Visits
    sample: int
    layer: int
    timestep: int
    massive: list[int]

    @property
    def x(self) -> np.ndarray:
        """Where each channel stands on the axis: at its number, or by position where channels in between are absent."""
        labels = np.asarray(self.visits.recording["channel"].values)
        return labels if (np.diff(labels) == 1).all() else np.arange(len(labels))

    def name_channels(self, axes: Axes) -> None:
        """Label the axis of channels."""
        labels = self.visits.recording["channel"].values
        axes.set_xlabel("channel")
        if (self.x != labels).any():
            shown = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 16)).round().astype(int))
            axes.set_xticks(shown, [str(labels[i]) for i in shown])
            axes.set_xlabel("channel, those recorded")


def _visit(recording: xr.Dataset, branch: str, sample: int | None, layer: str | None, step: int | None) -> Visit:
    """Choose the visit: by default of the first complete sample the one where a channel stands out most."""
    visits = Visits(recording, branch)
    s = 0 if sample is None else _position(visits.samples, sample, "sample")
    layers = np.flatnonzero(visits.blocks)
    if layer is not None:
        layers = np.asarray([_position(visits.layers, layer, "layer")])
    steps = np.arange(visits.mean_abs_SLTC.shape[2])
    if step is not None:
        steps = np.asarray([_position(list(steps), step, "step")])
    largest = visits.ratio_to_median_SLTC[s][np.ix_(layers, steps)].max(axis=-1)
    i, t = np.unravel_index(int(largest.argmax()), largest.shape)
    here = int(layers[i]), int(steps[t])
    mask = CRITERIA["workbench"].rule(visits)[s][here]
    order = np.argsort(-visits.mean_abs_SLTC[s][here], kind="stable")
    return Visit(visits, s, *here, [int(c) for c in order if mask[c]])


def _position(values: Sequence[Any], value: object, what: str) -> int:
    if value not in values:
        raise AnalysisError(f"there is no complete {what} {value!r}; there are {style.listed(values)}.")
    return list(values).index(value)


def _profile(visit: Visit) -> pd.DataFrame:
    at = (visit.sample, visit.layer, visit.timestep)
    return pd.DataFrame(
        {
            "channel": visit.visits.recording["channel"].values,
            "mean_abs": visit.visits.mean_abs_SLTC[at],
            "max_abs": visit.visits.max_abs_SLTC[at],
            "massive": np.isin(np.arange(visit.visits.mean_abs_SLTC.shape[-1]), visit.massive),
        }
    )


def data(
    recording: xr.Dataset,
    *,
    branch: str = "cond",
    sample: int | None = None,
    layer: str | None = None,
    step: int | None = None,
    view: str = "heatmap",
) -> pd.DataFrame:
    """Tabulate mean and maximum over tokens of |h| per channel of the visit, and whether it is massive there."""
    return _profile(_visit(recording, branch, sample, layer, step))


def draw(
    recording: xr.Dataset,
    *,
    branch: str = "cond",
    sample: int | None = None,
    layer: str | None = None,
    step: int | None = None,
    view: str = "heatmap",
) -> Figure:
    """Draw |h| of one visit over token × channel; of a recording without full states, its profile over channels.

    Parameters
    ----------
    recording : xr.Dataset
        A recording; `hidden` is needed for the heat map and the landscape.
    branch : str
        Branch.
    sample : int, optional
        Label of a complete sample; default the first.
    layer, step : optional
        Name of a layer and position of a step; default where one channel stands out most.
    view : {"heatmap", "3d"}
        Heat map, or landscape.
    """
    if view not in ("heatmap", "3d"):
        raise AnalysisError(f"view={view!r}: choose 'heatmap' or '3d'.")
    visit = _visit(recording, branch, sample, layer, step)
    with style.paper():
        if not visit.visits.has_hidden:
            figure, grid = style.new(style.PAGE, 1.9)
            _bars(grid[0, 0], visit, legend=True)
            visit.name_channels(grid[0, 0])
            return figure
        h_NC = np.abs(visit.visits.hidden_NC(visit.sample, visit.layer, visit.timestep))
        return _heatmap(h_NC, visit) if view == "heatmap" else _landscape(h_NC, visit)


def _bars(axes: Axes, visit: Visit, *, legend: bool) -> None:
    """Draw mean and maximum over tokens of every channel."""
    table = _profile(visit)
    x = visit.x
    axes.vlines(x, table["mean_abs"], table["max_abs"], color="0.85", linewidth=max(0.3, min(1.0, 250 / len(x))))
    axes.plot(x, table["mean_abs"], color=style.ORDINARY, linewidth=0.7, label="mean over tokens")
    axes.plot(x, table["max_abs"], color="0.8", linewidth=0.5, label="maximum over tokens")
    _mark(axes, visit, table["mean_abs"].to_numpy(), x, table["channel"].to_numpy())
    axes.set_ylabel("|h|")
    axes.set_xlim(x.min() - 0.5, x.max() + 0.5)
    axes.set_ylim(0, float(table["max_abs"].max()) * 1.12)
    if legend:
        axes.legend(loc="upper right", ncols=2)


def _mark(axes: Axes, visit: Visit, height: np.ndarray, x: np.ndarray, labels: np.ndarray) -> None:
    for colour, c in zip(style.colours(len(visit.massive)), visit.massive, strict=True):
        axes.vlines(x[c], 0, height[c], color=colour, linewidth=1.4)
        axes.plot([x[c]], [height[c]], "o", color=colour, markersize=3)
        axes.annotate(
            f"{labels[c]}", (x[c], height[c]), xytext=(3, 2), textcoords="offset points", fontsize=6.5, color=colour
        )


def _pool(h_NC: np.ndarray, most: int, axis: int) -> tuple[np.ndarray, int]:
    """Pool by maximum along an axis to at most `most` entries; also how many were pooled into one."""
    by = -(-h_NC.shape[axis] // most)
    starts = np.arange(0, h_NC.shape[axis], by)
    return np.maximum.reduceat(h_NC, starts, axis=axis), by


def _heatmap(h_NC: np.ndarray, visit: Visit) -> Figure:
    figure, grid = style.new(style.PAGE, 3.1, 2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 1.9]})
    _bars(grid[0, 0], visit, legend=True)
    axes = grid[1, 0]
    x = visit.x
    pooled, _ = _pool(h_NC, WIDEST, 1)
    image = axes.imshow(
        pooled, aspect="auto", cmap=style.SEQUENTIAL, vmin=0, interpolation="nearest",
        extent=(x.min() - 0.5, x.max() + 0.5, len(h_NC) - 0.5, -0.5),
    )  # fmt: skip
    for colour, c in zip(style.colours(len(visit.massive)), visit.massive, strict=True):
        axes.plot([x[c]], [1.03], marker="v", color=colour, markersize=3.5, clip_on=False,
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_ylabel("image token")
    visit.name_channels(axes)
    figure.colorbar(image, ax=axes, label="|h|", aspect=14, pad=0.01)
    return figure


def _landscape(h_NC: np.ndarray, visit: Visit) -> Figure:
    tokens, by_token = _pool(h_NC, LANDSCAPE[0], 0)
    z, by_channel = _pool(tokens, LANDSCAPE[1], 1)
    x, y = np.meshgrid(np.arange(z.shape[1]) * by_channel, np.arange(z.shape[0]) * by_token)
    figure = Figure(figsize=(style.COLUMN, 2.5))
    FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((-0.03, -0.02, 0.98, 1.14), projection="3d", computed_zorder=False)
    # A face takes the colour of its highest corner: with the mean, a ridge one channel wide would look half as high.
    corner = np.maximum(np.maximum(z[:-1, :-1], z[1:, :-1]), np.maximum(z[:-1, 1:], z[1:, 1:]))
    faces = mpl.colormaps[style.SEQUENTIAL](np.pad(corner, ((0, 1), (0, 1)), mode="edge") / z.max())
    axes.plot_surface(
        x,
        y,
        z,
        facecolors=faces,
        shade=False,
        rcount=z.shape[0],
        ccount=z.shape[1],
        linewidth=0.1,
        edgecolor=(0, 0, 0, 0.25),
    )
    labels = visit.visits.recording["channel"].values
    for colour, c in zip(style.colours(len(visit.massive)), visit.massive, strict=True):
        height = float(h_NC[:by_token, c].max()) + 0.05 * float(z.max())
        text = axes.text(
            c, 0, height, f"{labels[c]}", color=colour, fontsize=7, fontweight="bold", ha="center", zorder=10
        )
        text.set_path_effects([withStroke(linewidth=1.6, foreground="white")])  # readable before a dark ridge
    axes.set_xlabel("channel" if (visit.x == labels).all() else "channel, by position", labelpad=-8)
    axes.set_ylabel("image token", labelpad=-8)
    axes.set_zlabel("|h|", labelpad=-10)
    axes.tick_params(pad=-4, labelsize=6)
    axes.view_init(elev=28, azim=-62)
    axes.set_box_aspect((1.5, 1.0, 0.75))
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("0.85")
        axis._axinfo["grid"].update(color="0.92", linewidth=0.4)
    return figure


def caption(
    recording: xr.Dataset,
    *,
    branch: str = "cond",
    sample: int | None = None,
    layer: str | None = None,
    step: int | None = None,
    view: str = "heatmap",
) -> str:
    """Caption of the figure."""
    visit = _visit(recording, branch, sample, layer, step)
    v, at = visit.visits, (visit.sample, visit.layer, visit.timestep)
    noise, label = style.noise_axis(v.recording)
    n_tokens = v.recording.sizes["token"]
    what = {
        (True, "heatmap"): f"|h| of {n_tokens} image tokens × {v.mean_abs_SLTC.shape[-1]} channels",
        (True, "3d"): f"|h| of {n_tokens} image tokens × {v.mean_abs_SLTC.shape[-1]} channels as a landscape"
        " (neighbours pooled by their maximum)",
    }.get(
        (v.has_hidden, view),
        f"Mean and maximum of |h| over {n_tokens} image tokens, by channel (no full states recorded)",
    )
    prompt = f" ({v.recording['prompt'].values[visit.sample]!s})" if "prompt" in v.recording.coords else ""
    labels = v.recording["channel"].values
    massive = style.listed([int(labels[c]) for c in visit.massive]) if visit.massive else "none"
    ratio = float(v.ratio_to_median_SLTC[at].max())
    free = [name for name, given in (("layer", layer), ("step", step)) if given is None]
    chosen = f" ({' and '.join(free)} chosen because a channel stands out most there)" if free else ""
    return (
        f"{what} after {style.short(v.layers[visit.layer])} at {label} {noise[visit.timestep]:.2f} (step "
        f"{visit.timestep}), sample {v.samples[visit.sample]}{prompt}, branch {branch}{chosen}. "
        f"Marked: channels massive in this visit by criterion workbench ({massive}); the largest channel is "
        f"{ratio:.1f} times the median channel. n = 1 sample, an illustration; the verdict is that of locate."
    )
