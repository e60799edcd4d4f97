"""Videos beside each other on paper: a row is one sample in one mode, its frames are the columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.sampling.result import SampleResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 9
"""Most frames shown of a video: the first, the last, and others evenly between them."""


def shown_frames(count: int, most: int = FRAMES) -> list[int]:
    """Which frames are shown of so many."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})


def video_figure(
    result: SampleResult, *, samples: Sequence[int] | None = None, inches: float = 0.8, words: str = ""
) -> Figure:
    """Draw frames of videos, all at one scale.

    Parameters
    ----------
    result : SampleResult
        Of videos.
    samples : sequence of int, optional
        Which samples; default all.
    inches : float
        Width of one frame on paper.
    words : str
        Caption.

    Returns
    -------
    Figure
        Not shown and not known to pyplot.
    """
    from matplotlib.figure import Figure

    rows = list(range(len(result.prompts)) if samples is None else samples)
    frames = shown_frames(result.images.shape[2])
    height, width = result.images.shape[-3:-1]
    frame_x, frame_y = inches, inches * height / width
    gap, left, top = 0.03, 2.1, 0.3
    each = len(result.modes) * (frame_y + gap) + 3 * gap
    size_x = left + len(frames) * (frame_x + gap)
    said = "\n".join(
        line for part in words.split("\n") for line in textwrap.wrap(part, int(size_x * 72 / (6.5 * 0.55)))
    )
    bottom = 0.14 + 0.125 * (said.count("\n") + 1)
    size_y = top + len(rows) * each + bottom
    figure = Figure(figsize=(size_x, size_y), facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / size_x, y / size_y, text, **style)

    for r, i in enumerate(rows):
        at = size_y - top - r * each
        label = "\n".join(textwrap.wrap(result.prompts[i], 14, max_lines=4, placeholder=" …"))
        label = f"{label}\nseed {result.seeds[i]}"
        write(0.95, at - (each - 3 * gap) / 2, label, ha="right", va="center", fontsize=7)
        for m, mode in enumerate(result.modes):
            y = at - (m + 1) * (frame_y + gap)
            write(left - 0.06, y + frame_y / 2, result.title(mode), ha="right", va="center", fontsize=6.5)
            for c, frame in enumerate(frames):
                x = left + c * (frame_x + gap)
                axes = figure.add_axes((x / size_x, y / size_y, frame_x / size_x, frame_y / size_y))
                axes.imshow(result.images[m, i, frame], interpolation="bicubic", aspect="auto")
                axes.set(xticks=[], yticks=[])
                for side in axes.spines.values():
                    side.set(linewidth=0.4, color="0.75")
                if r == 0 and m == 0:
                    axes.set_title(f"frame {frame}", fontsize=6.5, pad=3)
    write(size_x / 2, 0.07, said, ha="center", va="bottom", fontsize=6.5, color="0.35", linespacing=1.35)
    return figure
