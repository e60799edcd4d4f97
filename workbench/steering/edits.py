"""What a degraded pass does to the massive channels of a hidden state. One function, used by guidance and disruption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch

from workbench.errors import SpecError
from workbench.steering.parts import Action

ACTIONS: tuple[str, ...] = get_args(Action)


def edit_channels(h_BNC: torch.Tensor, channels: Sequence[int], action: str, *, rho: float = 0.0) -> torch.Tensor:
    """Return a copy of the image-token state with some channels replaced on every token.

    Only image tokens are given here: paper A finds its massive activations on all spatial tokens and speaks of the
    hidden state of those; whether it also edits the text stream is not established, so that is left alone.

    Parameters
    ----------
    h_BNC : Tensor
        Hidden state, B rows of the batch, N image tokens, C channels. It is not changed.
    channels : sequence of int
        Which channels, at least one.
    action : str
        ``"zero"``: 0 (paper A, arXiv 2510.11538). ``"scale"``: ``rho`` times the value, soft suppression (its
        follow-up, arXiv 2607.02968). ``"mean"``: the mean over the tokens, of each row and channel, so that what all
        tokens have in common stays and what tells them apart goes; the workbench's own.
    rho : float
        Retention, used by ``"scale"`` alone.

    Returns
    -------
    Tensor
        (B, N, C), same dtype.

    Raises
    ------
    SpecError
        If there is no channel, one lies outside the state, or the action is unknown.
    """
    width, wanted = h_BNC.shape[-1], list(channels)
    if action not in ACTIONS:
        raise SpecError(f"action {action!r} is unknown; valid: {', '.join(ACTIONS)}.")
    if not wanted:
        raise SpecError(f"no channel is named; name at least one of 0 to {width - 1}.")
    if min(wanted) < 0 or max(wanted) >= width:
        wrong = ", ".join(str(channel) for channel in wanted if not 0 <= channel < width)
        raise SpecError(f"channel {wrong} does not exist: the state has {width} channels, 0 to {width - 1}.")
    edited = h_BNC.clone()
    if action == "zero":
        edited[..., wanted] = 0
    elif action == "scale":
        edited[..., wanted] *= rho
    else:
        # At least in float32: a sum over thousands of tokens loses its last digits in bfloat16.
        values_BNK = h_BNC[..., wanted]
        mean_B1K = values_BNK.to(torch.promote_types(h_BNC.dtype, torch.float32)).mean(dim=-2, keepdim=True)
        edited[..., wanted] = mean_B1K.to(h_BNC.dtype).expand_as(values_BNK)
    return edited


__all__ = ["ACTIONS", "edit_channels"]
