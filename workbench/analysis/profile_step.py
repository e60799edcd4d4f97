"""Is there a step at the ends of a frame's run, and how wide: the numbers of `profile`, on arrays.

The profile x(s) is ln |h| over the places s of one latent frame's run, averaged over the later frames. For a width w the model is

    x(s) = content + step · 1[s < w or s ≥ S - w] + rest,

in which *content* is what images do without any boundary: a value of its own for every column, a straight line and a parabola
over the rows (a subject in the middle, sky over ground), and row × column (a slant). The step is the least-squares coefficient,
so a smooth rise towards the top and bottom of the frame is no step. The same in *column order* (a value for every row, line and
parabola over the columns) is the control: a border of the image has both, a boundary of the sequence only the first.

Legend: P prompts, R resamples, S places of a run, W widths, O orders or shapes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.inference import Floats

OWN_SHARE = 0.05
"""A width is tested where at least this share of the step's variance over places is not content. With four rows or fewer, one
row at each end *is* a parabola over rows."""


class Fits(NamedTuple):
    """What turns a profile into the steps of all widths, each the coefficients of one linear regression.

    Attributes
    ----------
    widths : array (W,) of int
        Those that can be tested.
    step_WS, ramp_WS : array
        ``step_WS @ x`` is the step; the same for a ramp, which falls linearly from 1 at the end of the run to 0 at 2 w.
    gain_W, ramp_gain_W : array
        ``gain · step²`` is the variance that the step explains beyond content, times S.
    head_WS, tail_WS : array
        Steps at the two ends, fitted together.
    """

    widths: NDArray[np.int64]
    step_WS: Floats
    ramp_WS: Floats
    gain_W: Floats
    ramp_gain_W: Floats
    head_WS: Floats
    tail_WS: Floats

    def explained(self, profile_RS: NDArray[Any]) -> Floats:
        """Sum of squares that the step of each width explains, up or down, (R, W)."""
        return np.asarray(self.gain_W * (profile_RS @ self.step_WS.T) ** 2)

    def explained_by_ramp(self, profile_RS: NDArray[Any]) -> Floats:
        """The same of the ramps."""
        return np.asarray(self.ramp_gain_W * (profile_RS @ self.ramp_WS.T) ** 2)


@lru_cache(maxsize=16)
def fits(rows: int, columns: int, *, transposed: bool = False) -> Fits:
    """Regressions for runs of rows × columns tokens; transposed, in column order, for profiles that stay in raster order."""
    size = rows * columns
    row, column = np.divmod(np.arange(size), columns)
    content, _ = np.linalg.qr(content_of(rows, columns, transposed=transposed))
    place = column * rows + row if transposed else np.arange(size)
    distance = np.minimum(place, size - 1 - place)

    def beyond(shape_S: Floats) -> Floats:
        return np.asarray(shape_S - content @ (content.T @ shape_S))

    found: dict[str, list[Any]] = {name: [] for name in Fits._fields}
    for width in range(1, (size - 1) // 2 + 1):
        ends = [(place < width).astype(np.float64), (place >= size - width).astype(np.float64)]
        step = beyond(ends[0] + ends[1])
        both = np.column_stack([beyond(end) for end in ends])
        share = step @ step / (size * np.var(ends[0] + ends[1]))
        apart = np.linalg.eigvalsh(both.T @ both)[0] / (size * np.var(ends[0]))
        if min(share, apart) < OWN_SHARE:
            continue
        ramp = beyond(np.maximum(0.0, 1.0 - distance / (2.0 * width)))
        head, tail = np.linalg.solve(both.T @ both, both.T)
        values = (width, step / (step @ step), ramp / (ramp @ ramp), step @ step, ramp @ ramp, head, tail)
        for name, value in zip(Fits._fields, values, strict=True):
            found[name].append(value)
    return Fits(
        np.asarray(found.pop("widths"), dtype=np.int64),
        **{name: np.asarray(value, dtype=np.float64).reshape(-1, *([size] if name.endswith("WS") else []))
           for name, value in found.items()},
    )  # fmt: skip


def content_of(rows: int, columns: int, *, transposed: bool = False) -> Floats:
    """What images do, as the columns of a design (S, …): see the module. Linear dependence in small frames does no harm."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    line, across, count = (column, row, rows) if transposed else (row, column, columns)
    at, beside = line - line.mean(), across - across.mean()
    return np.column_stack([across[:, None] == np.arange(count), at, at**2, at * beside]).astype(np.float64)


def across_width(width: int, rows: int, columns: int) -> int:
    """Width in column order that reaches as deep into the frame: width × rows / columns, rounded, at least 1."""
    return max(1, round(width * rows / columns))
