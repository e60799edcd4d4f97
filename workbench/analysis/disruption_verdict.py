"""What a disruption says about massive activations: the rules, from intervals and tests to words.

At each layer (cell) two questions are asked of each aspect, detail and content: is something *lost*, and is *more* lost than
by each control? Both have three answers, since not finding a loss is no evidence that there is none. `docs/methods.md` has
the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.visits import TEXT

ASPECTS = ("detail", "content")
WHOLE = "whole"
"""Name of the window that is all of the trajectory; what is said overall rests on these cells."""

EQUAL_NUMBER = ("random", "low")
"""Controls of the papers: as many channels."""

EQUAL_NORM = ("matched_random", "noise", "shift")
"""Controls that take away or add as much as the massive channels hold; they count where their measured norm agrees."""

AGREES = {
    "detail only": "Gan et al.",
    "detail, and content no more than controls": "Gan et al. in part",
    "content": "Turri et al.",
    "detail and content": "Turri et al.",
    "neither": "neither",
    "undecided": "undecided",
}
"""Outcome → the paper whose claim it agrees with."""


class Rules(NamedTuple):
    """Parameters of the verdict; see the module's constants."""

    margins: Mapping[str, float]
    smallest: float
    norm_tolerance: float
    alpha: float
    resamples: int
    seed: int


