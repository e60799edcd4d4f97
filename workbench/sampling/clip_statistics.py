"""Statistics of whole clips, of training clips above all: where the power lies in space and in time.

A generated video is compared with real ones by a few numbers of each clip, its *features* (natural logarithms, so that a
difference is a ratio): ln power of the luma in octaves of spatial frequency, ln power of its change over time in three bands
of temporal frequency, and how much more fine detail the first frame has than the others. No torch.

One clip's distance to the *mean* clip is no gauge (real clips lie about 1 from it; see `workbench.analysis.gauge`), so
`distance` compares the distribution over clips.

Legend: S videos, F frames, K features.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct  # type: ignore[import-untyped, unused-ignore]

from workbench.errors import WorkbenchError
from workbench.sampling.spectrum import BAND_EDGES, BANDS, POWER_FLOOR, REFERENCE_BYTES, luma, power_by_band
from workbench.sampling.temporal import VIDEO_MEASURES

Array = npt.NDArray[Any]

TIME_EDGES = (0.0, 1 / 8, 1 / 4, 1 / 2)
"""Edges of the temporal bands in cycles per frame; lower edge excluded. What does not change is in none of them."""

TIME_BANDS = len(TIME_EDGES) - 1

DETAIL = 1 / 8
"""As in `workbench.sampling.measures.DETAIL`: spatial frequencies above it are detail."""

FEATURES: tuple[str, ...] = (
    *(f"band_power_{k}" for k in range(BANDS)),
    *(f"temporal_power_{k}" for k in range(TIME_BANDS)),
    "first_frame_detail",
)
"""Names of the features, in their order."""


def features(video_FYX3: Array) -> Array:
    """Features of one clip, shape (K,), in the order of `FEATURES`.

    ``band_power_k``: ln of the mean over frames of the luma's power in a spatial octave (`spectrum.BAND_EDGES`).
    ``temporal_power_k``: ln of the mean over pixels of the power of the luma's course over frames in a band of `TIME_EDGES`
    (orthonormal cosine transform along time, so a loop that does not close makes no power; divided by F).
    ``first_frame_detail``: ln power above `DETAIL` of the first frame − that of the mean of the others.
    Floored at what rounding to 8 bits adds. Temporal features are NaN for a single frame; all are, if a value is not finite.
    """
    video = np.asarray(video_FYX3)
    if not np.isfinite(video).all():
        return np.full(len(FEATURES), np.nan)
    y_FYX = np.stack([luma(frame) for frame in video])
    space_FK = np.stack([power_by_band(y_YX) for y_YX in y_FYX])
    fine_F = space_FK[:, [k for k in range(BANDS) if BAND_EDGES[k] >= DETAIL]].sum(axis=1)
    time_T, first = np.full(TIME_BANDS, np.nan), float("nan")
    if len(y_FYX) > 1:
        power_F = (dct(y_FYX, axis=0, norm="ortho") ** 2).mean(axis=(1, 2)) / len(y_FYX)
        rate_F = np.arange(len(y_FYX)) / (2 * len(y_FYX))
        time_T = np.array(
            [power_F[(rate_F > low) & (rate_F <= high)].sum() for low, high in itertools.pairwise(TIME_EDGES)]
        )
        first = float(_ln(fine_F[0]) - _ln(fine_F[1:].mean()))
    return np.array([*_ln(space_FK.mean(axis=0)), *_ln(time_T), first])


def clip_statistics(
    videos_SFYX3: Array | Sequence[Array], captions: Sequence[str] | None = None, *, source: str = ""
) -> dict[str, Any]:
    """Describe real clips: what `distance` and `own_distance` compare with, JSON-able, small.

    Parameters
    ----------
    videos_SFYX3 : array or sequence of array (F, Y, X, 3)
        uint8, or float in [0, 1]; all of one shape, at least two.
    captions : sequence of str, optional
        One a clip. Clips of one caption (say, on several backgrounds) are averaged for `own_distance`.
    source : str
        Which clips these are.

    Returns
    -------
    dict
        ``mean`` and ``spread`` (standard deviation, divisor S − 1) of the features by name; the same of the measures of one
        video alone under ``measures`` (`temporal.VIDEO_MEASURES`), to read a number by; ``clips``, ``frames``, ``size``
        (y, x), ``source``; ``by_caption``: caption → mean features, in the order of ``features``.

    Raises
    ------
    WorkbenchError
        If there are fewer than two clips, they differ in shape, or captions and clips don't match.
    """
    videos = [np.asarray(video) for video in videos_SFYX3]
    shapes = {video.shape for video in videos}
    if len(videos) < 2 or len(shapes) > 1 or next(iter(shapes))[-1:] != (3,) or len(next(iter(shapes))) != 4:
        raise WorkbenchError(
            f"{len(videos)} clips of shapes {sorted(shapes)}: give two or more of one shape (F, y, x, 3)."
        )
    if captions is not None and len(captions) != len(videos):
        raise WorkbenchError(f"{len(captions)} captions for {len(videos)} clips; give one a clip.")
    found_SK = np.stack([features(video) for video in videos])
    values_SM = np.array([[measure(video) for measure in VIDEO_MEASURES.values()] for video in videos])
    frames, height, width, _ = next(iter(shapes))
    by_caption: dict[str, list[float]] = {}
    for caption in dict.fromkeys(captions or ()):
        rows = [i for i, name in enumerate(captions or ()) if name == caption]
        by_caption[caption] = _rounded(found_SK[rows].mean(axis=0))
    return {
        "features": list(FEATURES),
        "mean": dict(zip(FEATURES, _rounded(found_SK.mean(axis=0)), strict=True)),
        "spread": dict(zip(FEATURES, _rounded(found_SK.std(axis=0, ddof=1)), strict=True)),
        "measures": {
            name: {"mean": mean, "spread": spread}
            for name, mean, spread in zip(
                VIDEO_MEASURES, _rounded(values_SM.mean(axis=0)), _rounded(values_SM.std(axis=0, ddof=1)), strict=True
            )
        },
        "clips": len(videos),
        "frames": int(frames),
        "size": [int(height), int(width)],
        "source": source,
        "by_caption": by_caption,
    }


def distance(videos_SFYX3: Array | Sequence[Array], reference: Mapping[str, Any]) -> float:
    """How far the distribution of the features over these videos is from the real clips', in the clips' deviations.

    √(mean over features of ((m − m_ref)² + (s − s_ref)²) / s_ref²): the 2-Wasserstein distance of independent normal
    distributions, as `workbench.analysis.gauge` uses it for pictures. 0 for the clips themselves. It is biased upwards for few
    videos; compare sets of one size. Features without spread in the reference are left out.

    Raises
    ------
    WorkbenchError
        If there are fewer than two videos, they have another size or number of frames, or the reference is none.
    """
    mean_K, spread_K, usable_K = reference_arrays(reference)
    videos = [np.asarray(video) for video in videos_SFYX3]
    wrong = [video.shape for video in videos if not fits(video, reference)]
    if len(videos) < 2 or wrong:
        raise WorkbenchError(
            f"{len(videos)} videos{f', one of shape {wrong[0]}' if wrong else ''}: give two or more of {reference['frames']} "
            f"frames of {reference['size'][0]} × {reference['size'][1]} px, as the reference has."
        )
    found_SK = np.stack([features(video) for video in videos])
    return apart(found_SK.mean(axis=0), found_SK.std(axis=0, ddof=1), mean_K, spread_K, usable_K)


def apart(mean_K: Array, deviation_K: Array, reference_K: Array, spread_K: Array, usable_K: Array) -> float:
    """The distance of `distance` from its parts."""
    safe_K = np.where(usable_K, spread_K, 1.0)
    square_K = ((mean_K - reference_K) ** 2 + (deviation_K - spread_K) ** 2) / safe_K**2
    return float(np.sqrt(square_K[usable_K].mean()))


def clip_distance(video_FYX3: Array, reference: Mapping[str, Any]) -> float:
    """One video's distance to the mean real clip, √(mean ((f − m) / s)²): about 1 for a real clip, so no gauge of quality.

    NaN for another size or number of frames than the reference's.
    """
    if not fits(video_FYX3, reference):
        return float("nan")
    mean_K, spread_K, usable_K = reference_arrays(reference)
    score_K = (features(video_FYX3) - mean_K)[usable_K] / spread_K[usable_K]
    return float(np.sqrt((score_K**2).mean()))


def own_clip_distance(video_FYX3: Array, prompt: str, reference: Mapping[str, Any]) -> float:
    """Distance of one video's features to those of the real clips with its caption, in the clips' deviations.

    NaN for a prompt that is no caption, and as `clip_distance`.
    """
    own = reference.get("by_caption", {}).get(prompt)
    if own is None or not fits(video_FYX3, reference):
        return float("nan")
    _, spread_K, usable_K = reference_arrays(reference)
    score_K = (features(video_FYX3) - np.asarray(own, dtype=float))[usable_K] / spread_K[usable_K]
    return float(np.sqrt((score_K**2).mean()))


def read_reference(path: Path) -> dict[str, Any]:
    """Read what `clip_statistics` returned, written as JSON.

    Raises
    ------
    WorkbenchError
        If it can't be read, is too large, or is none.
    """
    try:
        if path.stat().st_size > REFERENCE_BYTES:
            raise WorkbenchError(f"{path} has more than {REFERENCE_BYTES} bytes; a reference is smaller.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"{path} can't be read as statistics of clips: {error}.") from error
    if not isinstance(found, dict):
        raise WorkbenchError(f"{path} holds no statistics of clips; write those of `clip_statistics(videos)` there.")
    reference_arrays(found)
    return found


def fits(video_FYX3: Array, reference: Mapping[str, Any]) -> bool:
    """Whether a video has the frames and the size of the reference's clips: powers are per pixel and per frame."""
    return np.shape(video_FYX3)[:3] == (int(reference["frames"]), *(int(n) for n in reference["size"]))


def reference_arrays(reference: Mapping[str, Any]) -> tuple[Array, Array, Array]:
    """Mean, spread and which features have a spread, each of shape (K,).

    Raises
    ------
    WorkbenchError
        If it is not what `clip_statistics` returned.
    """
    try:
        mean_K, spread_K = (
            np.array([reference[part][name] for name in FEATURES], dtype=float) for part in ("mean", "spread")
        )
        complete = {"frames", "size"} <= set(reference)
    except (KeyError, TypeError, ValueError) as error:
        raise WorkbenchError(
            f"this is no reference of clips ({error!r}); make one with `clip_statistics(videos)`."
        ) from None
    if not complete:
        raise WorkbenchError(
            "this reference of clips lacks `frames` or `size`; make one with `clip_statistics(videos)`."
        )
    return mean_K, spread_K, np.asarray(np.isfinite(mean_K) & (spread_K > 0))


def _ln(power: Any) -> Any:
    return np.log(np.maximum(power, POWER_FLOOR))


def _rounded(values: Array) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
