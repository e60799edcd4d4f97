"""Videos that move on a page: animated WebP, small, inside the one file, with a text for who can't see it.

Conditions to be compared are put side by side in *one* animation: two animations on a page drift apart.
"""

from __future__ import annotations

import base64
import html as escaping
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workbench.errors import WorkbenchError

Pixels = NDArray[np.uint8]

RATE = 8.0
"""Frames a second where a video does not say: that of the clips of `mini-video`, slow enough to see each frame."""

MOST_BYTES = 150_000
"""Largest preview, so that a page with a dozen can still be mailed."""

HOLD = 600
"""Milliseconds that the last frame stays longer, so that the eye sees where a loop begins."""

SHOWN = 144
"""CSS pixels one video is wide on a page; small videos are enlarged by the browser, smoothly."""

GAP = 4
"""White pixels between videos side by side."""

_QUALITIES = (None, 95, 90, 80, 70, 60, 50)  # None: lossless


class Preview(NamedTuple):
    """An animated WebP with what was lost to make it small.

    Attributes
    ----------
    content : bytes
        The file.
    quality : int or None
        Of lossy compression, 0 to 100; None: lossless.
    size : (int, int)
        Width and height in pixels.
    frames : int
    fps : float
        Frames a second.
    """

    content: bytes
    quality: int | None
    size: tuple[int, int]
    frames: int
    fps: float

    @property
    def words(self) -> str:
        """How it was made, for a caption."""
        how = "lossless" if self.quality is None else f"compressed at quality {self.quality}"
        return f"{self.frames} frames at {self.fps:g} frames a second, {how}"


def check(video: np.ndarray) -> Pixels:
    """Return a video as it is, or say what is wrong with it.

    Parameters
    ----------
    video : array of uint8, (frame, y, x, rgb)

    Raises
    ------
    WorkbenchError
        If it has other dimensions, another type or no frame.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or 0 in video.shape or video.dtype != np.uint8:
        raise WorkbenchError(
            f"a video of shape {video.shape} and type {video.dtype} can't be shown; give uint8 of (frame, y, x, rgb), such as "
            "recording['image'].isel(sample=0).values."
        )
    return video


def side_by_side(videos: Sequence[np.ndarray], *, gap: int = GAP) -> Pixels:
    """Join videos of one size and length from left to right, frame by frame.

    Parameters
    ----------
    videos : sequence of array of uint8, (frame, y, x, rgb)
    gap : int
        White pixels between them.

    Raises
    ------
    WorkbenchError
        If there are none, or they differ in size or length.
    """
    shapes = {check(video).shape for video in videos}
    if len(shapes) != 1:
        raise WorkbenchError(
            f"videos of {len(shapes)} shapes ({', '.join(map(str, sorted(shapes))) or 'none given'}) can't stand side by side; "
            "give at least one, all with as many frames of one size."
        )
    frames, height, _, _ = shapes.pop()
    between = np.full((frames, height, gap, 3), 255, dtype=np.uint8)
    parts = [part for video in videos for part in (between, video)][1:]
    return np.concatenate(parts, axis=2)


def webp(video: np.ndarray, *, fps: float = RATE, most: int = MOST_BYTES) -> Preview:
    """Encode a video as an animated WebP that runs for ever.

    Lossless if that fits; else with the best of a few qualities that does; else at half the size, and so on.

    Parameters
    ----------
    video : array of uint8, (frame, y, x, rgb)
    fps : float
        Frames a second.
    most : int
        Largest size in bytes.

    Raises
    ------
    WorkbenchError
        If the video or the rate can't be used.
    """
    check(video)
    if not 0 < fps <= 100:
        raise WorkbenchError(f"fps = {fps:g} can't be shown; give more than 0 and at most 100 frames a second.")
    pictures = [Image.fromarray(frame) for frame in video]
    while True:
        for quality in _QUALITIES:
            content = _encode(pictures, fps, quality)
            if len(content) <= most or (quality == _QUALITIES[-1] and max(pictures[0].size) <= 16):
                return Preview(content, quality, pictures[0].size, len(pictures), fps)
        half = (max(1, pictures[0].width // 2), max(1, pictures[0].height // 2))
        pictures = [picture.resize(half, Image.Resampling.LANCZOS) for picture in pictures]


def _encode(pictures: Sequence[Image.Image], fps: float, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    each = round(1000 / fps)
    durations = [each] * (len(pictures) - 1) + [each + HOLD]
    lossy = {"lossless": True, "quality": 80} if quality is None else {"quality": quality}
    pictures[0].save(
        buffer, format="WEBP", save_all=True, append_images=pictures[1:], duration=durations, loop=0, method=4,
        minimize_size=False, **lossy,
    )  # fmt: skip
    return buffer.getvalue()


def still(video: np.ndarray, *, frame: int = 0) -> bytes:
    """Encode one frame of a video as PNG, for who asked their browser for no motion, and for paper."""
    buffer = io.BytesIO()
    Image.fromarray(check(video)[frame]).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Write a file into an address, such as ``data:image/webp;base64,…``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def html(
    videos: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    alt: str,
    fps: float = RATE,
    most: int = MOST_BYTES,
    shown: int = SHOWN,
) -> str:
    """Write videos side by side as HTML that needs no other file, each under its label.

    Parameters
    ----------
    videos : sequence of array of uint8, (frame, y, x, rgb)
        Of one size and length.
    labels : sequence of str
        One a video.
    alt : str
        What there is to see, in words.
    fps : float
        Frames a second.
    most : int
        Largest size of the animation in bytes.
    shown : int
        CSS pixels one video is wide.

    Returns
    -------
    str
        A ``<div>``. A browser that was asked for less motion shows the first frame instead.
    """
    if len(labels) != len(videos):
        raise WorkbenchError(f"{len(videos)} videos have {len(labels)} labels; give one label a video.")
    joined = side_by_side(videos)
    heads = "".join(f'<span style="flex:1;text-align:center">{escaping.escape(label)}</span>' for label in labels)
    width = shown * len(videos)
    return (
        f'<div style="width:{width}px;max-width:100%"><div style="display:flex;font-size:.85rem">{heads}</div>'
        '<picture><source media="(prefers-reduced-motion: reduce)" type="image/png" '
        f'srcset="{data_uri(still(joined), "png")}">'
        f'<img src="{data_uri(webp(joined, fps=fps, most=most).content, "webp")}" alt="{escaping.escape(alt)}" '
        f'width="{width}" style="max-width:100%;height:auto"></picture></div>'
    )


def write(video: np.ndarray, path: str | Path, *, fps: float = RATE, most: int = MOST_BYTES) -> Preview:
    """Write an animated WebP, and its first frame as PNG beside it; the folder must be there.

    Raises
    ------
    WorkbenchError
        If the files can't be written.
    """
    path, made = Path(path).with_suffix(".webp"), webp(video, fps=fps, most=most)
    try:
        path.write_bytes(made.content)
        path.with_suffix(".png").write_bytes(still(video))
    except OSError as error:
        raise WorkbenchError(f"{path} can't be written: {error}. Choose a folder that exists.") from error
    return made
