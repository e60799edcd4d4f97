"""The only place that knows nnsight: one trace per call of the transformer.

A trace per call, instead of one over the whole generation, makes a block that is not called a loud error (nnsight's
iteration would silently pair the wrong visits) and lets every state go as soon as it was reduced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from nnsight import NNsight
from nnsight.intervention.interleaver import OutOfOrderError

from workbench.errors import RecordingError
from workbench.models.layout import Layout

#: Sink of one call: (path or "input", hidden state (B, N, C), modulation (B, M, C) or None, keyword arguments).
Sink = Callable[[str, torch.Tensor, torch.Tensor | None], None]


class TracedTransformer(torch.nn.Module):
    """Stands in for a pipeline's transformer, and hands every block's hidden state to a sink while it runs.

    Parameters
    ----------
    net : torch.nn.Module
        The pipeline's transformer; it computes exactly what it would without this.
    layout : Layout
    on_state : callable
        ``on_state(layer, h_BNC, modulation_BMC or None)`` with the live tensors: read, don't keep.
    on_call : callable
        ``on_call(kwargs, temb)`` before the blocks of a call.
    on_done : callable
        ``on_done()`` after the blocks of a call.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        layout: Layout,
        *,
        on_call: Callable[[dict[str, Any], torch.Tensor], None],
        on_state: Sink,
        on_done: Callable[[], None],
    ) -> None:
        super().__init__()
        # Not registered as a submodule: the stand-in must not own the net, which goes back to the pipeline.
        self.__dict__["net"] = net
        self.__dict__["traced"] = NNsight(net)
        self.layout = layout
        self.on_call, self.on_state, self.on_done = on_call, on_state, on_done
        self.__dict__["blocks"] = [
            (path, stack, self.traced.get(path), self.traced.get(f"{path}.{layout.modulation.module}"))
            for path, (stack, _) in layout.blocks(net).items()
        ]

    def __getattr__(self, name: str) -> Any:
        """Config, dtype, cache_context and whatever else a pipeline asks of its transformer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["net"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """One call of the transformer, traced."""
        try:
            return self._trace(*args, **kwargs)
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

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        layout, blocks, traced = self.layout, self.blocks, self.traced
        embedding = traced.get(layout.embedding_module)
        width = len(layout.modulation.terms)
        with traced.trace(*args, **kwargs) as tracer:
            self.on_call(kwargs, embedding.output)
            for i, (path, stack, block, projection) in enumerate(blocks):
                if i == 0:
                    self.on_state("input", block.inputs[1][layout.hidden_argument], None)
                raw = projection.output
                output = block.output
                h = output if stack.hidden_output is None else output[stack.hidden_output]
                self.on_state(path, h, raw[:, : width * h.shape[-1]].unflatten(-1, (width, h.shape[-1])))
            self.on_done()
            result = tracer.result.save()
        return result  # noqa: RET504 (inside the block nothing is returned: the block is nnsight's)


@contextlib.contextmanager
def traced(pipe: Any, layout: Layout, **sinks: Any) -> Iterator[TracedTransformer]:
    """Put a :class:`TracedTransformer` in the transformer's place, and leave the pipeline as it was found."""
    net = pipe.transformer
    before = {module: _instrumentation(module) for module in net.modules()}
    try:
        stand_in = TracedTransformer(net, layout, **sinks)
        # Past the pipeline's own __setattr__, which would write the stand-in's class into the pipeline's config.
        object.__setattr__(pipe, "transformer", stand_in)
        yield stand_in
    finally:
        object.__setattr__(pipe, "transformer", net)
        for module, old in before.items():
            for name in ("forward", "__nnsight__"):
                if name in old:
                    module.__dict__[name] = old[name]
                else:
                    module.__dict__.pop(name, None)


def _instrumentation(module: torch.nn.Module) -> dict[str, Any]:
    """The entries that wrapping a module replaces for good (nnsight 0.8 leaves its controllers in place)."""
    return {name: module.__dict__[name] for name in ("forward", "__nnsight__") if name in module.__dict__}
