"""From profiles of prompts to a proposed boundary width, with its uncertainty, or to the reason why there is none.

The width proposed is the one whose step explains most of the mean profile. It is proposed where **all** of these hold (so none
is corrected for the others: intersection-union, Berger 1982, *Technometrics* 24, 295-300):

1. the step is above 0, corrected for all widths tried (signs of prompts flipped, largest statistic), and at least the smallest
   effect;
2. so it is over the step in column order, and over the step of the first frame at the same places, whose tokens are no
   boundary but show the same image;
3. so is each end of the run by itself, over the first frame's: sky over ground is no boundary;
4. a step fits better than a ramp in most resamples of prompts (a *plateau*), and the width's interval is no longer than a row.

Legend: P prompts, S places of a run, W widths, R resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis import inference
from workbench.analysis.inference import MINIMUM_SAMPLES, Floats, Interval
from workbench.analysis.inference.intervals import resampling_weights
from workbench.analysis.profile_step import Fits, across_width, content_of, fits

FOUND, NO_PLATEAU, ONE_END, EDGES, NONE, UNDECIDED = VERDICTS = (
    "boundary found",
    "no plateau found",
    "one end only",
    "image edges, not boundaries",
    "no boundary found",
    "undecided",
)
"""All that `profile` can say."""

PLATEAU = 0.9
"""Share of resamples in which a step has to fit better than a ramp. A choice."""

SAME_SHAPE = 0.99
"""Cosine beyond content from which two widths are one shape, and can't be told apart. A choice; of six rows it is 1, of seven 0.94."""

TESTS = ("head", "tail", "over columns", "over first frame", "columns", "first frame")
"""Of the proposed width: what is tested beside the step. `head` and `tail` are steps of one end, less the first frame's; the last
two are the controls themselves and say what the image does."""


class Sampling(NamedTuple):
    """Options of the rule; p-values are compared with `alpha`, in `smallest_effect` units of ln."""

    smallest_effect: float = 0.1
    alpha: float = 0.05
    confidence: float = 0.95
    resamples: int = 2000
    flips: int = 1999
    seed: int = 0


class Proposal(NamedTuple):
    """What came out; steps in ln units.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    width, low, high : int
        The best width and its interval over resamples of prompts; 0 where nothing could be fitted.
    widths : array (W,)
        Those tried.
    step, p_value, p_corrected : Interval and arrays, (W,)
        Step of every width.
    explained : array (W,)
        Share of the profile's variance beyond content that each explains.
    plateau : float
        Share of resamples in which a step fits better than a ramp.
    across, first : Interval of arrays (W,)
        The controls: step in column order that reaches as deep into the frame, and step of the first frame.
    tests, tests_p : Interval and array
        By `TESTS`, at the best width; each p for a mean of 0, two-sided.
    mirror : int
        Width at which *lower* ends look like raised ends at the best width, beyond content; 0 if none does.
    """

    verdict: str
    width: int
    low: int
    high: int
    widths: NDArray[np.int64]
    step: Interval
    p_value: Floats
    p_corrected: Floats
    explained: Floats
    plateau: float
    across: Interval
    first: Interval
    tests: Interval
    tests_p: Floats
    mirror: int = 0


def propose(later_PS: Floats, first_PS: Floats, rows: int, columns: int, by: Sampling | None = None) -> Proposal:
    """Propose a width.

    Parameters
    ----------
    later_PS, first_PS : array
        Profile of each prompt over the places of a run, ln units: mean over the later frames, and of the first frame.
    rows, columns : int
        Of a frame.
    by : Sampling, optional
    """
    by = by or Sampling()
    own, across = fits(rows, columns), fits(rows, columns, transposed=True)
    mean_S, n = later_PS.mean(axis=0), len(later_PS)
    if not len(own.widths):
        return _nothing(own)
    explained = own.explained(mean_S[None])[0]
    best = int(explained.argmax())
    width = int(own.widths[best])
    step_PW = later_PS @ own.step_WS.T
    options = {"confidence": by.confidence, "resamples": by.resamples, "seed": by.seed}
    step = inference.bootstrap_mean(step_PW, **options)  # type: ignore[arg-type]
    flips = inference.sign_flip(step_PW, resamples=by.flips, seed=by.seed)
    across_PW = _across(later_PS, own, across, rows, columns)
    first_PW = first_PS @ own.step_WS.T
    head_P, tail_P = ((later_PS - first_PS) @ end[best] for end in (own.head_WS, own.tail_WS))
    over = [control[:, best] for control in (step_PW - across_PW, step_PW - first_PW, across_PW, first_PW)]
    tests_PO = np.stack([head_P, tail_P, *over], axis=1)
    tests = inference.bootstrap_mean(tests_PO, **options)  # type: ignore[arg-type]
    tests_p = inference.sign_flip(tests_PO, resamples=by.flips, seed=by.seed).p_value
    low, high, plateau = _uncertain(later_PS, own, by)
    rest = _beyond_content(mean_S, rows, columns)
    share = explained / rest if rest > 0 else np.zeros(len(explained))
    beside, first = (inference.bootstrap_mean(control, **options) for control in (across_PW, first_PW))  # type: ignore[arg-type]
    found = Proposal("", width, low, high, own.widths, step, flips.p_value, flips.p_corrected, share, plateau, beside, first,
                     tests, tests_p, _mirror(own, best))  # fmt: skip
    return found._replace(verdict=judge(found, n, columns, by))


