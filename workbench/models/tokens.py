"""The image tokens in a block's state: (B, N, C) out of whatever the block is given and leaves, and back into it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Stack

if TYPE_CHECKING:
    import torch

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Tokens:
    """Where the image tokens are in the states of one stack, in one call.

    Attributes
    ----------
    stack : Stack
    grid : tuple of int
        F, H, W.
    marker : Tensor or None
        Value of the call's argument `stack.marker`.
    """

    stack: Stack
    grid: Grid
    marker: torch.Tensor | None = None

    @classmethod
    def of_call(cls, stack: Stack, grid: Grid, arguments: Mapping[str, Any]) -> Tokens:
        """For a call of the transformer with these arguments."""
        return cls(stack, grid, arguments[stack.marker] if stack.marker else None)

    @property
    def count(self) -> int:
        """N = F · H · W."""
        return math.prod(self.grid)

    def read(self, state: torch.Tensor, *, entering: bool = False) -> torch.Tensor:
        """Image tokens (B, N, C) of a state; a view of it where that is possible.

        Parameters
        ----------
        state : Tensor
            As the block is given it or leaves it.
        entering : bool
            True for the state that enters the block.

        Raises
        ------
        UnsupportedModelError
            If the state does not hold N image tokens.
        """
        batched = self._batched(state)
        place = self._place(entering)
        if place == "all":
            found = batched
        elif place == "first":
            found = batched[:, : self.count]
        elif place == "last":
            found = batched[:, -self.count :]
        else:
            found = batched[self._index(batched)].unflatten(0, (len(batched), self.count))
        self._check(found, state)
        return found

    def write(self, state: torch.Tensor, image_BNC: torch.Tensor, *, entering: bool = False) -> torch.Tensor:
        """A copy of the state in which the image tokens are `image_BNC`; the others' bits are as they were."""
        import torch

        place = self._place(entering)
        if place == "all":
            return self._unbatched(image_BNC, state)
        batched = self._batched(state)
        if place == "first":
            return self._unbatched(torch.cat([image_BNC, batched[:, self.count :]], dim=1), state)
        if place == "last":
            return self._unbatched(torch.cat([batched[:, : -self.count], image_BNC], dim=1), state)
        new = batched.clone()
        new[self._index(batched)] = image_BNC.flatten(0, 1)
        return self._unbatched(new, state)

    def _place(self, entering: bool) -> str:
        return (entering and self.stack.input_image) or self.stack.image

    def _batched(self, state: torch.Tensor) -> torch.Tensor:
        """Batch first, tokens second."""
        axes, (frames, height, width) = self.stack.axes, self.grid
        if state.ndim != (2 if axes == "NC" else 3):
            raise self._unfit(state)
        if axes == "NC":
            return state[None]
        if axes == "NBC":
            return state.transpose(0, 1)
        if axes == "(BF)NC":
            self._divides(state, frames)
            return state.unflatten(0, (-1, frames)).flatten(1, 2)
        if axes == "(BN)FC":
            self._divides(state, height * width)
            return state.unflatten(0, (-1, height * width)).transpose(1, 2).flatten(1, 2)
        return state

    def _unbatched(self, batched: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        axes, (frames, height, width) = self.stack.axes, self.grid
        if axes == "NBC":
            batched = batched.transpose(0, 1)
        elif axes == "(BF)NC":
            batched = batched.unflatten(1, (frames, height * width)).flatten(0, 1)
        elif axes == "(BN)FC":
            batched = batched.unflatten(1, (frames, height * width)).transpose(1, 2).flatten(0, 1)
        return batched.reshape(like.shape)

    def _index(self, batched: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and tokens of the image tokens, in order."""
        import torch

        assert self.marker is not None
        length = batched.shape[1]
        if self.stack.image == "marked":
            mask = self.marker.to(device=batched.device, dtype=torch.bool).expand(len(batched), -1)
        else:
            start = self.marker.to(batched.device).sum(dim=1, keepdim=True)
            place = torch.arange(length, device=batched.device)[None]
            mask = (place >= start) & (place < start + self.count)
        if mask.shape[1] != length or (mask.sum(dim=1) != self.count).any():
            raise self._unfit(batched)
        rows, places = mask.nonzero(as_tuple=True)
        return rows, places

    def _divides(self, state: torch.Tensor, rows: int) -> None:
        if len(state) % rows:
            raise self._unfit(state)

    def _check(self, found: torch.Tensor, state: torch.Tensor) -> None:
        if found.shape[1] != self.count:
            raise self._unfit(state)

    def _unfit(self, state: torch.Tensor) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"A state of {self.stack.path} has shape {tuple(state.shape)}, which does not hold one image token per cell of the "
            f"grid {self.grid} ({self.count} tokens, {self.stack.image} of the state's, axes {self.stack.axes})."
        )