class Column(NamedTuple):
    """One measure, replicates first; NaN in a cell and kind that was not run."""

    name: str
    loss_RED: np.ndarray
    raw_RED: np.ndarray
    norm_RED: np.ndarray

    @property
    def per_norm_RED(self) -> np.ndarray:
        """Loss per unit of removed norm; NaN where none was removed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self.loss_RED / self.norm_RED
        return np.where(np.isfinite(share), share, np.nan)


class _Cell(NamedTuple):
    """What one cell says against one set of controls."""

    outcome: str
    states: str
    needed: float


SETS = {"equal norm": EQUAL_NORM, "equal number": EQUAL_NUMBER}


def conclude(result: xr.Dataset, columns: Mapping[str, Column], whole_E: np.ndarray, rules: Rules) -> xr.Dataset:
    """Add outcomes of each cell, and the verdict over all layers, to the numbers in `result`."""
    lost = {aspect: _lost(columns, aspect, whole_E, rules) for aspect in ASPECTS}
    kept = {aspect: _kept(columns, aspect, rules) for aspect in ASPECTS}
    result["content_kept"] = (
        ("cell", "kind"), kept["content"], {"long_name": "loss of content within the margin, supported"},
    )  # fmt: skip
    controls = [str(name) for name in result["control"].values]
    found: dict[str, list[_Cell]] = {name: [] for name in SETS}
    for name, members in SETS.items():
        for e in range(len(whole_E)):
            usable = _usable(result, e, [q for q, control in enumerate(controls) if control in members], rules)
            found[name].append(_judge(result, columns, e, usable, lost, kept, rules, name))
    dims = ("control_set", "cell")
    result.coords["control_set"] = np.asarray(list(SETS), dtype=TEXT)
    for key in ("outcome", "states"):
        texts = [[getattr(cell, key) for cell in cells] for cells in found.values()]
        result[key] = (dims, np.asarray(texts, dtype=TEXT))
    result["needed"] = (
        dims, np.array([[cell.needed for cell in cells] for cells in found.values()]),
        {"long_name": "replicates that would decide what is undecided; NaN where all is decided"},
    )  # fmt: skip
    verdicts = {name: _overall(cells, whole_E) for name, cells in found.items()}
    first, second = (verdicts[name] for name in SETS)
    result.attrs |= {
        "verdict": first,
        "agrees_with": AGREES[first],
        "verdict_equal_number": second,
        "agrees_with_equal_number": AGREES[second],
        "verdict_reason": _reason(result, found, verdicts, whole_E, rules),
    }
    return result


class _Usable(NamedTuple):
    """Controls (positions) that can show that the massive channels lose more, or no more, than a control."""

    more: list[int]
    no_more: list[int]


def _usable(result: xr.Dataset, e: int, run: Sequence[int], rules: Rules) -> _Usable:
    """Which controls of a set bear on which answer in a cell.

    Controls of equal number do on both, and so do those of equal norm whose measured norm is that of the massive channels.
    One that changed the state by more speaks for "more" where there is none of equal norm: less was lost although more was
    changed. One that changed it by less speaks for "no more", for the same reason turned round.
    """
    ratio_Q = result["norm_ratio"].values[e]
    there = [q for q in run if math.isfinite(ratio_Q[q])]
    free = [q for q in there if str(result["control"].values[q]) not in EQUAL_NORM]
    normed = [q for q in there if q not in free]
    equal = [q for q in normed if abs(ratio_Q[q] - 1) <= rules.norm_tolerance]
    larger = [q for q in normed if ratio_Q[q] > 1 + rules.norm_tolerance]
    smaller = [q for q in normed if ratio_Q[q] < 1 - rules.norm_tolerance]
    return _Usable(free + (equal or larger), free + equal + smaller)


def _parts(columns: Mapping[str, Column], aspect: str, rules: Rules) -> list[tuple[np.ndarray, float]]:
    """What has to be kept or lost for an aspect, (R, E, D), each with its margin.

    Detail is judged by its composite. Content by every measure in its own unit: half of the pictures no longer recognised
    is not made up for by blurred images that are alike.
    """
    if aspect == "detail":
        return [(columns["detail"].loss_RED, rules.smallest)]
    return [(-columns[name].raw_RED, margin) for name, margin in rules.margins.items()]


def _lost(columns: Mapping[str, Column], aspect: str, whole_E: np.ndarray, rules: Rules) -> np.ndarray:
    """Whether the massive channels lose more than the margin, family-wise over layers and measures; bool (E,)."""
    parts = _parts(columns, aspect, rules)
    out = np.zeros(len(whole_E), dtype=bool)
    for loss_RED, margin in parts:
        for family in (whole_E, ~whole_E):
            at = np.flatnonzero(family & np.isfinite(loss_RED[:, :, 0]).all(axis=0))
            if len(at) and len(loss_RED) >= inference.MINIMUM_SAMPLES:
                beyond = loss_RED[:, at, 0] - margin
                test = inference.sign_flip(beyond, alternative="greater", resamples=rules.resamples, seed=rules.seed)
                out[at] |= test.p_corrected * len(parts) < rules.alpha
    return out


def _kept(columns: Mapping[str, Column], aspect: str, rules: Rules) -> np.ndarray:
    """Whether the loss is supported to be below the margin, in every measure of the aspect; bool (E, D)."""
    parts = [_below(loss_RED, margin, rules) for loss_RED, margin in _parts(columns, aspect, rules)]
    if not parts:
        return np.zeros(columns["content"].loss_RED.shape[1:], dtype=bool)
    return np.asarray(np.all(parts, axis=0))


def _below(values_RX: np.ndarray, margin: float, rules: Rules) -> np.ndarray:
    """Non-inferiority, the side of TOST that matters: the upper bound at level alpha is below the margin; bool (X,)."""
    if len(values_RX) < inference.MINIMUM_SAMPLES:
        return np.zeros(values_RX.shape[1:], dtype=bool)
    return np.asarray(inference.equivalence(values_RX, margin=margin, alpha=rules.alpha).high < margin)


def _judge(
    result: xr.Dataset,
    columns: Mapping[str, Column],
    e: int,
    usable: _Usable,
    lost: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    rules: Rules,
    control_set: str,
) -> _Cell:
    """Outcome of one cell against these controls (positions)."""
    n = int(result.attrs["n_replicates"])
    if n < inference.MINIMUM_SAMPLES:
        return _Cell("undecided", f"{n} replicates, of at least {inference.MINIMUM_SAMPLES}", inference.MINIMUM_SAMPLES)
    if not rules.margins or not np.isfinite(columns["content"].loss_RED[:, e, 0]).all():
        return _Cell("undecided", "no measure of content", math.nan)
    carried, words, needed = {}, [], []
    for aspect in ASPECTS:
        loss_RED = columns[aspect].loss_RED
        names = [str(name) for name in result["measure"].values]
        more = bool(usable.more) and all(
            result["p_corrected"].values[e, q, names.index(aspect)] < rules.alpha for q in usable.more
        )
        contrasts = [loss_RED[:, e, 0] - loss_RED[:, e, 1 + q] for q in usable.no_more]
        not_more = any(bool(_below(contrast, rules.smallest, rules)) for contrast in contrasts)
        is_lost, is_kept = bool(lost[aspect][e]), bool(kept[aspect][e, 0])
        # More by so little that it does not count is not more.
        carried[aspect] = False if is_kept or not_more else True if is_lost and more else None
        loss = "lost" if is_lost else "kept" if is_kept else "loss unclear"
        control = "no more than a control" if not_more else "more than controls" if more else "against controls unclear"
        if not (usable.more or usable.no_more):
            control = f"no control of {control_set}"
        words.append(f"{aspect} {loss}" + ("" if is_kept else f", {control}"))
        if carried[aspect] is None:
            needed.append(_needed(columns, aspect, e, contrasts, is_lost, more, rules))
    outcome = _outcome(carried, content_kept=bool(kept["content"][e, 0]))
    return _Cell(outcome, "; ".join(words), max(needed, default=math.nan) if outcome == "undecided" else math.nan)


def _outcome(carried: Mapping[str, bool | None], *, content_kept: bool) -> str:
    if carried["content"]:
        return "detail and content" if carried["detail"] else "content"
    if carried["content"] is None or carried["detail"] is None:
        return "undecided"
    if not carried["detail"]:
        return "neither"
    return "detail only" if content_kept else "detail, and content no more than controls"


def _needed(
    columns: Mapping[str, Column],
    aspect: str,
    e: int,
    contrasts: list[np.ndarray],
    lost: bool,
    more: bool,
    rules: Rules,
) -> float:
    """Replicates that would settle what is open: the loss against its margin, else the contrast against the smallest."""
    if lost and not more and contrasts:
        open_ = [(contrast, rules.smallest) for contrast in contrasts]
    else:
        open_ = [(loss_RED[:, e, 0], margin) for loss_RED, margin in _parts(columns, aspect, rules)]
    numbers = []
    for values, margin in open_:
        bounds = inference.equivalence(values, margin=margin, alpha=0.025)
        numbers.append(inference.enough_for(inference.Interval(*bounds[:3]), margin=margin, n=len(values)))
    return max(numbers) if lost and not more else min(numbers)


def _overall(cells: Sequence[_Cell], whole_E: np.ndarray) -> str:
    """One outcome of all layers: what is carried anywhere is carried; what is not has to be known of every layer."""
    outcomes = {cell.outcome for cell, whole in zip(cells, whole_E, strict=True) if whole}
    for strongest in ("detail and content", "content"):
        if strongest in outcomes:
            return strongest
    if not outcomes or "undecided" in outcomes:
        return "undecided"
    if "detail, and content no more than controls" in outcomes:
        return "detail, and content no more than controls"
    return "detail only" if "detail only" in outcomes else "neither"


_SAYS = {
    "detail only": "carry detail and not content",
    "detail, and content no more than controls": "carry detail, while content suffers no more than with the controls",
    "content": "carry content",
    "detail and content": "carry detail and content",
    "neither": "carry neither detail nor content beyond the controls",
    "undecided": "were not decided on",
}


def _reason(
    result: xr.Dataset,
    found: Mapping[str, list[_Cell]],
    verdicts: Mapping[str, str],
    whole_E: np.ndarray,
    rules: Rules,
) -> str:
    """Say it in words, with the numbers of the layer where the massive channels lose most."""
    attrs = result.attrs
    parts = []
    for name, verdict in verdicts.items():
        cells = [cell for cell, whole in zip(found[name], whole_E, strict=True) if whole]
        agrees = {"neither": "as neither paper says", "undecided": ""}.get(AGREES[verdict], f"as {AGREES[verdict]} say")
        count = sum(cell.outcome == verdict for cell in cells)
        text = f"Against controls of {name} the massive channels {_SAYS[verdict]}"
        text += f" ({count} of {len(cells)} layers{f'; {agrees}' if agrees else ''})"
        if verdict == "undecided":
            text += f": {_why(cells)}"
        parts.append(text + ".")
    at = [e for e in np.flatnonzero(whole_E).tolist() if np.isfinite(_of(result, "loss", e, "massive", "content"))]
    if at:
        most = max(at, key=lambda e: float(_of(result, "loss", e, "massive", "content")))
        numbers = [f"{aspect} {_interval(result, most, 'massive', aspect)}" for aspect in ASPECTS]
        against = [
            f"{control} {_interval(result, most, str(control), 'content')} at {result['norm_ratio'].values[most, q]:.2f} × the norm"
            for q, control in enumerate(result["control"].values)
        ]
        parts.append(
            f"Most content is lost before {result['layer'].values[most]}: {', '.join(numbers)} of the difference to another "
            f"prompt's picture; content with the controls: {', '.join(against) or 'none was run'}."
        )
    parts.append(f"{attrs['replication']}, branches {attrs['branch']}.")
    missing = [name for name in ("recognised", "semantic") if name not in result["measure"].values]
    if len(missing) == 2:
        parts.append("What the pictures mean was not measured (no judge for this model): content is layout here.")
    return " ".join(parts)


def _why(cells: Sequence[_Cell]) -> str:
    """Why a set of cells was not decided."""
    open_ = [cell for cell in cells if cell.outcome == "undecided"]
    if not open_:
        return "no layer was disrupted over the whole trajectory"
    needed = [cell.needed for cell in open_ if not math.isnan(cell.needed)]
    if not needed:
        return open_[0].states
    if math.isinf(max(needed)):
        return f"{open_[0].states}; it lies at the margin itself, which no number of prompts decides"
    return f"{open_[0].states}; about {max(needed):.0f} prompts would decide"


def _of(result: xr.Dataset, name: str, e: int, kind: str, measure: str) -> float:
    kinds, measures = result["kind"].values.tolist(), result["measure"].values.tolist()
    return float(result[name].values[e, kinds.index(kind), measures.index(measure)])


def _interval(result: xr.Dataset, e: int, kind: str, measure: str) -> str:
    mean, low, high = (_of(result, f"loss{end}", e, kind, measure) for end in ("", "_low", "_high"))
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if math.isfinite(low) else f"{mean:.2f}"