def enough(n: int, alpha: float) -> bool:
    """Whether `n` prompts can give a p of at most alpha: n signs have 2**(n - 1) flips that differ, so 5 allow no less than 0.06."""
    return n >= MINIMUM_SAMPLES and 2.0 ** (1 - n) <= alpha


def judge(found: Proposal, n: int, columns: int, by: Sampling) -> str:
    """Verdict of `n` prompts; see the module."""
    if not enough(n, by.alpha):
        return UNDECIDED
    best = int(np.flatnonzero(found.widths == found.width)[0])
    mean = float(found.step.mean[best])
    if found.mirror and found.p_corrected[best] <= by.alpha:
        return UNDECIDED
    if not (found.p_corrected[best] <= by.alpha and mean >= by.smallest_effect):
        # Where one row at each end is content (few rows), nothing is known of the likeliest boundary of all.
        return NONE if columns in found.widths else UNDECIDED
    if found.width == 1:  # the first and the last token are so in column order too: the control is the thing itself
        return UNDECIDED
    raised = (found.tests.mean > 0) & (found.tests_p <= by.alpha)
    above = dict(zip(TESTS, raised & (found.tests.mean >= by.smallest_effect), strict=True))
    if not (above["over columns"] and above["over first frame"]):
        return EDGES if raised[TESTS.index("columns")] or raised[TESTS.index("first frame")] else UNDECIDED
    if not (above["head"] and above["tail"]):
        return ONE_END
    if found.plateau < PLATEAU or found.high - found.low > columns:
        return NO_PLATEAU
    return FOUND


def _across(later_PS: Floats, own: Fits, across: Fits, rows: int, columns: int) -> Floats:
    """Step in column order for each width in raster order, (P, W); NaN where that can't be fitted."""
    place = {int(width): i for i, width in enumerate(across.widths)}
    at = [place.get(across_width(int(width), rows, columns), -1) for width in own.widths]
    steps_PW = np.column_stack([later_PS @ across.step_WS.T, np.full(len(later_PS), np.nan)])
    return np.asarray(steps_PW[:, at])


def _mirror(own: Fits, best: int) -> int:
    """In frames of six rows nothing but one shape is left of any whole number of rows, up for one row and down for two."""
    size_W = np.linalg.norm(own.step_WS, axis=1)
    alike_W = own.step_WS @ own.step_WS[best] / (size_W * size_W[best])
    worst = int(alike_W.argmin())
    return int(own.widths[worst]) if alike_W[worst] < -SAME_SHAPE else 0


def _uncertain(later_PS: Floats, own: Fits, by: Sampling) -> tuple[int, int, float]:
    """Interval of the best width over resamples of prompts, and the share in which the best step beats the best ramp."""
    n = len(later_PS)
    if n < MINIMUM_SAMPLES:
        return int(own.widths[0]), int(own.widths[-1]), float("nan")
    drawn_RS = resampling_weights(n, by.resamples, by.seed) @ later_PS
    step, ramp = own.explained(drawn_RS), own.explained_by_ramp(drawn_RS)
    tail = (1.0 - by.confidence) / 2.0
    low, high = np.quantile(own.widths[step.argmax(axis=1)], (tail, 1.0 - tail), method="nearest")
    return int(low), int(high), float((step.max(axis=1) > ramp.max(axis=1)).mean())


def _beyond_content(mean_S: Floats, rows: int, columns: int) -> float:
    """Sum of squares of a profile that content does not explain."""
    content = content_of(rows, columns)
    rest = mean_S - content @ np.linalg.lstsq(content, mean_S, rcond=None)[0]
    return float(rest @ rest)


def _nothing(own: Fits) -> Proposal:
    none, missing = np.full(0, np.nan), np.full(len(TESTS), np.nan)
    empty = Interval(none, none, none)
    return Proposal(UNDECIDED, 0, 0, 0, own.widths, empty, none, none, none, float("nan"), empty, empty,
                    Interval(missing, missing, missing), missing)  # fmt: skip
