"""Strips of frames: the frames they say, at their seconds, the same bytes each time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.text import Text

from tests.figures.planted_videos import FRAMES, moving, recorded
from workbench.errors import AnalysisError
from workbench.figures import registry, style
from workbench.figures.frame_strip import latent_frame, shown_frames, strip

FIGURE = registry.load("frame_strip")


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_draws_saves_and_says_what_it_shows(tmp_path):
    recording = recorded()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = style.save(FIGURE.draw(recording), tmp_path, "frame_strip", data=FIGURE.data(recording))
    first = [file.read_bytes() for file in files]
    style.save(FIGURE.draw(recording), tmp_path, "frame_strip", data=FIGURE.data(recording))
    assert [file.read_bytes() for file in files] == first
    caption = FIGURE.caption(recording)
    for said in ("17 frames", "n = 3 samples", "cond and uncond", "latent frame", "no verdict"):
        assert said in caption, said
    assert "frames a second" not in caption, "a rate that nobody gave is not made up"
    assert "at 8 frames a second" in FIGURE.caption(recording, fps=8.0)


def test_the_frames_shown_are_those_of_their_numbers():
    video = moving()
    figure = strip([video, video[::-1]], ["forward", "backward"], fps=8.0, latent_frames=5)
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    frames = shown_frames(FRAMES)
    assert frames == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    for k, frame in enumerate(frames):
        assert np.array_equal(pictures[k], video[frame])
        assert np.array_equal(pictures[len(frames) + k], video[FRAMES - 1 - frame])
    said = texts(figure)
    assert {"forward", "backward", "frame", "second", "16", "2.00", "latent frame"} <= set(said)


def test_the_first_frame_stands_alone_in_its_latent_frame():
    assert [latent_frame(frame, 17, 5) for frame in (0, 1, 4, 5, 16)] == [0, 1, 1, 2, 4]
    with pytest.raises(AnalysisError, match="16 frames can't be divided over 5 latent frames"):
        latent_frame(3, 16, 5)


def test_without_a_rate_there_are_no_seconds():
    assert "second" not in texts(strip([moving()], ["one"]))


def test_the_table_has_what_changes_between_frames():
    table = FIGURE.data(recorded(), fps=8.0)
    assert len(table) == 3 * 9
    assert table["second"].tolist()[:3] == [0.0, 0.25, 0.5]
    assert np.isnan(table["change"][0])
    assert (table["change"][1:9] > 0).any()


def test_videos_that_differ_are_refused():
    with pytest.raises(AnalysisError, match="2 videos of 2 shapes"):
        strip([moving(), moving(frames=9)], ["a", "b"])
    with pytest.raises(AnalysisError, match="with 1 labels"):
        strip([moving(), moving()], ["a"])


def test_pictures_are_not_videos():
    recording = recorded()
    images = recording.assign(image=recording["image"].isel(video_frame=0))
    with pytest.raises(AnalysisError, match="holds images, not videos"):
        FIGURE.draw(images)
    assert registry.missing("frame_strip", images) == "the recording holds no videos"
    assert registry.missing("images", images) == ""
    assert registry.missing("images", recording) == "the recording holds no images"
    assert registry.missing("frame_strip", recording) == ""
    assert registry.missing("images", recording.drop_vars("image")) == "the recording holds no images"
