"""Where in the trajectory is this call? Read from the scheduler, never from a constant."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.errors import UnsupportedModelError
from workbench.models import noise_levels
from workbench.models.layout import Timestep

#: How far a timestep may lie from the scheduler's own, by the dtype it is given in.
_SLACK = {torch.bfloat16: 4.0, torch.float16: 0.5}


class Place(NamedTuple):
    """One denoising step: its index, the number of steps, and the noise level (1 = pure noise)."""

    step: int
    steps: int
    sigma: float

    def in_unit(self, unit: str) -> float:
        """Return the place in a window's unit: ``"sigma"`` or ``"step_fraction"`` (step / steps, so < 1)."""
        return self.sigma if unit == "sigma" else self.step / self.steps


def place(scheduler: Any, timestep: torch.Tensor, timing: Timestep) -> Place:
    """Find the step that `timestep` belongs to.

    Parameters
    ----------
    scheduler : diffusers scheduler
        After ``set_timesteps``. Its noise levels (`workbench.models.noise_levels`) are looked up by the timestep: for flow
        matching they are ``timestep / num_train_timesteps`` unless the scheduler is told otherwise (``invert_sigmas``,
        given timesteps).
    timestep : Tensor
        What the pipeline gave the transformer: one value for all rows, (B,) or none; or one a token, (B, N), of which those
        of given frames are smaller than the step's (Wan2.2-TI2V), so the largest is the step's.
    timing : Timestep
        How that is made of the scheduler's.

    Raises
    ------
    UnsupportedModelError
        If the scheduler has no such table, or the value is not in it.
    """
    table, sigmas = noise_levels(scheduler)
    given = (float(timestep.double().max()) - timing.offset) / timing.scale
    # Single precision, or the half precision of a model that is given its timestep in it.
    near = np.flatnonzero(np.isclose(table, given, rtol=1e-6, atol=_SLACK.get(timestep.dtype, 1e-3)))
    if len(near) != 1:
        raise UnsupportedModelError(
            f"the transformer was called with timestep {float(timestep.max()):g}, that is {given:g} of the scheduler's, which "
            f"{'is not one' if not len(near) else 'is more than one'} of {type(scheduler).__name__}'s timesteps ({table[0]:g} … "
            f"{table[-1]:g}); the step can't be placed in the spec's window or schedule."
        )
    return Place(step=int(near[0]), steps=len(table), sigma=float(sigmas[near[0]]))


def places(scheduler: Any) -> list[Place]:
    """All steps of a scheduler after ``set_timesteps``."""
    _, sigmas = noise_levels(scheduler)
    return [Place(step=i, steps=len(sigmas), sigma=float(sigma)) for i, sigma in enumerate(sigmas)]
