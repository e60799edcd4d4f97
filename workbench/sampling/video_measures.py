"""Numbers for videos: how steady, smooth and alike the frames are, how sharp the first one is, how like real clips it all is.

No torch. A video is uint8 or float in [0, 1], shape (F, Y, X, 3), sRGB as stored; y_FYX is its luma in [0, 1]. Every function
takes one video, so that a batch never changes a number. `VIDEO_TABLE` says of each its unit, its label, where it is from
and which direction is better. They are close to VBench's dimensions (Huang et al. 2024, CVPR), without their networks: here
nothing is downloaded.

A video that stands still is perfectly steady, smooth and alike: read them beside `temporal_power_0`, how much changes slowly, which
flicker adds little to (`frame_difference`, the amount of change, has it in full).

Legend: S videos, F frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.sampling.clip_statistics import (
    FEATURES,
    TIME_EDGES,
    clip_distance,
    clip_statistics,
    distance,
    features,
    own_clip_distance,
)
from workbench.sampling.measures import TABLE, Measure
from workbench.sampling.temporal import CHUNK, VIDEO_MEASURES, chunk_jump, video_similarity

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class VideoMeasure(Measure):
    """As `Measure`, of a video: `kind` is temporal, detail, content, distance, statistic or other.

    `better`: 1 if more is better, −1 if less is, 0 where neither is: nothing is judged by those.
    """

    better: int = 0


def _of_frames(name: str) -> VideoMeasure:
    row = TABLE[name]
    return VideoMeasure("other", row.unit, row.label, f"mean over frames of: {row.equation}", row.source)


def _statistic(name: str) -> VideoMeasure:
    if name == "first_frame_detail":
        label, equation = (
            "first frame's fine detail",
            "ln power above 1/8 cycles/px of frame 0 − ln of the others' mean",
        )
    elif name.startswith("band_power_"):
        label, equation = TABLE[name].label, "ln of the mean over frames of the power of the luma in the band"
    else:
        k = int(name.removeprefix("temporal_power_"))
        low, high = (f"1/{round(1 / edge)}" if edge else "0" for edge in TIME_EDGES[k : k + 2])
        label, equation = f"temporal power {low}–{high} cycles/frame", "ln Σ power of the luma's course over frames"
    return VideoMeasure("statistic", "ln" if name == "first_frame_detail" else "ln luma²", label, equation, "here")


_VBENCH = "after Huang et al. 2024 (VBench)"

VIDEO_TABLE: dict[str, VideoMeasure] = {
    "temporal_flicker": VideoMeasure(
        "temporal", "luma", "temporal flicker", "rms of (x_{t−1} − 2 x_t + x_{t+1}) / 4, blurred", _VBENCH, better=-1
    ),
    "motion_smoothness": VideoMeasure(
        "temporal", "", "motion smoothness", "1 − mean |x_t − its interpolation at constant velocity|", _VBENCH, better=1
    ),
    "frame_consistency": VideoMeasure(
        "temporal", "", "frame-to-frame consistency", "mean low-pass r of neighbouring frames", _VBENCH, better=1
    ),
    "first_frame_consistency": VideoMeasure(
        "temporal", "", "consistency with the first frame", "mean low-pass r of later frames to the first", _VBENCH, better=1
    ),
    "chunk_jump": VideoMeasure(
        "temporal", "ln", "jump between chunks", "ln mean |x_{t+1} − x_t| between chunks ÷ within; best at 0", "here"
    ),
    "first_frame_sharpness": VideoMeasure(
        "detail", "luma/px", "first-frame sharpness", "edge energy of frame 0", "Sobel & Feldman 1968", better=1
    ),
    "first_frame_relative_sharpness": VideoMeasure(
        "detail", "ln", "first frame's relative sharpness", "ln edge energy of frame 0 ÷ mean of the others", "here", better=1
    ),
    "sharpness": VideoMeasure("detail", "luma/px", "sharpness", "mean edge energy of all frames", "Sobel & Feldman 1968"),
    "frame_difference": VideoMeasure("other", "luma", "amount of change", "mean |x_{t+1} − x_t|", _VBENCH),
    "clip_distance": VideoMeasure(
        "distance", "sd", "distance to the mean training clip", "√(mean over features of ((f − m) / s)²); no gauge", "here",
        "reference",
    ),
    "own_clip_distance": VideoMeasure(
        "distance", "sd", "distance to the own training clip", "√(mean over features of ((f − f_own) / s)²)", "here",
        "reference", better=-1,
    ),
    "low_pass_similarity": VideoMeasure(
        "content", "", "low-pass similarity", "mean over frames of r to the unsteered video, blurred", "here", "plain"
    ),
    **{name: _of_frames(name) for name in ("contrast", "colourfulness", "saturation")},
    **{name: _statistic(name) for name in FEATURES},
}  # fmt: skip
"""Every measure of a video by name. Of the rows of kind ``statistic`` `workbench.analysis.stas` makes the distance between the
videos' distribution and the training clips'."""


def video_measures(
    videos_SFYX3: Array,
    prompts: Sequence[str],
    *,
    plain_SFYX3: Array | None = None,
    reference: Mapping[str, Any] | None = None,
    chunk: int = CHUNK,
) -> dict[str, Array]:
    """Measure every video; what needs a part that is not given is left out.

    Parameters
    ----------
    videos_SFYX3 : ndarray
        uint8, or float in [0, 1].
    prompts : sequence of str
        S prompts.
    plain_SFYX3 : ndarray, optional
        The unsteered videos of the same samples, for `low_pass_similarity`.
    reference : mapping, optional
        Of `clip_statistics`.
    chunk : int
        Of `chunk_jump`.

    Returns
    -------
    dict of str to ndarray of shape (S,)
        In the order of `VIDEO_TABLE`. NaN where a video can't have a measure (see each), or is not finite.

    Raises
    ------
    ValueError
        If the shapes or the number of prompts don't fit.
    """
    videos = np.asarray(videos_SFYX3)
    if videos.ndim != 5 or videos.shape[-1] != 3 or len(videos) != len(prompts):
        raise ValueError(
            f"videos of shape (samples, frame, y, x, 3) and a prompt each, not {videos.shape}, {len(prompts)}."
        )
    if plain_SFYX3 is not None and np.shape(plain_SFYX3) != videos.shape:
        raise ValueError(f"plain videos of the same shape {videos.shape}, not {np.shape(plain_SFYX3)}.")
    given = {"": True, "plain": plain_SFYX3 is not None, "reference": reference is not None}
    found = {name: np.full(len(videos), np.nan) for name, row in VIDEO_TABLE.items() if given[row.needs]}
    for s, video in enumerate(videos):
        if not np.isfinite(video).all():
            continue
        for name, measure in VIDEO_MEASURES.items():
            found[name][s] = measure(video) if name != "chunk_jump" else chunk_jump(video, chunk)
        for name, value in zip(FEATURES, features(video), strict=True):
            found[name][s] = value
        if plain_SFYX3 is not None and np.isfinite(plain_SFYX3[s]).all():
            found["low_pass_similarity"][s] = video_similarity(video, plain_SFYX3[s])
        if reference is not None:
            found["clip_distance"][s] = clip_distance(video, reference)
            found["own_clip_distance"][s] = own_clip_distance(video, prompts[s], reference)
    return found


__all__ = ["VIDEO_MEASURES", "VIDEO_TABLE", "clip_statistics", "distance", "video_measures"]
