"""Numbers of the trial of STAS: what is compared, and what every contrast is in every measure. `stas` makes words of them.

Legend: P prompts, K conditions, M measures, C contrasts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.clip_distance import DISTRIBUTION, LABEL, UNIT, Clips, apart, change, clips_of, moments, swapped
from workbench.analysis.effects import Floats, interval, replicates, values
from workbench.analysis.stas_rule import MOTION

LEAST = 0.2
"""Smallest difference that counts, in standard deviations over prompts of the unsteered videos: a small effect in Cohen's (1988)
words. A choice."""

LEAST_DISTANCE = 0.05
"""Smallest change of the distance to the training clips that counts, in their standard deviations, as in `gauge.LEAST`."""

RESAMPLES = 10_000
"""Fewest resamples of the simultaneous intervals, whose quantiles lie far out."""

NUMBERS = ("difference", "low", "high", "low_all", "high_all", "p_value", "p_corrected", "p_equivalent", "needed")


class Table(NamedTuple):
    """What is compared.

    Attributes
    ----------
    values_PKM : array
        By prompt; without the distance to the clips, which is no number of one prompt.
    moments_PKFX : array (P, K, features, 2) or None
        For that distance.
    clips : Clips or None
    names : list of str
        Measures, the distance to the clips last.
    better_M, margin_M : array
        Direction, and smallest difference that counts.
    """

    values_PKM: Floats
    moments_PKFX: Floats | None
    clips: Clips | None
    names: list[str]
    better_M: NDArray[np.int64]
    margin_M: Floats


def table_of(measured: xr.Dataset, plain: str, least: float, prompts: list[str]) -> tuple[Table, xr.Dataset]:
    """What is compared, and a result that has its coordinates and margins; the distance to the clips is its last measure."""
    kinds, names = [str(kind) for kind in measured["kind"].values], [str(name) for name in measured["measure"].values]
    kept = [
        m
        for m, kind in enumerate(kinds)
        if (kind != "statistic" and names[m] != "low_pass_similarity") or names[m] == MOTION
    ]
    part = measured.isel(measure=kept)
    values_PKM = replicates(values(part), prompts)
    at = [str(name) for name in measured["condition"].values].index(plain)
    with np.errstate(invalid="ignore"):
        margin = (
            least * np.nanstd(values_PKM[:, at], axis=0, ddof=1) if len(values_PKM) > 1 else np.full(len(kept), np.nan)
        )
    names, better = [str(m) for m in part["measure"].values], part["better"].values.astype(np.int64)
    rows = {key: [str(v) for v in part[key].values] for key in ("label", "unit", "kind")}
    clips = clips_of(measured)
    moments_PKFX = None
    if clips is not None:
        moments_PKFX = moments(measured, clips)
        names, better, margin = [*names, DISTRIBUTION], np.append(better, -1), np.append(margin, LEAST_DISTANCE)
        for key, value in (("label", LABEL), ("unit", UNIT), ("kind", "distance")):
            rows[key].append(value)
    base = measured.coords.to_dataset().drop_dims(["sample", "measure"])
    result = base.assign_coords(
        measure=("measure", np.array(names, dtype=str)),
        better=("measure", better),
        judged=("measure", better != 0),
    )
    result = result.assign_coords({key: ("measure", np.array(row, dtype=str)) for key, row in rows.items()})
    result["margin"] = ("measure", margin)
    return Table(values_PKM, moments_PKFX, clips, names, better, margin), result


def summary(table: Table, **options: Any) -> dict[str, Any]:
    """`mean` with bounds and `n` of every condition and measure, each (K, M); the distance to the clips has no bounds here."""
    found = interval(table.values_PKM, **options, method="bca_expanded")
    rows = dict(zip(("mean", "mean_low", "mean_high"), found, strict=True))
    rows["n"] = np.isfinite(table.values_PKM).sum(axis=0)
    if table.clips is None or table.moments_PKFX is None:
        return rows
    known_PK = np.asarray(np.isfinite(table.moments_PKFX).all(axis=(2, 3)))
    far_K = np.full(known_PK.shape[1], np.nan)
    for k in np.flatnonzero(known_PK.any(axis=0)).tolist():
        far_K[k] = apart(table.moments_PKFX[known_PK[:, k], k].mean(axis=0)[None], table.clips)[0]
    last = {"mean": far_K, "n": known_PK.sum(axis=0)}
    nothing = np.full(len(far_K), np.nan)
    return {key: np.concatenate([row, last.get(key, nothing)[:, None]], axis=1) for key, row in rows.items()}


def contrasts(
    table: Table,
    pairs: list[tuple[int, int]],
    *,
    confidence: float,
    resamples: int,
    flips: int,
    seed: int,
) -> dict[str, Floats]:
    """Numbers of every contrast in every measure, by `NUMBERS`, each (C, M); p-values as they are, for `correct`.

    Parameters
    ----------
    pairs : list of (int, int)
        Positions of the condition and of what it is compared with.
    """
    alpha, judged = 1.0 - confidence, max(int((table.better_M != 0).sum()), 1)
    together, most = 1.0 - alpha / judged, max(resamples, RESAMPLES)
    one, other = ([pair[i] for pair in pairs] for i in (0, 1))
    change_PCM = table.values_PKM[:, one] - table.values_PKM[:, other]
    margin_CM = np.broadcast_to(table.margin_M[: change_PCM.shape[2]], change_PCM.shape[1:])
    alone = interval(change_PCM, confidence=confidence, resamples=resamples, seed=seed, method="bca_expanded")
    whole = interval(change_PCM, confidence=together, resamples=most, seed=seed, method="bca_expanded")
    known = np.isfinite(change_PCM).sum(axis=0) >= inference.MINIMUM_SAMPLES
    flipped = inference.sign_flip(np.nan_to_num(change_PCM), resamples=flips, seed=seed).p_value
    found = {
        "difference": alone.mean, "low": alone.low, "high": alone.high, "low_all": whole.low, "high_all": whole.high,
        "p_value": np.where(known, flipped, np.nan),
        "p_corrected": np.full(known.shape, np.nan),
        "p_equivalent": np.full(known.shape, np.nan),
        "needed": np.full(known.shape, np.nan),
    }  # fmt: skip
    for rows, at in _alike(change_PCM, known & (margin_CM > 0)):
        # In units of its margin, so that all can be tested at once.
        scaled = np.moveaxis(change_PCM[rows], 0, -1)[at].T / margin_CM[at]
        found["p_equivalent"][at] = inference.equivalence(scaled, margin=1.0, alpha=alpha).p_value
        found["needed"][at] = _needed(scaled, alpha / judged)
    if table.clips is not None and table.moments_PKFX is not None:
        options: dict[str, Any] = {"confidence": confidence, "together": together, "resamples": resamples}
        options |= {"most": most, "flips": flips, "seed": seed}
        far = [_distance(table.moments_PKFX[:, a], table.moments_PKFX[:, b], table.clips, **options) for a, b in pairs]
        found = {key: np.concatenate([row, [[last[key]] for last in far]], axis=1) for key, row in found.items()}
    return {key: np.asarray(found[key], dtype=np.float64) for key in NUMBERS}


def _alike(
    change_PCM: Floats, wanted_CM: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.bool_], tuple[NDArray[np.int64], ...]]]:
    """Columns by the prompts for which they have a number: those prompts, and where the columns are."""
    finite = np.isfinite(change_PCM)
    for rows in np.unique(finite[:, wanted_CM], axis=1).T:
        same = wanted_CM & (finite == rows[:, None, None]).all(axis=0)
        yield rows, np.nonzero(same)


def _distance(
    one_PKX: Floats,
    other_PKX: Floats,
    clips: Clips,
    *,
    confidence: float,
    together: float,
    resamples: int,
    most: int,
    flips: int,
    seed: int,
) -> dict[str, Any]:
    """Numbers of one contrast in the distance to the clips; it is equivalent by its interval alone, without a p-value."""
    both = one_PKX, other_PKX, clips
    near = change(*both, confidence=confidence, resamples=resamples, seed=seed)
    sure = change(*both, confidence=together, resamples=most, seed=seed)
    count = int((np.isfinite(one_PKX).all(axis=(1, 2)) & np.isfinite(other_PKX).all(axis=(1, 2))).sum())
    known = count >= inference.MINIMUM_SAMPLES and np.isfinite([sure.low, sure.high]).all()
    needed = inference.enough_for(sure, margin=LEAST_DISTANCE, n=count, confidence=together) if known else math.nan
    found: dict[str, Any] = dict.fromkeys(NUMBERS, math.nan)
    found |= {"difference": near.mean, "low": near.low, "high": near.high, "low_all": sure.low, "high_all": sure.high}
    return found | {"p_value": swapped(*both, permutations=flips, seed=seed), "needed": needed}


def _needed(scaled_PX: Floats, alpha: float) -> Floats:
    """Prompts that would tell the difference from 0, or show that it is smaller than 1, whichever are fewer.

    Four times in five; values in units of what counts.
    """
    mean_X = scaled_PX.mean(axis=0)
    room_X = 1.0 - np.abs(mean_X)
    # In units of the difference itself, or of the room that is left to the margin, so that one search is for all.
    told_X = inference.needed_n(scaled_PX / np.where(mean_X == 0, 1.0, mean_X), effect=1.0, alpha=alpha)
    equal_X = inference.needed_n(scaled_PX / np.where(room_X > 0, room_X, 1.0), margin=1.0, alpha=alpha)
    return np.fmin(np.where(mean_X == 0, np.nan, told_X), np.where(room_X > 0, equal_X, np.nan))


def correct(result: xr.Dataset, pairs: list[tuple[str, str, str]]) -> None:
    """Holm, in place: over the judged measures of a contrast; the grid is one family. The others are families of their own."""
    judged = result["judged"].values
    grid = np.array([question == "grid" for _, _, question in pairs])
    families: list[list[int]] = [[int(c)] for c in np.flatnonzero(~grid)] + (
        [np.flatnonzero(grid).tolist()] if grid.any() else []
    )
    for name, into in (("p_value", "p_corrected"), ("p_equivalent", "p_equivalent")):
        p = result[name].values.copy()
        out = np.full(p.shape, np.nan)
        for family in families:
            for part in (np.flatnonzero(judged), np.flatnonzero(~judged)):
                at = np.ix_(np.asarray(family), part)
                out[at] = inference.adjust(p[at])
        result[into] = (("contrast", "measure"), out)
