"""The rule of the hierarchy's verdict on arrays: which levels hold, from the contrasts named beforehand.

A contrast is ``above`` where its interval lies beyond the smallest effect and its p-value, corrected for all contrasts that
decide, is at most alpha; ``not above`` where its interval lies below the smallest effect; else ``open``.

* the *first frame* is raised where it is above later frames at the places of the interior, also when the labels of the
  frames are shuffled inside each prompt, **and** above the line through the later frames, **and** above what a steeper drift
  would make of it that is seen in the second frame: a drift is no first frame;
* the *boundary* is raised where, in later frames, its rows are above the inside **and** above the columns at the edge **and**
  are so by more than in the first frame, whose rows show the same image;
* *first over boundary*: the first frame is above later frames at the places of the boundary, beyond a steep drift too.

All parts of a claim must hold, so none is corrected (intersection-union, Berger 1982, *Technometrics* 24, 295-300); one part
that does not hold is enough for "not raised". There are two exceptions, which can keep a claim from being made and deny
nothing. An image may raise its columns more than its rows (a tall subject), and then a boundary does not exceed them though it
is there. And a first frame may be raised *and* the frames drift; the most that a drift can make of it is then more than it
makes. A line through fewer than three later frames does not exist and is left out; with two frames nothing tells a first frame
from a drift, and none is claimed.

The papers speak of *massive* activations. So where the whole order holds and ordinary channels have a part of it as much, the
levels are there, and the verdict is that the claim is not supported.

Two claims at 2.5 % each (one-sided) keep what is claimed falsely below 5 %. Against a claim, any of up to two parts is
enough; where both of them lie exactly at the smallest effect, it is denied in up to 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.hierarchy_contrasts import (
    FIRST_BOUNDARY,
    FIRST_INTERIOR,
    NO_DRIFT,
    ROWS,
    ROWS_COLUMNS,
    ROWS_FIRST,
    STEEP_BOUNDARY,
    STEEP_INTERIOR,
)

ALL = "all three levels"
FIRST = "first frame only"
BOUNDARY = "boundary only"
EDGES = "image edges, not boundaries"
NONE = "none"
BOTH = "first frame and boundary, but not first > boundary"
UNDECIDED = "undecided"
CONFOUNDED = "undecided: confounded"

LEVELS = (ALL, FIRST, BOUNDARY, BOTH, EDGES, NONE, UNDECIDED, CONFOUNDED)
"""All that can be said of a model, in words."""

SHARED = "not specific to massive channels"
"""What is said of a hierarchy of which ordinary channels have a part, or all, as well."""

ABOVE, NOT_ABOVE, OPEN = "above", "not above", "open"


def state(low: NDArray[Any], high: NDArray[Any], p: NDArray[Any], *, margin: float, alpha: float) -> NDArray[np.str_]:
    """``above``, ``not above`` or ``open`` of each contrast; without bounds it is open."""
    above = (np.asarray(low) > margin) & (np.asarray(p) <= alpha)
    return np.where(above, ABOVE, np.where(np.asarray(high) < margin, NOT_ABOVE, OPEN))


def all_of(*parts: str) -> str:
    """Whether a claim holds: ``above`` if all parts are, ``not above`` if one is not."""
    if NOT_ABOVE in parts:
        return NOT_ABOVE
    return ABOVE if set(parts) == {ABOVE} else OPEN


def levels(states: Mapping[str, str]) -> str:
    """Which levels hold, from the states of the `DECIDING` contrasts; `NO_DRIFT` may be missing."""
    guard = {name: ABOVE if states[name] == ABOVE else OPEN for name in GUARDS}
    boundary = all_of(states[ROWS], guard[ROWS_COLUMNS], states[ROWS_FIRST])
    first = all_of(states[FIRST_INTERIOR], states.get(NO_DRIFT, ABOVE), guard[STEEP_INTERIOR])
    drifts = states[FIRST_INTERIOR] == ABOVE and first == NOT_ABOVE  # then it is no first frame at any place
    over_boundary = NOT_ABOVE if drifts else all_of(states[FIRST_BOUNDARY], guard[STEEP_BOUNDARY])
    if OPEN in (boundary, first, over_boundary):
        return UNDECIDED
    raised = (first == ABOVE, over_boundary == ABOVE)
    if boundary == ABOVE:
        return {(True, True): ALL, (True, False): BOTH, (False, False): BOUNDARY}.get(raised, UNDECIDED)
    if raised == (False, False):
        return {ABOVE: EDGES, NOT_ABOVE: NONE}.get(states[ROWS], UNDECIDED)
    return FIRST if raised == (True, True) else UNDECIDED


def columns_disagree(states: Mapping[str, str]) -> bool:
    """Whether only the columns at the edge speak against a boundary: the rest leaves it undecided."""
    others = all_of(states[ROWS], states[ROWS_FIRST])
    return states[ROWS_COLUMNS] == NOT_ABOVE and others != NOT_ABOVE


def may_drift(states: Mapping[str, str]) -> bool:
    """Whether a first frame that is raised, beyond a straight line too, may be a steep drift for all that is known."""
    raised = all_of(states[FIRST_INTERIOR], states.get(NO_DRIFT, ABOVE)) == ABOVE
    parts = (STEEP_INTERIOR,) if states[FIRST_BOUNDARY] == NOT_ABOVE else (STEEP_INTERIOR, STEEP_BOUNDARY)
    return raised and all_of(*(states[name] for name in parts)) != ABOVE


def verdict_of(found: str, specific: str) -> str:
    """The three words that all analyses use: whether first frame > boundary > interior holds of massive activations."""
    if found.startswith(UNDECIDED):
        return "undecided"
    return "supported" if found == ALL and specific != "no" else "not supported"


def headline(found: str, specific: str) -> str:
    """The levels, and whether the whole order is one of massive activations at all."""
    return f"{found}, but {SHARED}" if found == ALL and specific == "no" else found


GUARDS = (ROWS_COLUMNS, STEEP_INTERIOR, STEEP_BOUNDARY)
"""Contrasts that can keep a claim from being made and deny none: see the module."""


_FIRST, _BOUNDARY = (FIRST_INTERIOR, NO_DRIFT), (ROWS, ROWS_COLUMNS, ROWS_FIRST)
CLAIMED: dict[str, tuple[str, ...]] = {
    ALL: (FIRST_BOUNDARY, *_FIRST, *_BOUNDARY),
    BOTH: (*_FIRST, *_BOUNDARY),
    FIRST: (FIRST_BOUNDARY, *_FIRST),
    BOUNDARY: _BOUNDARY,
    EDGES: (ROWS,),
}
"""Contrasts whose size each answer speaks of; a claim of a first frame also needs those against a steep drift."""
