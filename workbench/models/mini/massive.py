"""Measuring massive activations during training, with plain forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from .dit import MiniModel

SIGMAS = (0.9, 0.5, 0.1)


@torch.no_grad()
def channel_means(
    model: MiniModel, latents: torch.Tensor, ids: torch.Tensor, sigma: float, timestep: float | None = None
) -> torch.Tensor:
    """Mean |h| over samples and image tokens of every channel after every block, (blocks, channels).

    Parameters
    ----------
    latents
        (B, 8, 16, 16) clean scaled latents; noised to ``sigma`` with seed 0.
    ids
        (B, L) prompt tokens.
    timestep
        What goes into the embedding; None stands for the ``1000 sigma`` that belongs to the noise.
    """
    return torch.stack([h.mean(dim=(0, 1)) for h in magnitudes(model, latents, ids, sigma, timestep)])


@torch.no_grad()
def hooked(
    blocks: Iterable[nn.Module], stream: Callable[[Any], torch.Tensor], forward: Callable[[], Any]
) -> list[torch.Tensor]:
    """|h| after every block in one ``forward``, each (B, tokens, channels); ``stream`` takes it from a block's output."""
    rows: list[torch.Tensor] = []

    def hook(_module, _inputs, output) -> None:
        rows.append(stream(output).float().abs().cpu())

    handles = [block.register_forward_hook(hook) for block in blocks]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return rows


@torch.no_grad()
def magnitudes(
    model: MiniModel, latents: torch.Tensor, ids: torch.Tensor, sigma: float, timestep: float | None = None
) -> list[torch.Tensor]:
    """|h| of the image tokens after every block, each (B, 64, channels); arguments as in ``channel_means``."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
    tokens, pooled = model.conditioner(ids, t5_tokens=8)
    return hooked(
        model.transformer.transformer_blocks,
        lambda output: output[1],  # output: (context, image) streams
        lambda: model.transformer(
            hidden_states=(1 - sigma) * latents + sigma * noise,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            timestep=torch.full(
                (len(latents),), 1000.0 * sigma if timestep is None else timestep, device=latents.device
            ),
        ),
    )


def tokens_led(model: MiniModel, latents: torch.Tensor, ids: torch.Tensor) -> dict[str, list[float]]:
    """Share of the image tokens whose largest channel is the top channel of their block, by noise level."""
    table = {}
    for sigma in SIGMAS:
        rows = magnitudes(model, latents, ids, sigma)
        table[str(sigma)] = [round(float((h.argmax(-1) == h.mean((0, 1)).argmax()).float().mean()), 3) for h in rows]
    return table


def ratios(means: torch.Tensor) -> list[float]:
    """Top channel's mean over the median channel's, per block, of ``means`` (blocks, channels)."""
    return [round(float(row.max() / row.median()), 3) for row in means]


def ma_report(model: MiniModel, latents: torch.Tensor, ids: torch.Tensor) -> dict[str, dict[str, list]]:
    """Ratio and index of the top channel per block, by noise level."""
    return report_of(lambda sigma: channel_means(model, latents, ids, sigma))


def report_of(channel_means: Callable[[float], torch.Tensor]) -> dict[str, dict[str, list]]:
    """Ratio and index of the top channel per block, by noise level, of means (blocks, channels) at each."""
    report = {}
    for sigma in SIGMAS:
        means = channel_means(sigma)
        report[str(sigma)] = {"ratio": ratios(means), "channel": means.argmax(1).tolist()}
    return report


def peak(report: dict[str, dict[str, list]]) -> float:
    """Largest ratio of a report."""
    return max(value for row in report.values() for value in row["ratio"])
