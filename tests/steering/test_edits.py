"""What each action does to a state, by hand, and that it does nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import SpecError
from workbench.steering.edits import ACTIONS, edit_channels


def state(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(2 * 3 * 4, dtype=dtype).reshape(2, 3, 4)


def test_zero_scale_and_mean_by_hand() -> None:
    h = state()
    assert edit_channels(h, (1, 3), "zero")[0].tolist() == [[0, 0, 2, 0], [4, 0, 6, 0], [8, 0, 10, 0]]
    assert edit_channels(h, (1,), "scale", rho=0.5)[1].tolist() == [
        [12, 6.5, 14, 15],
        [16, 8.5, 18, 19],
        [20, 10.5, 22, 23],
    ]
    mean = edit_channels(h, (1,), "mean")
    assert mean[0].tolist() == [[0, 5, 2, 3], [4, 5, 6, 7], [8, 5, 10, 11]], "over tokens"
    assert mean[1, :, 1].tolist() == [17, 17, 17], "each row has its own"


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 3), min_size=1),
    st.sampled_from(ACTIONS),
    st.floats(-2, 2),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_others_are_left_alone(channels: set[int], action: str, rho: float, dtype: torch.dtype) -> None:
    h = state(dtype)
    edited = edit_channels(h, sorted(channels), action, rho=rho)
    others = [c for c in range(4) if c not in channels]
    assert torch.equal(edited[..., others], h[..., others])
    assert torch.equal(h, state(dtype)), "the caller's tensor is left alone"
    assert (edited.dtype, edited.shape) == (h.dtype, h.shape)


def test_retention_1_changes_no_bit_and_0_is_zero() -> None:
    h = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(edit_channels(h, (2, 7), "scale", rho=1.0), h)
    assert torch.equal(edit_channels(h, (2, 7), "scale", rho=0.0), edit_channels(h, (2, 7), "zero"))


def test_mean_of_many_tokens_in_bfloat16() -> None:
    """Summed in bfloat16, 4096 times 1.0 would stop at 256."""
    assert edit_channels(torch.ones(1, 4096, 2, dtype=torch.bfloat16), (0,), "mean").eq(1).all()


@pytest.mark.parametrize(
    ("channels", "action", "words"),
    [
        ((1, 4), "zero", "channel 4 does not exist: the state has 4 channels, 0 to 3"),
        ((-1,), "mean", "channel -1 does not exist"),
        ((), "zero", "no channel is named"),
        ((1,), "double", "'double' is unknown; valid: zero, scale, mean"),
    ],
)
def test_what_cannot_be_done_is_refused(channels, action, words) -> None:
    with pytest.raises(SpecError, match=words):
        edit_channels(state(), channels, action)
