"""Reading a block's modulation in the three ways it comes in, and exchanging parts of it. B rows, M terms, C channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from workbench.models.layout import Modulation

#: What an exchange takes over, as the beginnings of the terms' names.
PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"gate": ("gate",), "shift_scale": ("shift", "scale"), "modulation": ("gate", "shift", "scale")}
)


def modulation_of(modulation: Modulation, raw: torch.Tensor, table: torch.Tensor | None, channels: int) -> torch.Tensor:
    """Shift, scale and gate of the image tokens as the block uses them.

    Parameters
    ----------
    modulation : Modulation
    raw : tensor
        The projection's output, (B, M · C) or more, or with an axis of its own for the terms, (B, M, C) or more.
    table : tensor or None
        The block's own part, where it has one.
    channels : int
        C.

    Returns
    -------
    tensor (B, M, C)
    """
    terms = len(modulation.terms)
    if table is not None:
        return table.reshape(1, terms, channels) + raw.float()
    if raw.ndim > 2 and raw.shape[-1] == channels:
        return raw[:, :terms]
    return raw[:, : terms * channels].unflatten(-1, (terms, channels))


def in_terms(modulation: torch.Tensor, terms: tuple[str, ...], all_terms: tuple[str, ...]) -> torch.Tensor:
    """Bring (B, M, C) of a block with fewer terms into the layout's; what it has not is NaN."""
    if terms == all_terms:
        return modulation
    rows, _, channels = modulation.shape
    full = modulation.new_full((rows, len(all_terms), channels), float("nan"))
    full[:, [all_terms.index(term) for term in terms]] = modulation
    return full


def exchanged(
    modulation: Modulation, own: torch.Tensor, other: torch.Tensor, what: str, channels: int, start: int = 0
) -> torch.Tensor:
    """A projection's output with some parts taken from another.

    Parameters
    ----------
    modulation : Modulation
    own, other : tensor
        Outputs of the same projection for two timesteps, (B, M · C), (B, M, C) or, with a timestep a token, (B, N, M, C);
        neither is changed.
    what : {"gate", "shift_scale", "modulation"}
    channels : int
        C.
    start : int
        How many terms other projections of the block gave before this one.
    """
    names = (*modulation.terms, *modulation.beyond)[start:]
    axis, width = (-2, 1) if modulation.kind == "shared_table" or own.shape[-1] == channels else (-1, channels)
    result = own.clone()
    for index, name in enumerate(names[: own.shape[axis] // width]):
        if name.startswith(PARTS[what]):
            result.narrow(axis, index * width, width).copy_(other.narrow(axis, index * width, width))
    return result


@dataclass(frozen=True)
class Exchange:
    """In one block, parts of the modulation are those of another call.

    Attributes
    ----------
    block : str
        Full module path.
    what : {"gate", "shift_scale", "modulation"}
    raw : tensor
        What the other call's projection gave, as the trace reports it.
    """

    block: str
    what: str
    raw: torch.Tensor
