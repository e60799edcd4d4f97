"""What a disruption says about massive activations: the rules, from intervals and tests to words.

At each layer (cell) every measure of detail and of content is *lost*, *kept* or *unclear*, and its loss is *more* than with
each control, *no more*, or *unclear*: not finding a loss is no evidence that there is none. An aspect is carried where one of
its measures is lost, and more than with every control; it is not carried where all are kept, or no more lost than with one
control. What is carried at any layer is carried. `docs/methods.md` has the table.

Legend: R replicates (prompts), E cells (layer × window), D kinds of disruption, the massive channels first, Q controls.
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
"""Controls that take away or add as much as the massive channels hold; they count where that norm was to be had."""

SETS = {"equal norm": EQUAL_NORM, "equal number": EQUAL_NUMBER}

SHARES = ("recognised",)
"""Measures that are 0 or 1 of a picture. Where no picture is lost there is no spread to reckon a bound from, so theirs is
the exact one of the share of prompts that lose any."""

FEW = 10
"""With fewer prompts than these that differ at all, the difference to a control in such a measure has the exact bound, too."""

ROUNDING = 1e-9
"""Draws and seeds are averaged, so what is equal may differ by less than this."""

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
    """Parameters of the verdict; see the constants of `workbench.analysis.disruption`."""

    norm_tolerance: float
    alpha: float
    resamples: int
    seed: int


class Part(NamedTuple):
    """One measure of an aspect: losses (R, E, D) in the unit of its margin, NaN in a cell and kind that was not run."""

    name: str
    aspect: str
    loss_RED: np.ndarray
    margin: float


class Cell(NamedTuple):
    """What one cell says against one set of controls.

    Attributes
    ----------
    carried : dict
        Aspect → True, False, or None where it is open.
    content_kept : bool
    states : str
        What it rests on.
    needed : float
        Replicates that would decide it; NaN where nothing is open, or no number is known.
    counted : tuple of str
        Controls that bore on it.
    """

    carried: Mapping[str, bool | None]
    content_kept: bool
    states: str
    needed: float
    counted: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """In words."""
        return outcome(self.carried, content_kept=self.content_kept)


class _Found(NamedTuple):
    """Answers for one measure: of the massive channels (E,), of every kind (E, D), against each control (E, Q)."""

    lost_E: np.ndarray
    gained_E: np.ndarray
    kept_ED: np.ndarray
    more_EQ: np.ndarray
    no_more_EQ: np.ndarray


def against(loss_RED: np.ndarray) -> np.ndarray:
    """Loss of the massive channels minus that of each control, (R, E, Q); a control that gained on the mean counts as 0."""
    control = loss_RED[:, :, 1:]
    if not len(control):
        return np.asarray(control)
    return np.asarray(loss_RED[:, :, :1] - np.where(control.mean(axis=0) < 0, 0.0, control))


def upper(values_RX: np.ndarray, *, alpha: float, exact: bool) -> np.ndarray:
    """One-sided upper bound, at level `alpha`, of the mean over replicates; NaN with too few of them.

    Student's; with `exact`, for values of at most 1: Clopper and Pearson's bound of the share of replicates above 0, which
    the mean can't exceed.
    """
    if len(values_RX) < inference.MINIMUM_SAMPLES:
        return np.full(values_RX.shape[1:], np.nan)
    high = np.asarray(inference.equivalence(values_RX, margin=1.0, alpha=alpha).high)
    if not exact:
        return high
    share = inference.proportion_high((values_RX > ROUNDING).sum(axis=0), len(values_RX), confidence=1 - alpha)
    return np.where(np.isfinite(high), share, np.nan)


def outcome(carried: Mapping[str, bool | None], *, content_kept: bool) -> str:
    """Name what is carried, at a layer or anywhere."""
    if carried["content"]:
        return "detail and content" if carried["detail"] else "content"
    if carried["content"] is None or carried["detail"] is None:
        return "undecided"
    if not carried["detail"]:
        return "neither"
    return "detail only" if content_kept else "detail, and content no more than controls"


def conclude(
    result: xr.Dataset, parts: Sequence[Part], whole_E: np.ndarray, rules: Rules, dropped: Sequence[str] = ()
) -> dict[str, list[Cell]]:
    """Add what each measure and cell says, and the verdict over all layers, to the numbers in `result`.

    `dropped` names layers whose massive channels were disrupted over the whole trajectory without a usable result. Returned
    are, for each set of controls, the cells that the verdict rests on.
    """
    answers = {part.name: _answers(result, part, parts, whole_E, rules) for part in parts}
    _put_answers(result, parts, answers)
    cells = {
        name: [_judge(result, parts, answers, e, members, rules, name) for e in range(len(whole_E))]
        for name, members in SETS.items()
    }
    dims = ("control_set", "cell")
    result.coords["control_set"] = np.asarray(list(SETS), dtype=TEXT)
    for key in ("outcome", "states"):
        texts = [[getattr(cell, key) for cell in row] for row in cells.values()]
        result[key] = (dims, np.asarray(texts, dtype=TEXT))
    result["needed"] = (
        dims, np.array([[cell.needed for cell in row] for row in cells.values()]),
        {"long_name": "replicates that would decide what is undecided; NaN where all is decided"},
    )  # fmt: skip
    lost = [Cell(dict.fromkeys(ASPECTS), False, f"{layer} has no usable result", math.nan, ()) for layer in dropped]
    whole = {name: [cell for cell, yes in zip(row, whole_E, strict=True) if yes] + lost for name, row in cells.items()}
    first, second = (overall(row) for row in whole.values())
    result.attrs |= {
        "verdict": first,
        "agrees_with": AGREES[first],
        "verdict_equal_number": second,
        "agrees_with_equal_number": AGREES[second],
    }
    return whole


def overall(cells: Sequence[Cell]) -> str:
    """One outcome of all layers: what is carried at any is carried; what is not, or kept, has to be so at all."""
    if not cells:
        return "undecided"
    carried: dict[str, bool | None] = {}
    for aspect in ASPECTS:
        each = [cell.carried[aspect] for cell in cells]
        carried[aspect] = True if True in each else None if None in each else False
    return outcome(carried, content_kept=all(cell.content_kept for cell in cells))


def _answers(result: xr.Dataset, part: Part, parts: Sequence[Part], whole_E: np.ndarray, rules: Rules) -> _Found:
    """What a measure says of each cell; the levels are shared by the measures of its aspect."""
    times = sum(other.aspect == part.aspect for other in parts)
    massive_RE = part.loss_RED[:, :, 0]
    exact = part.name in SHARES
    lost_E = _beyond(massive_RE - part.margin, whole_E, times, rules)
    gained_E = _beyond(-massive_RE - part.margin, whole_E, times, rules)
    kept_ED = upper(part.loss_RED, alpha=rules.alpha, exact=exact) < part.margin
    difference_REQ = against(part.loss_RED)
    high_EQ = upper(difference_REQ, alpha=rules.alpha, exact=False)
    if exact:
        few_EQ = (np.abs(difference_REQ) > ROUNDING).sum(axis=0) < FEW
        high_EQ = np.where(few_EQ, upper(difference_REQ, alpha=rules.alpha, exact=True), high_EQ)
    within_EQ = high_EQ < part.margin
    # What is kept is no more than margin above anything; but only against a control that was run.
    ran_EQ = np.isfinite(part.loss_RED[:, :, 1:]).all(axis=0) & (len(massive_RE) > 0)
    no_more_EQ = ran_EQ & (within_EQ | kept_ED[:, :1])
    more_EQ = np.zeros_like(no_more_EQ)
    if "p_corrected" in result:
        p_EQ = result["p_corrected"].sel(measure=part.name).values
        # More by so little that it does not count is not more.
        more_EQ = lost_E[:, None] & (p_EQ * times < rules.alpha) & ~no_more_EQ
    return _Found(lost_E, gained_E, kept_ED, more_EQ, no_more_EQ)


def _beyond(values_RE: np.ndarray, whole_E: np.ndarray, times: int, rules: Rules) -> np.ndarray:
    """Whether means are above 0, family-wise over the layers (over the windows) and over `times` measures; bool (E,)."""
    out = np.zeros(len(whole_E), dtype=bool)
    for family in (whole_E, ~whole_E):
        at = np.flatnonzero(family & np.isfinite(values_RE).all(axis=0))
        if len(at) and len(values_RE) >= inference.MINIMUM_SAMPLES:
            test = inference.sign_flip(
                values_RE[:, at], alternative="greater", resamples=rules.resamples, seed=rules.seed
            )
            out[at] = test.p_corrected * times < rules.alpha
    return out


def _put_answers(result: xr.Dataset, parts: Sequence[Part], answers: Mapping[str, _Found]) -> None:
    """Put what each measure says in words; empty for measures that are not judged."""
    names = [str(name) for name in result["measure"].values]
    state = np.full((result.sizes["cell"], len(names)), "", dtype=object)
    compared = np.full((result.sizes["cell"], result.sizes["control"], len(names)), "", dtype=object)
    for part in parts:
        found, m = answers[part.name], names.index(part.name)
        state[:, m] = [_state(found, e) for e in range(len(state))]
        compared[..., m] = np.where(found.more_EQ, "more", np.where(found.no_more_EQ, "no more", "unclear"))
    result["state"] = (("cell", "measure"), state.astype(TEXT), {"long_name": "with the massive channels disrupted"})
    result["compared"] = (
        ("cell", "control", "measure"), compared.astype(TEXT), {"long_name": "lost, against each control"},
    )  # fmt: skip
    kept = [answers[part.name].kept_ED for part in parts if part.aspect == "content"]
    result["content_kept"] = (
        ("cell", "kind"),
        np.all(kept, axis=0) if kept else np.zeros((result.sizes["cell"], result.sizes["kind"]), dtype=bool),
        {"long_name": "loss of every measure of content within its margin, supported"},
    )


def _state(found: _Found, e: int) -> str:
    return (
        "lost" if found.lost_E[e] else "gained" if found.gained_E[e] else "kept" if found.kept_ED[e, 0] else "unclear"
    )


class _Usable(NamedTuple):
    """Controls (positions) that can show that the massive channels lose more, or no more, than a control."""

    more: list[int]
    no_more: list[int]


def _usable(result: xr.Dataset, e: int, members: Sequence[str], rules: Rules) -> _Usable:
    """Which controls of a set bear on which answer in a cell, by the norm that the recording says they have.

    Not by the norm that was measured: a control that harms the pictures also changes the states. Controls of equal number
    bear on both answers, and so do those of equal norm that could be had. One that could only change the state by less
    can't show that the massive channels lose more, and one of a larger norm not that they lose no more.
    """
    kinds = [str(kind) for kind in result["control"].values]
    ratio_Q, ran_Q = result["norm_planned"].values[e], result["draws"].values[e, 1:] > 0
    there = [q for q, kind in enumerate(kinds) if kind in members and ran_Q[q]]
    free = [q for q in there if kinds[q] not in EQUAL_NORM]
    normed = [q for q in there if q not in free and math.isfinite(ratio_Q[q])]
    return _Usable(
        free + [q for q in normed if ratio_Q[q] >= 1 - rules.norm_tolerance],
        free + [q for q in normed if ratio_Q[q] <= 1 + rules.norm_tolerance],
    )


def _judge(
    result: xr.Dataset,
    parts: Sequence[Part],
    answers: Mapping[str, _Found],
    e: int,
    members: Sequence[str],
    rules: Rules,
    control_set: str,
) -> Cell:
    """What one cell says against these controls."""
    usable = _usable(result, e, members, rules)
    counted = tuple(str(result["control"].values[q]) for q in sorted({*usable.more, *usable.no_more}))
    n = int(result.attrs["n_replicates"])
    if n < inference.MINIMUM_SAMPLES:
        least = inference.MINIMUM_SAMPLES
        return Cell(dict.fromkeys(ASPECTS), False, f"{n} replicates, of at least {least}", least, counted)
    carried: dict[str, bool | None] = {}
    words, needed, all_kept = [], [], {}
    for aspect in ASPECTS:
        own = [part for part in parts if part.aspect == aspect and np.isfinite(part.loss_RED[:, e, 0]).all()]
        if not own:
            carried[aspect], all_kept[aspect] = None, False
            words.append(f"no measure of {aspect}")
            continue
        found = [answers[part.name] for part in own]
        all_kept[aspect] = all(one.kept_ED[e, 0] for one in found)
        not_more = any(all(one.no_more_EQ[e, q] for one in found) for q in usable.no_more)
        more = bool(usable.more) and any(one.more_EQ[e, usable.more].all() for one in found)
        carried[aspect] = False if all_kept[aspect] or not_more else True if more else None
        said = {state: [p.name for p, one in zip(own, found, strict=True) if _state(one, e) == state]
                for state in ("lost", "gained", "unclear")}  # fmt: skip
        text = ", ".join(f"{state} ({', '.join(names)})" for state, names in said.items() if names) or "kept"
        if not all_kept[aspect]:
            text += "; no more than a control" if not_more else "; more than the controls" if more else (
                "; against controls unclear" if counted else f"; no control of {control_set}")  # fmt: skip
        words.append(f"{aspect} {text}")
        if carried[aspect] is None:
            needed.append(_needed(own, found, e, usable, rules))
    known = [number for number in needed if not math.isnan(number)]
    cell = Cell(carried, all_kept["content"], ". ".join(words), math.nan, counted)
    return cell._replace(needed=max(known)) if known and cell.outcome == "undecided" else cell


def _needed(parts: Sequence[Part], found: Sequence[_Found], e: int, usable: _Usable, rules: Rules) -> float:
    """Replicates that would settle what is open: whether each measure is kept; where one is lost, whether more than controls."""
    lost = [part for part, one in zip(parts, found, strict=True) if one.lost_E[e]]
    open_ = [(part, against(part.loss_RED)[:, e, q]) for part in lost for q in {*usable.more, *usable.no_more}]
    if not lost:
        open_ = [
            (part, part.loss_RED[:, e, 0]) for part, one in zip(parts, found, strict=True) if not one.kept_ED[e, 0]
        ]
    numbers = []
    for part, values in open_:
        bounds = inference.equivalence(values, margin=part.margin, alpha=0.025)
        number = inference.enough_for(inference.Interval(*bounds[:3]), margin=part.margin, n=len(values))
        if part.name in SHARES:  # with no prompt lost at all
            number = max(number, math.ceil(math.log(rules.alpha) / math.log(1 - part.margin)))
        numbers.append(number)
    return max(numbers, default=math.nan)
