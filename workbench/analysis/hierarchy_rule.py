"""The rule of the hierarchy's verdict on arrays: which levels hold, from the contrasts named beforehand.

A contrast is ``above`` where its interval lies beyond the smallest effect and its p-value, corrected for all contrasts that
decide, is at most alpha; ``not above`` where its interval lies below the smallest effect; else ``open``.

* the *first frame* is raised where it is above later frames at the places of the interior, also when the labels of the
  frames are shuffled inside each prompt, **and** above the line through the later frames: a drift is no first frame;
* the *boundary* is raised where, in later frames, its rows are above the inside **and** above the columns at the edge **and**
  are so by more than in the first frame, whose rows show the same image;
* *first over boundary*: the first frame is above later frames at the places of the boundary.

All parts of a claim must hold, so none is corrected (intersection-union, Berger 1982, *Technometrics* 24, 295-300); one part
that does not hold is enough for "not raised". The columns alone are the exception: an image may raise them more than its rows
(a tall subject), and then a boundary does not exceed them though it is there. So they can keep a boundary from being claimed,
but it is denied only where the inside or the rows of the first frame say so. A part that does not exist (a line through fewer than three later frames) is
left out, and the verdict says so.

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
    over_columns = (
        states[ROWS_COLUMNS] if states[ROWS_COLUMNS] == ABOVE else OPEN
    )  # columns deny nothing: see the module
    boundary = all_of(states[ROWS], over_columns, states[ROWS_FIRST])
    first = all_of(states[FIRST_INTERIOR], states.get(NO_DRIFT, ABOVE))
    drifts = states[FIRST_INTERIOR] == ABOVE and first == NOT_ABOVE  # then it is no first frame at any place
    over_boundary = NOT_ABOVE if drifts else states[FIRST_BOUNDARY]
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


def verdict_of(found: str) -> str:
    """The three words that all analyses use: whether first frame > boundary > interior holds."""
    if found.startswith(UNDECIDED):
        return "undecided"
    return "supported" if found == ALL else "not supported"


_FIRST, _BOUNDARY = (FIRST_INTERIOR, NO_DRIFT), (ROWS, ROWS_COLUMNS, ROWS_FIRST)
CLAIMED: dict[str, tuple[str, ...]] = {
    ALL: (FIRST_BOUNDARY, *_FIRST, *_BOUNDARY),
    BOTH: (*_FIRST, *_BOUNDARY),
    FIRST: (FIRST_BOUNDARY, *_FIRST),
    BOUNDARY: _BOUNDARY,
    EDGES: (ROWS,),
}
"""Contrasts that each answer says to be above."""
