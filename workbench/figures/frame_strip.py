"""Videos as strips of frames: time from left to right, one row a video, conditions of one sample below each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from workbench.analysis.visits import require
from workbench.errors import AnalysisError
from workbench.figures import style

DPI = 130
"""Frames of small videos show nothing more at 300, and the report carries them."""
MOST_FRAMES = 9
"""Frames shown of a video, evenly spread, with the first and the last."""

MOST_ROWS = 8
"""Videos of a recording that are shown, in the order of the samples."""

_LEFT, _GAP, _BETWEEN = 1.05, 0.035, 0.1  # inches: room of the labels, between frames and rows, between groups


def shown_frames(total: int, most: int = MOST_FRAMES) -> list[int]:
    """Numbers of the frames that are shown: evenly spread, with the first and the last.

    Of 17 frames and at most 9, every second one; where no even step fits, the nearest whole frames.
    """
    return sorted(set(np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist()))


def latent_frame(frame: int, total: int, latents: int) -> int:
    """Latent frame that a frame of the video is decoded from, where the first stands alone (as in Wan).

    ``total = 1 + (latents − 1) · k`` frames: frame 0 is latent frame 0, frames 1 … k are latent frame 1, and so on.

    Raises
    ------
    AnalysisError
        If so many frames can't be of so many latent frames in this way.
    """
    if latents == 1 or (total - 1) % (latents - 1):
        raise AnalysisError(
            f"{total} frames can't be divided over {latents} latent frames with the first alone; leave latent_frames out."
        )
    return -(-frame // ((total - 1) // (latents - 1)))


def strip(
    videos: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    fps: float | None = None,
    latent_frames: int | None = None,
    most: int = MOST_FRAMES,
) -> Figure:
    """Draw videos as rows of frames.

    Parameters
    ----------
    videos : sequence of array of uint8, (frame, y, x, rgb)
        Of one size and length.
    labels : sequence of str
        One a video: its condition.
    groups : sequence of str, optional
        One a video: its sample (and, after a line break, its seed). Neighbours with the same are drawn close together under
        one name.
    fps : float, optional
        Frames a second; without it only numbers of frames are written, because a rate would be a guess.
    latent_frames : int, optional
        Number of latent frames; marks above the frames which one each is decoded from.
    most : int
        Largest number of frames shown.

    Returns
    -------
    Figure
        Not known to pyplot.

    Raises
    ------
    AnalysisError
        If there are no videos, or they differ in size or length.
    """
    shapes = {video.shape for video in videos}
    if len(shapes) != 1 or len(labels) != len(videos) or (groups is not None and len(groups) != len(videos)):
        raise AnalysisError(
            f"{len(videos)} videos of {len(shapes)} shapes with {len(labels)} labels can't be drawn; give at least one video, "
            "all with as many frames of one size, and one label (and group) each."
        )
    total, height, width, _ = shapes.pop()
    frames = shown_frames(total, most)
    starts = _group_starts(groups or [""] * len(videos))
    cell = (style.PAGE - _LEFT) / len(frames) - _GAP
    tall = cell * height / width
    top = (0.2 if latent_frames else 0.0) + (0.32 if fps else 0.2)
    heights = np.cumsum([tall + _GAP + (_BETWEEN if i in starts[1:] else 0.0) for i in range(len(videos))])
    size = (style.PAGE, float(top + heights[-1] + 0.04))
    with style.paper():
        figure = Figure(figsize=size, facecolor="white")
        FigureCanvasAgg(figure)
        lefts = [_LEFT + f * (cell + _GAP) for f in range(len(frames))]
        _header(figure, size, frames, lefts, cell, total, fps, latent_frames)
        for i, video in enumerate(videos):
            bottom = size[1] - top - heights[i]
            for f, left in zip(frames, lefts, strict=True):
                axes = figure.add_axes((left / size[0], bottom / size[1], cell / size[0], tall / size[1]))
                # Small frames are enlarged smoothly, as a viewer does; pixel blocks would look like detail.
                axes.imshow(video[f], interpolation="bicubic", aspect="auto")
                axes.set(xticks=[], yticks=[])
                for side in axes.spines.values():
                    side.set(visible=True, linewidth=0.4, color="0.75")
            _label(figure, size, bottom + tall / 2, labels[i], groups[i] if groups and i in starts else "")
    return figure


def _group_starts(groups: Sequence[str]) -> list[int]:
    """Positions at which another group begins."""
    starts, at = [], 0
    for _, members in groupby(groups):
        starts.append(at)
        at += len(list(members))
    return starts


def _header(
    figure: Figure,
    size: tuple[float, float],
    frames: list[int],
    lefts: list[float],
    cell: float,
    total: int,
    fps: float | None,
    latents: int | None,
) -> None:
    """Numbers, seconds and latent frames above the columns."""
    y = size[1] - 0.04
    if latents:
        own = [latent_frame(frame, total, latents) for frame in frames]
        for number, members in groupby(range(len(frames)), key=own.__getitem__):
            columns = list(members)
            left, right = lefts[columns[0]], lefts[columns[-1]] + cell
            shade = style.colours(1)[0] if number == 0 else "0.82" if number % 2 else "0.9"
            box = Rectangle(
                (left / size[0], (y - 0.145) / size[1]), (right - left) / size[0], 0.145 / size[1], color=shade, lw=0,
                transform=figure.transFigure,
            )  # fmt: skip
            figure.add_artist(box)
            figure.text((left + right) / 2 / size[0], (y - 0.076) / size[1], str(number), ha="center", va="center", fontsize=6,
                        color="white" if number == 0 else "0.2")  # fmt: skip
        figure.text(
            (_LEFT - 0.08) / size[0], (y - 0.076) / size[1], "latent frame", ha="right", va="center", fontsize=6.5
        )
        y -= 0.2
    figure.text((_LEFT - 0.08) / size[0], (y - 0.07) / size[1], "frame", ha="right", va="center", fontsize=6.5)
    if fps:
        figure.text((_LEFT - 0.08) / size[0], (y - 0.19) / size[1], "second", ha="right", va="center", fontsize=6.5)
    for frame, left in zip(frames, lefts, strict=True):
        x = (left + cell / 2) / size[0]
        figure.text(x, (y - 0.07) / size[1], str(frame), ha="center", va="center", fontsize=6.5)
        if fps:
            figure.text(
                x, (y - 0.19) / size[1], f"{frame / fps:.2f}", ha="center", va="center", fontsize=6, color="0.4"
            )


def _label(figure: Figure, size: tuple[float, float], middle: float, label: str, group: str) -> None:
    """Condition beside its row; the sample's name above that of the first of its rows."""
    name, _, rest = group.partition("\n")
    lines = [(line, "bold", 6.2) for line in textwrap.wrap(name, 16, max_lines=2, placeholder=" …")]
    lines += [(line, "normal", 5.8) for line in textwrap.wrap(rest, 20, max_lines=1)]
    lines += [(line, "normal", 6.5) for part in label.split("\n") for line in textwrap.wrap(part, 18, max_lines=2)]
    step = 0.115
    for i, (line, weight, points) in enumerate(lines):
        y = middle + step * ((len(lines) - 1) / 2 - i)
        figure.text(
            (_LEFT - 0.08) / size[0], y / size[1], line, ha="right", va="center", fontsize=points, fontweight=weight
        )


