"""Between the trace and the writer: gathers one batch's states into blocks of whole chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from workbench.models import Generated
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.record.plan import Plan
from workbench.record.probe import Shape
from workbench.record.reduce import reduce_tokens
from workbench.record.turns import Turns
from workbench.record.writer import Writer
from workbench.store.schema import BY_NAME, stored


class Blocks:
    """Takes the states of B_s samples, timestep by timestep of the recording, and passes them on in whole chunks.

    Parameters
    ----------
    plan, writer
        Of the recording.
    samples : sequence of int
        Positions of the batch's samples in the recording.
    skip : set of int
        Those that are complete already; they are generated (the batch must stay the same) but not written again.
    """

    def __init__(self, plan: Plan, writer: Writer, samples: Sequence[int], skip: set[int]) -> None:
        self.plan, self.writer = plan, writer
        self.samples = list(samples)
        self.targets = [None if sample in skip else sample for sample in self.samples]
        self.layer_of = {layer: i for i, layer in enumerate(plan.layers)}
        self.buffer: dict[str, np.ndarray] = {}
        self.slot: int | None = None
        self.rows: list[tuple[int, int]] = []

    def begin(self, slot: int | None, branches: Sequence[str]) -> None:
        """The next states are of this recorded timestep (None: of one that is not recorded) and these branches.

        Parameters
        ----------
        slot : int or None
        branches : sequence of str
            In the order of the batch's rows.
        """
        self.slot = slot
        self.rows = [(self.plan.branches.index(b), i) for i, b in enumerate(branches) if b in self.plan.branches]

    def temb(self, temb: torch.Tensor | None, timestep: torch.Tensor) -> None:
        """Keep the embedding of this timestep, and what is the tokens' own timestep where they have one."""
        if self.slot is None:
            return
        if temb is not None:
            self._into("temb", temb.float(), lambda array, branch, at: array[:, branch, at])
        if "token_timestep" in self.plan.variables:
            self._into("token_timestep", timestep.float(), lambda array, branch, at: array[:, branch, at])

    def state(self, layer: str, h_BNC: torch.Tensor, modulation: torch.Tensor | None) -> None:
        """A block's output, live: reduce or copy it now."""
        if self.slot is None or layer not in self.layer_of or not self.rows:
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

    def end(self) -> None:
        """A timestep is complete, in all its branches: pass the block on when it is full."""
        slot = self.slot
        if slot is None or not (slot + 1 == self.plan.sizes["timestep"] or (slot + 1) % self.plan.block == 0):
            return
        for name in self.plan.variables:
            # What no recorded layer has (the modulation of `input`) is absent, and said so.
            here = BY_NAME[name].part in ("unit", "step") and not (name == "hidden" and self.plan.planes)
            if here and name not in self.buffer:
                self.buffer[name] = self._empty(name)
        self.writer.block(self.targets, slot - slot % self.plan.block, self.buffer)
        self.buffer = {}

    def finish(self, made: Generated) -> None:
        """Write what belongs to the samples as a whole."""
        values = {"latent_initial": made.initial, "latent_final": made.latents}
        self.writer.finish(self.targets, values if made.images is None else {**values, "image": made.images})

    def _into(self, name: str, value: torch.Tensor, view: Callable[[np.ndarray, int, int], np.ndarray]) -> None:
        if name not in self.buffer:
            self.buffer[name] = self._empty(name)
        host = value.cpu().numpy()
        count, at = len(self.samples), (self.slot or 0) % self.plan.block
        for branch, row in self.rows:
            view(self.buffer[name], branch, at)[...] = host[row * count : (row + 1) * count]

    def _empty(self, name: str) -> np.ndarray:
        variable, chunk = BY_NAME[name], list(self.plan.variables[name])
        slot = self.slot or 0
        chunk[0] = len(self.samples)
        axis = variable.dims.index("timestep")
        start = slot - slot % self.plan.block
        chunk[axis] = min(self.plan.block, self.plan.sizes["timestep"] - start)
        # Filled, so that what was not put in reads as absent.
        return np.full(chunk, *stored(name, self.plan.hidden_dtype))

    def _planes(self, layer: int, h_BNC: torch.Tensor) -> None:
        count = len(self.samples)
        for branch, row in self.rows:
            for i, sample in enumerate(self.targets):
                if sample is not None:
                    plane = stored_bits(h_BNC[row * count + i]).cpu().numpy().copy()
                    self.writer.plane(sample, branch, layer, self.slot or 0, plane)


class Collector:
    """Takes the states of one generation, call by call.

    Parameters
    ----------
    blocks : Blocks
    shape, layout
        Of the recording.
    on_step : callable
        Called after every denoising step.
    """

    def __init__(self, blocks: Blocks, shape: Shape, layout: Layout, on_step: Callable[[], None]) -> None:
        self.blocks, self.on_step = blocks, on_step
        self.turns = Turns(layout, shape)
        self.slot_of = {step: i for i, step in enumerate(blocks.plan.steps)}
        self.last = False

    def on_call(self, call: TransformerCall, temb: torch.Tensor | None, context: str | None) -> None:
        """A call begins: check that it is the one we think, and keep ``temb``."""
        turn = self.turns.next(call.timestep, context)
        self.last = turn.last
        self.blocks.begin(self.slot_of.get(turn.step), turn.branches)
        self.blocks.temb(temb, call.timestep)

    def on_state(self, layer: str, h_BNC: torch.Tensor, modulation: torch.Tensor | None) -> None:
        """A block's output, live."""
        self.blocks.state(layer, h_BNC, modulation)

    def on_done(self) -> None:
        """A call ends."""
        if self.last:
            self.blocks.end()
            self.on_step()

    def finish(self, made: Generated) -> None:
        """Check the number of calls and write what belongs to the samples as a whole."""
        self.turns.finish()
        self.blocks.finish(made)


def stored_bits(h: torch.Tensor) -> torch.Tensor:
    """A hidden state as it is stored: bfloat16 as its bits (numpy has no bfloat16), other dtypes as they are."""
    h = h.detach().contiguous()
    return h.view(torch.uint16) if h.dtype == torch.bfloat16 else h
