"""Disturbances of pictures: random ones to train the judge with, and single ones of known strength to test it with.

Pictures are tensors (S, 3, Y, X) in [0, 1] on white.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL


def blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of `sigma` pixels; borders are continued."""
    if sigma <= 0:
        return pictures
    reach = max(1, math.ceil(3 * sigma))
    row = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    row = (row / row.sum()).expand(3, 1, 1, -1)
    out = F.conv2d(F.pad(pictures, (reach, reach, 0, 0), mode="replicate"), row, groups=3)
    return F.conv2d(F.pad(out, (0, 0, reach, reach), mode="replicate"), row.transpose(2, 3), groups=3)


def sharpened(pictures: torch.Tensor, amount: float, sigma: float = 1.0) -> torch.Tensor:
    """Unsharp mask: x + amount (x − blur(x))."""
    return (pictures + amount * (pictures - blurred(pictures, sigma))).clamp(0, 1)


def noisy(pictures: torch.Tensor, sigma: float, g: torch.Generator) -> torch.Tensor:
    """White noise of standard deviation `sigma` in every colour."""
    return (pictures + sigma * torch.randn(pictures.shape, generator=g)).clamp(0, 1)


def moved(pictures: torch.Tensor, shift: int) -> torch.Tensor:
    """Shift down and to the right by whole pixels; white comes in."""
    return F.pad(pictures, (shift, 0, shift, 0), value=1.0)[..., : pictures.shape[-2], : pictures.shape[-1]]


def jpeg(pictures: torch.Tensor, qualities: list[int]) -> torch.Tensor:
    """Write and read each picture as JPEG."""
    from PIL import Image

    arrays = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    out = np.empty(arrays.shape, np.float32)
    for i, (array, quality) in enumerate(zip(arrays, qualities, strict=True)):
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            out[i] = np.asarray(image)
    return torch.from_numpy(out).permute(0, 3, 1, 2) / 255


def tiles_shuffled(pictures: torch.Tensor, tile: int, g: torch.Generator) -> torch.Tensor:
    """Permute square tiles within each picture: detail inside a tile stays, the content goes."""
    s, c, y, x = pictures.shape
    parts = pictures.reshape(s, c, y // tile, tile, x // tile, tile).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.stack([torch.randperm(parts.shape[1], generator=g) for _ in range(s)])
    parts = parts[torch.arange(s)[:, None], order].unflatten(1, (y // tile, x // tile))
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(s, c, y, x)


@torch.no_grad()
def vae_trip(vae: AutoencoderKL, pictures: torch.Tensor, noise: float, g: torch.Generator) -> torch.Tensor:
    """Encode and decode; `noise` is added to the latents, in units of each latent channel's standard deviation."""
    latents = torch.cat([vae.encode(part * 2 - 1).latent_dist.mean for part in pictures.split(64)])
    spread = latents.std((0, 2, 3), keepdim=True)
    latents = latents + noise * spread * torch.randn(latents.shape, generator=g)
    return torch.cat([vae.decode(part).sample for part in latents.split(64)]).add(1).div(2).clamp(0, 1)


def _uniform(g: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=g)


def _placed(pictures: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Random scale (0.75 to 1.25), aspect, rotation (±10°) and shift (±8 of 64 px)."""
    s = len(pictures)
    angle = _uniform(g, -10, 10, s) * math.pi / 180
    scale = torch.exp(_uniform(g, math.log(0.75), math.log(1.25), s, 1) + _uniform(g, -0.06, 0.06, s, 2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([cos, -sin, sin, cos], 1).reshape(s, 2, 2) / scale[:, :, None]
    theta = torch.cat([turn, _uniform(g, -0.25, 0.25, s, 2, 1)], 2)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)  # zeros come in, and zero is white here


def _coloured(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Random saturation, contrast, brightness and white balance; hues stay, for hearts differ in nothing else."""
    s = len(x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(g, 0.6, 1.5, s, 1, 1, 1)
    centre = x.mean((1, 2, 3), keepdim=True)
    x = centre + (x - centre) * _uniform(g, 0.6, 1.4, s, 1, 1, 1)
    return x * _uniform(g, 0.92, 1.08, s, 3, 1, 1) + _uniform(g, -0.1, 0.1, s, 1, 1, 1)


def _filtered(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """One of: nothing, blur up to 2.5 px, unsharp mask, fewer pixels."""
    kind = float(torch.rand((), generator=g))
    if kind < 0.35:
        return x
    if kind < 0.7:
        return blurred(x, float(_uniform(g, 0.3, 2.5)))
    if kind < 0.9:
        return sharpened(x, float(_uniform(g, 0.5, 4)), float(_uniform(g, 0.5, 1.5)))
    side = int(_uniform(g, 16, 40))
    small = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)


def _noised(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """No noise on half of the pictures; else up to 0.15, white or in patches of 2 or 4 px."""
    s, c, y, w = x.shape
    sigma = _uniform(g, 0, 0.15, s, 1, 1, 1) * (torch.rand(s, 1, 1, 1, generator=g) < 0.5)
    grain = (1, 1, 2, 4)[int(_uniform(g, 0, 4))]
    noise = torch.randn(s, c, y // grain, w // grain, generator=g)
    if grain > 1:
        noise = F.interpolate(noise, (y, w), mode="bilinear", align_corners=False)
    return x + sigma * noise


def _covered(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """A rectangle of up to 20 px in one colour, on a quarter of the pictures."""
    s, _, y, w = x.shape
    rows, columns = torch.arange(y)[None], torch.arange(w)[None]
    top, left = _uniform(g, -8, y, s, 1), _uniform(g, -8, w, s, 1)
    high, wide = _uniform(g, 6, 20, s, 1), _uniform(g, 6, 20, s, 1)
    inside = ((rows >= top) & (rows < top + high))[:, :, None] & ((columns >= left) & (columns < left + wide))[:, None]
    inside &= (torch.rand(s, generator=g) < 0.25)[:, None, None]
    return torch.where(inside[:, None], torch.rand(s, 3, 1, 1, generator=g), x)


def augmented(pictures: torch.Tensor, g: torch.Generator, groups: int = 8) -> torch.Tensor:
    """Random disturbances of all kinds at once; filters and grain are drawn for each of `groups` parts of the batch."""
    x = _coloured(_placed(pictures, g), g).clamp(0, 1)
    x = torch.cat([_noised(_filtered(part, g), g) for part in x.chunk(groups)])
    x = _covered(x, g).clamp(0, 1)
    pick = torch.nonzero(torch.rand(len(x), generator=g) < 0.1).flatten()
    if len(pick):
        x[pick] = jpeg(x[pick], [int(q) for q in _uniform(g, 10, 70, len(pick))])
    return x
