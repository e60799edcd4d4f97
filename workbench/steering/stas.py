"""STAS (paper B: Cheng et al., arXiv 2603.17825): the arithmetic on a hidden state, nothing else.

Shapes: B samples, N video tokens, C channels of the state; n of those tokens and K of those channels are changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import SpecError

if TYPE_CHECKING:
    import torch

METHOD_VERSION = 1
"""Raised whenever a spec comes to mean something else; decides, with the spec, whether stored videos are of it."""

ACTIONS = ("steer", "scale", "zero")
REFERENCES = ("channel", "joint")


def steered(
    h_BNC: torch.Tensor,
    tokens_n: torch.Tensor,
    alpha_n: torch.Tensor,
    channels_K: torch.Tensor,
    *,
    action: str = "steer",
    reference: str = "channel",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of some tokens and channels, and those that take their place.

    Parameters
    ----------
    h_BNC : Tensor
        Hidden state; it is not changed.
    tokens_n, channels_K : Tensor of int64
        Which tokens and channels, each once.
    alpha_n : Tensor
        alpha of each of those tokens, in the state's dtype.
    action : str
        ``"steer"``: ``alpha max|h| sign(h)``. The maximum is over all N tokens of the sample, so a sample does not depend on
        its neighbours in the batch; it is a value of the state, exactly, and the product with alpha is taken in the state's
        dtype. sign(0) = 0. ``"scale"``: ``alpha h``. ``"zero"``: 0.
    reference : str
        The maximum is of each channel (``"channel"``), or over the K channels too (``"joint"``).

    Returns
    -------
    before, after : Tensor
        (B, n, K), same dtype.

    Raises
    ------
    SpecError
        If action or reference is unknown.
    """
    if action not in ACTIONS or reference not in REFERENCES:
        raise SpecError(
            f"action {action!r} with reference {reference!r} is unknown; valid: {', '.join(ACTIONS)}, with "
            f"{' or '.join(REFERENCES)}."
        )
    values_BNK = h_BNC.index_select(-1, channels_K)
    chosen_BnK = values_BNK.index_select(1, tokens_n)
    if action == "zero":
        return chosen_BnK, chosen_BnK.new_zeros(chosen_BnK.shape)
    if action == "scale":
        return chosen_BnK, alpha_n[:, None] * chosen_BnK
    over = (1,) if reference == "channel" else (1, 2)
    largest = values_BNK.abs().amax(dim=over, keepdim=True)  # (B, 1, K) or (B, 1, 1)
    return chosen_BnK, (alpha_n[:, None] * largest) * chosen_BnK.sign()


def replaced(
    h_BNC: torch.Tensor, tokens_n: torch.Tensor, channels_K: torch.Tensor, values_BnK: torch.Tensor
) -> torch.Tensor:
    """Return a copy of the state with these values at these tokens and channels; every other entry has the same bits."""
    changed = h_BNC.clone()
    changed[:, tokens_n[:, None], channels_K] = values_BnK
    return changed


__all__ = ["ACTIONS", "METHOD_VERSION", "REFERENCES", "replaced", "steered"]
