"""The profile over tokens: planted widths come back, everything else is told apart by name, and nothing is claimed of too little."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.analysis.synthetic import synthetic
from tests.planted_video import MASSIVE, Size, Truth, video_recording
from workbench.analysis.profile import profile
from workbench.analysis.profile_rule import (
    EDGES,
    FOUND,
    NO_PLATEAU,
    NONE,
    ONE_END,
    UNDECIDED,
    VERDICTS,
    Sampling,
    judge,
    propose,
)
from workbench.analysis.profile_step import content_of, fits
from workbench.errors import AnalysisError, RoleError
from workbench.roles import roles_of_grid

FAST = {"resamples": 200, "flips": 499}
GRID = (5, 8, 8)


def video(truth: Truth | None = None, *, width: int = 8, prompts: int = 8, seed: int = 0, **size: object) -> xr.Dataset:
    return video_recording(truth, size=Size(prompts=prompts, grid=GRID, width=width, **size), seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [3, 5, 8, 12, 16])
def test_a_planted_width_is_proposed_whatever_the_recordings_roles_say(width):
    found = profile(video(Truth(first=0.5, boundary=0.3), width=width), width=8, **FAST)
    assert found.attrs["verdict"] == FOUND
    assert found.attrs["proposed_width"] == found.attrs["best_width"] == width
    assert found.attrs["best_width_low"] <= width <= found.attrs["best_width_high"]
    best = found.sel(width=width)
    assert best["rise_low"] < 0.3 < best["rise_high"]
    said = "have that width" if width == 8 else f"with_roles(recording, {width})"
    assert said in found.attrs["verdict_reason"]


@pytest.mark.parametrize(
    ("truth", "verdict"),
    [
        (Truth(), NONE),
        (Truth(first=0.5), NONE),
        (Truth(drift=0.5), NONE),
        (Truth(edges=0.3), EDGES),
        (Truth(rows=0.3), EDGES),
    ],
    ids=["nothing", "first frame", "drift", "image edges", "image rows"],
)
def test_what_is_no_boundary_is_not_proposed(truth, verdict):
    found = profile(video(truth), **FAST)
    assert found.attrs["verdict"] == verdict
    assert found.attrs["proposed_width"] == 0


def test_image_edges_are_told_apart_by_their_columns():
    edges, boundary = (profile(video(t), **FAST) for t in (Truth(edges=0.3), Truth(boundary=0.3)))
    assert edges["check_rise_low"].sel(check="columns") > 0.1
    assert abs(float(edges["check_rise"].sel(check="over columns"))) < 0.1
    assert abs(float(boundary["check_rise"].sel(check="columns"))) < 0.1
    assert boundary["check_rise_low"].sel(check="over columns") > 0.1
    best = edges.sel(width=edges.attrs["best_width"])
    for control, check in (("column_rise", "columns"), ("first_rise", "first frame")):
        assert float(best[control]) == pytest.approx(float(edges["check_rise"].sel(check=check)))
    assert "in column order 0." in edges.attrs["verdict_reason"]


def profiles(shape_S: np.ndarray, *, prompts: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Profiles of prompts with this shape in the later frames, and none of it in the first."""
    rng = np.random.default_rng(seed)
    later = shape_S * rng.normal(1.0, 0.2, (prompts, 1)) + rng.normal(0, 0.03, (prompts, shape_S.size))
    return later, rng.normal(0, 0.03, (prompts, shape_S.size))


def distance(rows: int = 8, columns: int = 8) -> np.ndarray:
    place = np.arange(rows * columns)
    return np.minimum(place, place[::-1])


def test_what_decays_from_the_ends_has_no_plateau():
    assert propose(*profiles(0.6 * np.exp(-distance() / 5.0)), 8, 8).verdict == NO_PLATEAU


def test_a_width_whose_interval_is_longer_than_a_row_is_not_proposed():
    found = propose(*profiles(0.4 * (distance() < 8)), 8, 8)
    assert (found.verdict, found.width, found.low, found.high) == (FOUND, 8, 8, 8)
    wide = found._replace(low=4, high=13)
    assert [judge(f, 8, 8, Sampling()) for f in (wide, found._replace(low=6, high=14))] == [NO_PLATEAU, FOUND]
    assert judge(found._replace(plateau=0.5), 8, 8, Sampling()) == NO_PLATEAU


def test_a_width_of_one_token_cannot_be_told_from_corners_of_the_image():
    assert propose(*profiles(0.8 * (distance() < 1)), 8, 8).verdict == UNDECIDED
    found = profile(video(Truth(boundary=0.8), width=1), **FAST)
    assert (found.attrs["verdict"], found.attrs["best_width"]) == (UNDECIDED, 1)
    assert "corners of the image" in found.attrs["verdict_reason"]


