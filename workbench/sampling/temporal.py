"""How steady, smooth and alike the frames of a video are, and how sharp its first one is: one number a video.

No torch. A video is uint8 or float in [0, 1], shape (F, Y, X, 3), sRGB as stored; y_FYX is its luma in [0, 1]. What each
number is called, its unit and which direction is better stands in `workbench.sampling.video_measures.VIDEO_TABLE`.

Legend: F frames, T transitions between frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.sampling.measures import (
    LOW_PASS_SHARE,
    blur,
    colourfulness,
    contrast,
    edge_energy,
    low_pass_similarity,
    saturation,
)
from workbench.sampling.spectrum import POWER_FLOOR, luma

Array = npt.NDArray[Any]

BLOCK = 8
"""Side in pixels of the blocks whose motion is followed."""

REACH = 4
"""Largest motion that is followed, in pixels per frame (after the reduction to `SIDE`)."""

SIDE = 64
"""Larger frames are averaged down by a whole number until their shorter side is less than twice this, to follow motion."""

CHUNK = 4
"""Pixel frames of a latent frame, all but the first: the temporal factor of Wan's VAE, whose first frame stands alone."""

FLOOR = float(np.sqrt(POWER_FLOOR))
"""What rounding to 8 bits adds to a difference of lumas: no ratio is taken of less."""


def temporal_flicker(video_FYX3: Array) -> float:
    """How much large areas change their brightness to and fro, in luma; 0 for a still video and for a steady fade.

    Root mean square, over pixels and time, of (x_{t−1} − 2 x_t + x_{t+1}) / 4 of the luma after a Gaussian blur of 1/16 of
    the shorter side. The filter passes a brightness that alternates by ±a as a and a steady change not at all (its gain at f
    cycles per frame is sin²(πf)); blurred, because what moves is to count less than what flickers. NaN with fewer than three frames.
    """
    y_FYX = _luma(video_FYX3)
    if len(y_FYX) < 3:
        return float("nan")
    share = LOW_PASS_SHARE * min(y_FYX.shape[1:])
    y_FYX = np.moveaxis(blur(np.moveaxis(y_FYX, 0, -1), share), -1, 0)
    return float(np.sqrt(np.mean(((y_FYX[:-2] - 2 * y_FYX[1:-1] + y_FYX[2:]) / 4) ** 2)))


def frame_difference(video_FYX3: Array) -> float:
    """Mean |x_{t+1} − x_t| of the luma: how much changes from frame to frame, by motion or by flicker. NaN for one frame."""
    y_FYX = _luma(video_FYX3)
    return float(np.abs(np.diff(y_FYX, axis=0)).mean()) if len(y_FYX) > 1 else float("nan")


