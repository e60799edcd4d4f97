"""The equation by hand, and what must stand in c's place so that a pipeline's CFG yields it."""

import pytest
import torch

from workbench.errors import SpecError
from workbench.steering.detail_guidance import combine, shifted_cond


def three(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 6, 5, generator=generator, dtype=dtype) for _ in range(3)]


def test_equation_by_hand() -> None:
    c, u, m = torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([2.5])
    assert combine(c, u, m, 4.0, 0.5).item() == 1 + 4 * (3 - 1) + 0.5 * (3 - 2.5)
    assert combine(c, None, m, 4.0, 0.5).item() == 3 + 0.5 * (3 - 2.5), "no CFG: the scale has no part in it"
    assert combine(c, u, m, 4.0, 0.0).item() == 1 + 4 * (3 - 1)


def test_papers_form_is_the_same_with_lambda_one_less() -> None:
    c, u, m = three()
    for scale, weight in ((4.0, 1.5), (1.0, 2.0), (7.5, -0.5)):
        papers = c + (scale - 1) * (c - u) + weight * (c - m)
        torch.testing.assert_close(combine(c, u, m, scale, weight), papers, rtol=1e-13, atol=1e-13)


def test_shifted_cond_makes_cfg_yield_the_equation() -> None:
    c, u, m = three()
    for scale, weight in ((4.0, 1.5), (2.0, 3.0)):
        shifted = shifted_cond(c, m, weight, gain=scale)
        torch.testing.assert_close(u + scale * (shifted - u), combine(c, u, m, scale, weight), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(shifted_cond(c, m, 1.5, gain=1.0), combine(c, None, m, 1.0, 1.5))


def test_gain_0_is_refused() -> None:
    c, _, m = three()
    with pytest.raises(SpecError, match="guidance scale is 0"):
        shifted_cond(c, m, 1.0, gain=0.0)
