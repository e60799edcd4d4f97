"""Videos as files: frames come back bit for bit, and what is no strip of frames is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.errors import WorkbenchError
from workbench.store.video_files import STRIP, frame_strip, frames_of, save_video


def test_frames_come_back_from_both_files_as_they_were(tmp_path: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (7, 16, 24, 3)).astype(np.uint8)
    animation = save_video(video, tmp_path / "a.png", fps=4)
    np.testing.assert_array_equal(frames_of(tmp_path / "a.png"), video)
    with Image.open(animation) as image:
        assert image.n_frames == 7
        for f in range(7):
            image.seek(f)
            image.load()
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), video[f])
            assert image.info["duration"] == 250
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    with pytest.raises(WorkbenchError, match="no strip of frames"):
        frames_of(tmp_path / "other.png")
    with pytest.raises(WorkbenchError, match="uint8"):
        save_video(video / 255, tmp_path / "b.png")


def test_a_long_strip_goes_on_in_the_next_row(tmp_path: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (5, 4, STRIP // 2, 3)).astype(np.uint8)
    assert frame_strip(video).shape == (12, STRIP, 3)
    save_video(video, tmp_path / "a.png")
    np.testing.assert_array_equal(frames_of(tmp_path / "a.png"), video)
