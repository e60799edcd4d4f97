"""The only place that knows nnsight: one trace per call of the transformer.

A trace per call, instead of one over the whole generation, makes a block that is not called a loud error (nnsight's
iteration would silently pair the wrong visits) and lets every state go as soon as it was reduced.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from nnsight import NNsight
from nnsight.intervention.interleaver import OutOfOrderError

from workbench.errors import RecordingError
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout, Modulation, Stack
from workbench.record.exchange import Exchange, exchanged, in_terms, modulation_of
from workbench.record.per_token import denoised_tokens, of_tokens, one_a_row, same_for_all
from workbench.record.standin import StandIn, in_place_of_transformer

#: Sink of one call: (path or "input", hidden state (B, N, C), modulation (B, M, C) or None).
Sink = Callable[[str, torch.Tensor, torch.Tensor | None], None]
#: Told of a call: its arguments, ``temb`` (None where there is none), the name of the cache context.
CallSink = Callable[[TransformerCall, torch.Tensor | None, str | None], None]


class TracedTransformer(StandIn):
    """Stands in for a pipeline's transformer, and hands every block's hidden state to a sink while it runs.

    Parameters
    ----------
    net : torch.nn.Module
        The pipeline's transformer; it computes exactly what it would without this.
    layout : Layout
    on_state : callable
        ``on_state(layer, h_BNC, modulation_BMC or None)`` with the live tensors: read, don't keep.
    on_call : callable
        ``on_call(call, temb, context)`` before the blocks of a call.
    on_done : callable
        ``on_done()`` after the blocks of a call.

    Attributes
    ----------
    exchange : Exchange or None
        What the next calls take from another one's modulation.
    keep : set of str
        Blocks whose modulation, as their projection gives it, the next calls leave in `raw`.
    raw : dict
        Block → one tensor a projection.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        layout: Layout,
        *,
        on_call: CallSink,
        on_state: Sink,
        on_done: Callable[[], None],
    ) -> None:
        super().__init__(net, layout)
        self.__dict__["traced"] = NNsight(net)
        self.on_call, self.on_state, self.on_done = on_call, on_state, on_done
        self.exchange: Exchange | None = None
        self.keep: set[str] = set()
        self.raw: dict[str, list[torch.Tensor]] = {}
        self.__dict__["blocks"] = [
            _Block(self.traced, path, stack, layout, module) for path, (stack, module) in layout.blocks(net).items()
        ]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """One call of the transformer, traced."""
        try:
            return self._trace(self.bound(args, kwargs))
        except OutOfOrderError as error:
            raise RecordingError(
                f"Not every block of {type(self.net).__name__} ran, or not in order; a cache or a layer skip is active. "
                "Disable it: a skipped block has no state to record."
            ) from error
        except TypeError as error:
            # An interrupt may hit between two source lines; nnsight 0.8.1 then fails to tidy its traceback and raises
            # a TypeError about a line number in its place. The user pressed Ctrl-C and should get just that.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise

    def _trace(self, call: TransformerCall) -> Any:
        name, blocks = self.layout.timestep.embedding, self.blocks
        embedding = self.traced.get(name) if name else None
        terms, timestep = self.layout.terms, call.timestep
        denoised, frames = denoised_tokens(timestep), call.grid[0]
        with self.traced.trace(**call.arguments) as tracer:
            temb = None
            if embedding is not None:
                temb = embedding.output
                if self.layout.timestep.output is not None:
                    temb = temb[self.layout.timestep.output]
                temb = one_a_row(of_tokens(self._of_batch(temb, call), denoised, timestep, frames), call.rows)
            self.on_call(call, temb, self.context)
            h = blocks[0].entering(call)
            self.on_state("input", h, None)
            channels = h.shape[-1]
            for block in blocks:
                raws = []
                for part, source in enumerate(block.sources):
                    raw = source.read()
                    if block.path in self.keep:
                        self.raw.setdefault(block.path, []).append(raw.detach().clone())
                    if self.exchange is not None and self.exchange.block == block.path:
                        raw = exchanged(source.terms, raw, self.exchange.raw[part], self.exchange.what, channels)
                        source.write(raw)
                    raw = block.of_image(self._of_batch(raw, call), call, per_row=denoised is None)
                    raws.append(one_a_row(of_tokens(raw, denoised, timestep, frames), call.rows))
                modulation = None
                if raws:
                    modulation = modulation_of(block.modulation, raws, block.table, channels)
                    modulation = in_terms(modulation, block.modulation.image_terms, terms)
                self.on_state(block.path, block.leaving(call), modulation)
            self.on_done()
            result = tracer.result.save()
        return result  # noqa: RET504 (inside the block nothing is returned: the block is nnsight's)

    def _of_batch(self, value: torch.Tensor, call: TransformerCall) -> torch.Tensor:
        """Without the rows of timestep 0 that may follow the batch's."""
        return value[: call.rows] if self.layout.timestep.clean_rows else value


