"""Does a row say what plain hooks see? Independent of the recorder: PyTorch's own hooks around a real generation."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.families.base import Arguments, Call, Family
from workbench.models.grid import batch_of_call, grid_of_call
from workbench.models.layout import Layout
from workbench.models.tokens import Tokens

PROMPTS = ("red apple", "dog")


@dataclass
class Seen:
    """What plain hooks saw of one call of the transformer."""

    arguments: Arguments
    entering: dict[str, torch.Tensor] = field(default_factory=dict)
    leaving: dict[str, Any] = field(default_factory=dict)
    conditioning: dict[str, torch.Tensor] = field(default_factory=dict)
    temb: torch.Tensor | None = None
    order: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watched(pipe: Any, layout: Layout) -> Iterator[list[Seen]]:
    """Keep copies of what enters and leaves every block, with PyTorch's own hooks; of both experts if it has two."""
    calls: list[Seen] = []
    handles: list[Any] = []
    for transformer in (pipe.transformer, getattr(pipe, "transformer_2", None)):
        if transformer is not None:
            _watch(transformer, layout, calls, handles)
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _watch(transformer: torch.nn.Module, layout: Layout, calls: list[Seen], handles: list[Any]) -> None:
    signature = inspect.signature(type(transformer).forward)

    def on_call(module: Any, args: Any, kwargs: Any) -> None:
        bound = signature.bind(module, *args, **kwargs)
        bound.apply_defaults()
        calls.append(Seen(dict(bound.arguments)))

    handles.append(transformer.register_forward_pre_hook(on_call, with_kwargs=True))
    for path, (stack, block) in layout.blocks(transformer).items():
        names = inspect.signature(type(block).forward)

        def before(
            module: Any, args: Any, kwargs: Any, path: str = path, stack: Any = stack, names: Any = names
        ) -> None:
            bound = names.bind(module, *args, **kwargs).arguments
            calls[-1].entering[path] = bound[stack.argument].detach().clone()
            modulation = layout.modulation_of(stack)
            if modulation.argument:
                given = bound[modulation.argument]
                given = torch.stack([part[0] for part in given], dim=1) if modulation.listed else given
                calls[-1].conditioning[path] = given.detach().clone()

        def after(module: Any, args: Any, output: Any, path: str = path) -> None:
            calls[-1].leaving[path] = _copied(output)
            calls[-1].order.append(path)

        handles += [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]
        modulation = layout.modulation_of(stack)
        if modulation.kind == "per_block":

            def projected(module: Any, args: Any, output: Any, path: str = path) -> None:
                seen = calls[-1].conditioning
                seen[path] = torch.cat([seen[path], output], dim=-1) if path in seen else output.detach().clone()

            handles += [block.get_submodule(name).register_forward_hook(projected) for name in modulation.modules]
    if layout.timestep.embedding:

        def embedded(module: Any, args: Any, output: Any) -> None:
            value = output if layout.timestep.output is None else output[layout.timestep.output]
            calls[-1].temb = value.detach().clone()

        handles.append(transformer.get_submodule(layout.timestep.embedding).register_forward_hook(embedded))


def _copied(output: Any) -> Any:
    if isinstance(output, (tuple, list)):
        return tuple(_copied(item) for item in output)
    return output.detach().clone() if isinstance(output, torch.Tensor) else output


