"""Early, middle and late are the same steps to a sweep and to a disruption."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.errors import SpecError
from workbench.sampling.disrupt import plan_disruption
from workbench.sampling.sweep import sweep_conditions
from workbench.steering.disruption import Disruption
from workbench.steering.parts import Window
from workbench.steering.windows import THIRDS, WINDOWS, first_part, part, read, said, window

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


def test_a_share_of_the_steps_leaves_out_the_step_at_its_end() -> None:
    for text, held in (("0-0.4", range(8)), ("0.4-1", range(8, 20)), ("0-1", range(20)), ("0.5-0.55", [10])):
        window = read(f"step_fraction:{text}")
        assert [step for step in range(20) if window.contains(step / 20)] == list(held), text
    assert read("step_fraction:0-1").everywhere


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0-0.4", "'0-0.4' does not say its unit; .* sigma:0.6-1; .* step_fraction:0-0.4"),
        (
            "steps:0-0.4",
            "'steps:0-0.4' has the unit 'steps', which there is not; .* sigma:0.6-1; .* step_fraction:0-0.4",
        ),
        ("sigma:0.4", "is unknown"),
        ("sigma:0.2-x", "is unknown"),
        ("sigma:0.2-0.4-0.6", "is unknown"),
        ("noon", "is unknown"),
        ("sigma:0.4-0.2", "low = 0.4 is above high = 0.2"),
        ("sigma:0.4-1.2", "high: Input should be less than or equal to 1"),
        ("sigma:nan-1", "low: Input should be a finite number"),
        ("step_fraction:0.4-0.2", "give 0 <= low < high <= 1"),
        ("step_fraction:0.4-0.4", "give 0 <= low < high <= 1"),
        ("step_fraction:nan-1", "give 0 <= low < high <= 1"),
    ],
)
def test_a_window_that_is_none_says_what_one_is(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read(text)


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (first_part(0.4), "step_fraction:0-0.4"),
        (part(0.4, 1.0), "step_fraction:0.4-1"),
        (part(1 / 3, 2 / 3), None),
        (Window(unit="step_fraction", low=0.5, high=0.75), None),
        (Window(unit="sigma", low=1e-05, high=0.1234567), "sigma:1e-05-0.1234567"),
    ],
)
def test_what_a_window_is_called_is_read_as_that_window(window: Window, text: str | None) -> None:
    assert text is None or said(window) == text
    again = read(said(window))
    assert [again.contains(k / 600) for k in range(601) if abs(k / 600 - window.high) > 1e-5] == [
        window.contains(k / 600) for k in range(601) if abs(k / 600 - window.high) > 1e-5
    ]


def test_sweep_and_disruption_take_them_from_here(pipe, spec) -> None:
    conditions = sweep_conditions(spec, pipe, over={"window": list(WINDOWS)}, modes="dg")[1:]
    assert [c.factors["window"] for c in conditions] == list(WINDOWS)
    assert [c.identity["spec"]["window"] for c in conditions] == [window(name).model_dump() for name in WINDOWS]
    assert plan_disruption.__globals__["THIRDS"] is THIRDS