class _Block:
    """What the trace reads and sets of one block, in the order in which it must: entering, sources, leaving."""

    def __init__(self, traced: Any, path: str, stack: Stack, layout: Layout, module: torch.nn.Module) -> None:
        self.path, self.stack, self.modulation = path, stack, layout.modulation_of(stack)
        self.envoy = traced.get(path)
        names = list(inspect.signature(type(module).forward).parameters)[1:]  # without self
        self.entered = _Argument(self.envoy, names, stack.argument)
        self.sources = _sources(traced, self.envoy, names, path, self.modulation)
        self.table = module.get_parameter(self.modulation.table) if self.modulation.table else None

    def entering(self, call: TransformerCall) -> torch.Tensor:
        return call.tokens(self.stack).read(self.entered.read(), entering=True)

    def of_image(self, raw: torch.Tensor, call: TransformerCall, *, per_row: bool) -> torch.Tensor:
        """Of a source that is one a token of the state, (B, N', M, C): the image tokens' part, or what all of them have."""
        if raw.ndim != 4 or raw.shape[1] != self.entered.read().shape[1]:
            return raw
        own = call.tokens(self.stack).read(raw.flatten(2), entering=True).unflatten(2, raw.shape[2:])
        return same_for_all(own) if per_row else own

    def leaving(self, call: TransformerCall) -> torch.Tensor:
        output = self.envoy.output
        h = output if self.stack.hidden_output is None else output[self.stack.hidden_output]
        return call.tokens(self.stack).read(h)


class _Argument:
    """An argument of a block, however it is given; as a source of modulation with the names of its parts."""

    def __init__(self, envoy: Any, names: list[str], name: str, terms: tuple[str, ...] = ()) -> None:
        self.envoy, self.name, self.position, self.terms = envoy, name, names.index(name), terms

    def read(self) -> torch.Tensor:
        args, kwargs = self.envoy.inputs
        return kwargs[self.name] if self.name in kwargs else args[self.position]

    def write(self, value: torch.Tensor) -> None:
        args, kwargs = self.envoy.inputs
        if self.name in kwargs:
            self.envoy.inputs = args, {**kwargs, self.name: value}
        else:
            self.envoy.inputs = (*args[: self.position], value, *args[self.position + 1 :]), kwargs


class _List(_Argument):
    """An argument that is a list of the parts, (N, B, C) each, the same for all tokens; read as (B, M, C)."""

    def read(self) -> torch.Tensor:
        return torch.stack([part[0] for part in super().read()], dim=1)

    def write(self, value: torch.Tensor) -> None:
        tokens = len(super().read()[0])
        super().write([part.expand(tokens, -1, -1) for part in value.unbind(1)])  # type: ignore[arg-type]


class _Projection:
    """The output of a projection in a block, with the names of its parts."""

    def __init__(self, envoy: Any, terms: tuple[str, ...]) -> None:
        self.envoy, self.terms = envoy, terms

    def read(self) -> torch.Tensor:
        return self.envoy.output

    def write(self, value: torch.Tensor) -> None:
        self.envoy.output = value


def _sources(
    traced: Any, envoy: Any, names: list[str], path: str, modulation: Modulation
) -> list[_Argument | _Projection]:
    """Where a block's modulation comes from, in order of execution."""
    if modulation.kind == "none":
        return []
    if modulation.argument:
        kind = _List if modulation.listed else _Argument
        return [kind(envoy, names, modulation.argument, (*modulation.terms, *modulation.beyond))]
    size = len(modulation.terms) // len(modulation.modules)
    parts = [modulation.terms[i * size : (i + 1) * size] for i in range(len(modulation.modules))]
    parts[-1] = (*parts[-1], *modulation.beyond)
    return [
        _Projection(traced.get(f"{path}.{module}"), terms)
        for module, terms in zip(modulation.modules, parts, strict=True)
    ]


@contextlib.contextmanager
def traced(pipe: Any, layout: Layout, **sinks: Any) -> Iterator[TracedTransformer]:
    """Put a :class:`TracedTransformer` in the transformer's place, and leave the pipeline as it was found."""
    with instrumented(pipe.transformer, layout, **sinks) as stand_in, in_place_of_transformer(pipe, stand_in):
        yield stand_in


@contextlib.contextmanager
def instrumented(net: torch.nn.Module, layout: Layout, **sinks: Any) -> Iterator[TracedTransformer]:
    """A :class:`TracedTransformer` to be called by hand; the transformer is left as it was found."""
    before = {module: _instrumentation(module) for module in net.modules()}
    try:
        yield TracedTransformer(net, layout, **sinks)
    finally:
        for module, old in before.items():
            for name in ("forward", "__nnsight__"):
                if name in old:
                    module.__dict__[name] = old[name]
                else:
                    module.__dict__.pop(name, None)


def _instrumentation(module: torch.nn.Module) -> dict[str, Any]:
    """The entries that wrapping a module replaces for good (nnsight 0.8 leaves its controllers in place)."""
    return {name: module.__dict__[name] for name in ("forward", "__nnsight__") if name in module.__dict__}
