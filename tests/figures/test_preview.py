"""Animated previews: what was put in comes out, in time, small enough, with a text and a still picture."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.figures.planted_videos import FRAMES, moving
from workbench.errors import WorkbenchError
from workbench.figures import preview


def decoded(content: bytes, fps: float = preview.RATE) -> np.ndarray:
    """What is seen at each 1/fps of a second: equal neighbours are kept as one longer frame."""
    frames = []
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.info["loop"] == 0, "runs for ever"
        for f in range(picture.n_frames):
            picture.seek(f)
            picture.load()
            held = preview.HOLD if f == picture.n_frames - 1 else 0
            times, rest = divmod(picture.info["duration"] - held, round(1000 / fps))
            assert rest == 0
            frames += [np.asarray(picture.convert("RGB"))] * times
    return np.stack(frames)


def test_a_small_video_loses_nothing_and_keeps_its_time():
    video = moving()
    made = preview.webp(video, fps=8.0)
    assert made.quality is None
    assert np.array_equal(decoded(made.content), video)
    assert made.words == "17 frames at 8 frames a second, lossless"
    assert preview.webp(video, fps=8.0).content == made.content, "the same bytes each time"


def test_a_large_video_is_made_to_fit_and_says_how():
    noisy = np.random.default_rng(0).integers(0, 256, (9, 96, 96, 3), dtype=np.uint8)
    made = preview.webp(noisy, most=30_000)
    assert len(made.content) <= 30_000
    assert made.quality is not None
    assert made.size[0] < 96
    assert "compressed at quality" in made.words


def test_side_by_side_keeps_each_frame_in_its_place():
    one, other = moving(), moving((40, 90, 220))
    joined = preview.side_by_side([one, other], gap=4)
    width = one.shape[2]
    assert np.array_equal(joined[:, :, :width], one)
    assert np.array_equal(joined[:, :, width + 4 :], other)
    assert (joined[:, :, width : width + 4] == 255).all()


def test_html_needs_no_other_file_and_speaks_to_everyone():
    page = preview.html([moving(), moving()], ["plain", "<STAS>"], alt='A square & its "twin"')
    assert "&lt;STAS&gt;" in page
    assert 'alt="A square &amp; its &quot;twin&quot;"' in page
    assert "prefers-reduced-motion" in page
    assert not re.search(r"(src|srcset)=\"(?!data:)", page)
    (moving_part,) = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    assert decoded(base64.b64decode(moving_part)).shape == (FRAMES, 24, 2 * 24 + preview.GAP, 3)


def test_files_are_written_with_a_still_one_beside(tmp_path):
    preview.write(moving(), tmp_path / "a.webp")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "a.webp"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), moving()[0])
    with pytest.raises(WorkbenchError, match="can't be written"):
        preview.write(moving(), tmp_path / "no" / "a.webp")


@pytest.mark.parametrize(
    ("video", "said"),
    [
        (moving()[0], "can't be shown"),
        (moving().astype(float), "float64"),
        (moving()[:0], "can't be shown"),
    ],
)
def test_what_is_no_video_is_refused(video, said):
    with pytest.raises(WorkbenchError, match=said):
        preview.webp(video)


def test_videos_that_differ_cant_stand_side_by_side():
    with pytest.raises(WorkbenchError, match="2 shapes"):
        preview.side_by_side([moving(), moving(frames=9)])
    with pytest.raises(WorkbenchError, match="none given"):
        preview.side_by_side([])
    with pytest.raises(WorkbenchError, match="fps = 0"):
        preview.webp(moving(), fps=0)
    with pytest.raises(WorkbenchError, match="1 labels"):
        preview.html([moving(), moving()], ["a"], alt="")
