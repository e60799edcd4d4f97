"""From a real pipeline with a planted hierarchy to the width that is proposed: recorder, store, analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import workbench
from tests.planted_video import MASSIVE, WAN_SIZE, Truth, planted_wan
from tests.tiny_wan import encode_wan
from workbench.analysis.profile_rule import FOUND

PROMPTS = ["red apple", "dog", "pizza", "boat", "blue chair", "rain"]


@pytest.mark.parametrize(
    ("truth", "found"), [(Truth(first=0.5, boundary=0.4), True), (Truth(first=0.5, edges=0.4), False)]
)
def test_a_width_written_by_a_block_is_proposed_from_its_recording(truth: Truth, found: bool, tmp_path: Path) -> None:
    pipe = planted_wan(truth, width=4)
    pipe.vae = None
    store = workbench.record(
        pipe, prompts=PROMPTS, out=tmp_path / "s.zarr", steps=2, guidance_scale=3.0, batch_size=2, tier="full",
        encode=encode_wan, progress=False, **WAN_SIZE,
    )  # fmt: skip
    recording = workbench.open(store)
    assert recording.attrs["boundary_width"] == 6
    result = workbench.profile(recording, channels=sorted(MASSIVE), resamples=200)
    assert (result.attrs["verdict"] == FOUND) is found, result.attrs["verdict_reason"]
    assert result.attrs["proposed_width"] == (4 if found else 0)
    uncond = workbench.profile(recording, channels=sorted(MASSIVE), branch="uncond", resamples=200)
    assert not np.array_equal(uncond["magnitude"], result["magnitude"], equal_nan=True)
    assert uncond.attrs["proposed_width"] == result.attrs["proposed_width"]
