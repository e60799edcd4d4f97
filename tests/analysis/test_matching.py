"""Magnitude-matched channels: they hold as much as the massive ones, and none of them is massive."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.synthetic import synthetic
from workbench.analysis.matching import matched, matched_channels, mean_square
from workbench.errors import AnalysisError

SQUARE = np.r_[np.full(4, 100.0), np.full(996, 1.0)]


def test_matched_set_holds_what_the_massive_channels_hold() -> None:
    found = matched(SQUARE, [0, 1, 2, 3])
    assert len(found.channels) == 400
    assert not set(found.channels) & {0, 1, 2, 3}
    assert found.coverage == pytest.approx(1.0)
    assert not found.everything


def test_another_seed_is_another_set_and_the_same_seed_the_same() -> None:
    one, again, other = (matched(SQUARE, [0, 1], seed=seed).channels for seed in (1, 1, 2))
    assert one == again != other


def test_excluded_channels_are_not_taken() -> None:
    assert not set(matched(SQUARE, [0], excluded=[1, 2, 3]).channels) & {0, 1, 2, 3}


def test_all_there_is_when_that_is_less() -> None:
    found = matched(np.r_[1e4, np.ones(9)], [0])
    assert found.channels == tuple(range(1, 10))
    assert found.everything
    assert found.coverage == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("square", "channels", "words"),
    [
        (SQUARE, [], "0 massive and 1000 ordinary"),
        (SQUARE[:4], [0, 1, 2, 3], "4 massive and 0 ordinary"),
        (SQUARE, [1000], "are not all among the 1000"),
        (np.r_[SQUARE, np.nan], [0], "not finite"),
    ],
)
def test_what_cannot_be_matched_is_refused(square: np.ndarray, channels: list[int], words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        matched(square, channels)


def test_mean_square_is_that_of_the_hidden_states_that_enter_the_block() -> None:
    recording = synthetic({5: 30.0, 41: -30.0}, hidden=True)
    for layer, before in (("transformer_blocks.3", "transformer_blocks.2"), ("transformer_blocks.0", "input")):
        hidden = recording["hidden"].sel(branch="cond").isel(layer=recording["layer"].values.tolist().index(before))
        expected = (hidden.astype(np.float64) ** 2).mean([d for d in hidden.dims if d != "channel"])
        np.testing.assert_allclose(mean_square(recording, layer), expected.values, rtol=1e-5)
    sigma = recording["sigma"].values
    window = (float(sigma[1]), 1.0)
    part = mean_square(recording.isel(timestep=slice(0, 2)), "transformer_blocks.3")
    np.testing.assert_allclose(mean_square(recording, "transformer_blocks.3", window=window), part)
    found = matched_channels(recording, "transformer_blocks.3", [5, 41])
    assert not set(found.channels) & {5, 41}
    with pytest.raises(AnalysisError, match="no block 'transformer_blocks.9'"):
        mean_square(recording, "transformer_blocks.9")
    with pytest.raises(AnalysisError, match="that enters transformer_blocks.3 was not recorded"):
        mean_square(recording.isel(layer=[0, 1, 2, 4]), "transformer_blocks.3")
    with pytest.raises(AnalysisError, match="no recorded step has a noise level"):
        mean_square(recording, "transformer_blocks.3", window=(0.0, 1e-4))
