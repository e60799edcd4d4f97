"""Causal experiments: the plain pipeline generates, then its calls at a few steps are made again with pieces exchanged.

Every cell keeps the batch of the pipeline's own call, so that the cells in which nothing is exchanged have the bits of a
plain recording. Only the calls at the steps of the grid are kept, for one batch of samples at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.errors import RecordingError
from workbench.models import Encode, Generated, call_arguments, generate
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.record.cells import Cell
from workbench.record.collect import Blocks
from workbench.record.exchange import Exchange
from workbench.record.plan import Plan
from workbench.record.probe import Shape
from workbench.record.settings import Settings
from workbench.record.standin import Watched, in_place_of_transformer
from workbench.record.trace import TracedTransformer, instrumented
from workbench.record.turns import Turns


@dataclass(frozen=True)
class Call:
    """One call of the transformer, as the pipeline made it.

    Attributes
    ----------
    call : TransformerCall
    context : str or None
        Cache context it was made in.
    branches : tuple of str
        In the order of the batch's rows.
    """

    call: TransformerCall
    context: str | None
    branches: tuple[str, ...]


@dataclass
class Trajectory:
    """What the plain pipeline made of one batch.

    Attributes
    ----------
    calls : dict
        Step of the grid → its calls.
    whole : Generated
        First and last latents, and the images.
    """

    calls: dict[int, list[Call]]
    whole: Generated


class Experiment:
    """Records the cells of one experiment, batch by batch.

    Parameters
    ----------
    pipe, layout, settings, shape, plan, encode
        Of the recording.
    on_step : callable
        Called after every denoising step and after every cell.
    """

    def __init__(
        self,
        pipe: Any,
        layout: Layout,
        settings: Settings,
        shape: Shape,
        plan: Plan,
        encode: Encode | None,
        on_step: Callable[[], None],
    ) -> None:
        self.pipe, self.layout, self.settings, self.shape, self.plan = pipe, layout, settings, shape, plan
        self.encode, self.on_step = encode, on_step
        self.steps = sorted({cell.step for cell in plan.cells})
        self.mediated = {cell.block for cell in plan.cells if cell.block}
        self.donors: dict[int, dict[int, torch.Tensor]] = {}

    def run(self, samples: Sequence[int], blocks: Blocks) -> None:
        """Generate one batch and record its cells.

        Parameters
        ----------
        samples : sequence of int
            Positions of the samples in the recording.
        blocks : Blocks
            Takes the states.
        """
        made = self._generate(samples, self.on_step)
        calls = made.calls
        if self.settings.experiment == "prompt-swap":
            calls = self._with_latents_of_first_prompt(samples, made)
        raw: dict[tuple[int, tuple[str, ...]], dict[str, list[torch.Tensor]]] = {}
        net = self.pipe.transformer
        with torch.no_grad(), instrumented(
            net,
            self.layout,
            on_call=lambda call, temb, context: blocks.temb(temb, call.timestep),
            on_state=blocks.state,
            on_done=lambda: None,
        ) as traced:  # fmt: skip
            for slot, cell in enumerate(self.plan.cells):
                for i, call in enumerate(calls[cell.step]):
                    blocks.begin(slot, call.branches)
                    if blocks.rows:
                        self._call(traced, cell, call, calls[cell.embedding_step][i], raw)
                blocks.end()
                self.on_step()
        blocks.finish(made.whole)

    def _call(
        self,
        traced: TracedTransformer,
        cell: Cell,
        call: Call,
        other: Call,
        raw: dict[tuple[int, tuple[str, ...]], dict[str, list[torch.Tensor]]],
    ) -> None:
        """Make one call of one cell; `raw` collects each diagonal cell's modulation for the mediation after it."""
        made, timestep = call.call, self.layout.timestep.argument
        if cell.swap == "embedding":
            made = made.with_(**{timestep: other.call.arguments[timestep]})
        traced.exchange = None
        if cell.block:
            traced.exchange = Exchange(cell.block, cell.swap, raw[cell.embedding_step, call.branches][cell.block])
        traced.keep, traced.raw = (self.mediated if cell.swap == "none" else set()), {}
        with traced.cache_context(call.context) if call.context else contextlib.nullcontext():
            traced(**made.arguments)
        if traced.keep:
            raw[cell.step, call.branches] = traced.raw

    def _generate(self, samples: Sequence[int], on_step: Callable[[], None] | None = None) -> Trajectory:
        """Run the plain pipeline, keeping the calls at the steps of the grid."""
        turns = Turns(self.layout, self.shape)
        calls: dict[int, list[Call]] = {step: [] for step in self.steps}
        names = self.layout.latents.argument, self.layout.timestep.argument

        def keep(call: TransformerCall, context: str | None) -> None:
            turn = turns.next(call.timestep, context)
            if turn.step in calls:
                own = {name: _cloned(call.arguments[name]) for name in names}
                calls[turn.step].append(Call(call.with_(**own), context, turn.branches))

        pairs = [self.settings.samples[i] for i in samples]
        with in_place_of_transformer(self.pipe, Watched(self.pipe.transformer, self.layout, on_call=keep)):
            arguments = call_arguments(self.pipe, pairs, **self.settings.call, encode=self.encode)
            made = generate(self.pipe, arguments, on_step)
        turns.finish()
        if not np.isfinite(made.latents).all():
            raise RecordingError(
                "The final latents have NaN or infinite values: this model, at these settings, generates no image."
            )
        return Trajectory(calls, made)

    def _with_latents_of_first_prompt(self, samples: Sequence[int], made: Trajectory) -> dict[int, list[Call]]:
        """The calls of a batch, with the latents that the first prompt had from the same seeds at the same step."""
        self._keep_donors(samples, made)
        # The first prompt's samples come first, a seed each; each is a donor as it comes out of its own batch.
        donors = [i % len(self.settings.seeds) for i in samples]
        for donor in donors:
            if donor not in self.donors:
                size = self.settings.batch_size
                start = donor - donor % size
                batch = range(start, min(start + size, len(self.settings.samples)))
                self._keep_donors(batch, self._generate(batch))
        changed: dict[int, list[Call]] = {}
        for step, calls in made.calls.items():
            latents = torch.stack([self.donors[donor][step] for donor in donors])
            changed[step] = [
                Call(call.call.with_latents(torch.cat([latents] * len(call.branches))), call.context, call.branches)
                for call in calls
            ]
        return changed

    def _keep_donors(self, samples: Sequence[int], made: Trajectory) -> None:
        for row, sample in enumerate(samples):
            if sample < len(self.settings.seeds):
                self.donors[sample] = {step: calls[0].call.latents[row].clone() for step, calls in made.calls.items()}


def _cloned(value: Any) -> Any:
    return [_cloned(item) for item in value] if isinstance(value, list) else torch.as_tensor(value).clone()
