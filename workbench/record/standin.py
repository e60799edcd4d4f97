"""What takes the transformer's place in a pipeline: the plain stand-in, and one that keeps the arguments of calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from workbench.models.call import TransformerCall
from workbench.models.layout import Layout


class StandIn(torch.nn.Module):
    """Behaves like the transformer whose place it takes, and knows the cache context a call is made in.

    Parameters
    ----------
    net : torch.nn.Module
        The pipeline's transformer; it computes exactly what it would without this.
    layout : Layout

    Attributes
    ----------
    context : str or None
        Name of the ``cache_context`` that is open, without the guiders' ``pred_``; None outside of any.
    """

    def __init__(self, net: torch.nn.Module, layout: Layout) -> None:
        super().__init__()
        # Not registered as a submodule: the stand-in must not own the net, which goes back to the pipeline.
        self.__dict__["net"] = self.__dict__["stands_for"] = net
        self.layout = layout
        self.context: str | None = None

    def __getattr__(self, name: str) -> Any:
        """Config, dtype and whatever else a pipeline asks of its transformer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(self.__dict__["net"], name)
            return self._in_context(found) if name == "cache_context" else found

    def _in_context(self, cache_context: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def entered(name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
            before, self.context = self.context, name.removeprefix("pred_")
            try:
                with cache_context(name, *args, **kwargs) as value:
                    yield value
            finally:
                self.context = before

        return entered

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """One call of the transformer, as it is."""
        return self.net(*args, **kwargs)

    def bound(self, args: tuple[Any, ...], kwargs: Any) -> TransformerCall:
        """A call's arguments by name."""
        return TransformerCall.bound(self.layout, self.net, args, kwargs)


class Watched(StandIn):
    """Tells of every call, before it is made: ``on_call(call, context)``."""

    def __init__(
        self, net: torch.nn.Module, layout: Layout, *, on_call: Callable[[TransformerCall, str | None], None]
    ) -> None:
        super().__init__(net, layout)
        self.on_call = on_call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """One call of the transformer, as it is."""
        self.on_call(self.bound(args, kwargs), self.context)
        return super().forward(*args, **kwargs)


@contextlib.contextmanager
def in_place_of_transformer(pipe: Any, stand_in: StandIn) -> Iterator[None]:
    """Let a stand-in take the calls of a pipeline."""
    net = pipe.transformer
    try:
        # Past the pipeline's own __setattr__, which would write the stand-in's class into the pipeline's config.
        object.__setattr__(pipe, "transformer", stand_in)
        yield
    finally:
        object.__setattr__(pipe, "transformer", net)
