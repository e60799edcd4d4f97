"""Actions, retention and weights that change with the noise: by hand, against the plain loop, and where they do nothing."""

import json
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.steering.helpers import fields, make_spec, plain_detail_guidance
from tests.steering.test_attach import PROMPTS, STEPS, TOLERANCE, generate, noise, relative
from workbench.errors import SpecError, UnsupportedModelError
from workbench.steering.attach import apply
from workbench.steering.parts import WeightSchedule
from workbench.steering.spec import DetailGuidanceSpec, json_schema, parse_spec

RAMP = {"knots": [[0.2, 0.0], [0.8, 3.0]]}


def ramp(sigma: float) -> float:
    return min(max((sigma - 0.2) / 0.6, 0.0), 1.0) * 3.0


@pytest.mark.parametrize("scale", [4.0, 1.0], ids=["cfg+dg", "dg"])
@pytest.mark.parametrize("action", ["zero", "scale", "scale by sigma", "mean"])
@pytest.mark.parametrize("weight", [1.5, RAMP], ids=["constant", "ramp"])
def test_equals_plain_implementation(pipe, scale, action, weight) -> None:
    retention = {"scale": 0.4, "scale by sigma": {"knots": [[0.0, 0.0], [1.0, 1.0]]}}.get(action)
    spec = make_spec(pipe, action=action.split()[0], retention=retention, weight=weight)

    def edit(h: torch.Tensor, sigma: float) -> torch.Tensor:
        h = h.clone()
        for channel in spec.channels:
            column = h[:, :, channel]
            h[:, :, channel] = {
                "zero": 0 * column,
                "scale": 0.4 * column,
                "scale by sigma": sigma * column,
                "mean": column.mean(dim=1, keepdim=True),
            }[action]
        return h

    expected = plain_detail_guidance(
        pipe, spec, PROMPTS, noise(), steps=STEPS, guidance_scale=scale, edit=edit,
        weight=ramp if weight is RAMP else lambda sigma: 1.5,
    )  # fmt: skip
    unsteered = generate(pipe, scale=scale)
    with apply(spec, pipe) as attached:
        steered = generate(pipe, scale=scale)
    sigmas = pipe.scheduler.sigmas.tolist()[:STEPS]
    # sigma 1 is the first step; there a retention that is 1 at sigma 1 does nothing.
    acts = [(weight == 1.5 or ramp(s) > 0) and not (action == "scale by sigma" and s > 1 - 1e-6) for s in sigmas]
    assert attached.degraded_passes == sum(acts) > 1
    assert relative(steered, expected) < TOLERANCE
    assert relative(unsteered, expected) > 30 * TOLERANCE, "the guidance must do something, or this shows nothing"


@pytest.mark.parametrize("scale", [4.0, 1.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"action": "scale", "retention": 1.0},
        {"action": "scale", "retention": {"knots": [[0.0, 1.0], [0.5, 1.0]]}},
        {"weight": {"knots": [[0.1, 0.0], [0.9, 0.0]]}},
        {"weight": {"knots": [[0.0, 2.0], [0.001, 0.0]]}},
    ],
    ids=["retention 1", "retention 1 at all knots", "weight 0 at all knots", "weight 0 at all steps"],
)
def test_what_does_nothing_is_bit_identical_and_free(pipe, scale, changes) -> None:
    plain = generate(pipe, scale=scale)
    with apply(make_spec(pipe, **changes), pipe) as attached:
        assert torch.equal(generate(pipe, scale=scale), plain)
    assert (attached.calls, attached.degraded_passes) == (STEPS, 0)


def test_what_is_the_same_everywhere_needs_no_noise_level(pipe) -> None:
    """Any scheduler will do then; a schedule is refused where it can't be looked up."""
    from diffusers import DDIMScheduler

    flat = {"knots": [[0.0, 0.0], [1.0, 0.0]]}
    assert make_spec(pipe, weight=flat).idle
    assert make_spec(pipe, action="scale", retention=0.5).constant
    assert not make_spec(pipe, weight=RAMP).constant
    pipe.scheduler = DDIMScheduler()
    with apply(make_spec(pipe, weight=flat), pipe):
        generate(pipe)

    class Nameless(DDIMScheduler):
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            super().set_timesteps(*args, **kwargs)
            self.alphas_cumprod = None

    pipe.scheduler = Nameless()
    refused = pytest.raises(UnsupportedModelError, match="Nameless has neither sigmas nor alphas_cumprod")
    with refused, apply(make_spec(pipe, weight=RAMP), pipe):
        generate(pipe)


