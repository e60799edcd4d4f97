"""Whether the size that a spec recommends can fit into memory at all: asked before anything is allocated.

A spec is a file that may come from anyone, and the size that it recommends is taken where none is given.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch

from workbench.errors import SpecError
from workbench.models import layout_for
from workbench.models.generate import pixels_a_token
from workbench.models.grid import patch_of

STATES = 4
"""Hidden state, query, key and value of one block: no fewer are in memory at once."""


class Needed(NamedTuple):
    """What one batch takes, at the least.

    Attributes
    ----------
    tokens : int
        Of one sample.
    bytes : int
        The larger of `STATES` states of the batch, and its decoded videos in float32; weights, text and all that a decoder needs on
        its way come on top.
    """

    tokens: int
    bytes: int


def needed(pipe: Any, *, height: int, width: int, num_frames: int, batch_size: int) -> Needed:
    """Return the least that a batch of videos of this size takes, in pixels and frames."""
    side = pixels_a_token(pipe)
    layout = layout_for(pipe, token_timesteps=True)
    latent = (num_frames - 1) // layout.causal_time + 1 if layout.first_alone else num_frames // layout.causal_time
    frames = latent // patch_of(layout.latents, pipe.transformer)[0]
    tokens = frames * (height // side) * (width // side)
    states = STATES * batch_size * tokens * layout.width_of(pipe.transformer) * pipe.transformer.dtype.itemsize
    return Needed(tokens, max(states, 4 * 3 * batch_size * num_frames * height * width))


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory of a device, all of it; None where it does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if device.type == "cpu" else None
    except (AttributeError, OSError, ValueError):
        return None


def refuse_too_large(pipe: Any, size: dict[str, int | None], given: dict[str, int | None], batch_size: int) -> None:
    """Refuse a size that a spec recommends if not even the least that it takes can be had.

    Parameters
    ----------
    size : dict
        ``height``, ``width``, ``num_frames`` as they are to be used; None is the pipeline's own.
    given : dict
        The same as the user gave them. A size that the user gave in full is the user's own affair.

    Raises
    ------
    SpecError
        With tokens and bytes, and what to give instead.
    """
    values = {key: value for key, value in size.items() if value is not None}
    if len(values) < 3 or all(value is not None for value in given.values()):
        return
    least, there = needed(pipe, **values, batch_size=batch_size), memory_of(pipe.transformer.device)
    if there is not None and least.bytes > there:
        raise SpecError(
            f"the spec recommends {values['width']} × {values['height']} px and {values['num_frames']} frames: {least.tokens:,} tokens "
            f"a video, and at least {least.bytes / 2**30:,.1f} GiB for {batch_size} at once, where {pipe.transformer.device} has "
            f"{there / 2**30:,.1f} GiB. Give height, width and num_frames (--height, --width, --frames), or a smaller batch_size (--batch)."
        )
