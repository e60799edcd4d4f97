"""From numbers to words: what one contrast of the trial of STAS shows in one measure, and in all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

BETTER, WORSE, EQUAL, AT_MOST, OPEN = "better", "worse", "equal", "not better", "undecided"
MORE, LESS = "more", "less"

MOTION = "temporal_power_0"
"""A video that stands still is steady, smooth and alike: with less of this, gains in time are none. It is the slow change (below 1/8
cycles a frame): flicker that comes does not pass for motion, and flicker that goes does not pass for a standstill
(docs/measures.md). A motion of the same extent that is slower leaves it as it is."""

CHANGE = "frame_difference"
"""The amount of change from frame to frame, flicker and motion alike: less of it is said, and decides nothing."""

RULE = (
    "Of every measure in which a direction is better: better or worse, if its simultaneous interval (BCa, widened to Student's t, "
    "Bonferroni over the judged measures of the contrast) lies on one side of 0 and p (sign flips over prompts, Holm) is below "
    "{alpha:g}; equal, if two one-sided tests (Holm) show the difference to be within ±{least:g} of the standard deviation of the "
    "unsteered videos over prompts, also where it is not 0; not better, if the interval lies below that margin; else undecided. Of a "
    "contrast: supported, if some measure is better and none worse, no video was lost, and the videos do not move less (of `temporal_power_0`, the slow change, by its interval and p alone: a guard takes no correction); not supported, if "
    "every measure is equal, not better or worse; mixed, if some are better and others worse, or it moves less; else undecided."
)
RULE_VERSION = 3


def finding(
    low: float, high: float, margin: float, *, better: int, p_corrected: float, p_equivalent: float, alpha: float
) -> str:
    """What the difference between two conditions shows in one measure.

    Parameters
    ----------
    low, high : float
        Simultaneous bounds of the difference, in the measure's unit.
    margin : float
        Smallest difference that counts.
    better : int
        1: more is better; −1: less is; 0: neither, and the words are more, less, equal, undecided.
    p_corrected, p_equivalent : float
        That it is 0; that it is outside ±margin. NaN: not known.
    alpha : float
        Level.
    """
    sign = better or 1
    low, high = (low, high) if sign > 0 else (-high, -low)
    if not np.isfinite([low, high]).all():
        return OPEN
    known = np.isfinite(p_equivalent)
    if margin > 0 and (p_equivalent < alpha if known else -margin < low and high < margin):
        return EQUAL
    if low > 0 and p_corrected < alpha:
        return BETTER if better else MORE
    if high < 0 and p_corrected < alpha:
        return WORSE if better else LESS
    if better and margin > 0 and high < margin:
        return AT_MOST
    return OPEN


def alone(numbers: Mapping[str, float], alpha: float) -> str:
    """Finding in `MOTION` or `CHANGE`, of it alone: more, less, equal or undecided. A guard, so no correction may hide a loss.

    `numbers`: ``low``, ``high`` and ``p_value`` of its own, ``p_equivalent``, ``margin``.
    """
    return finding(
        numbers["low"], numbers["high"], numbers["margin"], better=0, p_corrected=numbers["p_value"],
        p_equivalent=numbers["p_equivalent"], alpha=alpha,
    )  # fmt: skip


def verdict(found: Mapping[str, str], *, moves: str | None, lost: int) -> str:
    """Of one contrast: supported, not supported, mixed or undecided, by `RULE`.

    Parameters
    ----------
    found : mapping
        Judged measure → finding.
    moves : str
        Finding in `MOTION`; None where it was not measured.
    lost : int
        Videos that are not finite though the other condition's are.
    """
    said = set(found.values())
    if BETTER in said:
        return "mixed" if WORSE in said or moves == LESS or lost else "supported"
    if said and OPEN not in said:
        return "not supported"
    return "undecided"


def reason(
    found: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    moves: str | None,
    lost: int,
    needed: Mapping[str, float],
    replicate: str,
    sharpness: Collection[str] = (),
    changes: str = OPEN,
) -> str:
    """The sentence of a verdict: measures by what is found, motion, lost videos, and how many prompts would decide.

    `moves`: finding in `MOTION`, None where that was not measured. `sharpness`: measures that over-sharpening raises too. `changes`:
    finding in `CHANGE`.
    """
    parts = []
    for word in (BETTER, WORSE, EQUAL, AT_MOST, OPEN):
        names = [labels[name] for name, said in found.items() if said == word]
        parts += [f"{word}: {', '.join(names)}"] if names else []
    better = {name for name, said in found.items() if said == BETTER}
    if better and better <= set(sharpness):
        parts.append("only sharpness is better, and nothing here tells detail from over-sharpening")
    if moves == LESS:
        parts.append("the videos move less, so that gains in time may be a standstill")
    elif better and changes == LESS:
        parts.append("less changes from frame to frame: flicker that is gone, or a motion that is slower")
    parts += ["the videos move more"] if moves == MORE else []
    parts += [f"whether they move less is not known ({MOTION} was not measured)"] if better and moves is None else []
    parts += [f"{lost} video{'s' if lost > 1 else ''} not finite"] if lost else []
    still = [needed[name] for name, said in found.items() if said == OPEN]
    if still:
        parts.append(_enough(still, replicate))
    return "; ".join(parts) or "no measure could be judged"


def _enough(needed: Sequence[float], replicate: str) -> str:
    finite = [n for n in needed if np.isfinite(n)]
    if not finite:
        return "no number of prompts would decide what is undecided, as far as can be told"
    most = f"about {min(finite):.0f} {replicate}s would decide the first of these"
    return most if len(finite) == 1 else f"{most}, {max(finite):.0f} the last"
