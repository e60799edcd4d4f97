"""Which training clip a generated clip is nearest to, whatever background and place the model chose."""

from __future__ import annotations

import numpy as np

from .data import MARGIN, PICTURE, SIZE, Clips

STEP = 2
"""Places are tried this many pixels apart."""


def background_of(frame: np.ndarray) -> np.ndarray:
    """Background of one frame (64, 64, 3): the plane through its corners' colours; emoji rarely reach the corners."""
    corners = frame[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float32).reshape(2, 2, 3)
    ramp = np.linspace(0, 1, SIZE, dtype=np.float32)
    rows = corners[0] + (corners[1] - corners[0]) * ramp[:, None, None]  # (64, 2, 3)
    return rows[:, :1] + (rows[:, 1:] - rows[:, :1]) * ramp[None, :, None]


def distances(clip: np.ndarray, clips: Clips, frames: tuple[int, ...] = (0, 8, 16)) -> np.ndarray:
    """Mean squared difference (8-bit levels squared) of one generated clip to every training clip, (N,).

    Each training clip is laid on the generated clip's own background, at the place where it fits best.

    Parameters
    ----------
    clip
        ``uint8`` (17, 64, 64, 3).
    """
    best = np.full(len(clips.captions), np.inf)
    planes = {f: background_of(clip[f]) for f in frames}
    for n, rgba in enumerate(clips.rgba):
        alpha = {f: rgba[f, ..., 3:].astype(np.float32) / 255 for f in frames}
        colour = {f: rgba[f, ..., :3].astype(np.float32) for f in frames}
        for dy in range(0, 2 * MARGIN + 1, STEP):
            for dx in range(0, 2 * MARGIN + 1, STEP):
                away = 0.0
                for f in frames:
                    here = slice(dy, dy + PICTURE), slice(dx, dx + PICTURE)
                    shown = colour[f] * alpha[f] + planes[f][here] * (1 - alpha[f])
                    away += float(((shown - clip[f][here]) ** 2).mean())
                best[n] = min(best[n], away / len(frames))
    return best


def recall(videos: np.ndarray, captions: list[str], clips: Clips) -> dict:
    """How often the training clip of the prompt is the nearest (or among the five nearest) one."""
    ranks = []
    for video, caption in zip(videos, captions, strict=True):
        away = distances(video, clips)
        ranks.append(int((away < away[clips.captions.index(caption)]).sum()) + 1)
    return {"n": len(ranks), "top1": sum(r == 1 for r in ranks), "top5": sum(r <= 5 for r in ranks), "ranks": ranks}