def test_schedule_by_hand() -> None:
    schedule = WeightSchedule(knots=((0.2, 1.0), (0.4, 3.0), (0.9, -1.0)))
    by_hand = {0.0: 1.0, 0.2: 1.0, 0.3: 2.0, 0.4: 3.0, 0.65: 1.0, 0.9: -1.0, 1.0: -1.0}
    assert {sigma: schedule.at(sigma) for sigma in by_hand} == pytest.approx(by_hand)
    # Schedulers compute in float32: a knot is met exactly all the same.
    assert schedule.at(float(torch.tensor(0.9))) == -1.0
    assert schedule.at(float(torch.tensor(0.4))) == 3.0


unit = st.floats(0, 1)


def knots(values: Any) -> Any:
    apart = st.lists(unit, min_size=2, max_size=8).map(sorted).filter(
        lambda at: all(b - a > 1e-5 for a, b in pairwise(at))
    )  # fmt: skip
    return apart.flatmap(lambda at: st.tuples(*(st.tuples(st.just(sigma), values) for sigma in at)))


@settings(max_examples=150, deadline=None)
@given(knots(st.floats(-100, 100)), unit)
def test_schedule_stays_between_its_knots(points: Any, sigma: float) -> None:
    schedule = WeightSchedule(knots=points)
    values = [value for _, value in points]
    slack = 1e-12 * max(map(abs, values))
    assert min(values) - slack <= schedule.at(sigma) <= max(values) + slack
    for at, value in points:
        assert schedule.at(at) == value
    below = max((p for p in points if p[0] <= sigma), default=points[0])
    above = min((p for p in points if p[0] >= sigma), default=points[-1])
    low, high = sorted((below[1], above[1]))
    assert low - slack <= schedule.at(sigma) <= high + slack


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["zero", "scale", "mean"]),
    st.none() | unit | knots(unit).map(lambda points: {"knots": [list(point) for point in points]}),
    st.floats(-100, 100) | knots(st.floats(-100, 100)).map(lambda points: {"knots": [list(p) for p in points]}),
)
def test_valid_exactly_if_scale_has_a_retention(action: str, retention: Any, weight: Any) -> None:
    changes = {"action": action, "retention": retention, "weight": weight}
    if (action == "scale") != (retention is not None):
        with pytest.raises(SpecError, match="`scale` needs a retention"):
            DetailGuidanceSpec.create(**fields(**changes))
        return
    spec = DetailGuidanceSpec.create(**fields(**changes))
    data = json.loads(spec.to_json())
    assert parse_spec(data) == spec
    jsonschema.Draft202012Validator(json_schema()).validate(data)
    assert spec.replace() == spec
    assert spec.idle == ((spec.weight_at(0.3) == 0 and weight == 0) or spec.idle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": {"knots": []}}, ["`weight.knots`", "at least 2"]),
        ({"weight": {"knots": [[0.0, 1.0]]}}, ["`weight.knots`", "at least 2"]),
        ({"weight": {"knots": [[i / 64, 1.0] for i in range(65)]}}, ["`weight.knots`", "at most 64"]),
        ({"weight": {"knots": [[0.5, 1.0], [0.5, 2.0]]}}, ["`weight`", "must ascend"]),
        ({"weight": {"knots": [[0.9, 1.0], [0.5, 2.0]]}}, ["`weight`", "must ascend"]),
        ({"weight": {"knots": [[0.0, 1.0], [1.5, 2.0]]}}, ["`weight.knots.1.0`", "less than or equal to 1"]),
        ({"weight": {"knots": [[0.0, 1.0], [1.0, 200.0]]}}, ["`weight.knots.1.1`", "less than or equal to 100"]),
        ({"weight": {"knots": [[0.0, 1.0], [1.0, 2.0, 3.0]]}}, ["`weight.knots.1`"]),
        ({"weight": {"knots": [[0.0, 1.0], [1.0, "2"]]}}, ["`weight.knots.1.1`", "valid number"]),
        (
            {"weight": {"knots": [[0.0, 1.0], [1.0, 2.0]], "unit": "sigma"}},
            ["unknown key `weight.unit`; valid: knots."],
        ),
        ({"weight": {}}, ["key `weight.knots` is missing"]),
        ({"weight": [0.0, 1.0]}, ["`weight`", "valid number"]),
        ({"weight": None}, ["`weight`", "valid number"]),
        ({"action": "scale", "retention": 1.5}, ["`retention`", "less than or equal to 1"]),
        ({"action": "scale", "retention": -0.1}, ["`retention`", "greater than or equal to 0"]),
        ({"action": "scale", "retention": {"knots": [[0.0, 0.0], [1.0, 2.0]]}}, ["`retention.knots.1.1`"]),
        ({"action": "scale"}, ["`scale` needs a retention"]),
        ({"action": "mean", "retention": 0.5}, ["the other actions have none"]),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        DetailGuidanceSpec.create(**fields(**changes))
    for word in words:
        assert word in str(caught.value)
