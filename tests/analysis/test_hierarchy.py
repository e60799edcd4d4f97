"""The frame hierarchy: what was planted is found, what looks like it is told apart, and what can't be known is not said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.analysis.synthetic import synthetic
from tests.planted_video import BOUNDARY, FIRST, GRID, MASSIVE, TRUTHS, Size, Spread, Truth, video_recording
from workbench.analysis.hierarchy import hierarchy
from workbench.analysis.hierarchy_contrasts import (
    CONTRASTS,
    FIRST_BOUNDARY,
    FIRST_INTERIOR,
    NO_DRIFT,
    ROWS,
    ROWS_COLUMNS,
    ROWS_FIRST,
    STEEP,
    STEEP_BOUNDARY,
    STEEP_INTERIOR,
)
from workbench.analysis.hierarchy_rule import ALL, BOTH, EDGES, LEVELS, NONE, SHARED, UNDECIDED
from workbench.analysis.hierarchy_rule import FIRST as FIRST_ONLY
from workbench.analysis.locate import locate, located_channels
from workbench.errors import AnalysisError, RoleError

MANY = Size(prompts=32)
FAST: dict[str, Any] = {"resamples": 300, "permutations": 299}
EXACT = Spread(level=0.3, own=0.0, content=0.0, token=0.0, middle=0.0)
"""Prompts differ in level only: every contrast is what was planted, to rounding."""


def judged(
    truth: Truth, *, size: Size = MANY, seed: int = 7, spread: Spread | None = None, **options: Any
) -> xr.Dataset:
    return hierarchy(video_recording(truth, size=size, spread=spread, seed=seed), **FAST | options)


@pytest.mark.parametrize("name", TRUTHS)
def test_what_was_planted_is_said(name: str) -> None:
    found = judged(TRUTHS[name])
    assert found.attrs["levels"] == name, found.attrs["verdict_reason"]
    assert found.attrs["verdict"] == ("supported" if name == ALL else "not supported")
    assert name in found.attrs["verdict_reason"]
    assert set(found.channel_levels.values) == {name}


@pytest.mark.parametrize(
    ("truth", "levels"),
    [
        (Truth(first=FIRST, boundary=BOUNDARY, edges=BOUNDARY), ALL),
        (Truth(first=BOUNDARY, boundary=BOUNDARY), BOTH),
        (Truth(rows=BOUNDARY), EDGES),
        (Truth(columns=0.4), NONE),
        (Truth(drift=0.4), NONE),
        (Truth(first=-0.5), NONE),
    ],
    ids=["and image edges", "alike", "rows of the image", "columns of the image", "drift", "first frame lower"],
)
def test_what_resembles_a_hierarchy_is_told_apart(truth: Truth, levels: str) -> None:
    found = judged(truth)
    assert found.attrs["levels"] == levels, found.attrs["verdict_reason"]


def test_columns_that_the_image_raises_do_not_deny_a_boundary() -> None:
    found = judged(Truth(first=FIRST, boundary=BOUNDARY, columns=0.4))
    assert found.attrs["levels"] == "undecided"
    assert "the edge columns are raised as much as the boundary's rows" in found.attrs["verdict_reason"]


def test_rows_that_the_image_raises_give_no_prompt_the_whole_order() -> None:
    image, planted = (judged(truth) for truth in (Truth(first=FIRST, rows=BOUNDARY), TRUTHS[ALL]))
    assert float(image.ordered_p) > 0.05 > float(planted.ordered_p)


def test_a_channel_that_is_zero_has_no_hierarchy() -> None:
    recording = video_recording(TRUTHS[ALL], size=Size(prompts=8))
    recording["hidden"].loc[{"channel": 5}] = 0.0
    with pytest.raises(AnalysisError, match="is 0 at all tokens"):
        hierarchy(recording, channels=[5], **FAST)
    assert hierarchy(recording, **FAST).attrs["levels"] == ALL


def test_a_reversed_first_frame_and_a_drift_are_put_in_words() -> None:
    assert "The first frame is lower than later ones: -0.5" in judged(Truth(first=-0.5)).attrs["verdict_reason"]
    assert "no more than a steady drift" in judged(Truth(drift=0.4)).attrs["verdict_reason"]


def test_a_contrast_of_all_channels_is_not_specific_to_massive_ones() -> None:
    both = judged(Truth(first_everywhere=FIRST))
    own = judged(TRUTHS[FIRST_ONLY])
    assert (both.attrs["levels"], own.attrs["levels"]) == (FIRST_ONLY, FIRST_ONLY)
    assert (both.attrs["specific"], own.attrs["specific"]) == ("no", "yes")
    assert (both.attrs["control_levels"], own.attrs["control_levels"]) == (FIRST_ONLY, NONE)
    assert "not specific to massive activations" in both.attrs["verdict_reason"]
    assert set(own.control_channel.values).isdisjoint(MASSIVE)
    without = judged(TRUTHS[FIRST_ONLY], controls=0)
    assert (without.attrs["specific"], without.attrs["control_levels"]) == ("not asked", "not asked")


def test_a_hierarchy_of_all_channels_is_none_of_massive_activations() -> None:
    """The levels stay what they are; the claim that the papers make is not supported."""
    found = judged(Truth(first_everywhere=FIRST, boundary=BOUNDARY))
    assert (found.attrs["levels"], found.attrs["specific"]) == (ALL, "no")
    assert found.attrs["verdict"] == "not supported"
    assert f": {ALL}, but {SHARED}. " in found.attrs["verdict_reason"]
    assert "not specific to massive activations: first frame over boundary" in found.attrs["verdict_reason"]
    unknown = judged(TRUTHS[ALL], controls=0)
    assert unknown.attrs["verdict"] == "supported"
    assert "it is not known whether this is of the massive ones alone" in unknown.attrs["verdict_reason"]


@pytest.mark.parametrize("grid", [GRID, (3, 6, 6), (9, 6, 6)])
def test_a_drift_is_bounded_however_it_falls_up_to_three_times_a_frame(grid: tuple[int, int, int]) -> None:
    for truth in (*(Truth(curve=0.5, falls=falls) for falls in (1.2, 2.0, float(np.e), 3.0)), Truth(drift=0.5)):
        found = judged(truth, spread=EXACT, size=Size(prompts=5, grid=grid, steps=1, blocks=1))
        assert float(found.overall.sel(contrast=FIRST_INTERIOR)) > 0.1
        assert float(found.overall.sel(contrast=STEEP_INTERIOR)) < 1e-4
        assert float(found.overall.sel(contrast=STEEP_BOUNDARY)) < 1e-4
    steeper = judged(Truth(curve=0.5, falls=9.0), spread=EXACT, size=Size(prompts=5, grid=grid, steps=1, blocks=1))
    assert float(steeper.overall.sel(contrast=STEEP_INTERIOR)) > 0.1


@pytest.mark.parametrize(
    "truth",
    [Truth(curve=FIRST), Truth(curve=1.0), Truth(first=BOUNDARY, boundary=BOUNDARY, drift=0.4)],
    ids=["curve", "large curve", "first frame, boundary, drift"],
)
def test_a_step_and_a_steep_drift_are_not_told_apart_and_nothing_is_claimed(truth: Truth) -> None:
    found = judged(truth)
    assert (found.attrs["levels"], found.attrs["verdict"]) == (UNDECIDED, UNDECIDED)
    assert "the first frame is raised by a step or by a steep drift" in found.attrs["verdict_reason"]


def test_the_criterion_says_which_channels_are_tested() -> None:
    recording = video_recording(TRUTHS[ALL], size=Size(prompts=6, steps=1, blocks=1))
    for criterion in ("workbench", "top_k"):
        found = hierarchy(recording, criterion=criterion, **FAST)
        assert found.channel.values.tolist() == located_channels(locate(recording, criterion=criterion))
        assert found.attrs["criterion"].startswith(criterion)
    with pytest.raises(AnalysisError, match="no criterion 'mine'"):
        hierarchy(recording, criterion="mine")


def test_contrasts_are_what_was_planted_in_ln_units() -> None:
    found = judged(Truth(first=0.5, boundary=0.2, edges=0.1), spread=EXACT, size=Size(prompts=8))
    planted = {FIRST_BOUNDARY: 0.3, FIRST_INTERIOR: 0.5, NO_DRIFT: 0.5, ROWS: 0.3, ROWS_COLUMNS: 0.2, ROWS_FIRST: 0.2}
    planted |= {"column edge - inside": 0.1, STEEP_BOUNDARY: 0.3, STEEP_INTERIOR: 0.5}
    for name, value in planted.items():
        at = found.sel(contrast=name)
        assert float(at.overall) == pytest.approx(value, abs=1e-4), name
        assert np.allclose(at.contrast_value.sel(layer=["blocks.0", "blocks.2"]), value, atol=1e-4), name


def test_magnitudes_and_raw_contrasts_agree_with_a_plain_mean_over_the_roles_tokens() -> None:
    recording = video_recording(Truth(first=0.4, boundary=0.2), size=Size(prompts=5, seeds=2, steps=2))
    found = hierarchy(recording, **FAST)
    h = np.abs(recording.hidden.sel(branch="cond", channel=found.channel.values).astype(float))
    frames = np.log(h.groupby(["frame", "role"]).mean("token")).groupby("prompt").mean().mean("prompt")
    later = frames.sel(frame=slice(1, None)).mean("frame")
    expected = {
        "first": frames.sel(frame=0, role="first"),
        "boundary": later.sel(role="boundary"),
        "interior": later.sel(role="interior"),
    }
    for role, values in expected.items():
        got = found.magnitude.sel(role=role).transpose(*values.dims)
        assert np.allclose(got, values, atol=1e-5), role
    block = expected["first"].sel(layer="blocks.1") - expected["interior"].sel(layer="blocks.1")
    at = found.contrast_value.sel(contrast="first - interior", layer="blocks.1")
    assert np.allclose(at, block.mean("channel"), atol=1e-5)
    unrotated = found.rotation_value.sel(rotation=0)
    assert float(unrotated) == pytest.approx(float(found.overall.sel(contrast="boundary - interior")), abs=1e-5)


def test_prompts_are_the_replicates_and_seeds_are_not() -> None:
    found = judged(TRUTHS[ALL], size=Size(prompts=6, seeds=3))
    assert (found.attrs["n_replicates"], found.attrs["n_samples"]) == (6, 18)
    assert float(found.overall_p.min()) == pytest.approx(2 / 2**6)


@pytest.mark.parametrize(
    ("prompts", "said"), [(4, "4 prompts, of at least 5"), (5, "the smallest that 5 prompts allow; 6")]
)
def test_with_too_few_prompts_nothing_is_decided(prompts: int, said: str) -> None:
    found = judged(TRUTHS[ALL], size=Size(prompts=prompts), spread=EXACT)
    assert found.attrs["verdict"] == found.attrs["levels"] == "undecided"
    assert said in found.attrs["verdict_reason"]


def test_an_open_contrast_says_how_many_prompts_would_decide_it() -> None:
    found = judged(Truth(), size=Size(prompts=6), spread=Spread(own=0.3))
    assert found.attrs["levels"] == "undecided"
    assert "prompts would decide it" in found.attrs["verdict_reason"]


def test_channels_that_differ_are_each_given_their_own_words() -> None:
    one, other = (video_recording(TRUTHS[name], size=MANY, seed=5) for name in (ALL, NONE))
    mixed = one.copy()
    mixed["hidden"] = xr.where(one.channel == 17, other.hidden, one.hidden).transpose(*one.hidden.dims)
    found = hierarchy(mixed, **FAST)
    said = dict(zip(found.channel.values.tolist(), found.channel_levels.values, strict=True))
    assert said == {3: ALL, 17: NONE}
    assert f"17: {NONE}" in found.attrs["verdict_reason"]


@pytest.mark.parametrize(("early", "words"), [(2.0, "stronger early"), (0.0, "stronger late"), (1.0, "steady")])
def test_contrasts_are_followed_over_the_denoising(early: float, words: str) -> None:
    found = judged(Truth(first=FIRST, boundary=BOUNDARY, early=early))
    at = found.sel(contrast=FIRST_INTERIOR)
    assert str(at.dynamics.values) == words
    assert f"Over the denoising {words}" in found.attrs["verdict_reason"]
    halves = float(at.early) - float(at.late)
    assert halves == pytest.approx(float(at.early_minus_late))
    expected = FIRST * 2 * (early - 1.0) * 2 / 3  # four steps; the mean of the first two lies two thirds out
    assert halves == pytest.approx(expected, abs=0.1)
    assert np.sign(float(at.sigma_slope)) == np.sign(early - 1.0) or early == 1.0


def test_one_step_has_no_dynamics_and_a_verdict() -> None:
    found = judged(TRUTHS[ALL], size=Size(prompts=32, steps=1))
    assert found.attrs["levels"] == ALL
    assert np.isnan(found.sigma_slope).all()
    assert str(found.dynamics.sel(contrast=ROWS).values) == "undecided"


def test_the_boundary_is_where_the_frames_end() -> None:
    found = judged(TRUTHS["boundary only"])
    places = GRID[1] * GRID[2]
    assert found.sizes["rotation"] == places
    assert int(np.argmax(found.rotation_value.values)) == 0
    assert found.attrs["rotation_p"] == pytest.approx(1 / places)
    assert judged(Truth(), spread=EXACT).attrs["rotation_p"] > 0.05


def test_two_frames_can_not_tell_a_first_frame_from_a_drift() -> None:
    found = judged(TRUTHS[FIRST_ONLY], size=Size(prompts=32, grid=(2, 6, 6)))
    assert found.attrs["levels"] == UNDECIDED
    assert np.isnan(found.overall.sel(contrast=[NO_DRIFT, *STEEP])).all()
    assert "too few latent frames" in found.attrs["verdict_reason"]
    assert "does not exist" in str(found.contrast_reason.sel(contrast=NO_DRIFT).values)
    assert str(found.contrast_reason.sel(contrast=STEEP_INTERIOR).values) == "it needs 3 latent frames"
    three = judged(TRUTHS[FIRST_ONLY], size=Size(prompts=32, grid=(3, 6, 6)))
    assert three.attrs["levels"] == FIRST_ONLY
    assert "would look the same" in three.attrs["verdict_reason"]


def test_without_columns_that_are_no_corners_a_boundary_is_never_claimed() -> None:
    size = Size(prompts=32, grid=(5, 2, 3), width=2)
    found = hierarchy(video_recording(TRUTHS[ALL], size=size, seed=1), **FAST)
    assert np.isnan(found.overall.sel(contrast=ROWS_COLUMNS))
    assert found.attrs["levels"] == "undecided"
    assert "does not exist on this token grid" in found.attrs["verdict_reason"]


def test_timesteps_of_single_tokens_are_a_confound_where_they_differ() -> None:
    recording = video_recording(TRUTHS[ALL], size=MANY)
    dims = ("sample", "branch", "timestep", "token")
    same = np.broadcast_to(recording.timestep.values[:, None], (32, 1, 4, recording.sizes["token"])).astype("float32")
    given = np.where(recording.frame.values == 0, 0.0, same)
    found = hierarchy(recording.assign(token_timestep=(dims, given)), **FAST)
    assert (found.attrs["verdict"], found.attrs["levels"]) == ("undecided", "undecided: confounded")
    assert "token_timestep" in found.attrs["confound"]
    assert found.attrs["confound"] in found.attrs["verdict_reason"]
    assert "supported" not in set(found.contrast_verdict.values)
    assert set(found.channel_levels.values) == {"undecided: confounded"}
    assert hierarchy(recording.assign(token_timestep=(dims, same)), **FAST).attrs["levels"] == ALL


def test_the_width_is_the_recordings_unless_one_is_given() -> None:
    recording = video_recording(TRUTHS[ALL], size=MANY)
    found, other = (hierarchy(recording, width=width, **FAST) for width in (None, 12))
    assert (found.attrs["boundary_width"], other.attrs["boundary_width"]) == (6, 12)
    assert other.attrs["boundary_width_source"] == "given"
    raw = "boundary - interior"
    assert 0 < float(other.overall.sel(contrast=raw)) < float(found.overall.sel(contrast=raw))


def test_given_channels_are_followed_wherever_they_are_massive_or_not() -> None:
    recording = video_recording(TRUTHS[ALL], size=MANY)
    found = hierarchy(recording, channels=[17], **FAST)
    assert found.channel.values.tolist() == [17]
    assert found.attrs["levels"] == ALL
    assert 3 not in found.control_channel.values
    assert not found.counts.sel(layer="input").any()
    ordinary = hierarchy(recording, channels=[5], **FAST)
    assert ordinary.attrs["levels"] == NONE
    assert ordinary.counts.sel(layer=["blocks.0", "blocks.1", "blocks.2"]).all()


def test_what_has_no_hierarchy_is_refused_by_name() -> None:
    video = video_recording(size=Size(prompts=2))
    with pytest.raises(RoleError, match="two .*frames"):
        hierarchy(synthetic({5: 9.0}, hidden=True))
    with pytest.raises(RoleError, match="two .*frames"):
        hierarchy(video.isel(token=slice(0, 36)))
    with pytest.raises(AnalysisError, match="holds statistics only.*--tier full"):
        hierarchy(video.drop_vars("hidden"))
    with pytest.raises(RoleError, match="boundary_width = 18 .* from 1 to 17"):
        hierarchy(video, width=18)
    with pytest.raises(AnalysisError, match=r"unknown: \[99\]"):
        hierarchy(video, channels=[99])
    with pytest.raises(AnalysisError, match="no branch 'uncond'; it has cond"):
        hierarchy(video, branch="uncond")
    for options in ({"smallest_effect": 0.0}, {"alpha": 1.0}, {"controls": -1}, {"resamples": 0}, {"confidence": 2.0}):
        with pytest.raises(AnalysisError, match=next(iter(options))):
            hierarchy(video, **options)


def test_without_massive_channels_there_is_nothing_to_judge() -> None:
    video = video_recording(size=Size(prompts=2))
    with pytest.raises(AnalysisError, match=r"no channel is massive .*channels=\[…\]"):
        hierarchy(video.isel(channel=[c for c in range(24) if c not in MASSIVE]))


def test_the_page_names_every_contrast_and_every_answer() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hierarchy.md").read_text(encoding="utf-8")
    assert [name for name in (*CONTRASTS, *LEVELS) if f"`{name}`" not in page] == []
