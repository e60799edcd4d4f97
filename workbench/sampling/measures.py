"""Numbers for one image: what guidance changes in fine detail, in colour, and what it leaves of the content.

Numpy only. Images are uint8 or float in [0, 1], shape (Y, X, 3), sRGB as stored; y_YX is their luma in [0, 1]. Every
function takes one image, so that a batch never changes a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LOW_PASS_SHARE = 1 / 16
"""Standard deviation of the blur that leaves the content, as a share of the image's shorter side."""

HIGH_FREQUENCY = 0.25
"""Frequency above which power counts as high, in cycles per pixel; half of what pixels can carry (0.5)."""


def to_float(image: Array) -> Array:
    """Return the image as float64 in [0, 1].

    Raises
    ------
    ValueError
        If it is not of shape (Y, X, 3).
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"an image has shape (y, x, 3), not {image.shape}.")
    scale = 255.0 if np.issubdtype(image.dtype, np.integer) else 1.0
    return np.asarray(image, dtype=np.float64) / scale


def luma(image: Array) -> Array:
    """Return y_YX = 0.299 R + 0.587 G + 0.114 B in [0, 1] (ITU-R BT.601)."""
    return np.asarray(to_float(image) @ np.array([0.299, 0.587, 0.114]))


def high_frequency_share(image: Array, cutoff: float = HIGH_FREQUENCY) -> float:
    """Share of the luma's spectral power (without the mean) above `cutoff` cycles per pixel; in [0, 1].

    Power spectrum of the Hann-windowed image, radial frequency, as in the statistics of natural images (Field 1987,
    *J. Opt. Soc. Am. A* 4:2379). The window keeps a picture's borders from counting as detail. 0 for a plain image.
    """
    y_YX = luma(image)
    window = np.outer(*(np.hanning(size) for size in y_YX.shape))
    centred = (y_YX - (window * y_YX).sum() / window.sum()) * window
    power = np.abs(np.fft.fft2(centred)) ** 2
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in y_YX.shape), indexing="ij"))
    total = power.sum()
    # Rounding leaves about 1e-30 in an image without any contrast, and its distribution is noise.
    return float(power[radius > cutoff].sum() / total) if total > 1e-20 * power.size else 0.0


def edge_energy(image: Array) -> float:
    """Mean magnitude of the luma's Sobel gradient, in luma per pixel (Sobel & Feldman 1968); 0 for a plain image.

    The kernels are divided by 8, so a ramp of slope g gives g.
    """
    y_YX = np.pad(luma(image), 1, mode="edge")
    smooth_Y = y_YX[:-2] + 2 * y_YX[1:-1] + y_YX[2:]
    smooth_X = y_YX[:, :-2] + 2 * y_YX[:, 1:-1] + y_YX[:, 2:]
    along_x = (smooth_Y[:, 2:] - smooth_Y[:, :-2]) / 8
    along_y = (smooth_X[2:] - smooth_X[:-2]) / 8
    return float(np.hypot(along_x, along_y).mean())


def contrast(image: Array) -> float:
    """Standard deviation of the luma, in [0, 0.5]: RMS contrast (Peli 1990, *J. Opt. Soc. Am. A* 7:2032)."""
    return float(luma(image).std())


def colourfulness(image: Array) -> float:
    """Colourfulness M3 of Hasler & Süsstrunk (2003, *Proc. SPIE* 5007:87), for RGB in 0 to 255.

    About 0 for grey, 33 "moderately", 59 "quite", 109 "extremely" colourful.
    """
    red, green, blue = np.moveaxis(to_float(image) * 255, -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std(), second.std())
    return float(spread + 0.3 * np.hypot(first.mean(), second.mean()))


def saturation(image: Array) -> float:
    """Mean saturation of HSV, (max − min) / max over RGB, in [0, 1] (Smith 1978, *SIGGRAPH*); 0 for black pixels."""
    rgb = to_float(image)
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    return float(np.divide(high - low, high, out=np.zeros_like(high), where=high > 0).mean())


def clipped(image: Array) -> float:
    """Share of colour values at the very end of the range, 0 or 255, in [0, 1]: where guidance has run out of room."""
    rgb = to_float(image)
    return float(((rgb <= 0) | (rgb >= 1)).mean())


def low_pass_similarity(image: Array, reference: Array, share: float = LOW_PASS_SHARE) -> float:
    """How much of the reference's layout is left, from −1 to 1 (1 = the same): correlation of the blurred images.

    Pearson correlation, over pixels and colours, of the images after a Gaussian blur whose standard deviation is
    `share` of the shorter side: fine detail can't change it, moved or recoloured content does. 1 if both are plain and
    alike, 0 if only one is plain.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    a, b = to_float(image), to_float(reference)
    if a.shape != b.shape:
        raise ValueError(f"images of one size can be compared, not {a.shape} and {b.shape}.")
    sigma = share * min(a.shape[:2])
    a, b = blur(a, sigma), blur(b, sigma)
    a, b = a - a.mean(), b - b.mean()
    norms = np.sqrt((a**2).sum() * (b**2).sum())
    if norms < 1e-12 * a.size:
        return float(np.allclose(a, b, atol=1e-6))
    return float((a * b).sum() / norms)


def blur(image_YXC: Array, sigma: float) -> Array:
    """Gaussian blur along y and x with standard deviation `sigma` in pixels; borders are mirrored."""
    out = image_YXC
    for axis in (0, 1):
        size = out.shape[axis]
        # One dense matrix an axis: exact mirrored borders without a loop, and images here have some hundred pixels.
        reach = int(np.ceil(4 * sigma))
        offsets = np.arange(-reach, reach + 1)
        weights = np.exp(-0.5 * (offsets / sigma) ** 2)
        weights /= weights.sum()
        source = np.abs((np.arange(size)[:, None] + offsets) % (2 * size))
        source = np.where(source >= size, 2 * size - 1 - source, source)
        matrix = np.zeros((size, size))
        np.add.at(matrix, (np.arange(size)[:, None], source), np.broadcast_to(weights, source.shape))
        out = np.moveaxis(np.tensordot(matrix, out, axes=(1, axis)), 0, axis)
    return out


MEASURES: dict[str, Callable[[Array], float]] = {
    "high_frequency_share": high_frequency_share,
    "edge_energy": edge_energy,
    "contrast": contrast,
    "colourfulness": colourfulness,
    "saturation": saturation,
    "clipped": clipped,
}
"""Measures of one image by name. `low_pass_similarity` needs a second image; `compare` takes that of the same seed."""
