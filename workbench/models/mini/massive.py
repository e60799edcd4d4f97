"""Measuring massive activations during training, with plain forward hooks."""

from __future__ import annotations

import torch

from .dit import MiniModel

SIGMAS = (0.9, 0.5, 0.1)


@torch.no_grad()
def channel_means(
    model: MiniModel, latents: torch.Tensor, ids: torch.Tensor, sigma: float, seed: int = 0
) -> torch.Tensor:
    """Mean |h| over samples and image tokens of every channel after every block, (blocks, channels).

    Parameters
    ----------
    latents
        (B, 8, 16, 16) clean scaled latents; noised to ``sigma`` with a fixed seed.
    ids
        (B, L) prompt tokens.
    """
    rows: list[torch.Tensor] = []

    def hook(_module, _inputs, output) -> None:
        rows.append(output[1].float().abs().mean(dim=(0, 1)).cpu())  # output: (context, image) streams

    handles = [block.register_forward_hook(hook) for block in model.transformer.transformer_blocks]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    try:
        tokens, pooled = model.conditioner(ids, t5_tokens=8)
        model.transformer(
            hidden_states=(1 - sigma) * latents + sigma * noise,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            timestep=torch.full((len(latents),), 1000.0 * sigma, device=latents.device),
        )
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows)


def ratios(means: torch.Tensor) -> list[float]:
    """Top channel's mean over the median channel's, per block, of ``means`` (blocks, channels)."""
    return [round(float(row.max() / row.median()), 3) for row in means]


def ma_report(model: MiniModel, latents: torch.Tensor, ids: torch.Tensor) -> dict[str, dict[str, list]]:
    """Ratio and index of the top channel per block, by noise level."""
    report = {}
    for sigma in SIGMAS:
        means = channel_means(model, latents, ids, sigma)
        report[str(sigma)] = {"ratio": ratios(means), "channel": means.argmax(1).tolist()}
    return report


def peak(report: dict[str, dict[str, list]]) -> float:
    """Largest ratio of a report."""
    return max(value for row in report.values() for value in row["ratio"])
