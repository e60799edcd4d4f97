"""A video as files that lose nothing: all frames in one PNG, and an animated WebP to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.errors import WorkbenchError

FPS = 8.0
"""Frames a second, unless told otherwise: those of `mini-video`'s training clips."""

STRIP = 4096
"""Widest strip in pixels; more frames go into further rows."""


def frame_strip(video_FYX3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """All frames side by side in reading order, rows at most `STRIP` pixels wide; black where the last row has none."""
    count, height, width, _ = video_FYX3.shape
    columns = max(1, min(count, STRIP // width))
    rows = -(-count // columns)
    strip = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    strip[:count] = video_FYX3
    laid_out = strip.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(laid_out.reshape(rows * height, columns * width, 3))


def save_video(video_FYX3: npt.NDArray[np.uint8], path: Path, *, fps: float = FPS) -> Path:
    """Write the strip of all frames to `path` (PNG) and the animation beside it; return the animation's path.

    Raises
    ------
    WorkbenchError
        If it is no uint8 video, or `fps` is not above 0.
    OSError
        If a file can't be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    video = np.asarray(video_FYX3)
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or not len(video):
        raise WorkbenchError(f"a video to be saved is uint8 of shape (F, y, x, 3), not {video.dtype} {video.shape}.")
    if not 0 < fps < float("inf"):
        raise WorkbenchError(f"fps = {fps} must be above 0.")
    note = PngInfo()
    note.add_text("frames", " ".join(map(str, video.shape[:3])))
    Image.fromarray(frame_strip(video)).save(path, pnginfo=note)
    first, *rest = (Image.fromarray(frame) for frame in video)
    animation = path.with_suffix(".webp")
    shown: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": round(1000 / fps), "loop": 0}
    first.save(animation, "WEBP", lossless=True, exact=True, method=4, **shown)
    return animation


def frames_of(path: str | Path) -> npt.NDArray[np.uint8]:
    """Frames of a strip that `save_video` wrote, (F, y, x, 3).

    Raises
    ------
    WorkbenchError
        If it is none.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            count, height, width = (int(n) for n in str(image.info["frames"]).split())
            strip = np.asarray(image.convert("RGB"))
    except (OSError, KeyError, ValueError) as error:
        raise WorkbenchError(
            f"{path} is no strip of frames ({error!r}); name a PNG that `result.save` wrote."
        ) from error
    rows, columns = strip.shape[0] // max(height, 1), strip.shape[1] // max(width, 1)
    if count < 1 or rows * columns < count or strip.shape[:2] != (rows * height, columns * width):
        raise WorkbenchError(
            f"{path} says that it holds {count} frames of {height} × {width} px, and is {strip.shape[:2]}."
        )
    frames = strip.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    return np.ascontiguousarray(frames[:count])