def _samples(recording: xr.Dataset) -> list[int]:
    """Positions of the samples that are shown: complete, the first few."""
    require(recording, "image")
    if "video_frame" not in recording["image"].dims:
        raise AnalysisError("the recording holds images, not videos; draw the figure `images` instead.")
    there = np.arange(recording.sizes["sample"])
    if "sample_checksum" in recording:
        there = np.flatnonzero(recording["sample_checksum"].values != 0)
    return [int(i) for i in there[:MOST_ROWS]]


def _videos(recording: xr.Dataset, samples: list[int]) -> list[np.ndarray]:
    pixels = recording["image"].isel(sample=samples).transpose("sample", "video_frame", "y", "x", "rgb").values
    return list(pixels)


def _latents(recording: xr.Dataset) -> int | None:
    """Number of latent frames, where the frames divide over them with the first alone."""
    total = recording["image"].sizes["video_frame"]
    number = recording["latent_final"].sizes.get("latent_frame", 0) if "latent_final" in recording else 0
    return number if number > 1 and (total - 1) % (number - 1) == 0 else None


def data(recording: xr.Dataset, *, branch: str = "cond", fps: float | None = None) -> pd.DataFrame:
    """Tabulate the frames shown.

    Returns
    -------
    DataFrame
        Columns sample, prompt, seed, frame, second (NaN without `fps`), latent_frame (-1 if unknown), red, green, blue (mean, 0
        to 255), change (mean absolute difference to the frame before, 0 to 255; NaN for frame 0).
    """
    rows, samples = [], _samples(recording)
    latents = _latents(recording)
    for i, video in zip(samples, _videos(recording, samples), strict=True):
        wide = video.astype(np.float64)
        for f in shown_frames(len(video)):
            rows.append(
                {
                    "sample": int(recording["sample"].values[i]),
                    "prompt": str(recording["prompt"].values[i]) if "prompt" in recording.coords else "",
                    "seed": int(recording["seed"].values[i]) if "seed" in recording.coords else -1,
                    "frame": f,
                    "second": f / fps if fps else np.nan,
                    "latent_frame": latent_frame(f, len(video), latents) if latents else -1,
                    **dict(zip(("red", "green", "blue"), wide[f].mean(axis=(0, 1)), strict=True)),
                    "change": float(np.abs(wide[f] - wide[f - 1]).mean()) if f else np.nan,
                }
            )
    return pd.DataFrame(rows)


