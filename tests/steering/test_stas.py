"""The arithmetic of STAS against the method written out entry by entry."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.steering.stas_helpers import by_the_letter, stas_fields
from workbench.errors import SpecError
from workbench.steering.spec import StasSpec
from workbench.steering.stas import replaced, steered
from workbench.steering.stas_hooks import Plan

quick = settings(max_examples=40, deadline=None)
alphas = st.none() | st.sampled_from([0.0, 0.5, 1.0, 1.2]) | st.floats(0, 100, width=16)


def state(seed: int, tokens: int, channels: int, rows: int = 1) -> torch.Tensor:
    """With zeros, values of both signs, and one channel far larger than the others."""
    h = torch.randn(rows, tokens, channels, generator=torch.Generator().manual_seed(seed))
    h[..., 0] = h[..., 0] * 50 + 100
    h[..., ::3] = torch.where(h[..., ::3].abs() < 0.3, 0.0, h[..., ::3])
    return h


def act(spec: StasSpec, h: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    tokens, alpha = Plan(spec, grid).on(h)
    channels = torch.tensor(spec.channels)
    _, values = steered(h, tokens, alpha, channels, action=spec.action, reference=spec.reference)
    return replaced(h, tokens, channels, values)


@st.composite
def cases(draw: Any) -> tuple[StasSpec, tuple[int, int, int], int]:
    grid = (draw(st.integers(2, 4)), draw(st.integers(1, 4)), draw(st.integers(3, 5)))
    width = draw(st.integers(1, (grid[1] * grid[2] - 1) // 2))
    action = draw(st.sampled_from(["steer", "scale", "zero"]))
    chosen = {f"alpha_{role}": draw(alphas) for role in ("first", "boundary", "interior")}
    if action == "zero":
        chosen = {role: None if alpha is None else 0.0 for role, alpha in chosen.items()}
    spec = StasSpec.create(
        **stas_fields(
            channels=sorted(draw(st.sets(st.integers(0, 7), min_size=1, max_size=4))), action=action,
            reference=draw(st.sampled_from(["channel", "joint"])), boundary_width={"unit": "tokens", "value": width},
            **chosen,
        )
    )  # fmt: skip
    return spec, grid, width


@quick
@given(cases(), st.integers(0, 99))
def test_is_the_method_to_the_letter(case: Any, seed: int) -> None:
    spec, grid, width = case
    h = state(seed, int(np.prod(grid)), 8, rows=2)
    before = h.clone()
    found = act(spec, h, grid)
    for row in range(2):
        assert np.array_equal(found[row].numpy(), by_the_letter(spec, h[row].numpy(), grid, width))
    assert torch.equal(h, before), "the caller's tensor is left alone"


@quick
@given(cases(), st.integers(0, 99), st.floats(-1e3, 1e3))
def test_a_sample_does_not_depend_on_its_neighbours(case: Any, seed: int, factor: float) -> None:
    spec, grid, _ = case
    h = state(seed, int(np.prod(grid)), 8, rows=3)
    other = torch.cat([h[:1], h[1:] * factor])
    assert torch.equal(act(spec, h, grid)[:1], act(spec, other, grid)[:1])


def test_which_maximum_by_hand() -> None:
    """Two channels, a grid of 2 x 1 x 3: the largest value is in an interior token, and counts all the same."""
    h = torch.tensor([[[1.0, -2.0], [-3.0, 0.0], [2.0, 4.0], [5.0, -1.0], [-7.0, 6.0], [0.5, 0.5]]])
    given = {"channels": [0, 1], "boundary_width": {"unit": "tokens", "value": 1}, "alpha_first": 2.0}
    spec = StasSpec.create(**stas_fields(**given, alpha_boundary=0.5))
    expected = [[14.0, -12.0], [-14.0, 0.0], [14.0, 12.0], [3.5, -3.0], [-7.0, 6.0], [3.5, 3.0]]
    assert act(spec, h, (2, 1, 3))[0].tolist() == expected
    joint = [[14.0, -14.0], [-14.0, 0.0], [14.0, 14.0], [3.5, -3.5], [-7.0, 6.0], [3.5, 3.5]]
    assert act(spec.replace(reference="joint"), h, (2, 1, 3))[0].tolist() == joint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_a_value_of_the_state_times_alpha_in_its_dtype(dtype) -> None:
    h = state(1, 12, 8).to(dtype)
    spec = StasSpec.create(**stas_fields(channels=[0, 3], alpha_first=1.0, alpha_boundary=1.1))
    found = act(spec, h, (2, 2, 3))
    assert found.dtype == dtype
    for channel in (0, 3):
        largest = h[0, :, channel].abs().max()
        firsts = found[0, :6, channel]
        assert set(firsts.abs().tolist()) <= {float(largest), 0.0}, "alpha 1: the very value, no rounding"
        ends = [6, 7, 10, 11]
        assert set(found[0, ends, channel].abs().tolist()) <= {float(torch.tensor(1.1, dtype=dtype) * largest), 0.0}


def test_unknown_words_are_refused() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    for words in ({"action": "double"}, {"reference": "token"}):
        with pytest.raises(SpecError, match="is unknown; valid: steer, scale, zero, with channel or joint"):
            steered(torch.ones(1, 2, 2), one, torch.ones(1), one, **words)