@pytest.mark.parametrize("width", [6, 12])
@pytest.mark.parametrize("size", [0.3, -0.3])
def test_in_six_rows_one_row_up_and_two_rows_down_are_one_shape(width, size):
    place = np.arange(36)
    shape = size * ((place < width) | (place >= 36 - width))
    assert propose(*profiles(shape), 6, 6).verdict == UNDECIDED
    shape = 0.3 * ((place < 3) | (place >= 33))
    assert propose(*profiles(shape), 6, 6).verdict == FOUND, "half a row is another shape"
    found = profile(video_recording(Truth(boundary=0.3), size=Size(prompts=8)), **FAST)
    assert found.attrs["verdict"] == UNDECIDED
    assert "look the same: which of them it is can't be told" in found.attrs["verdict_reason"]


def test_one_raised_end_is_no_boundary():
    assert propose(*profiles(0.5 * (np.arange(64) < 8)), 8, 8).verdict == ONE_END


def test_lower_ends_are_no_boundary():
    found = propose(*profiles(-0.5 * (distance() < 8)), 8, 8)
    assert found.verdict == NONE
    assert found.step.mean[list(found.widths).index(8)] < -0.4
    assert "lower, not higher" in profile(video(Truth(boundary=-0.4)), **FAST).attrs["verdict_reason"]


def test_what_all_images_have_leaves_no_step():
    row, column = np.divmod(np.arange(60), 10)
    image = 0.3 * row - 0.1 * row**2 + np.sin(column) + 0.05 * row * column
    own = fits(6, 10)
    for part in (own.step_WS, own.ramp_WS, own.head_WS, own.tail_WS):
        assert np.allclose(part @ image, 0.0, atol=1e-9)
        assert np.allclose(part @ content_of(6, 10), 0.0, atol=1e-9)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_step_is_the_coefficient_of_a_plain_regression(transposed):
    rows, columns, width = 7, 9, 11
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows * columns)
    row, column = np.divmod(np.arange(rows * columns), columns)
    place = column * rows + row if transposed else np.arange(rows * columns)
    end = (place < width) | (place >= rows * columns - width)
    design = np.column_stack([end, content_of(rows, columns, transposed=transposed)])
    expected = np.linalg.lstsq(design, x, rcond=None)[0][0]
    own = fits(rows, columns, transposed=transposed)
    assert float(own.step_WS[list(own.widths).index(width)] @ x) == pytest.approx(expected)
    both = np.column_stack([place < width, place >= rows * columns - width, design[:, 1:]])
    head, tail = np.linalg.lstsq(both, x, rcond=None)[0][:2]
    at = list(own.widths).index(width)
    assert [float(own.head_WS[at] @ x), float(own.tail_WS[at] @ x)] == pytest.approx([head, tail])


def test_where_one_row_is_content_nothing_is_said_of_it():
    found = propose(*profiles(np.zeros(16)), 4, 4)
    assert 4 not in found.widths
    assert found.verdict == UNDECIDED


@pytest.mark.parametrize("prompts", [1, 4])
def test_too_few_prompts_leave_it_undecided_and_say_how_many_there_must_be(prompts):
    found = profile(video(Truth(boundary=0.5), prompts=prompts), **FAST)
    assert found.attrs["verdict"] == UNDECIDED
    assert "of at least 5" in found.attrs["verdict_reason"]
    assert found.attrs["proposed_width"] == 0


def test_five_prompts_that_allow_no_small_p_deny_nothing():
    found = profile(video(Truth(boundary=0.5), prompts=5), **FAST)
    assert found.attrs["verdict"] == UNDECIDED, "all five agree on a large step, and p can't be below 2 / 2**5"
    assert "No p of 5 prompts can be below 0.062" in found.attrs["verdict_reason"]
    assert "6 are needed" in found.attrs["verdict_reason"]


def test_a_given_channel_that_is_massive_nowhere_counts_beside_one_that_is():
    recording = video(Truth(boundary=0.3))
    both, alone = (profile(recording, channels=c, controls=0, **FAST) for c in ([3, 5], [3]))
    hidden = np.abs(recording["hidden"].isel(branch=0, layer=slice(1, None)).sel(channel=[3, 5]))
    plain = hidden.mean(["sample", "layer", "timestep", "channel"]).values
    assert np.allclose(both["token_magnitude"], plain, rtol=1e-4)
    assert not np.allclose(both["token_magnitude"], alone["token_magnitude"], rtol=0.1)


def test_prompts_are_the_replicates_not_their_seeds():
    one, four = (profile(video(Truth(boundary=0.3), prompts=6, seeds=s), **FAST) for s in (1, 4))
    assert one.attrs["n_replicates"] == four.attrs["n_replicates"] == 6
    assert float(one["p_corrected"].min()) == float(four["p_corrected"].min()) == 2 / 2**6


