"""Where in the trajectory is this call? Read from the scheduler, never from a constant."""

from __future__ import annotations

from typing import Any, NamedTuple

from workbench.errors import UnsupportedModelError


class Place(NamedTuple):
    """One denoising step: its index, the number of steps, and the noise level (1 = pure noise)."""

    step: int
    steps: int
    sigma: float

    def in_unit(self, unit: str) -> float:
        """Return the place in a window's unit: ``"sigma"`` or ``"step_fraction"`` (step / steps, so < 1)."""
        return self.sigma if unit == "sigma" else self.step / self.steps


def place(scheduler: Any, timestep: Any) -> Place:
    """Find the step that `timestep` belongs to.

    Parameters
    ----------
    scheduler : diffusers scheduler
        After ``set_timesteps``. Its ``timesteps`` (T,) and ``sigmas`` (T + 1,) run in parallel: the noise level of the
        call with ``timesteps[i]`` is ``sigmas[i]``. For flow matching that is ``timestep / num_train_timesteps`` unless
        the scheduler is told otherwise (``invert_sigmas``, given timesteps), which is why it is looked up here.
    timestep : Tensor or float
        What the pipeline gave the transformer: one value for all rows, (B,) or none; or one a token, (B, N), of which those
        of given frames are smaller than the step's (Wan2.2-TI2V), so the largest is the step's.

    Raises
    ------
    UnsupportedModelError
        If the scheduler has no such table, or the value is not in it.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    kind = type(scheduler).__name__
    flow = "FlowMatch" in kind or getattr(scheduler.config, "use_flow_sigmas", False)
    if sigmas is None or not flow:
        raise UnsupportedModelError(
            f"{kind} has no noise levels between 0 and 1 to read a step's from; use a flow-matching scheduler such as "
            "FlowMatchEulerDiscreteScheduler, or one with `use_flow_sigmas=True`."
        )
    value = float(timestep.max()) if hasattr(timestep, "max") else float(timestep)
    table = scheduler.timesteps.tolist()
    if value not in table:
        raise UnsupportedModelError(
            f"the transformer was called with timestep {value:g}, which is not one of {kind}'s timesteps "
            f"({table[0]:g} … {table[-1]:g}); the step can't be placed in the spec's window or schedule."
        )
    step = table.index(value)
    return Place(step=step, steps=len(table), sigma=float(sigmas[step]))
