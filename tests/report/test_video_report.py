"""The sections of videos: what was found, in words and tables; videos of a comparison beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.analysis.steered import simulated
from tests.figures.planted_videos import FRAMES, SIZE, moving, recorded
from tests.planted_video import TRUTHS, Size, video_recording
from workbench.analysis.hierarchy import hierarchy
from workbench.analysis.locate import locate
from workbench.analysis.stas import stas_effects
from workbench.errors import WorkbenchError
from workbench.report import video
from workbench.report.comparison import clips_of, shown_modes
from workbench.report.tried import of_videos

SPEC = {
    "method": "stas", "action": "steer", "channels": [3, 17], "layers": ["blocks.4"], "alpha_first": 1.0,
    "alpha_boundary": 0.9, "alpha_interior": None, "boundary_width": {"unit": "rows", "value": 1.0}, "reference": "channel",
    "window": {"unit": "step_fraction", "low": 0.0, "high": 0.4}, "branches": ["cond", "uncond"],
    "recommended": {"source": {"alpha_first": "a choice", "window": "the paper"}},
}  # fmt: skip


def compared(folder: Path, modes: tuple[str, ...] = ("plain", "cfg", "stas", "cfg+stas")) -> Path:
    """A comparison of videos as the sampler writes it, frames in rows of 7."""
    folder.mkdir()
    rows = []
    for i, prompt in enumerate(("square", "box")):
        for m, mode in enumerate(modes):
            frames = np.zeros((21, SIZE, SIZE, 3), dtype=np.uint8)
            frames[:FRAMES] = moving((40 * m, 90, 220 - 50 * i))
            strip = frames.reshape(3, 7, SIZE, SIZE, 3).swapaxes(1, 2).reshape(3 * SIZE, 7 * SIZE, 3)
            note, name = PngInfo(), f"{i}_{m}.png"
            note.add_text("frames", f"{FRAMES} {SIZE} {SIZE}")
            Image.fromarray(strip).save(folder / name, pnginfo=note)
            rows.append({"file": name, "mode": mode, "prompt": prompt, "seed": 7, "animation": f"{i}_{m}.webp"})
    (folder / "settings.json").write_text(json.dumps({"settings": {}, "images": rows}))
    Image.new("RGB", (8, 8)).save(folder / "comparison.png")
    return folder


def test_videos_of_a_comparison_are_read_frame_by_frame(tmp_path):
    clips = clips_of(compared(tmp_path / "c"))
    assert len(clips) == 8
    assert np.array_equal(clips[5].video, moving((40, 90, 170)))
    assert (clips[5].prompt, clips[5].mode, clips[5].label) == ("box", "cfg", "CFG")
    assert shown_modes(clips) == ["cfg", "cfg+stas"]
    assert shown_modes([clip for clip in clips if "cfg" not in clip.mode]) == ["plain", "stas"]
    (tmp_path / "c" / "0_0.png").unlink()
    with pytest.raises(WorkbenchError, match=r"0_0.png is no strip of frames"):
        clips_of(tmp_path / "c")
    assert clips_of(tmp_path) == [], "what holds no settings is no comparison of videos"


def test_the_section_of_stas_has_spec_previews_strip_and_effects(tmp_path):
    trial = stas_effects(simulated({"temporal_flicker": 1.5}, {"low": {}}, prompts=12), resamples=200, flips=199)
    section = video.stas_section(SPEC, compared(tmp_path / "c"), trial, {}, tmp_path / "out")
    for said in (
        "channel 3, 17",
        "blocks.4",
        "first α = 1, boundary α = 0.9",
        "boundary of 1 rows",
        "steps from 0 to 0.4",
    ):
        assert said in section.text, said
    assert trial.attrs["verdict_reason"] in section.text
    assert ["alpha first", "a choice"] in section.tables[0]["rows"]
    head, rows = section.tables[1]["head"], section.tables[1]["rows"]
    assert rows[0][0] == "plain"
    assert rows[1][0] == "stas − plain"
    assert rows[1][head.index("flicker")].endswith("better")
    assert [preview["title"] for preview in section.previews] == ["square, seed 7", "box, seed 7"]
    for preview in section.previews:
        assert preview["labels"] == ["CFG", "CFG + STAS"]
        assert "the same noise" in preview["alt"]
        assert preview["webp"].is_file()
        assert preview["webp"].stat().st_size <= video.BYTES
        assert preview["png"].is_file()
    (strip,) = section.figures
    assert strip["png"] == tmp_path / "out" / "figures" / "steered_strip.png"
    assert strip["png"].is_file()


def test_the_section_of_the_hierarchy_has_every_contrast(tmp_path):
    recording = video_recording(TRUTHS["image edges, not boundaries"], size=Size(prompts=6))
    found = hierarchy(recording, resamples=200, permutations=99, controls=4)
    section = video.hierarchy_section(found, {})
    assert found.attrs["levels"] in section.text
    names = [row[0] for row in section.tables[0]["rows"]]
    assert names == [str(name).replace(" - ", " − ") for name in found["contrast"].values]
    assert all(len(row) == len(section.tables[0]["head"]) for row in section.tables[0]["rows"])


def test_videos_alone_are_analysed_as_videos():
    recording = video_recording(TRUTHS["all three levels"], size=Size(prompts=5, blocks=2, steps=2))
    found = locate(recording, resamples=100)
    assert set(of_videos(recording, found)) == {"profile", "hierarchy"}
    assert of_videos(recording.drop_vars("hidden"), found) == {}
    still = recording.assign_coords(frame=("token", np.zeros(recording.sizes["token"], dtype=int)))
    assert of_videos(still, found) == {}


def test_recorded_videos_move(tmp_path):
    shown = video.recorded(recorded(9), tmp_path / "previews")
    assert len(shown) == video.MOST
    assert shown[0]["title"] == "square 0"
    assert shown[0]["labels"] == ["seed 0"]
    assert shown[0]["webp"].is_file()
    images = recorded().drop_vars("image")
    assert video.recorded(images, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
