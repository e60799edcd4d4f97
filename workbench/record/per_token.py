"""Models in which every token has a timestep of its own. B rows of the batch, N tokens.

Image-to-video models give the tokens of the given frame another timestep (mostly 0) than those that are denoised. The
latter's is the largest of the call and the scheduler's; `temb` and the modulation are recorded for them, because they are
one a token and would take as much room as the states.
"""

from __future__ import annotations

import torch

from workbench.errors import RecordingError


def denoised_tokens(timestep: torch.Tensor) -> torch.Tensor | None:
    """First token of every row that has the row's largest timestep, (B,) int64; None where a call has one timestep a row."""
    return timestep.argmax(dim=1) if timestep.ndim == 2 else None


def one_a_row(value: torch.Tensor, rows: int) -> torch.Tensor:
    """What each row of the batch has of a value: (B, …), without axes of length 1 next to it.

    Parameters
    ----------
    value : tensor
        (B, …), (1, …) where all rows have the same, or (B · k, …) where the model repeats each row k times.
    rows : int
        B.

    Raises
    ------
    RecordingError
        If the rows of the value are no multiple of B, or the repeated ones differ.
    """
    while value.ndim > 2 and value.shape[1] == 1:
        value = value.squeeze(1)
    if len(value) == rows:
        return value
    if len(value) == 1:
        return value.expand(rows, *value.shape[1:])
    repeated = value.unflatten(0, (rows, -1)) if len(value) % rows == 0 else None
    if repeated is None or not torch.equal(repeated, repeated[:, :1].expand_as(repeated)):
        raise RecordingError(
            f"What the model makes of the timestep has shape {tuple(value.shape)} for {rows} rows: it is not one a row."
        )
    return repeated[:, 0]


def of_tokens(value: torch.Tensor, tokens: torch.Tensor | None, timestep: torch.Tensor, frames: int) -> torch.Tensor:
    """What a row's token has of a value: (B, …); the value itself where there are no such tokens.

    Parameters
    ----------
    value : tensor
        One a token or one a frame: (B, N, …) or (B, F, …), with axes of length 1 after B, or with the first two in one.
    tokens : tensor (B,), or None
        From `denoised_tokens`.
    timestep : tensor (B, N)
    frames : int
        F.

    Raises
    ------
    RecordingError
        If the value is neither.
    """
    if tokens is None:
        return value
    rows, count = timestep.shape
    own = value
    while own.ndim > 3 and own.shape[1] == 1:
        own = own.squeeze(1)
    if len(own) in (rows * count, rows * frames) and len(own) > rows:
        own = own.unflatten(0, (rows, -1))
    if own.ndim < 3 or len(own) != rows or own.shape[1] not in (count, frames):
        raise RecordingError(
            f"The call has {tuple(timestep.shape)} timesteps (rows, tokens), but what the model makes of them has shape "
            f"{tuple(value.shape)}: timesteps of this kind can't be recorded."
        )
    places = tokens.to(own.device) // (count // own.shape[1])
    return own[torch.arange(rows, device=own.device), places]


def same_for_all(value: torch.Tensor) -> torch.Tensor:
    """What all tokens have of a value (B, N, …): (B, …).

    Raises
    ------
    RecordingError
        If they differ, in a call with one timestep a row.
    """
    if not torch.equal(value, value[:, :1].expand_as(value)):
        raise RecordingError(
            "The call has one timestep a row, but the image tokens of a row are modulated differently: what the model makes "
            "of the timestep can't be recorded."
        )
    return value[:, 0]
