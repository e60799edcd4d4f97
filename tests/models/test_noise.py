"""One unit of noise for all schedulers: the share of noise in data + noise, at the same signal-to-noise ratio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from workbench.errors import UnsupportedModelError
from workbench.models import noise_levels


def at_steps(scheduler: object, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    scheduler.set_timesteps(steps)  # type: ignore[attr-defined]
    return noise_levels(scheduler)


def test_flow_matchings_own_sigma_is_the_level() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    timesteps, sigmas = at_steps(scheduler)
    assert sigmas.tolist() == scheduler.sigmas[:-1].double().tolist()
    assert timesteps == pytest.approx(1000 * sigmas)


def test_inverted_sigmas_run_from_noise_to_data_and_levels_the_other_way() -> None:
    _, straight = at_steps(FlowMatchEulerDiscreteScheduler())
    _, inverted = at_steps(FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
    assert inverted == pytest.approx(straight, abs=1e-7)  # 1 - sigma in float32


@pytest.mark.parametrize("kind", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_a_level_is_what_add_noise_adds(kind: type) -> None:
    """Of data 0 and noise 1, and of data 1 and noise 0, a scheduler itself makes b and a."""
    scheduler = kind()
    timesteps, sigmas = at_steps(scheduler)
    one, zero = torch.ones(len(timesteps), 1), torch.zeros(len(timesteps), 1)
    noise, data = (
        scheduler.add_noise(zero, one, scheduler.timesteps),
        scheduler.add_noise(one, zero, scheduler.timesteps),
    )
    expected = (noise / (noise + data)).squeeze(1).double().numpy()
    assert sigmas == pytest.approx(expected, rel=1e-3)
    assert ((sigmas > 0) & (sigmas < 1)).all()
    assert (np.diff(sigmas) < 0).all()


def test_flow_sigmas_of_another_scheduler() -> None:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    _, sigmas = at_steps(scheduler)
    assert sigmas == pytest.approx(scheduler.sigmas[:-1].numpy())


def test_an_unbounded_noise_scale() -> None:
    scheduler = EDMEulerScheduler(sigma_max=80.0, sigma_min=0.01)
    _, sigmas = at_steps(scheduler)
    raw = scheduler.sigmas[:-1].double().numpy()
    assert sigmas == pytest.approx(raw / (1 + raw))


def test_a_scheduler_that_does_not_say() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(4)
    scheduler.alphas_cumprod = None
    with pytest.raises(UnsupportedModelError, match="DDIMScheduler has neither sigmas nor alphas_cumprod"):
        noise_levels(scheduler)
