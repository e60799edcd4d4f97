"""The channels that are disrupted, and those that they are compared with."""

import numpy as np
import pytest

from workbench.errors import SpecError
from workbench.steering.control_channels import channel_sets

# The channels of each kind, from mean squares: 40 ordinary channels of 1 to 40, two massive ones of 100 together 200.
SQUARE = np.concatenate([np.arange(1.0, 41.0), [100.0, 100.0]])


def test_channels_of_each_kind():
    (massive,) = channel_sets(SQUARE, [41, 40], "massive")
    assert massive.channels == (40, 41)
    assert massive.coverage == 1.0
    (low,) = channel_sets(SQUARE, [40, 41], "low")
    assert low.channels == (0, 1)
    random = channel_sets(SQUARE, [40, 41], "random", draws=3)
    assert [len(draw.channels) for draw in random] == [2, 2, 2]
    assert len({draw.channels for draw in random}) == 3
    for draw in channel_sets(SQUARE, [40, 41], "matched_random", draws=5):
        assert not {40, 41} & set(draw.channels)
        assert draw.coverage == pytest.approx(np.sqrt(SQUARE[list(draw.channels)].sum() / 200))
        assert draw.coverage == pytest.approx(1.0, abs=0.08)
    for draw in channel_sets(SQUARE, [40, 41], "noise"):
        assert draw.channels == (40, 41)
        assert draw.into == tuple(range(40))


def test_channels_massive_elsewhere_are_no_controls():
    for kind in ("random", "matched_random", "low", "noise"):
        for draw in channel_sets(SQUARE, [41], kind, excluded=[40, 0], draws=4):
            assert not {0, 40} & {*draw.into, *(draw.channels if kind != "noise" else ())}


def test_ordinary_channels_that_cannot_reach_the_norm_say_how_much_they_cover():
    square = np.r_[np.ones(10), 1000.0]
    (all_of_them,) = channel_sets(square, [10], "matched_random", draws=3)
    assert all_of_them.channels == tuple(range(10))
    assert all_of_them.coverage == pytest.approx(0.1)


def test_draws_repeat_and_differ_by_seed():
    one, same, other = (channel_sets(SQUARE, [40], "random", seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("massive", "square", "said"),
    [
        ([], SQUARE, "no massive channel is left after filtering"),
        (list(range(30)), SQUARE, "too few as controls of 30"),
        ([0], np.r_[np.nan, np.ones(3)], "not finite"),
    ],
)
def test_sets_that_cannot_be_made_are_refused(massive, square, said):
    with pytest.raises(SpecError, match=said):
        channel_sets(square, massive, "random")
