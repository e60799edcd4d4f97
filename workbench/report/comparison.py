"""Videos of a comparison on disk, as ``workbench sample --compare`` wrote them: frames side by side in one PNG each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.store.video_files import frames_of

PAIRS = (("cfg", "cfg+stas"), ("plain", "stas"))
"""Modes that are set beside each other, the first pair that is there."""

LABELS = {"plain": "plain", "stas": "STAS", "cfg": "CFG", "cfg+stas": "CFG + STAS", "dg": "DG", "cfg+dg": "CFG + DG"}


class Clip(NamedTuple):
    """One video.

    Attributes
    ----------
    video : array of uint8, (frame, y, x, rgb)
    prompt, seed, mode
        What it is of; `mode` is one of the sampler's.
    """

    video: NDArray[np.uint8]
    prompt: str
    seed: int
    mode: str

    @property
    def label(self) -> str:
        """The mode in words."""
        return LABELS.get(self.mode, self.mode)


def clips_of(folder: str | Path) -> list[Clip]:
    """Videos of a comparison; none where it is of images, or says nothing of its files.

    Raises
    ------
    WorkbenchError
        If a video that is named is missing or damaged.
    """
    folder = Path(folder)
    try:
        rows = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, KeyError):
        return []
    return [
        Clip(frames_of(folder / Path(row["file"]).name), str(row["prompt"]), int(row["seed"]), str(row["mode"]))
        for row in rows
        if "animation" in row
    ]


def shown_modes(clips: Sequence[Clip]) -> list[str]:
    """Which modes are set beside each other: without and with the spec, if both are there; else all."""
    there = list(dict.fromkeys(clip.mode for clip in clips))
    return next((list(pair) for pair in PAIRS if set(pair) <= set(there)), there)
