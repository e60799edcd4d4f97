"""Power of an image by spatial frequency, and how far that is from the power of real training pictures.

Borders are mirrored: the spectrum is that of the cosine transform, the Fourier transform of the image continued by its
mirror image. An edge of the picture is then no edge of the signal, and every pixel counts the same. A window would do
the first but not the second: moving a picture by a few pixels would change its power (`docs/measures.md` has numbers).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from workbench.errors import WorkbenchError

Array = npt.NDArray[Any]

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B in the luma (ITU-R BT.601)."""

BAND_EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Edges of the octave bands in cycles per pixel; lower edge excluded, upper included.

Band 0 holds all that is lower than 1/32 but for the mean (in a 64 px picture the octave 1/64 to 1/32 and the half
periods below it), the last band all that is higher than 1/4, corners of the spectrum included.
"""

BANDS = len(BAND_EDGES) - 1

POWER_FLOOR = float(np.square(LUMA).sum()) / 12 / 255**2
"""Variance of the luma that rounding to 8 bits adds, 5.7e-7: a band can't be told from nothing below it."""

REFERENCE_BYTES = 4 * 2**20
"""A reference file larger than this is refused."""


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
    return np.asarray(to_float(image) @ np.array(LUMA))


def power_by_band(y_YX: Array) -> Array:
    """Power of the luma in each band of `BAND_EDGES`, shape (BANDS,), in luma².

    The orthonormal cosine transform keeps the sum of squares (Parseval), so the bands add up to the variance of the
    luma. Term (j, k) has the radial frequency √((j / 2Y)² + (k / 2X)²) cycles per pixel.
    """
    power_YX = dctn(np.asarray(y_YX, dtype=np.float64), norm="ortho") ** 2 / y_YX.size
    radius_YX = np.hypot(*np.meshgrid(*(np.arange(size) / (2 * size) for size in y_YX.shape), indexing="ij"))
    return np.array(
        [power_YX[(radius_YX > low) & (radius_YX <= high)].sum() for low, high in itertools.pairwise(BAND_EDGES)]
    )  # fmt: skip


def band_power(image_YX3: Array) -> Array:
    """Return ln of the luma's power in octave bands of spatial frequency, shape (BANDS,); no unit but ln(luma²).

    As in the statistics of natural images (Field 1987, *J. Opt. Soc. Am. A* 4:2379). Never below ln `POWER_FLOOR`; NaN
    if a value of the image is not finite.
    """
    y_YX = luma(image_YX3)
    if not np.isfinite(y_YX).all():
        return np.full(BANDS, np.nan)
    return np.asarray(np.log(np.maximum(power_by_band(y_YX), POWER_FLOOR)))


@dataclasses.dataclass(frozen=True)
class Reference:
    """Band power of real training pictures.

    Attributes
    ----------
    mean, spread : ndarray of shape (BANDS,)
        Mean and standard deviation over the pictures of ln band power.
    size : int
        Side in pixels of the pictures. Frequencies are per pixel, so only images of that size can be compared.
    pictures : int
        How many there were.
    by_caption : mapping of str to ndarray of shape (BANDS,)
        ln band power of each caption's own picture; may be empty.
    source : str
        Which pictures.
    """

    mean: Array
    spread: Array
    size: int
    pictures: int
    by_caption: Mapping[str, Array]
    source: str

    @classmethod
    def of(cls, images_SYX3: Array, captions: list[str], source: str) -> Reference:
        """Measure the pictures; `captions` name them."""
        bands_SK = np.stack([band_power(image) for image in images_SYX3])
        return cls(
            mean=bands_SK.mean(axis=0),
            spread=bands_SK.std(axis=0, ddof=1),
            size=int(images_SYX3.shape[1]),
            pictures=len(images_SYX3),
            by_caption=dict(zip(captions, bands_SK, strict=True)),
            source=source,
        )

    def save(self, path: Path) -> None:
        """Write JSON; numbers to four decimals."""
        rows = {caption: np.round(bands_K, 4).tolist() for caption, bands_K in self.by_caption.items()}
        table = {
            "measure": "ln of the luma's power in bands of spatial frequency, cosine transform",
            "band_edges_cycles_per_pixel": BAND_EDGES,
            "source": self.source,
            "size": self.size,
            "pictures": self.pictures,
            "mean": np.round(self.mean, 4).tolist(),
            "spread": np.round(self.spread, 4).tolist(),
        }
        text = json.dumps(table, indent=1)
        # One line a caption: a diff of the file stays readable.
        lines = ",\n".join(f"  {json.dumps(caption)}: {json.dumps(row)}" for caption, row in rows.items())
        path.write_text(text[:-2] + ',\n "by_caption": {\n' + lines + "\n }\n}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read what `save` wrote.

        Raises
        ------
        WorkbenchError
            If the file is missing, too large, or not such a table.
        """
        try:
            if path.stat().st_size > REFERENCE_BYTES:
                raise WorkbenchError(f"{path} has more than {REFERENCE_BYTES} bytes; a reference is smaller.")
            table = json.loads(path.read_text(encoding="utf-8"))
            found = cls(
                mean=np.array(table["mean"], dtype=np.float64),
                spread=np.array(table["spread"], dtype=np.float64),
                size=int(table["size"]),
                pictures=int(table["pictures"]),
                by_caption={name: np.array(row, dtype=np.float64) for name, row in table["by_caption"].items()},
                source=str(table["source"]),
            )
            edges = tuple(table["band_edges_cycles_per_pixel"])
        except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkbenchError(f"{path} can't be read as band powers of training pictures: {error!r}.") from error
        shapes = {(BANDS,)} | {found.mean.shape, found.spread.shape} | {row.shape for row in found.by_caption.values()}
        if edges != BAND_EDGES or shapes != {(BANDS,)} or not (found.spread > 0).all():
            raise WorkbenchError(f"{path} holds other bands than {BAND_EDGES}, or a spread of 0. Write it anew.")
        return found


def spectral_distance(image_YX3: Array, reference: Reference) -> float:
    """Distance of the image's ln band power to the mean of real pictures, in their standard deviations.

    √(mean over bands of ((b − mean) / spread)²): about 1 for a real picture, and 0 only for one that has the mean power
    in every band. A smaller one is a more average picture, not one nearer to the data: `analysis.gauge` says what a gain
    is measured by. NaN if the image has another size than the pictures or isn't finite.
    """
    if np.shape(image_YX3)[:2] != (reference.size, reference.size):
        return float("nan")
    scores_K = (band_power(image_YX3) - reference.mean) / reference.spread
    return float(np.sqrt(np.mean(scores_K**2)))


def own_spectral_distance(image_YX3: Array, prompt: str, reference: Reference) -> float:
    """Distance of the image's ln band power to that of the training picture with this caption, in ln units.

    √(mean over bands of (b − b_own)²); 0 for the picture itself. The spread between pictures is large and no fault of
    an image; this distance does not contain it. NaN for a prompt that is no caption, and as `spectral_distance`.
    """
    own_K = reference.by_caption.get(prompt)
    if own_K is None or np.shape(image_YX3)[:2] != (reference.size, reference.size):
        return float("nan")
    return float(np.sqrt(np.mean((band_power(image_YX3) - own_K) ** 2)))
