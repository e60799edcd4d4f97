"""The causal video autoencoder of ``mini-video``: the first frame alone, then chunks of four; 64 px to 16 x 5 x 16 x 16.

It is trained on crops of 32 px, because the network is convolutional in space, and of 9 or of all 17 frames: trained on
two chunks only, it lets colours drift in the third and fourth.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanResample, WanResidualBlock
from torch import nn

from ..vae import psnr
from .data import FRAMES, SIZE, Clips, on_background

LATENT_CHANNELS = 16
SPATIAL, TEMPORAL = 4, 4
CROP = 32
SHORT = 9
"""Frames of the shorter crops: two chunks."""
EMA = 0.995
STILL_SHARE = 0.15
"""Share of the training in which single frames are shown."""
KL_WEIGHT = 1e-4
"""Per latent element: just enough to keep the latents bounded and smooth."""
DECODER_NOISE = 0.15
"""Share of a latent's deviation that is added when only the decoder is trained: what a transformer makes is not exact."""


def make_vae() -> AutoencoderKLWan:
    """Untrained autoencoder of the Wan kind, 1.9 million parameters."""
    vae = AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        # The pipeline asks for latents of SIZE / scale_factor_spatial: diffusers' default of 8 would be half the size.
        scale_factor_spatial=SPATIAL,
        scale_factor_temporal=TEMPORAL,
    )
    start_nearly_linear(vae)
    return vae


_HAAR = torch.tensor([[[1, 1], [1, 1]], [[2, -2], [2, -2]], [[2, 2], [-2, -2]], [[2, -2], [-2, 2]]]) / 4


