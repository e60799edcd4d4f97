"""Early, middle and late are the same steps to a sweep and to a disruption."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.errors import SpecError
from workbench.sampling.disrupt import plan_disruption
from workbench.sampling.sweep import sweep_conditions
from workbench.steering.disruption import Disruption
from workbench.steering.windows import THIRDS, WINDOWS, window

AT_A_THIRD = [1 / 3, 2 / 3, float(np.float32(1 / 3)), float(np.float32(2 / 3)), 1 / 3 + 1e-5, 2 / 3 - 1e-5]
SIGMAS = sorted({*np.linspace(0, 1, 61).tolist(), *AT_A_THIRD})


@pytest.mark.parametrize("name", THIRDS)
def test_both_methods_act_at_the_same_steps(name: str) -> None:
    disruption = Disruption("transformer_blocks.1", "massive", (3,), window=THIRDS[name])
    acts = [window(name).contains(float(sigma)) for sigma in SIGMAS]
    assert acts == [disruption.contains(float(sigma)) for sigma in SIGMAS]
    assert 15 < sum(acts) < 30


def test_every_step_is_in_one_third() -> None:
    assert {sum(window(name).contains(float(sigma)) for name in THIRDS) for sigma in SIGMAS} == {1}
    assert all(window("all").contains(float(sigma)) for sigma in SIGMAS)
    with pytest.raises(SpecError, match="'noon' is unknown; give one of all, early, middle, late"):
        window("noon")


def test_sweep_and_disruption_take_them_from_here(pipe, spec) -> None:
    conditions = sweep_conditions(spec, pipe, over={"window": list(WINDOWS)}, modes="dg")[1:]
    assert [c.factors["window"] for c in conditions] == list(WINDOWS)
    assert [c.identity["spec"]["window"] for c in conditions] == [window(name).model_dump() for name in WINDOWS]
    assert plan_disruption.__globals__["THIRDS"] is THIRDS