def motion_smoothness(video_FYX3: Array) -> float:
    """1 − mean |x_t − (x_{t−1}(p − d) + x_{t+1}(p + d)) / 2| of the luma, with the best motion d of each block; 1 is perfect.

    VBench asks whether a frame can be interpolated from its neighbours, with a network (AMT, Li et al. 2023); here each block
    of `BLOCK` pixels is followed at the constant velocity d, up to `REACH` pixels a frame in half pixels, that explains it best
    (bidirectional block matching). 1 for what stands still or moves at a constant velocity, less for jumps, flicker and noise. Blocks
    within `REACH` of the border, where things come in, do not count. NaN with fewer than three frames, or frames too small.
    """
    y_FYX = _reduced(_luma(video_FYX3))
    count, height, width = y_FYX.shape
    rows, columns = ((size - 2 * REACH) // BLOCK * BLOCK for size in (height, width))
    if count < 3 or rows < BLOCK or columns < BLOCK:
        return float("nan")
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = y_FYX[1:-1, top : top + rows, left : left + columns]
    halves = {(b, a): _half_shifted(y_FYX, b, a) for b in (0, 1) for a in (0, 1)}

    def moved(part: slice, down: int, right: int) -> Array:
        """Frames of `part` at p + (down, right) / 2 pixels."""
        at = halves[down % 2, right % 2][part]
        y, x = top + down // 2, left + right // 2
        return at[:, y : y + rows, x : x + columns]

    best = np.full((count - 2, rows // BLOCK, columns // BLOCK), np.inf)
    reach = range(-2 * REACH, 2 * REACH + 1)
    for down in reach:
        for right in reach:
            guess = (moved(slice(None, -2), -down, -right) + moved(slice(2, None), down, right)) / 2
            error = np.abs(middle - guess).reshape(count - 2, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
            np.minimum(best, error.mean(axis=(2, 4)), out=best)
    return float(1.0 - best.mean())


def frame_consistency(video_FYX3: Array) -> float:
    """Mean `low_pass_similarity` of each frame to the one before, from −1 to 1: does the layout stay? NaN for one frame."""
    return _alike(list(itertools.pairwise(video_FYX3)))


def first_frame_consistency(video_FYX3: Array) -> float:
    """Mean `low_pass_similarity` of every later frame to the first, from −1 to 1: does the subject stay? NaN for one frame."""
    return _alike([(video_FYX3[0], frame) for frame in video_FYX3[1:]])


def first_frame_sharpness(video_FYX3: Array) -> float:
    """Edge energy of the first frame, in luma per pixel (`workbench.sampling.measures.edge_energy`)."""
    return edge_energy(video_FYX3[0])


def first_frame_relative_sharpness(video_FYX3: Array) -> float:
    """Ln of the first frame's edge energy over the mean of the other frames'; below 0 if it is blurred. NaN for one frame."""
    if len(video_FYX3) < 2:
        return float("nan")
    others = float(np.mean([edge_energy(frame) for frame in video_FYX3[1:]]))
    return float(np.log(max(edge_energy(video_FYX3[0]), FLOOR) / max(others, FLOOR)))


def sharpness(video_FYX3: Array) -> float:
    """Mean edge energy of all frames, in luma per pixel."""
    return float(np.mean([edge_energy(frame) for frame in video_FYX3]))


def chunk_jump(video_FYX3: Array, chunk: int = CHUNK) -> float:
    """Ln of the mean |x_{t+1} − x_t| between chunks over that within chunks; 0 if the seams don't show.

    A causal video VAE makes the first frame alone and then `chunk` frames at a time (STAS, arXiv 2603.17825, says that its gains
    lie at these seams). Above 0: the video jumps from chunk to chunk. NaN where there is no transition of both kinds.
    """
    y_FYX = _luma(video_FYX3)
    if len(y_FYX) < 2:
        return float("nan")
    change_T = np.abs(np.diff(y_FYX, axis=0)).mean(axis=(1, 2))
    of_F = np.array([0, *(1 + np.arange(len(y_FYX) - 1) // chunk)])
    seam_T = np.diff(of_F) != 0
    if seam_T.all() or not seam_T.any():
        return float("nan")
    return float(np.log(max(change_T[seam_T].mean(), FLOOR) / max(change_T[~seam_T].mean(), FLOOR)))


def video_similarity(video_FYX3: Array, reference_FYX3: Array) -> float:
    """Mean over frames of `low_pass_similarity` to the same frame of another video: how much of its content is left."""
    return _alike(list(zip(video_FYX3, reference_FYX3, strict=True)))


def _mean_over_frames(measure: Callable[[Array], float]) -> Callable[[Array], float]:
    def mean(video_FYX3: Array) -> float:
        return float(np.mean([measure(frame) for frame in video_FYX3]))

    return mean


VIDEO_MEASURES: dict[str, Callable[[Array], float]] = {
    "temporal_flicker": temporal_flicker,
    "motion_smoothness": motion_smoothness,
    "frame_consistency": frame_consistency,
    "first_frame_consistency": first_frame_consistency,
    "chunk_jump": chunk_jump,
    "first_frame_sharpness": first_frame_sharpness,
    "first_frame_relative_sharpness": first_frame_relative_sharpness,
    "sharpness": sharpness,
    "frame_difference": frame_difference,
    "contrast": _mean_over_frames(contrast),
    "colourfulness": _mean_over_frames(colourfulness),
    "saturation": _mean_over_frames(saturation),
}
"""Measures of one video alone by name, what `compare` shows; all measures are in `VIDEO_TABLE`."""


def _luma(video_FYX3: Array) -> Array:
    return np.stack([luma(frame) for frame in np.asarray(video_FYX3)])


def _alike(pairs: list[tuple[Array, Array]]) -> float:
    return float(np.mean([low_pass_similarity(a, b) for a, b in pairs])) if pairs else float("nan")


def _reduced(y_FYX: Array) -> Array:
    """Frames averaged over squares of whole pixels, so that the shorter side is less than twice `SIDE`."""
    by = max(1, min(y_FYX.shape[1:]) // SIDE)
    rows, columns = (size // by for size in y_FYX.shape[1:])
    return np.asarray(
        y_FYX[:, : rows * by, : columns * by].reshape(len(y_FYX), rows, by, columns, by).mean(axis=(2, 4))
    )


def _half_shifted(y_FYX: Array, down: int, right: int) -> Array:
    """Frames half a pixel further down or right (linear interpolation), the last row or column repeated."""
    if down:
        y_FYX = (y_FYX + np.concatenate([y_FYX[:, 1:], y_FYX[:, -1:]], axis=1)) / 2
    if right:
        y_FYX = (y_FYX + np.concatenate([y_FYX[:, :, 1:], y_FYX[:, :, -1:]], axis=2)) / 2
    return y_FYX