def generate(family: Family, pipe: Any, call: Call, guidance: Arguments, steps: int = 2) -> Any:
    """A real generation of the prompts, every sample with a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(family.batch)]
    arguments = {**family.encode(PROMPTS[: family.batch]), **call.arguments, **guidance, **family.extra}
    generator = generators if family.batch > 1 else generators[0]
    return pipe(**arguments, num_inference_steps=steps, generator=generator, output_type="latent")


def check(family: Family, layout: Layout) -> list[str]:
    """Everything of a row that does not hold; empty if all does."""
    wrong: list[str] = []
    pipe = family.build()
    entry = layout.pipeline(type(pipe).__name__)
    if entry is None:
        return [f"no entry for pipeline {type(pipe).__name__}"]
    for call in family.calls:
        for guided, guidance in ((True, family.guided), (False, family.plain)):
            if guidance is None:
                continue
            with torch.no_grad(), watched(pipe, layout) as seen:
                generate(family, pipe, call, guidance)
            label = f"{call.arguments} {'guided' if guided else 'plain'}: "
            wrong += [label + fault for fault in _faults(family, layout, pipe, call, seen, guided)]
    return wrong


def _faults(family: Family, layout: Layout, pipe: Any, call: Call, seen: list[Seen], guided: bool) -> Iterator[str]:
    entry = layout.pipeline(type(pipe).__name__)
    assert entry is not None
    per_step = family.calls_per_step[0 if guided else 1]
    times = pipe.scheduler.timesteps
    if len(seen) != per_step * len(times):
        yield f"{len(seen)} calls of the transformer, not {per_step} x {len(times)}"
        return
    guidance = entry.guidance
    branches = guidance.rows if guided and guidance is not None else ("cond",)
    if per_step != (guidance.calls(branches) if guidance is not None else 1):
        yield f"the row's guidance gives another number of calls a step than {per_step}"
    blocks = layout.blocks(pipe.transformer)
    for i, one in enumerate(seen):
        if one.order != list(blocks):
            yield f"blocks ran as {one.order}"
        rows = family.batch * (len(branches) if guidance is not None and guidance.batched else 1)
        if batch_of_call(layout, one.arguments) != rows:
            yield f"{batch_of_call(layout, one.arguments)} rows in the batch, not {rows}"
        grid = grid_of_call(layout, pipe.transformer, one.arguments)
        if grid != call.grid:
            yield f"grid {grid}, not {call.grid}"
            return
        given = one.arguments[layout.timestep.argument]
        due = layout.timestep.offset + layout.timestep.scale * float(times[i // per_step])
        if not torch.isclose(torch.as_tensor(given).double().amax(), torch.tensor(due).double(), rtol=1e-4, atol=1e-6):
            yield f"call {i} has timestep {given}, the row says {due}"
        if layout.timestep.clean_rows and one.temb is not None:
            one.temb = one.temb[:rows]
        if layout.timestep.embedding and (
            one.temb is None or one.temb.shape[0] not in (rows, rows * grid[0], rows * math.prod(grid))
        ):
            yield f"temb {None if one.temb is None else tuple(one.temb.shape)} for {rows} rows"
        for path, (stack, block) in blocks.items():
            tokens = Tokens.of_call(stack, grid, one.arguments)
            output = one.leaving[path]
            state = output if stack.hidden_output is None else output[stack.hidden_output]
            mine, theirs = tokens.read(state), family.image[stack.path](output, one.arguments)
            if mine.shape != theirs.shape or not torch.equal(mine, theirs):
                yield f"{path}: image tokens {tuple(mine.shape)} differ from the plain hook's {tuple(theirs.shape)}"
                continue
            if not torch.equal(tokens.write(state, mine), state):
                yield f"{path}: writing back what was read changes the state"
            tokens.read(one.entering[path], entering=True)
            yield from _modulation_faults(layout, stack, block, path, one, mine)


def _modulation_faults(
    layout: Layout, stack: Any, block: Any, path: str, one: Seen, state: torch.Tensor
) -> Iterator[str]:
    modulation = layout.modulation_of(stack)
    if modulation.kind == "none":
        if not modulation.why:
            yield f"{path}: no modulation and no reason"
        return
    raw = one.conditioning.get(path)
    if raw is None:
        yield f"{path}: no projection seen"
        return
    terms, channels = len(modulation.terms), state.shape[-1]
    if modulation.kind == "shared_table":
        table = block.get_parameter(modulation.table)
        if table.numel() != terms * channels or raw[0].numel() % (terms * channels):
            yield f"{path}: table {tuple(table.shape)}, argument {tuple(raw.shape)}, {terms} terms of {channels}"
    elif raw.shape[-1] * (raw.shape[-2] if raw.ndim > 2 and raw.shape[-1] == channels else 1) < terms * channels:
        yield f"{path}: projection {tuple(raw.shape)} has no {terms} terms of {channels}"
