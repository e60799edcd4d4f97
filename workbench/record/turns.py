"""Which denoising step, and which branches, a call of the transformer is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.errors import RecordingError
from workbench.models.layout import Layout
from workbench.record.probe import Shape


@dataclass(frozen=True)
class Turn:
    """One call.

    Attributes
    ----------
    step : int
        Denoising step, from 0.
    branches : tuple of str
        In the order of the batch's rows.
    last : bool
        True if no other call belongs to this step.
    """

    step: int
    branches: tuple[str, ...]
    last: bool


class Turns:
    """Counts the calls of one generation.

    A pipeline that runs its branches one after the other is believed where it names them (``cache_context``); where it
    doesn't, they come in the family's order.
    """

    def __init__(self, layout: Layout, shape: Shape) -> None:
        self.layout, self.shape = layout, shape
        self.per_step = shape.calls
        self.calls = 0
        self.seen: set[str] = set()

    def next(self, timestep: torch.Tensor, context: str | None) -> Turn:
        """Take the next call.

        Raises
        ------
        RecordingError
            If it can't be the call that is due.
        """
        step, place = divmod(self.calls, self.per_step)
        self.calls += 1
        if step >= len(self.shape.timesteps):
            raise self._miscounted()
        self._same_step(step, timestep)
        if self.per_step == 1:
            return Turn(step, self.shape.branches, last=True)
        self.seen = set() if place == 0 else self.seen
        branch = self._branch(place, context)
        self.seen.add(branch)
        return Turn(step, (branch,), last=place == self.per_step - 1)

    def finish(self) -> None:
        """Check that no call is missing."""
        if self.calls != self.per_step * len(self.shape.timesteps):
            raise self._miscounted()

    def _branch(self, place: int, context: str | None) -> str:
        branches = self.shape.branches
        branch = branches[place] if context is None else context
        if branch not in branches or branch in self.seen:
            raise RecordingError(
                f"Call {self.calls - 1} of the transformer is made in the cache context {context!r}; family "
                f"{self.layout.family} is known to make one call of each of {', '.join(branches)} a step."
            )
        return branch

    def _same_step(self, step: int, timestep: torch.Tensor) -> None:
        # With a timestep a token, some tokens may have a smaller one than the scheduler's; every row has some with it.
        rows = timestep.amax(dim=1) if timestep.ndim == 2 else timestep.reshape(-1)[:1]
        timing = self.layout.timestep
        expected = timing.offset + timing.scale * self.shape.timesteps[step]
        # A model in half precision may be given its timestep in it.
        tolerance = 1e-6 if timestep.dtype in (torch.float32, torch.float64, torch.int64) else 1e-2
        slack = tolerance * max(abs(timing.scale), abs(timing.offset))
        wrong = [got for got in rows.tolist() if not np.isclose(got, expected, rtol=tolerance, atol=slack)]
        if wrong:
            raise RecordingError(
                f"Call {self.calls - 1} of the transformer has timestep {wrong[0]:g}, the scheduler's list says {expected:g}: "
                "the calls can't be told apart safely. Record this pipeline with its own scheduler unchanged."
            )

    def _miscounted(self) -> RecordingError:
        return RecordingError(
            f"The pipeline made {self.calls} calls of its transformer, the recording expects "
            f"{self.per_step * len(self.shape.timesteps)} (steps × calls a step of family {self.layout.family}). "
            "Nothing of this batch is marked as finished."
        )
