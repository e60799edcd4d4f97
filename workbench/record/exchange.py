"""Reading a block's modulation in the three ways it comes in, and exchanging parts of it. B rows, M terms, C channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from workbench.errors import RecordingError
from workbench.models.layout import Modulation

#: What an exchange takes over, as the beginnings of the terms' names.
PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"gate": ("gate",), "shift_scale": ("shift", "scale"), "modulation": ("gate", "shift", "scale")}
)


def modulation_of(
    modulation: Modulation, raws: Sequence[torch.Tensor], table: torch.Tensor | None, channels: int
) -> torch.Tensor:
    """Shift, scale and gate of the image tokens as the block uses them.

    Parameters
    ----------
    modulation : Modulation
    raws : sequence of tensor
        Output of each projection, or the argument: (B, M · C) or more, or (B, M, C) or more.
    table : tensor or None
        The block's own part, where it has one.
    channels : int
        C.

    Returns
    -------
    tensor (B, M, C)
    """
    terms = len(modulation.terms)
    each = torch.cat([_in_parts(raw, terms // len(raws), channels) for raw in raws], dim=1)
    whole = each if table is None else table.reshape(1, terms, channels) + each.float()
    kept = [i for i, term in enumerate(modulation.terms) if term in modulation.image_terms]
    return whole if len(kept) == terms else whole[:, kept]


def _in_parts(raw: torch.Tensor, terms: int, channels: int) -> torch.Tensor:
    """(B, M, C) of a projection's output that holds at least as much for every row."""
    rows = raw.flatten(1)
    if rows.shape[1] < terms * channels or rows.shape[1] % channels:
        raise RecordingError(
            f"A modulation of shape {tuple(raw.shape)} does not hold {terms} parts of {channels} channels for every row: the "
            "model's configuration is none that the family's row is for."
        )
    return rows[:, : terms * channels].unflatten(1, (terms, channels))


def in_terms(modulation: torch.Tensor, terms: tuple[str, ...], all_terms: tuple[str, ...]) -> torch.Tensor:
    """Bring (B, M, C) of a block with fewer terms into the layout's; what it has not is NaN."""
    if terms == all_terms:
        return modulation
    rows, _, channels = modulation.shape
    full = modulation.new_full((rows, len(all_terms), channels), float("nan"))
    full[:, [all_terms.index(term) for term in terms]] = modulation
    return full


def exchanged(names: Sequence[str], own: torch.Tensor, other: torch.Tensor, what: str, channels: int) -> torch.Tensor:
    """A projection's output with some parts taken from another.

    Parameters
    ----------
    names : sequence of str
        Of the parts, in order; some blocks have fewer.
    own, other : tensor
        Outputs of the same projection for two timesteps: (B, M · C), (B, M, C) or, with a timestep a token, (B, N, M, C);
        neither is changed.
    what : {"gate", "shift_scale", "modulation"}
    channels : int
        C.
    """
    # Parts have an axis of their own, or lie one after the other along the last.
    axis, width = (-2, 1) if own.ndim > 2 and own.shape[-1] == channels else (-1, channels)
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
    raw : sequence of tensor
        What the other call's projections gave, as the trace reports it.
    """

    block: str
    what: str
    raw: Sequence[torch.Tensor]
