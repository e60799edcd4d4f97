"""One dry forward pass: does the model behave as its layout says, how large is a visit, how long does a call take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from workbench.errors import RecordingError, UnsupportedModelError
from workbench.models import guidance_of, noise_levels
from workbench.models.call import TransformerCall
from workbench.models.generate import Encode, as_stored, call_arguments, stepping
from workbench.models.layout import Guidance, Layout
from workbench.record.settings import Settings
from workbench.record.trace import traced


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """A pipeline that refuses its arguments (a size beyond its position table, say) says so with a ValueError."""
    try:
        yield
    except ValueError as error:
        raise RecordingError(f"The pipeline refuses these settings: {error}") from error
    except RuntimeError as error:
        raise RecordingError(f"The pipeline fails with these settings: {error}") from error


class _SeenEnough(Exception):
    """Ends the pipeline's call when its transformer was called often enough."""


@dataclass
class Shape:
    """What one call of the transformer looks like.

    Attributes
    ----------
    layers : list of str
        ``input`` and the block paths, in order of execution.
    grid : tuple of int
        Token grid (F, H, W).
    channels, embedding : int
        Width of the hidden state, and of ``temb``.
    terms : tuple of str
        Names of the modulation's parts.
    branches : tuple of str
        In the order of the batch's rows, or of the calls of a step.
    dtype : str
        Of the hidden states.
    latent : tuple of int
        (C, H, W), (C, F, H, W) or (N, C) of one sample.
    timesteps, sigmas : arrays (T,)
        float64, of every call.
    seconds : float
        Of one plain call of the transformer for one sample; 0 if it was not timed.
    calls : int
        Of the transformer in one step.
    token_timesteps : bool
        True if a call has a timestep a token.
    """

    layers: list[str] = field(default_factory=list)
    grid: tuple[int, int, int] = (0, 0, 0)
    channels: int = 0
    embedding: int = 0
    terms: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    dtype: str = "float32"
    latent: tuple[int, ...] = ()
    timesteps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sigmas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seconds: float = 0.0
    calls: int = 1
    token_timesteps: bool = False

    @property
    def tokens(self) -> int:
        """N = F · H · W."""
        return int(np.prod(self.grid))


def probe(pipe: Any, layout: Layout, settings: Settings, encode: Encode | None = None, *, timed: bool = False) -> Shape:
    """Run the pipeline for one sample up to its scheduler's first step, and look.

    Where every branch is a call of its own, the others are looked at as well, but not made.

    Raises
    ------
    UnsupportedModelError
        If the image tokens of any block are not F · H · W, or the batch's rows are not branches × samples.
    """
    shape = Shape(terms=layout.terms)
    guidance = guidance_of(pipe, layout, derived=True)
    batched = guidance is None or guidance.batched
    seen: dict[str, torch.Size] = {}
    batch = settings.samples[:1]  # the cheapest that shows every shape

    def on_call(call: TransformerCall, temb: torch.Tensor | None, context: str | None) -> None:
        shape.grid = call.grid
        shape.embedding = 0 if temb is None else temb.shape[-1]
        shape.branches = branches_of(layout.family, guidance, call.rows, len(batch))
        shape.token_timesteps = call.timestep.ndim == 2
        if shape.token_timesteps and call.timestep.shape[1] != shape.tokens:
            raise UnsupportedModelError(
                f"The pipeline gives {call.timestep.shape[1]} timesteps a row, but there are {shape.tokens} tokens "
                f"(grid {shape.grid}): they can't be told which is whose."
            )

    def on_state(layer: str, h: torch.Tensor, modulation: torch.Tensor | None) -> None:
        shape.layers.append(layer)
        seen[layer] = h.shape
        shape.channels, shape.dtype = h.shape[-1], str(h.dtype).removeprefix("torch.")

    with torch.no_grad(), traced(pipe, layout, on_call=on_call, on_state=on_state, on_done=lambda: None) as stand_in:
        traced_forward = stand_in.forward
        first: list[torch.Tensor] = []

        def look(*args: Any, **kwargs: Any) -> Any:
            if first:  # before the scheduler's step: another branch, for which anything will do
                if guidance is not None:
                    shape.branches = guidance.rows
                return first[0]
            result = traced_forward(*args, **kwargs)
            if timed:
                _settled()
                start = time.perf_counter()
                stand_in.net(*args, **kwargs)
                _settled()
                shape.seconds = time.perf_counter() - start
            first.append(result)
            return result

        def stop(sample: torch.Tensor, _after: torch.Tensor) -> None:
            shape.latent = tuple(as_stored(layout, sample, len(batch)).shape[1:])
            raise _SeenEnough

        stand_in.forward = look  # type: ignore[method-assign]
        with contextlib.suppress(_SeenEnough), _refusals(), stepping(pipe.scheduler, stop):
            pipe(**call_arguments(pipe, batch, **settings.call, encode=encode), output_type="latent")
    shape.timesteps, shape.sigmas = noise_levels(pipe.scheduler)
    shape.calls = 1 if guidance is None else guidance.calls(shape.branches)
    rows = len(batch) * (len(shape.branches) if batched else 1)
    _check(shape, seen, layout, rows)
    return shape


def _settled() -> None:
    """Wait for what an accelerator still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def branches_of(family: str, guidance: Guidance | None, rows: int, samples: int) -> tuple[str, ...]:
    """Which branches one call holds, from its rows; in the order of the rows."""
    if rows == samples:
        return ("cond",)
    together = guidance.rows if guidance is not None and guidance.batched else ("cond",)
    if rows == samples * len(together):
        return together
    raise UnsupportedModelError(
        f"The pipeline called its transformer with {rows} rows for {samples} samples; family {family} is known "
        f"to use {samples} (no guidance) or {samples * len(together)} ({' + '.join(together)})."
    )


def _check(shape: Shape, seen: Mapping[str, torch.Size], layout: Layout, rows: int) -> None:
    expected = (rows, shape.tokens, shape.channels)
    wrong = {layer: tuple(size) for layer, size in seen.items() if tuple(size) != expected}
    if wrong:
        layer, size = next(iter(wrong.items()))
        raise UnsupportedModelError(
            f"{len(wrong)} of {len(seen)} layers don't hold one image token per grid cell: {layer} has shape {size}, "
            f"family {layout.family} with grid {shape.grid} should have {expected} (rows, tokens, channels)."
        )
