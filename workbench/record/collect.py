"""Between the trace and the writer: gathers one batch's states into blocks of whole chunks, and counts the calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from workbench.errors import RecordingError
from workbench.models.layout import Layout
from workbench.record.plan import Plan
from workbench.record.probe import Shape
from workbench.record.reduce import reduce_tokens
from workbench.record.writer import Writer
from workbench.store.schema import BY_NAME, stored


class Collector:
    """Takes the states of one generation of B_s samples.

    Parameters
    ----------
    plan, shape, layout, writer
        Of the recording.
    samples : sequence of int
        Positions of the batch's samples in the recording.
    skip : set of int
        Those that are complete already; they are generated (the batch must stay the same) but not written again.
    on_step : callable
        Called after every denoising step.
    """

    def __init__(
        self,
        plan: Plan,
        shape: Shape,
        layout: Layout,
        writer: Writer,
        samples: Sequence[int],
        skip: set[int],
        on_step: Callable[[], None],
    ) -> None:
        self.plan, self.shape, self.layout, self.writer = plan, shape, layout, writer
        self.samples, self.on_step = list(samples), on_step
        self.targets = [None if sample in skip else sample for sample in self.samples]
        self.rows = [(plan.branches.index(b), i) for i, b in enumerate(shape.branches) if b in plan.branches]
        self.layer_of = {layer: i for i, layer in enumerate(plan.layers)}
        self.slot_of = {step: i for i, step in enumerate(plan.steps)}
        self.calls = -1
        self.buffer: dict[str, np.ndarray] = {}
        self.initial: np.ndarray | None = None

    # Called by the trace ------------------------------------------------------------------------------------------

    def on_call(self, kwargs: dict[str, Any], temb: torch.Tensor) -> None:
        """A call begins: check that it is the step we think, and keep ``temb``."""
        self.calls += 1
        if self.calls >= len(self.shape.timesteps):
            raise self._miscounted(self.calls + 1)
        latents = kwargs[self.layout.hidden_argument]
        if self.calls == 0:
            self.initial = latents[: len(self.samples)].float().cpu().numpy().copy()
        got, expected = float(kwargs["timestep"].reshape(-1)[0]), self.shape.timesteps[self.calls]
        if not np.isclose(got, expected, rtol=1e-6):
            raise RecordingError(
                f"Call {self.calls} of the transformer has timestep {got:g}, the scheduler's list says {expected:g}: "
                "the calls can't be told apart safely. Record this pipeline with its own scheduler unchanged."
            )
        if self._slot is not None:
            self._into("temb", temb.float(), lambda array, branch, at: array[:, branch, at])

    def on_state(self, layer: str, h_BNC: torch.Tensor, modulation: torch.Tensor | None) -> None:
        """A block's output, live: reduce or copy it now."""
        if self._slot is None or layer not in self.layer_of:
            return
        index = self.layer_of[layer]
        values = {**reduce_tokens(h_BNC)}
        if modulation is not None:
            values["modulation"] = modulation.float()
        if "hidden" in self.plan.variables and not self.plan.planes:
            values["hidden"] = stored_bits(h_BNC)
        for name, value in values.items():
            self._into(name, value, lambda array, branch, at: array[:, branch, index, at])
        if self.plan.planes:
            self._planes(index, h_BNC)

    def on_done(self) -> None:
        """A call ends: pass the block on when it is full."""
        slot = self._slot
        if slot is not None and (slot + 1 == len(self.plan.steps) or (slot + 1) % self.plan.block == 0):
            for (
                name
            ) in self.plan.variables:  # what no recorded layer has (the modulation of `input`) is absent, and said so
                here = BY_NAME[name].part in ("unit", "step") and not (name == "hidden" and self.plan.planes)
                if here and name not in self.buffer:
                    self.buffer[name] = self._empty(name)
            self.writer.block(self.targets, slot - slot % self.plan.block, self.buffer)
            self.buffer = {}
        self.on_step()

    # Called after the generation ----------------------------------------------------------------------------------

    def finish(self, latents: np.ndarray, images: np.ndarray | None) -> None:
        """Check the number of calls and write what belongs to the samples as a whole."""
        if self.calls + 1 != len(self.shape.timesteps):
            raise self._miscounted(self.calls + 1)
        assert self.initial is not None
        values = {"latent_initial": self.initial, "latent_final": latents}
        self.writer.finish(self.targets, values if images is None else {**values, "image": images})

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _slot(self) -> int | None:
        """Position of the current step among the recorded ones."""
        return self.slot_of.get(self.calls)

    def _into(self, name: str, value: torch.Tensor, view: Callable[[np.ndarray, int, int], np.ndarray]) -> None:
        if name not in self.buffer:
            self.buffer[name] = self._empty(name)
        host = value.cpu().numpy()
        count, at = len(self.samples), (self._slot or 0) % self.plan.block
        for branch, row in self.rows:
            view(self.buffer[name], branch, at)[...] = host[row * count : (row + 1) * count]

    def _empty(self, name: str) -> np.ndarray:
        variable, chunk = BY_NAME[name], list(self.plan.variables[name])
        slot = self._slot or 0
        chunk[0] = len(self.samples)
        axis = variable.dims.index("timestep")
        start = slot - slot % self.plan.block
        chunk[axis] = min(self.plan.block, len(self.plan.steps) - start)
        # Filled, so that what was not put in reads as absent.
        return np.full(chunk, *stored(name, self.plan.hidden_dtype))

    def _planes(self, layer: int, h_BNC: torch.Tensor) -> None:
        count = len(self.samples)
        for branch, row in self.rows:
            for i, sample in enumerate(self.targets):
                if sample is not None:
                    plane = stored_bits(h_BNC[row * count + i]).cpu().numpy().copy()
                    self.writer.plane(sample, branch, layer, self._slot or 0, plane)

    def _miscounted(self, calls: int) -> RecordingError:
        return RecordingError(
            f"The pipeline made {calls} calls of its transformer, the recording expects {len(self.shape.timesteps)} "
            f"(steps × calls a step of family {self.layout.family}). Nothing of this batch is marked as finished."
        )


def stored_bits(h: torch.Tensor) -> torch.Tensor:
    """A hidden state as it is stored: bfloat16 as its bits (numpy has no bfloat16), other dtypes as they are."""
    h = h.detach().contiguous()
    return h.view(torch.uint16) if h.dtype == torch.bfloat16 else h
