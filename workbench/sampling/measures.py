"""Numbers for images: what is there of fine detail, of colour, of the content, and how far that is from real pictures.

No torch. Images are uint8 or float in [0, 1], shape (Y, X, 3), sRGB as stored; y_YX is their luma in [0, 1]. Every
function takes one image, so that a batch never changes a number; `image_measures` goes through many and returns one
array a measure. `TABLE` says of each what kind it is (detail, content, distance, other), its unit and its label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from workbench.sampling.spectrum import (
    BAND_EDGES,
    BANDS,
    Reference,
    band_power,
    luma,
    own_spectral_distance,
    spectral_distance,
    to_float,
)

Array = npt.NDArray[Any]

LOW_PASS_SHARE = 1 / 16
"""Standard deviation of the blur that leaves the content, as a share of the image's shorter side."""

HIGH_FREQUENCY = 0.25
"""Frequency above which power counts as high, in cycles per pixel; half of what pixels can carry (0.5)."""


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
"""Measures of one image alone by name, what `compare` shows; all measures are in `TABLE`."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """What a measure is: `kind` (detail, content, distance or other), `unit` ("" if it has none), `label` in a figure.

    `needs` names what `image_measures` must be given for it: "", "plain", "judge", "reference" or "clip".
    """

    kind: str
    unit: str
    label: str
    equation: str
    source: str
    needs: str = ""


def _band_label(k: int) -> str:
    low, high = (("0" if edge == 0 else f"1/{round(1 / edge)}") for edge in BAND_EDGES[k : k + 2])
    return f"band power {low}–{high} cycles/px" if k < BANDS - 1 else f"band power above {low} cycles/px"


_FIELD = "Field 1987"

DETAIL = 1 / 8
"""Bands of frequencies above this, in cycles per pixel, count as detail: periods of eight pixels and less."""

TABLE: dict[str, Measure] = {
    "edge_energy": Measure(
        "detail", "luma/px", "edge energy", "mean of √(g_x² + g_y²), g: Sobel / 8", "Sobel & Feldman 1968"
    ),
    **{
        f"band_power_{k}": Measure(
            "detail" if BAND_EDGES[k] >= DETAIL else "other",
            "ln luma²", _band_label(k), "ln Σ power of the luma in the band", _FIELD,
        )
        for k in range(BANDS)
    },
    "high_frequency_share": Measure(
        "detail", "", "high-frequency share", "power above 1/4 cycles/px ÷ all power but the mean", _FIELD
    ),
    "spectral_distance": Measure(
        "distance", "sd", "distance to the data's mean spectrum", "√(mean over bands of ((b − mean) / sd)²); no gauge, see below",
        "here", "reference",
    ),
    "own_spectral_distance": Measure(
        "distance", "ln luma²", "distance to the own picture's spectrum", "√(mean over bands of (b − b_own)²)",
        "here", "reference",
    ),
    "low_pass_similarity": Measure(
        "content", "", "low-pass similarity", "Pearson r of both images after a blur of 1/16 of the side",
        "here", "plain",
    ),
    "semantic": Measure(
        "content", "log-odds", "semantic log-odds", "ln p − ln(1 − p), p: the judge's probability of the prompt's class",
        "judge", "judge",
    ),
    "recognised": Measure(
        "content", "0/1", "recognised", "1 if the judge's first class is the prompt's", "judge", "judge"
    ),
    "clip_score": Measure(
        "content", "", "CLIP score", "100 · max(cos(image, text), 0)", "Hessel et al. 2021", "clip"
    ),
    "contrast": Measure("other", "luma", "contrast", "standard deviation of the luma", "Peli 1990"),
    "colourfulness": Measure("other", "", "colourfulness", "M3", "Hasler & Süsstrunk 2003"),
    "saturation": Measure("other", "", "saturation", "mean of (max − min) / max over RGB", "Smith 1978"),
    "clipped": Measure("other", "", "clipped values", "share of values at 0 or 255", "here"),
}  # fmt: skip
"""Every measure by name. Signs: a higher `detail` is more detail, a higher `content` more of the prompt's (or of the
undisturbed image's) content, a higher `distance` farther from the own training picture, or from the mean of all of them."""

