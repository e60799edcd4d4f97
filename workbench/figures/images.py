"""The images that were generated while recording."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from workbench.analysis.visits import require
from workbench.figures import style

MOST = 24
"""How many images are shown, in the order of the samples."""

ACROSS = 8


def _complete(recording: xr.Dataset) -> np.ndarray:
    """Positions of the samples whose image was written."""
    require(recording, "image")
    if "sample_checksum" not in recording:
        return np.arange(recording.sizes["sample"])
    return np.flatnonzero(recording["sample_checksum"].values != 0)


def _name(recording: xr.Dataset, i: int) -> tuple[str, str]:
    prompt = str(recording["prompt"].values[i]) if "prompt" in recording.coords else f"sample {i}"
    seed = f"seed {int(recording['seed'].values[i])}" if "seed" in recording.coords else ""
    return prompt, seed


def data(recording: xr.Dataset, *, branch: str = "cond") -> pd.DataFrame:
    """Tabulate sample, prompt and seed of the images shown, with the mean of their red, green and blue (0 to 255)."""
    rows = []
    for i in _complete(recording)[:MOST]:
        prompt, seed = _name(recording, int(i))
        mean = recording["image"].isel(sample=i).transpose("rgb", "y", "x").values.reshape(3, -1).mean(axis=1)
        rows.append(
            {"sample": int(recording["sample"].values[i]), "prompt": prompt, "seed": seed.removeprefix("seed ")}
        )
        rows[-1] |= dict(zip(("red", "green", "blue"), mean, strict=True))
    return pd.DataFrame(rows)


def draw(recording: xr.Dataset, *, branch: str = "cond") -> Figure:
    """Draw the generated images in a grid, each under its prompt and seed.

    Parameters
    ----------
    recording : xr.Dataset
        A recording with `image`.
    branch : str
        Taken for the sake of the one signature; an image belongs to no branch.
    """
    shown = _complete(recording)[:MOST]
    columns = max(1, min(ACROSS, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    cell = style.PAGE / ACROSS
    with style.paper():
        figure, grid = style.new(cell * max(columns, 2), (cell + 0.2) * rows, rows, columns)
        for axes in grid.ravel():
            axes.set_axis_off()
        for axes, i in zip(grid.ravel(), shown, strict=False):
            pixels = recording["image"].isel(sample=int(i)).transpose("y", "x", "rgb").values
            axes.imshow(pixels, interpolation="nearest" if max(pixels.shape) <= 128 else "antialiased")
            prompt, seed = _name(recording, int(i))
            title = textwrap.shorten(prompt, 18, placeholder=" …") + (f"\n{seed}" if seed else "")
            axes.set_title(title, fontsize=5.5, loc="center", pad=2).set_in_layout(True)
    return figure


def caption(recording: xr.Dataset, *, branch: str = "cond") -> str:
    """Caption of the figure."""
    n, size = len(_complete(recording)), recording["image"].sizes
    some = f", the first {MOST} of them shown" if n > MOST else ""
    return (
        f"Images of {size['x']} × {size['y']} pixels generated while recording, over {recording.sizes['timestep']} "
        f"timesteps{some}. n = {n} sample{'s' if n != 1 else ''} (one prompt with one "
        "seed each). The latents are those of the guided prediction of branches "
        f"{' and '.join(map(str, np.atleast_1d(recording['branch'].values)))}. An illustration: no verdict."
    )
