"""The benchmark's shortcut says what the analysis says, so that its rates are the analysis's."""

from __future__ import annotations

import pytest

from benchmarks.hierarchy_draws import BY, SMALL, Judged
from tests.planted_video import TRUTHS, Size, Spread, video_recording
from workbench.analysis.hierarchy import hierarchy
from workbench.analysis.hierarchy_contrasts import CONTRASTS


@pytest.mark.parametrize(
    ("name", "prompts"), [("all three levels", 16), ("image edges, not boundaries", 8), ("none", 8)]
)
def test_a_data_set_is_judged_as_its_recording_is(name: str, prompts: int) -> None:
    size = Size(prompts=prompts, **SMALL)
    short = Judged(TRUTHS[name], size, Spread(), 5)
    recording = video_recording(TRUTHS[name], size=size, seed=5)
    full = hierarchy(recording, channels=[3, 5], resamples=BY.resamples, permutations=BY.permutations)
    assert (short.levels, short.specific) == (full.attrs["levels"], full.attrs["specific"])
    assert short.attrs["rotation_p"] == full.attrs["rotation_p"]
    for variable in (
        "overall",
        "overall_low",
        "control_high",
        "overall_p_corrected",
        "early_minus_late_low",
        "shuffle_p",
    ):
        for contrast in CONTRASTS:
            value = float(full[variable].sel(contrast=contrast))
            assert short.of(variable, contrast) == pytest.approx(value, abs=1e-6, nan_ok=True), (variable, contrast)
