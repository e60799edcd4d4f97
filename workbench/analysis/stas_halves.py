"""Numbers of `stas_choice`: how a setting of STAS does against plain videos on some of the prompts.

Legend: P prompts (seeds of one prompt, if there is one), K conditions, M measures, R some of the prompts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.clip_distance import DISTRIBUTION
from workbench.analysis.effects import Floats, replicates
from workbench.analysis.gauge import lost_samples
from workbench.analysis.stas_numbers import Table, contrasts, correct, table_of
from workbench.analysis.stas_rule import EQUAL, LESS, MOTION, WORSE, alone, finding

OWN = "own_clip_distance"
JUDGED = "judged"


class Scores(NamedTuple):
    """How a setting does on some prompts.

    Attributes
    ----------
    gain, low, high : float
        In the gauge, above 0 is better, with the interval of the gauge alone.
    said : str
        Finding in the gauge (`stas_rule`), of it alone.
    harm : str
        What is shown to be lost, in words; empty if nothing is.
    kept : str
        What is known of the other judged measures, in words.
    needed : float
        Replicates that would decide the gauge; NaN where not known.
    n : int
    """

    gain: float
    low: float
    high: float
    said: str
    harm: str
    kept: str
    needed: float
    n: int


class Parts(NamedTuple):
    """A table that can be looked at by prompts.

    Attributes
    ----------
    table : Table
        With the mean gain over the judged measures as a further measure, `JUDGED`.
    frame : Dataset
        Coordinates of its measures.
    plain : int
        Position of the plain condition.
    names : list of str
        Conditions.
    lost_PK : array of bool
        Some video is not finite though the plain one is.
    n : int
        Replicates.
    """

    table: Table
    frame: xr.Dataset
    plain: int
    names: list[str]
    lost_PK: NDArray[np.bool_]
    n: int

    def known(self, gauge: str) -> int:
        """Replicates for which there is a number of this gauge, of plain videos; 0 if it isn't there."""
        if gauge not in self.table.names:
            return 0
        at = self.table.names.index(gauge)
        if gauge == DISTRIBUTION:
            assert self.table.moments_PKFX is not None
            return int(np.isfinite(self.table.moments_PKFX[:, self.plain]).all(axis=(1, 2)).sum())
        return int(np.isfinite(self.table.values_PKM[:, self.plain, at]).sum())

    def margin(self, gauge: str) -> float:
        """Smallest gain that counts, in the gauge's unit."""
        return float(self.table.margin_M[self.table.names.index(gauge)])


def parts_of(measured: xr.Dataset, plain: str, settings: list[str], least: float, prompts: list[str]) -> Parts:
    """The table of plain videos and the candidates, by replicate; margins are those of all prompts."""
    names = [plain, *settings]
    part = measured.sel(condition=names)
    table, frame = table_of(part, plain, least, prompts)
    # `lost_samples` asks for each condition's baseline, which is the plain one here.
    lost_KS = lost_samples(part)
    lost_PK = replicates(lost_KS[..., None].astype(np.float64), prompts)[..., 0] > 0
    table = _with_judged(table, least)
    return Parts(table, frame, 0, names, np.asarray(lost_PK), len(table.values_PKM))


def _with_judged(table: Table, least: float) -> Table:
    """The table with the mean gain over the judged measures, in standard deviations of plain videos over prompts.

    Plain is the first condition. It has no direction of its own in the table, so that the corrections are those of the real measures.
    """
    values = table.values_PKM
    better_M = table.better_M[: values.shape[2]]
    with np.errstate(invalid="ignore"):
        spread_M = np.nanstd(values[:, 0], axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[2])
    used = np.flatnonzero((better_M != 0) & (spread_M > 0) & np.isfinite(values).all(axis=1).any(axis=0))
    mean_PK = np.full(values.shape[:2], np.nan)
    if len(used):
        scaled = values[..., used] * (better_M[used] / spread_M[used])
        mean_PK = np.asarray(scaled.mean(axis=2))
    known = np.isfinite(mean_PK[:, 0])
    margin = least * float(mean_PK[known, 0].std(ddof=1)) if known.sum() > 1 else np.nan
    at = values.shape[2]
    return table._replace(
        values_PKM=np.concatenate([values, mean_PK[..., None]], axis=2),
        names=[*table.names[:at], JUDGED, *table.names[at:]],
        better_M=np.insert(table.better_M, at, 0),
        margin_M=np.insert(table.margin_M, at, margin),
    )