def draw(recording: xr.Dataset, *, branch: str = "cond", fps: float | None = None) -> Figure:
    """Draw the generated videos, one row a sample.

    Parameters
    ----------
    recording : xr.Dataset
        A recording with `image` over `video_frame`.
    branch : str
        Taken for the sake of the one signature; a video belongs to no branch.
    fps : float, optional
        Frames a second.
    """
    samples = _samples(recording)
    labels = []
    for i in samples:
        prompt = str(recording["prompt"].values[i]) if "prompt" in recording.coords else f"sample {i}"
        labels.append(f"{prompt}\nseed {int(recording['seed'].values[i])}" if "seed" in recording.coords else prompt)
    return strip(_videos(recording, samples), labels, fps=fps, latent_frames=_latents(recording))


def caption(recording: xr.Dataset, *, branch: str = "cond", fps: float | None = None) -> str:
    """Caption of the figure."""
    shown, size = len(_samples(recording)), recording["image"].sizes
    complete = recording.sizes["sample"]
    if "sample_checksum" in recording:
        complete = int((recording["sample_checksum"].values != 0).sum())
    some = f", the first {shown} of them shown" if complete > shown else ""
    frames = shown_frames(size["video_frame"])
    rate = f" at {fps:g} frames a second" if fps else ""
    above = (
        " The bar above says which latent frame a frame is decoded from; the first stands alone."
        if _latents(recording)
        else ""
    )
    return (
        f"Videos of {size['video_frame']} frames{rate}, {size['x']} × {size['y']} pixels, generated while recording over "
        f"{recording.sizes['timestep']} timesteps{some}; {len(frames)} frames of each.{above} n = {complete} "
        f"sample{'s' if complete != 1 else ''} (one prompt with one seed each). The latents are those of the guided prediction of "
        f"branches {' and '.join(map(str, np.atleast_1d(recording['branch'].values)))}. An illustration: no verdict."
    )
