"""The autoencoder of ``mini-image``: three levels, 64 px pictures to 8 x 16 x 16 latents, trained from scratch."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

LATENT_CHANNELS = 8
KL_WEIGHT = 3e-4
"""Per latent element: just enough to keep the latents bounded and smooth."""


def make_vae(widths: tuple[int, ...] = (32, 64, 64)) -> AutoencoderKL:
    """Untrained autoencoder; every level but the last halves the side."""
    n = len(widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,  # must be a number: the SD3 pipeline adds it at decode
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def to_signal(pixels: np.ndarray) -> torch.Tensor:
    """``uint8`` pictures (N, H, W, 3) to float tensors (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def shifted(pictures: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Pictures moved by whole pixels; white comes in at the edge."""
    p = max(abs(dy), abs(dx))
    if p == 0:
        return pictures
    h, w = pictures.shape[-2:]
    padded = F.pad(pictures, (p, p, p, p), value=1.0)
    return padded[..., p - dy : p - dy + h, p - dx : p - dx + w]


def reconstruction_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 at three scales plus L1 of the differences between neighbours, which keeps edges sharp."""
    loss = (out - target).abs().mean()
    for axis in (-1, -2):
        loss = loss + 0.5 * (out.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    for scale in (2, 4):
        loss = loss + 0.25 * (F.avg_pool2d(out, scale) - F.avg_pool2d(target, scale)).abs().mean()
    return loss


def psnr(out: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], mean over pictures."""
    mse = (out.clamp(-1, 1) - target).square().flatten(1).mean(1)
    return float((10 * torch.log10(4.0 / mse.clamp_min(1e-12))).mean())


def train_vae(
    pixels: np.ndarray,
    work: Path,
    minutes: float,
    batch: int = 16,
    lr: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    max_steps: int | None = None,
    widths: tuple[int, ...] = (32, 64, 64),
    decoder_only: bool = False,
) -> Path:
    """Train the autoencoder for ``minutes`` (or ``max_steps``), decaying the rate to zero at the end.

    With ``decoder_only`` the folder ``work / "vae"`` is continued with a frozen encoder, so that latents, and what
    a transformer has learnt about them, stay as they are.
    """
    torch.manual_seed(seed)
    target = work / "vae"
    vae = (AutoencoderKL.from_pretrained(target) if decoder_only else make_vae(widths)).to(device)
    vae = vae.to(memory_format=torch.channels_last).train()
    trained = list(vae.decoder.parameters() if decoder_only else vae.parameters())
    optimiser = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    pictures = to_signal(pixels)
    name = "vae-decoder.jsonl" if decoder_only else "vae.jsonl"
    start, step, log = time.monotonic(), 0, (work / name).open("a", encoding="utf-8")
    while True:
        done = (time.monotonic() - start) / (60 * minutes) if max_steps is None else step / max_steps
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * min(1.0, (1 - done) / 0.4)
        rows = torch.randint(len(pictures), (batch,))
        dy, dx = torch.randint(-4, 5, (2,)).tolist()
        x = shifted(pictures[rows], dy, dx).to(device, memory_format=torch.channels_last)
        with torch.autocast(device, dtype=torch.bfloat16):
            with torch.set_grad_enabled(not decoder_only):
                posterior = vae.encode(x).latent_dist
                z = posterior.sample()
            if decoder_only:  # a transformer's latents are not exact: learn to draw cleanly from near misses too
                z = z + 0.15 / vae.config.scaling_factor * torch.rand(1) * torch.randn_like(z)
            out = vae.decode(z).sample
        loss = reconstruction_loss(out.float(), x)
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        (loss if decoder_only else loss + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 0:
            row = {"step": step, "loss": loss.item(), "kl": kl.item(), "psnr": psnr(out.detach().float(), x)}
            log.write(json.dumps(row | {"s": round(time.monotonic() - start, 1)}) + "\n")
            log.flush()
    log.close()
    vae = vae.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    if not decoder_only:
        mean, std = latent_statistics(vae, pictures, device)
        vae.register_to_config(scaling_factor=1.0 / std, shift_factor=mean)
        (work / "latents.pt").unlink(missing_ok=True)  # those of another encoder
    vae.save_pretrained(target, safe_serialization=True)
    return target


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, pictures: torch.Tensor, device: str = "cpu") -> tuple[float, float]:
    """Mean and standard deviation of the latents over all pictures, places and channels."""
    z = torch.cat([vae.encode(part.to(device)).latent_dist.mean for part in pictures.split(64)])
    return float(z.mean()), float(z.std())


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pictures: torch.Tensor, shifts: list[tuple[int, int]]) -> torch.Tensor:
    """Scaled latents of every picture at every shift, (len(shifts), N, 8, 16, 16)."""
    device = next(vae.parameters()).device
    rows = []
    for dy, dx in shifts:
        z = [vae.encode(p.to(device)).latent_dist.mean.cpu() for p in shifted(pictures, dy, dx).split(64)]
        rows.append((torch.cat(z) - vae.config.shift_factor) * vae.config.scaling_factor)
    return torch.stack(rows)