def scores(parts: Parts, gauge: str, settings: list[str], rows: NDArray[np.bool_], **options: Any) -> dict[str, Scores]:
    """Scores of each setting against plain videos on these replicates.

    What is lost must be shown of all judged measures together (Bonferroni, Holm), or else one good setting in five would be called
    worse in some of them by chance; that it moves less is shown by the interval of that alone. The gauge is one question, named
    beforehand, and takes no correction.
    """
    table = parts.table
    some = table._replace(
        values_PKM=table.values_PKM[rows],
        moments_PKFX=None if table.moments_PKFX is None else table.moments_PKFX[rows],
    )
    pairs = [(parts.names.index(name), parts.plain) for name in settings]
    found = contrasts(some, pairs, **options)
    result = xr.Dataset(
        {key: (("contrast", "measure"), value) for key, value in found.items()},
        coords={"judged": ("measure", table.better_M != 0)},
    )
    # Every setting is a family of its own: that none is good needs all of them (intersection-union).
    correct(result, [(name, parts.names[parts.plain], "choice") for name in settings])
    found = {key: result[key].values for key in found}
    alpha = 1.0 - float(options["confidence"])
    return {
        name: _scores(parts, gauge, found, c, rows, parts.lost_PK[rows, at], alpha)
        for c, (name, (at, _)) in enumerate(zip(settings, pairs, strict=True))
    }


def _scores(
    parts: Parts,
    gauge: str,
    found: dict[str, Floats],
    c: int,
    rows: NDArray[np.bool_],
    lost_R: NDArray[np.bool_],
    alpha: float,
) -> Scores:
    table, g = parts.table, parts.table.names.index(gauge)
    margin, better = table.margin_M, table.better_M
    low, high, p, equivalent = (found[key][c] for key in ("low_all", "high_all", "p_corrected", "p_equivalent"))

    def said(m: int) -> str:
        return finding(
            float(low[m]), float(high[m]), float(margin[m]), better=int(better[m]), p_corrected=float(p[m]),
            p_equivalent=float(equivalent[m]), alpha=alpha,
        )  # fmt: skip

    others = [m for m in range(len(table.names)) if better[m] and m != g and np.isfinite(found["difference"][c, m])]
    words = {table.names[m]: said(m) for m in others}
    harm = [f"worse: {name.replace('_', ' ')}" for name, word in words.items() if word == WORSE]
    if MOTION in table.names:
        m = table.names.index(MOTION)
        of = {key: float(found[key][c, m]) for key in ("low", "high", "p_value", "p_equivalent")}
        harm += ["the videos move less"] if alone(of | {"margin": float(margin[m])}, alpha) == LESS else []
    gone = int(lost_R.sum())
    harm += [f"{gone} lost"] if gone else []
    within = [m for m in others if _worst(better[m], low[m], high[m]) > -margin[m] or words[table.names[m]] == EQUAL]
    direction = int(better[g]) or 1
    ends = (float(found["low"][c, g]), float(found["high"][c, g]))
    gain_low, gain_high = ends if direction > 0 else (-ends[1], -ends[0])
    return Scores(
        gain=direction * float(found["difference"][c, g]),
        low=gain_low,
        high=gain_high,
        # The bounds of the gauge alone, and equivalence by these (TOST at half the level), as it is one question.
        said=finding(
            *ends, float(margin[g]), better=direction, p_corrected=float(found["p_value"][c, g]), p_equivalent=np.nan,
            alpha=alpha,
        ),
        harm=", ".join(harm),
        kept=f"no other judged measure is shown to be worse ({len(within)} of {len(others)} are shown not to be)",
        needed=float(found["needed"][c, g]),
        n=int(rows.sum()),
    )  # fmt: skip


def _worst(better: int, low: float, high: float) -> float:
    """The worst that the interval has, above 0 is better."""
    return float(low if better > 0 else -high)