def test_a_null_proposes_nothing_in_many_draws():
    rng = np.random.default_rng(0)
    fast = Sampling(resamples=50, flips=199)
    verdicts = [propose(*rng.normal(0, 0.1, (2, 8, 64)), 8, 8, fast).verdict for _ in range(100)]
    assert verdicts.count(FOUND) <= 2
    assert verdicts.count(NONE) >= 90
    assert set(verdicts) <= set(VERDICTS)


def test_magnitudes_are_mean_absolute_values_of_the_massive_channels():
    recording = video(Truth(boundary=0.3), prompts=3, seeds=2)
    found = profile(recording, **FAST)
    assert set(found.attrs["channels"]) == set(MASSIVE)
    h = np.abs(recording["hidden"].isel(branch=0).sel(channel=list(MASSIVE)))
    expected = h.mean(["sample", "channel"]).transpose("layer", "timestep", "token")
    assert np.allclose(found["magnitude"][1:], expected[1:], rtol=1e-5)
    assert np.isnan(found["magnitude"].sel(layer="input")).all()
    assert np.allclose(found["token_magnitude"], expected[1:].mean(["layer", "timestep"]), rtol=1e-5)
    relative = h / h.isel(token=slice(64, None)).mean("token")
    later = relative.isel(token=slice(64, None)).values[:, 1:]  # sample, layer, timestep, token, channel
    by_hand = np.log(later.reshape(*later.shape[:3], 4, 64, 2).mean(axis=(3, 5))).mean(axis=(0, 1, 2))
    assert np.allclose(found["place_profile"], by_hand, atol=1e-5)


def test_ordinary_channels_and_single_visits_and_frames_stand_beside_it():
    found = profile(video(Truth(boundary=0.3)), **FAST)
    assert not set(found.attrs["ordinary_channels"]) & set(MASSIVE)
    assert abs(float(found["ordinary_rise"])) < 0.1
    rises = found["frame_rise"].values
    assert abs(rises[0]) < 0.1
    assert (rises[1:] > 0.2).all()
    assert float(found["visit_rise"].sel(layer=found.attrs["layers_counted"]).mean()) == pytest.approx(
        float(found["rise"].sel(width=8))
    )
    assert "ordinary_rise" not in profile(video(Truth(boundary=0.3)), controls=0, **FAST)


def test_timesteps_of_single_tokens_are_reported_as_a_confound():
    recording = video(Truth(first=0.5))
    own = np.where(recording.frame == 0, 0.0, recording.timestep.values[:, None])
    shape = (recording.sizes["sample"], recording.sizes["branch"], *own.shape)
    dims = ("sample", "branch", "timestep", "token")
    given = recording.assign(token_timestep=(dims, np.broadcast_to(own, shape)))
    found = profile(given, **FAST)
    assert "token_timestep" in found.attrs["confound"]
    assert "Confounded: timesteps differ" in found.attrs["verdict_reason"]
    assert profile(recording, **FAST).attrs["confound"] == ""


def test_images_and_statistics_are_refused_by_name():
    with pytest.raises(RoleError, match="two"):
        profile(synthetic({5: 14.0}, hidden=True))
    with pytest.raises(AnalysisError, match="--tier full"):
        profile(video().drop_vars("hidden"))
    with pytest.raises(AnalysisError, match="no branch 'uncond'"):
        profile(video(), branch="uncond")
    with pytest.raises(AnalysisError, match="unknown"):
        profile(video(), channels=[99])


def test_states_that_are_zero_or_not_finite_are_named():
    recording = video()
    zero, place = recording.copy(deep=True), recording.token % 64
    zero["hidden"] = zero["hidden"].where((place != 6) | (zero["sample"] != 2), 0.0)
    with pytest.raises(AnalysisError, match=r"sample 2 \|h\| is 0 at a token"):
        profile(zero, channels=sorted(MASSIVE))
    broken = recording.copy(deep=True)
    broken["hidden"][{"sample": 1, "token": 9}] = np.inf
    with pytest.raises(AnalysisError, match="sample 1 are not finite"):
        profile(broken, channels=sorted(MASSIVE))


def test_the_same_answer_from_a_chunked_recording_and_the_reverse_order_of_dimensions():
    recording = video(Truth(boundary=0.3), prompts=5)
    plain = profile(recording, **FAST)
    chunked = profile(recording.chunk({"sample": 1, "timestep": 2}).transpose(...), **FAST)
    assert plain.identical(chunked)
    assert np.array_equal(roles_of_grid(GRID, 8), plain["role"].values)
