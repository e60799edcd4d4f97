"""One call of a transformer, its arguments by name, read as its family's row says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from workbench.models.grid import Grid, grid_of_call
from workbench.models.layout import Layout, Stack
from workbench.models.tokens import Tokens


@dataclass(frozen=True)
class TransformerCall:
    """One call.

    Attributes
    ----------
    layout : Layout
    transformer : Module
    arguments : dict
        By name, however they were given.
    """

    layout: Layout
    transformer: torch.nn.Module
    arguments: Mapping[str, Any]

    @classmethod
    def bound(cls, layout: Layout, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> TransformerCall:
        """From the arguments as the pipeline gave them."""
        bound = inspect.signature(type(transformer).forward).bind(transformer, *args, **kwargs)
        arguments = dict(list(bound.arguments.items())[1:])  # without self
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # a forward that hands everything on
                arguments |= arguments.pop(name, {})
        return cls(layout, transformer, arguments)

    @property
    def latents(self) -> torch.Tensor:
        """(B, C, H, W), (B, C, F, H, W) or (B, N, C), whichever way the transformer is given them; of what is noisy."""
        given = self._given()[:, : self._noisy()]
        return given if self._among is None else given[:, self._among]

    def with_latents(self, latents: torch.Tensor) -> TransformerCall:
        """The same call with other latents, given as `latents` gives them."""
        given = self.arguments[self.layout.latents.argument]
        if self._noisy():
            latents = torch.cat([latents, self._given()[:, self._noisy() :]], dim=1)
        if self._among is not None:
            inside, latents = latents, self._given().clone()
            latents[:, self._among] = inside
        own = self.layout.latents.as_given(latents)
        return self.with_(**{self.layout.latents.argument: list(own) if isinstance(given, (list, tuple)) else own})

    def _given(self) -> torch.Tensor:
        given = self.arguments[self.layout.latents.argument]
        return self.layout.latents.channels_first(
            torch.stack(list(given)) if isinstance(given, (list, tuple)) else given
        )

    @cached_property
    def _among(self) -> torch.Tensor | None:
        """Which tokens of the latents are the image's, (N,), where others are among them; the same in all rows."""
        if not self.layout.latents.among:
            return None
        argument, value = self.layout.latents.among
        return torch.as_tensor(self.arguments[argument][0] == value)

    def _noisy(self) -> int | None:
        key = self.layout.latents.noisy
        value: Any = self.transformer.config[key] if key else None  # type: ignore[index]
        return None if value is None else int(value)

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.arguments[self.layout.latents.argument])

    @property
    def timestep(self) -> torch.Tensor:
        """One for all, one a row (B,), or one a token (B, N); one a frame, (B, F) or (B, 1, F), is given as one a token."""
        given = torch.as_tensor(self.arguments[self.layout.timestep.argument])
        given = given.flatten(1) if given.ndim > 2 else given
        frames, height, width = self.grid
        if given.ndim == 2 and given.shape[1] == frames:
            return given.repeat_interleave(height * width, dim=1)
        return given

    @cached_property
    def grid(self) -> Grid:
        """F, H, W of the tokens."""
        return grid_of_call(self.layout, self.transformer, self.arguments)

    def tokens(self, stack: Stack) -> Tokens:
        """Where the image tokens are in the states of a stack."""
        return Tokens.of_call(stack, self.grid, self.arguments)

    def only(self, rows: slice) -> TransformerCall:
        """The same call for some rows of the batch."""
        return TransformerCall(self.layout, self.transformer, {name: self._only(name, rows) for name in self.arguments})

    def _only(self, name: str, rows: slice) -> Any:
        value = self.arguments[name]
        if name in self.layout.row_lists and isinstance(value, (list, tuple)):
            return value[rows]
        if name in self.layout.rows_second:
            return value[:, rows]
        if name in self.layout.rowless:
            return value
        return take(value, rows, self.rows)

    def with_(self, **arguments: Any) -> TransformerCall:
        """The same call with other arguments."""
        return TransformerCall(self.layout, self.transformer, {**self.arguments, **arguments})


def take(value: Any, rows: slice, batch: int) -> Any:
    """Cut `rows` out of every tensor in `value` whose first axis is the batch; anything else stays as it is."""
    if isinstance(value, dict):
        return {key: take(item, rows, batch) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(take(item, rows, batch) for item in value)
    return value[rows] if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == batch else value
