"""Measures of a video: known answers, and what they must not see."""

from __future__ import annotations

import json

import numpy as np
import pytest

from workbench.analysis.stas_rule import MOTION
from workbench.errors import WorkbenchError
from workbench.sampling.clip_statistics import FEATURES, clip_distance, clip_statistics, distance, features
from workbench.sampling.measures import blur
from workbench.sampling.temporal import (
    VIDEO_MEASURES,
    chunk_jump,
    first_frame_consistency,
    first_frame_relative_sharpness,
    first_frame_sharpness,
    frame_consistency,
    frame_difference,
    motion_smoothness,
    temporal_flicker,
    video_similarity,
)
from workbench.sampling.video_measures import VIDEO_TABLE, video_measures

FRAMES, SIZE = 9, 48


def pattern(seed: int = 0, size: int = SIZE) -> np.ndarray:
    """A smooth random picture, (size, size, 3) in [0.1, 0.9]."""
    rgb = blur(np.random.default_rng(seed).normal(size=(size, size, 3)), 1.5)
    return 0.1 + 0.8 * (rgb - rgb.min()) / np.ptp(rgb)


def still(frames: int = FRAMES) -> np.ndarray:
    return np.repeat(pattern()[None], frames, axis=0)


def moving(down: float, right: float, frames: int = FRAMES) -> np.ndarray:
    """A large picture seen through a window that moves evenly, by whole pixels each frame."""
    big = pattern(size=SIZE + 40)
    places = [(20 + round(down * t), 20 + round(right * t)) for t in range(-(frames // 2), frames - frames // 2)]
    return np.stack([big[y : y + SIZE, x : x + SIZE] for y, x in places])


def alternating(amplitude: float, frames: int = FRAMES) -> np.ndarray:
    sign = (-1.0) ** np.arange(frames)
    return np.full((frames, SIZE, SIZE, 3), 0.5) + amplitude * sign[:, None, None, None]


def test_a_still_video_has_no_flicker_no_motion_and_is_alike_throughout() -> None:
    video = still()
    assert temporal_flicker(video) == frame_difference(video) == 0.0
    assert motion_smoothness(video) == 1.0
    assert frame_consistency(video) == pytest.approx(1.0)
    assert first_frame_consistency(video) == pytest.approx(1.0)
    assert chunk_jump(video) == 0.0
    assert first_frame_relative_sharpness(video) == pytest.approx(0.0)


@pytest.mark.parametrize(("down", "right"), [(0, 1), (2, -1), (-3, 2), (0, 4)])
def test_what_moves_at_a_constant_velocity_is_perfectly_smooth(down: int, right: int) -> None:
    video = moving(down, right)
    assert frame_difference(video) > 0.01
    assert motion_smoothness(video) == pytest.approx(1.0, abs=1e-12)


def test_half_pixels_are_followed_too() -> None:
    base = moving(0, 1, frames=2 * FRAMES)
    halves = np.stack([(base[t // 2] + base[(t + 1) // 2]) / 2 for t in range(FRAMES)])  # half a pixel a frame
    assert 1 - motion_smoothness(halves) < 0.2 * frame_difference(halves)


def test_jumps_and_noise_are_not_smooth() -> None:
    video, generator = moving(0, 1), np.random.default_rng(1)
    long = moving(0, 1, frames=3 * FRAMES)
    jumping = np.concatenate([long[:4], long[20:25]])
    noisy = np.clip(video + generator.normal(scale=0.1, size=video.shape), 0, 1)
    assert motion_smoothness(noisy) < motion_smoothness(jumping) < motion_smoothness(video) - 1e-3


@pytest.mark.parametrize("amplitude", [0.05, 0.2])
def test_alternating_brightness_flickers_by_its_amplitude(amplitude: float) -> None:
    assert temporal_flicker(alternating(amplitude)) == pytest.approx(amplitude, rel=1e-9)


def test_a_steady_fade_does_not_flicker_and_motion_counts_little() -> None:
    fade = np.linspace(0.2, 0.8, FRAMES)[:, None, None, None] * np.ones((1, SIZE, SIZE, 3))
    assert temporal_flicker(fade) == pytest.approx(0.0, abs=1e-12)
    assert frame_difference(fade) == pytest.approx(0.6 / (FRAMES - 1))
    video = moving(0, 1)
    flickering = np.clip(video + 0.05 * (-1.0) ** np.arange(FRAMES)[:, None, None, None], 0, 1)
    assert temporal_flicker(flickering) > 5 * temporal_flicker(video)


def test_flicker_does_not_pass_for_motion_in_the_guard_of_the_trial() -> None:
    def guard(video: np.ndarray) -> float:
        return float(features(video)[FEATURES.index(MOTION)])

    flicker = 0.05 * (-1.0) ** np.arange(FRAMES)[:, None, None, None]
    video, standing = moving(0, 1), still() + flicker
    assert frame_difference(standing) > 2 * frame_difference(video), "by the amount of change it would move more"
    assert guard(standing) < guard(video) - np.log(4)
    assert guard(video + flicker) == pytest.approx(guard(video), abs=0.05)
    assert guard(still()) < guard(standing)


def test_a_blurred_first_frame_is_less_sharp() -> None:
    video = moving(0, 1)
    blurred = video.copy()
    blurred[0] = blur(video[0], 3.0)
    assert first_frame_sharpness(blurred) < 0.6 * first_frame_sharpness(video)
    assert first_frame_relative_sharpness(blurred) < -0.5 < first_frame_relative_sharpness(video)
    detail = FEATURES.index("first_frame_detail")
    assert features(blurred)[detail] < features(video)[detail] - 1


def test_another_subject_is_less_consistent_than_the_same() -> None:
    video = moving(0, 1)
    changed = np.concatenate([video[:4], np.repeat(pattern(7)[None], FRAMES - 4, axis=0)])
    assert frame_consistency(changed) < frame_consistency(video)
    assert first_frame_consistency(changed) < first_frame_consistency(video) - 0.1


def test_seams_between_chunks_show_in_the_jump_and_only_there() -> None:
    drift = 0.01 * np.arange(9)[:, None, None, None] * np.ones((1, SIZE, SIZE, 3)) + 0.2
    assert chunk_jump(drift) == pytest.approx(0.0, abs=1e-9)
    seams = drift + 0.05 * np.array([0, *([1] * 4), *([2] * 4)])[:, None, None, None]
    assert chunk_jump(seams) == pytest.approx(np.log(0.06 / 0.01))
    assert np.isnan(chunk_jump(drift[:2])), "one transition has nothing to be compared with"
    shifted = drift + 0.05 * np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])[:, None, None, None]
    assert chunk_jump(shifted) < 0 < chunk_jump(shifted, chunk=2)


def test_temporal_power_is_in_the_band_of_its_frequency() -> None:
    time = np.arange(16)[:, None, None, None]
    names = [name for name in FEATURES if name.startswith("temporal")]
    at = [FEATURES.index(name) for name in names]
    for rate, band in ((1 / 16, 0), (3 / 16, 1), (15 / 32, 2)):
        tone = 0.5 + 0.2 * np.cos(2 * np.pi * rate * (time + 0.5)) * np.ones((1, 8, 8, 3))
        power = features(tone)[at]
        assert power.argmax() == band
        assert power[band] == pytest.approx(np.log(0.2**2 / 2), abs=1e-6)


def test_uint8_and_float_agree_and_large_frames_are_reduced() -> None:
    video = np.round(moving(0, 1) * 255).astype(np.uint8)
    for name, measure in VIDEO_MEASURES.items():
        assert measure(video) == pytest.approx(measure(video / 255.0), rel=1e-9), name
    large = np.repeat(np.repeat(moving(0, 3), 4, axis=1), 4, axis=2)  # 12 px a frame, 4 after reduction by 3
    assert motion_smoothness(large) == pytest.approx(1.0, abs=1e-9)


def test_short_and_small_videos_have_nan_and_no_warning() -> None:
    one, two = still(1), still(2)
    assert np.isnan(
        [temporal_flicker(two), motion_smoothness(two), frame_consistency(one), frame_difference(one)]
    ).all()
    assert np.isfinite([first_frame_sharpness(one), frame_consistency(two)]).all()
    assert np.isnan(motion_smoothness(np.zeros((5, 8, 8, 3))))
    assert np.isnan(features(np.full((3, 8, 8, 3), np.nan))).all()


def test_the_table_is_what_is_measured() -> None:
    videos = np.stack([still(), moving(0, 1)])
    reference = clip_statistics(videos, ["a", "b"])
    found = video_measures(videos, ["a", "x"], plain_SFYX3=videos[::-1], reference=reference)
    assert list(found) == list(VIDEO_TABLE)
    assert set(VIDEO_MEASURES) | set(FEATURES) < set(VIDEO_TABLE)
    assert "low_pass_similarity" not in video_measures(videos, ["a", "x"])
    assert found["low_pass_similarity"][0] == pytest.approx(video_similarity(videos[0], videos[1]))
    assert found["own_clip_distance"][0] == pytest.approx(0.0, abs=1e-4)
    assert np.isnan(found["own_clip_distance"][1]), "no caption of the reference"
    alone = video_measures(videos[1:], ["x"], reference=reference)
    assert alone["motion_smoothness"][0] == found["motion_smoothness"][1], "a batch changes no number"
    assert {row.better for row in VIDEO_TABLE.values()} == {-1, 0, 1}
    assert all(row.better == 0 for row in VIDEO_TABLE.values() if row.kind in ("statistic", "content", "other"))
    with pytest.raises(ValueError, match="a prompt each"):
        video_measures(videos, ["a"])


def test_a_video_that_is_not_finite_has_no_number() -> None:
    videos = np.stack([still(), moving(0, 1)])
    videos[0, 0, 0, 0, 0] = np.nan
    found = video_measures(videos, ["a", "b"])
    assert all(np.isnan(values[0]) for values in found.values())
    assert np.isfinite(found["temporal_flicker"][1])


def clips(count: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        down, right = generator.integers(-2, 3, 2)
        made.append(generator.uniform(0.5, 1) * np.roll(moving(down, right), generator.integers(SIZE), axis=2))
    return np.clip(np.stack(made) + generator.normal(scale=noise, size=(count, FRAMES, SIZE, SIZE, 3)), 0, 1)


def test_the_clips_have_no_distance_to_themselves_and_noise_has() -> None:
    real = clips(12)
    reference = clip_statistics(real, source="test")
    assert distance(real, reference) == pytest.approx(0.0, abs=1e-4)
    near, far, farther = (distance(clips(12, noise, seed=3), reference) for noise in (0.0, 0.02, 0.1))
    assert near < far < farther
    z = [clip_distance(clip, reference) for clip in real]
    assert np.sqrt(np.mean(np.square(z))) == pytest.approx(np.sqrt(11 / 12), rel=0.05), "about 1 for a real clip"
    assert json.loads(json.dumps(reference)) == reference
    assert reference["measures"]["temporal_flicker"]["mean"] == pytest.approx(
        np.mean([temporal_flicker(clip) for clip in real]), rel=1e-4
    )


def test_what_is_no_reference_or_does_not_fit_is_refused() -> None:
    reference = clip_statistics(clips(3))
    with pytest.raises(WorkbenchError, match="9 frames of 48 × 48"):
        distance(clips(3)[:, :5], reference)
    assert np.isnan(clip_distance(still(5), reference))
    with pytest.raises(WorkbenchError, match="no reference of clips"):
        distance(clips(3), {"mean": {}, "spread": {}, "frames": FRAMES, "size": [SIZE, SIZE]})
    with pytest.raises(WorkbenchError, match="two or more of one shape"):
        clip_statistics(clips(1))
    with pytest.raises(WorkbenchError, match="one a clip"):
        clip_statistics(clips(2), ["a"])
