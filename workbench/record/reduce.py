"""Statistics of a hidden state, computed where it lives. B rows of the batch, N tokens, C channels, K ranks."""

from __future__ import annotations

import torch

#: How many of a token's largest channels are kept.
RANKS = 3


def reduce_tokens(h_BNC: torch.Tensor) -> dict[str, torch.Tensor]:
    """Statistics of one block's output for every row of the batch.

    Parameters
    ----------
    h_BNC : tensor (B, N, C)
        Hidden states of image tokens, any floating dtype; the arithmetic is float32.

    Returns
    -------
    dict
        ``h_mean_abs, h_mean, h_max_abs, h_std`` (B, C); ``h_norm`` (B, N); ``h_top_abs`` (B, N, K) and
        ``h_top_channel`` (B, N, K, int32). Each row's numbers depend on that row only, to the bit.
    """
    h = h_BNC.float()
    magnitude = h.abs()
    mean = h.mean(dim=1)
    # In two passes by hand: as exact as torch.var, which is much slower along this axis on a CPU.
    deviation = h - mean[:, None]
    variance = (deviation * deviation).mean(dim=1)
    top, channel = magnitude.topk(min(RANKS, h.shape[-1]), dim=-1)
    return {
        "h_mean_abs": magnitude.mean(dim=1),
        "h_mean": mean,
        "h_max_abs": magnitude.amax(dim=1),
        "h_std": variance.sqrt(),
        "h_norm": torch.linalg.vector_norm(h, dim=-1),
        "h_top_abs": top,
        "h_top_channel": channel.to(torch.int32),
    }
