"""How every figure looks, and how it is saved: readable at column width, safe for the colour-blind, the same bytes.

matplotlib is used through `Figure` objects only; pyplot's global state is never touched, so a figure needs no closing
and no figure can change the next one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workbench.analysis.visits import too_few

COLUMN, PAGE = 3.4, 7.0
"""Width of one column and of the page, in inches (two-column conference layout)."""

ORDINARY = "0.55"
"""Colour of what is not massive: the median channel, the other channels."""

MAGNITUDE = "mean |h| over tokens"
"""Label of the magnitude of a channel, in units of the hidden state."""

SEQUENTIAL = "rocket_r"
"""Colour map for magnitudes: light is ordinary."""

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine, none missing
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.labelpad": 2.5,
    "grid.linewidth": 0.4,
    "grid.color": "0.9",
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # editable text, and what conferences ask for
    "svg.hashsalt": "workbench",
    "axes.formatter.use_mathtext": True,
}


@contextmanager
def paper() -> Iterator[None]:
    """Set the style for what is drawn inside, and only there."""
    settings: Any = {**sns.axes_style("ticks"), **sns.plotting_context("paper"), **_RC}
    with mpl.rc_context(settings):
        yield


def new(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """Make an empty figure of that size in inches, with a grid of axes (always a 2-D array)."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)
    figure.set_layout_engine(layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def colours(n: int) -> list[tuple[float, float, float]]:
    """Colours for n massive channels, distinguishable for the colour-blind up to nine."""
    palette = [colour for i, colour in enumerate(sns.color_palette("colorblind", 10)) if i != 7]  # 7 is the grey
    return [palette[i % len(palette)] for i in range(n)]


def markers(n: int) -> list[str]:
    """Markers for n channels; eight to nine colours, so that no pair of both comes back before the 73rd channel."""
    return [("o", "s", "^", "D", "v", "P", "X", "<")[i % 8] for i in range(n)]


def short(layer: str) -> str:
    """Name a layer as in a figure: ``transformer_blocks.3`` is ``block 3``, a second stack keeps its name."""
    match = re.fullmatch(r"(?:transformer_)?blocks\.(\d+)", layer)
    return f"block {match.group(1)}" if match else layer


def layer_axis(axes: Axes, evidence: xr.Dataset, *, most: int = 16) -> None:
    """Label the x axis with block numbers; position is the index of the layer."""
    names = [str(name) for name in evidence["layer"].values]
    step = max(1, int(np.ceil(len(names) / most)))
    shown = [i for i, name in enumerate(names) if name == "input" or block_number(evidence, i) % step == 0]
    axes.set_xticks(shown, [tick(evidence, i) for i in shown])
    axes.set_xlabel("block")


def tick(evidence: xr.Dataset, index: int) -> str:
    """Label of a layer at this position on an axis of blocks."""
    return "in" if str(evidence["layer"].values[index]) == "input" else str(block_number(evidence, index))


def block_number(evidence: xr.Dataset, index: int) -> int:
    """Number of the block at this position of the layers."""
    return int(evidence["block"].values[index]) if "block" in evidence.coords else index


def noise_axis(evidence: xr.Dataset) -> tuple[np.ndarray, str]:
    """Values and label of the axis along the trajectory: noise level if known, else the scheduler's timestep."""
    if "sigma" in evidence.coords:
        return np.asarray(evidence["sigma"].values, dtype=float), "noise level σ"
    return np.asarray(evidence["timestep"].values, dtype=float), "timestep"


def log_axis(axis: YAxis) -> None:
    """Log scale of a y axis with plain numbers as labels: of one to three decades, 10⁰ is no help to read values."""
    axis.axes.set_yscale("log")
    low, high = axis.get_data_interval()
    decades = np.log10(high / low) if low > 0 else 1.0
    axis.set_major_locator(
        LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def band(axes: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, **options: Any) -> None:
    """Draw a line with its interval as a band, which is left out where there is none."""
    (line,) = axes.plot(x, mean, **options)
    if np.isfinite(low).any():
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def sampled(attrs: Mapping[str, Any]) -> str:
    """Say of how many prompts and seeds and of which branch a figure is, from the attributes of a result."""
    left = attrs["n_samples_recorded"] - attrs["n_samples"]
    out = f"n = {attrs['replication']}" + (f", {left} incomplete samples left out" if left else "")
    return f"{out}; branch {attrs['branch']}"


def intervals(attrs: Mapping[str, Any], confidence: float) -> str:
    """Say what the bands of a figure are, or why there are none."""
    if few := too_few(attrs):
        return f"no intervals ({few})"
    if attrs["replicate"] == "seed":
        return f"bands are {confidence:.0%} bootstrap intervals over the seeds of this one prompt"
    return f"bands are {confidence:.0%} bootstrap intervals over prompts, for the seeds used"


def verdict(evidence: xr.Dataset) -> str:
    """Give the verdict of the analysis that is drawn, for its caption."""
    return f"Verdict ({evidence.attrs['analysis']}): {evidence.attrs['verdict']}. {evidence.attrs['verdict_reason']}"


def signed(value: float) -> str:
    """Format a correlation: two digits, a real minus sign, and no sign on zero."""
    text = f"{value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")


def listed(values: Sequence[object], *, most: int = 8) -> str:
    """Join values for a sentence, cutting a long list short."""
    head = ", ".join(str(value) for value in values[:most])
    return head + (f", … ({len(values)} in all)" if len(values) > most else "")


def save(
    figure: Figure, folder: str | Path, name: str, *, data: pd.DataFrame | None = None, dpi: int | None = None
) -> list[Path]:
    """Write a figure as PDF and PNG, and its numbers as CSV. The same inputs give the same bytes.

    Parameters
    ----------
    figure : Figure
        What a `draw` returned.
    folder : path
        Made if needed.
    name : str
        File name without extension.
    data : DataFrame, optional
        What the figure's `data` returned.
    dpi : int, optional
        Of what is no line or letter; default: 300. Pictures of few pixels need no more than a figure's `DPI` says.

    Returns
    -------
    list of Path
        The files written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    # No dates and no versions of libraries: they would change the bytes without changing the figure.
    metadata: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    files = []
    with paper():
        for extension, cleared in metadata.items():
            path = target / f"{name}.{extension}"
            partial = path.with_name(f".{path.name}.partial")
            figure.savefig(partial, format=extension, metadata=cleared, dpi=dpi or mpl.rcParams["savefig.dpi"])
            os.replace(partial, path)
            files.append(path)
    if data is not None:
        path = target / f"{name}.csv"
        data.to_csv(path, index=False, float_format="%.9g", lineterminator="\n")
        files.append(path)
    return files