def start_nearly_linear(vae: AutoencoderKLWan) -> None:
    """Begin as a blurred copy: residual branches at zero, the trunk passing on colours, their 2 x 2 details, and a constant.

    The constant channel makes Wan's RMS norm nearly linear for the others. From diffusers' own start even the colours of a
    plain background are slow to come through.
    """
    for module in vae.modules():
        if isinstance(module, WanResidualBlock):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if not isinstance(module.conv_shortcut, nn.Identity):
                _pass_on(module.conv_shortcut, [(0, 0, 0)])
        elif isinstance(module, WanAttentionBlock):
            nn.init.zeros_(module.proj.weight)
            nn.init.zeros_(module.proj.bias)
        elif isinstance(module, WanResample):
            down, conv = "down" in module.mode, module.resample[1]
            if down:
                _pass_on(conv, [])
                for channel in range(conv.weight.shape[0]):
                    conv.weight.data[channel, channel, :2, :2] += _HAAR[channel // 3 % 4]
            else:
                _pass_on(conv, [(1, 1)])
            if "3d" in module.mode:
                _pass_on(module.time_conv, [(1, 0, 0), (2, 0, 0)] if down else [(2, 0, 0)])
    first = vae.encoder.conv_in
    _pass_on(first, [(2, 1, 1)])
    first.weight.data[-1] = 0
    first.bias.data[-1] = 3.0


def _pass_on(conv: Any, places: list[tuple[int, ...]]) -> None:
    """Let every output channel j be the mean of input channel j (modulo) over kernel ``places``, plus a little of all."""
    weight = conv.weight.data.mul_(0.1)
    for channel in range(weight.shape[0]):
        for place in places:
            weight[(channel, channel % weight.shape[1], *place)] += 1 / len(places)
    conv.bias.data.zero_()


def reconstruction_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 plus L1 of the differences between neighbours in space, which keeps edges sharp, and in time."""
    loss = (out - target).abs().mean()
    for axis, weight in ((-1, 0.5), (-2, 0.5), (-3, 0.5))[: 3 if out.shape[2] > 1 else 2]:
        loss = loss + weight * (out.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    pooled = [torch.nn.functional.avg_pool3d(x, (1, 4, 4)) for x in (out, target)]
    return loss + 0.5 * (pooled[0] - pooled[1]).abs().mean()


def crops(clips: Clips, generator: np.random.Generator, batch: int, frames: int = SHORT) -> torch.Tensor:
    """Crops of clips on random backgrounds, (batch, 3, frames, 32, 32) in [-1, 1], starting at any frame."""
    rows = []
    for index in generator.integers(0, len(clips.captions), batch):
        f = generator.integers(0, clips.rgba.shape[1] - frames + 1)
        clip = on_background(clips.rgba[index, f : f + frames], generator, frames)
        y, x = generator.integers(0, SIZE - CROP + 1, 2)
        rows.append(clip[..., y : y + CROP, x : x + CROP])
    return torch.from_numpy(np.stack(rows))


def decode_unclamped(vae: AutoencoderKLWan, z: torch.Tensor) -> torch.Tensor:
    """What ``vae.decode`` gives before it clamps to [-1, 1]: a clamped pixel would give no gradient."""
    vae.clear_cache()
    x, chunks = vae.post_quant_conv(z), []
    for i in range(x.shape[2]):
        vae._conv_idx = [0]
        chunks.append(
            vae.decoder(x[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
        )
    vae.clear_cache()
    return torch.cat(chunks, dim=2)


def train_vae(
    clips: Clips,
    work: Path,
    minutes: float,
    batch: int = 4,
    lr: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    max_steps: int | None = None,
    start_from: Path | None = None,
    decoder_only: bool = False,
) -> Path:
    """Train the autoencoder for ``minutes`` (or ``max_steps``), the rate decaying to zero over the last 60 %.

    What is kept is the moving average of the weights: crops are few and unlike each other, so the steps are noisy.

    Parameters
    ----------
    start_from
        Folder of an autoencoder to go on from.
    decoder_only
        Its encoder is frozen: latents stay as they are.

    Returns
    -------
    The folder ``work / "vae"``.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng([seed, int(decoder_only), int(start_from is not None)])
    target = work / "vae"
    vae = (AutoencoderKLWan.from_pretrained(start_from) if start_from else make_vae()).to(device).train()
    average = copy.deepcopy(vae).requires_grad_(False)
    trained = list(vae.parameters())
    if decoder_only:
        trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1, 1)
    optimiser = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    name = "vae-decoder.jsonl" if decoder_only else "vae.jsonl"
    start, step, log = time.monotonic(), 0, (work / name).open("a", encoding="utf-8")
    while True:
        done = (time.monotonic() - start) / (60 * minutes) if max_steps is None else step / max_steps
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * min(1.0, (1 - done) / 0.6)
        # Single frames are cheap and teach colours and edges; chunks come after.
        kinds = (
            [(4 * batch, 1)] if done < STILL_SHARE and start_from is None else [(batch, SHORT), (batch // 2, FRAMES)]
        )
        x = crops(clips, generator, *kinds[step % len(kinds)]).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            with torch.set_grad_enabled(not decoder_only):
                posterior = vae.encode(x).latent_dist
                z = posterior.sample()
            if decoder_only:
                z = z + DECODER_NOISE * std * torch.rand(1, device=device) * torch.randn_like(z)
            out = decode_unclamped(vae, z)
        loss = reconstruction_loss(out.float(), x)
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        (loss if decoder_only else loss + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        decay = min(EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in vae.parameters()], 1 - decay)
        if step % 50 == 0:
            row = {"step": step, "loss": loss.item(), "kl": kl.item(), "psnr": psnr(out.detach().float(), x)}
            log.write(json.dumps(row | {"s": round(time.monotonic() - start, 1)}) + "\n")
            log.flush()
    log.close()
    vae = average.eval()
    if not decoder_only:
        mean, deviation = latent_statistics(vae, clips, device)
        vae.register_to_config(latents_mean=mean, latents_std=deviation)
        for old in work.glob("latents-*.pt"):  # those of another encoder
            old.unlink()
    vae.save_pretrained(target, safe_serialization=True)
    return target


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, clips: Clips, device: str = "cpu") -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over clips, frames and places."""
    generator = np.random.default_rng(0)
    parts = [
        vae.encode(torch.from_numpy(on_background(rgba, generator))[None].to(device)).latent_dist.mean[0]
        for rgba in clips.rgba[:: max(1, len(clips.captions) // 100)]
    ]
    z = torch.stack(parts)
    return z.mean((0, 2, 3, 4)).tolist(), z.std((0, 2, 3, 4)).tolist()


@torch.no_grad()
def encode(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Normalised latents of clips in [-1, 1], (B, 3, F, 64, 64) to (B, 16, 1 + (F - 1) / 4, 16, 16)."""
    mean, std = (
        torch.tensor(values, device=video.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (vae.encode(video).latent_dist.mean - mean) / std