KINDS: dict[str, str] = {name: row.kind for name, row in TABLE.items()}
"""Kind of each measure: detail, content, distance or other."""


class Judging(Protocol):
    """What `image_measures` asks of a judge; `workbench.sampling.semantic.Judge` is one."""

    def judge(self, images_SYX3: Array, prompts: Sequence[str]) -> tuple[Array, Array]:
        """Return (log-odds_S, recognised_S) of each prompt's own class, NaN where the prompt is no class."""
        ...


class Scoring(Protocol):
    """What `image_measures` asks of a CLIP model; `workbench.sampling.semantic.ClipScore` is one."""

    def score(self, images_SYX3: Array, prompts: Sequence[str]) -> Array:
        """Return the score of each image with its prompt, shape (S,)."""
        ...


def image_measures(
    images_SYX3: Array,
    prompts: Sequence[str],
    *,
    plain_SYX3: Array | None = None,
    judge: Judging | None = None,
    reference: Reference | None = None,
    clip: Scoring | None = None,
) -> dict[str, Array]:
    """Measure every image; what can't be measured without a part that is not given is left out (`omitted` names it).

    Parameters
    ----------
    images_SYX3 : ndarray
        uint8, or float in [0, 1].
    prompts : sequence of str
        S prompts, one an image.
    plain_SYX3 : ndarray, optional
        The undisturbed images of the same samples, for `low_pass_similarity`.
    judge, reference, clip : optional
        From `workbench.sampling.semantic`: `load_judge`, `load_reference`, `load_clip`.

    Returns
    -------
    dict of str to ndarray of shape (S,)
        In the order of `TABLE`. NaN where a measure can't be had for a sample: an image with values that are not
        finite, a prompt that is none of the judge's classes, a size other than the reference's.

    Raises
    ------
    ValueError
        If the shapes or the number of prompts don't fit.
    """
    images = np.asarray(images_SYX3)
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(prompts):
        raise ValueError(f"images of shape (samples, y, x, 3) and one prompt each, not {images.shape}, {len(prompts)}.")
    if plain_SYX3 is not None and np.shape(plain_SYX3) != images.shape:
        raise ValueError(f"plain images of the same shape {images.shape}, not {np.shape(plain_SYX3)}.")
    size = len(images)
    fine = np.flatnonzero([np.isfinite(image).all() for image in images]).tolist()
    found = {name: np.full(size, np.nan) for name in TABLE if name not in omitted(plain_SYX3, judge, reference, clip)}
    for s in fine:
        image, prompt = images[s], prompts[s]
        for k, power in enumerate(band_power(image)):
            found[f"band_power_{k}"][s] = power
        for name, measure in MEASURES.items():
            found[name][s] = measure(image)
        if plain_SYX3 is not None and np.isfinite(plain_SYX3[s]).all():
            found["low_pass_similarity"][s] = low_pass_similarity(image, plain_SYX3[s])
        if reference is not None:
            found["spectral_distance"][s] = spectral_distance(image, reference)
            found["own_spectral_distance"][s] = own_spectral_distance(image, prompt, reference)
    asked = [prompts[s] for s in fine]
    if judge is not None and len(fine):
        found["semantic"][fine], found["recognised"][fine] = judge.judge(images[fine], asked)
    if clip is not None and len(fine):
        found["clip_score"][fine] = clip.score(images[fine], asked)
    return found


def omitted(
    plain: object = None, judge: object = None, reference: object = None, clip: object = None
) -> dict[str, str]:
    """Name the measures that `image_measures` leaves out with these arguments, and why."""
    reasons = {
        "plain": (plain, "there are no undisturbed images of the same samples"),
        "judge": (judge, "there is no judge for this model"),
        "reference": (reference, "there are no training pictures to compare with for this model"),
        "clip": (clip, "CLIP's weights are not on this disk"),
    }
    return {name: reasons[row.needs][1] for name, row in TABLE.items() if row.needs and reasons[row.needs][0] is None}
