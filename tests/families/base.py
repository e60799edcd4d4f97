"""What is known of one transformer class in small: a real pipeline of it, how to call it, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Arguments = dict[str, Any]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Call:
    """A size to generate at, and the token grid (F, H, W) that it must give.

    Attributes
    ----------
    arguments : dict
        Of the pipeline: height, width, num_frames, whatever it takes.
    grid : tuple of int
        F, H, W of the tokens at every block, known by hand.
    """

    arguments: Arguments
    grid: Grid


@dataclass(frozen=True)
class Family:
    """One transformer class in small.

    Attributes
    ----------
    name : str
        Short name, as users type it; that of the row.
    transformer : str
        Module path and class name.
    build : callable
        ``build()`` makes a real stock pipeline of diffusers with random weights from a fixed seed, in float32, with
        ``set_progress_bar_config(disable=True)``, without text encoders where the pipeline runs without. Builds in < 1 s.
    encode : callable
        ``encode(prompts)`` makes the pipeline's arguments for these prompts: embeddings that depend on each prompt alone,
        reproducibly, and what else the pipeline needs (class labels, an image).
    image : mapping
        Path of a stack (its ModuleList) → ``(block output, arguments of the transformer's call) -> (B, F·H·W, C)``: the image
        tokens of what a plain forward hook sees there, written without the workbench's rows.
    calls : sequence of Call
        At least two sizes: one not square, one with an odd number of rows or columns (as far as the model takes it).
    guided, plain : dict
        The pipeline's arguments with classifier-free guidance (or its own kind of guidance), and without; `guided` is
        None for a pipeline that has none, `plain` is None for one that can't be without.
    calls_per_step : tuple of int
        Calls of the transformer a step: (guided, plain).
    rows : tuple of str
        Branches in the order of the batch's rows (batched), or of the calls of a step.
    combine : callable or None
        ``(cond, uncond, scale) -> prediction`` that the scheduler is given, as the pipeline's source has it; None if it
        has none (embedded guidance).
    remark : str
    steps : int
        That a generation with ``num_inference_steps=steps`` takes.
    extra : dict
        Further arguments of every call of the pipeline.
    batch : int
        Prompts a call takes; 1 for a pipeline that makes one video at a time.
    scheduler_calls : int
        How often a pipeline calls its scheduler's ``step`` in a step; what the last one is given is what it steps with.
    """

    name: str
    transformer: str
    build: Callable[[], Any]
    encode: Callable[[Sequence[str]], Arguments]
    image: Mapping[str, Callable[[Any, Arguments], torch.Tensor]]
    calls: Sequence[Call]
    guided: Arguments | None
    plain: Arguments | None
    calls_per_step: tuple[int, int]
    rows: tuple[str, ...] = ("uncond", "cond")
    combine: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] | None = None
    remark: str = ""
    steps: int = 2
    extra: Arguments = field(default_factory=dict)
    batch: int = 2
    scheduler_calls: int = 1


def embeddings(prompt: str, *shape: int, seed: int = 7) -> torch.Tensor:
    """Numbers that depend on the prompt alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(prompt.encode()) + seed))
