"""What `profile` says of a proposal, in sentences."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.inference import Floats
from workbench.analysis.profile_rule import (
    EDGES,
    FOUND,
    NO_PLATEAU,
    ONE_END,
    PLATEAU,
    TESTS,
    UNDECIDED,
    Proposal,
    Sampling,
    enough,
)
from workbench.analysis.profile_step import fits
from workbench.analysis.visits import counted, too_few


def reason(result: xr.Dataset, found: Proposal, by: Sampling, later_PS: Floats) -> str:
    """The sentences behind the verdict; `later_PS` is the profile of each prompt."""
    attrs, columns = result.attrs, int(result.attrs["token_grid"][2])
    if few := too_few(attrs):
        return f"{few}: no width can be proposed from {counted(attrs)}."
    if not enough(n := int(attrs["n_replicates"]), by.alpha):
        needed = 1 + math.ceil(math.log2(1.0 / by.alpha))
        return (
            f"No p of {n} {attrs['replicate']}s can be below {2.0 ** (1 - n):.2g} (alpha is {by.alpha:g}), whatever is there: "
            f"no width can be proposed from {counted(attrs)}; {needed} are needed."
        )
    if not found.width:
        return f"Frames of {attrs['token_grid'][1]} x {columns} tokens are too small to tell a step from the image's content."
    said = [_verdict(found, columns, by, later_PS), _compared(found, attrs), f"From {counted(attrs)}."]
    if attrs["confound"]:
        said.append(f"Confounded: {attrs['confound']}, so the first frame is no clean control.")
    return " ".join(part for part in said if part)


def _verdict(found: Proposal, columns: int, by: Sampling, later_PS: Floats) -> str:
    best = int(np.flatnonzero(found.widths == found.width)[0])
    step = _interval(found.step, best)
    p = found.p_corrected[best]
    raised = (
        f"The first and last {_tokens(found.width)} of a later frame's run are {step} above the rest (ln units, p = {p:.2g} "
        f"corrected for {len(found.widths)} widths)"
    )
    if found.mirror and p <= by.alpha:
        return f"{raised}, but in frames of so few rows lower ends of {_tokens(found.mirror)} look the same: which of them it is can't be told."
    if found.verdict == FOUND:
        return (
            f"{raised}, at both ends, more than in column order and than in the first frame; the width's "
            f"{by.confidence:.0%} interval over resampled prompts is {found.low} to {found.high}."
        )
    if found.verdict == NO_PLATEAU:
        return (
            f"{raised}, but where that ends is not settled: a step fits better than a ramp in {found.plateau:.0%} of the "
            f"resamples (of at least {PLATEAU:.0%}), whose widths reach from {found.low} to {found.high} tokens."
        )
    if found.verdict == ONE_END:
        return f"{raised}, but not at both ends: the head is {_test(found, 'head')}, the tail {_test(found, 'tail')}."
    if found.verdict == EDGES:
        return (
            f"{raised}, but the image does that too: in column order {_test(found, 'columns')}, in the first frame "
            f"{_test(found, 'first frame')}; over columns {_test(found, 'over columns')}, over the first frame "
            f"{_test(found, 'over first frame')}."
        )
    if (
        found.verdict == UNDECIDED
        and found.width == 1
        and p <= by.alpha
        and found.step.mean[best] >= by.smallest_effect
    ):
        return f"{raised}, but in column order these are the same two tokens, corners of the image: it can't be told from them."
    if found.verdict == UNDECIDED and p <= by.alpha and found.step.mean[best] >= by.smallest_effect:
        return (
            f"{raised}, but it is not known whether the image does that too: over columns {_test(found, 'over columns')}, over "
            f"the first frame {_test(found, 'over first frame')}. More prompts would tell."
        )
    return _none(found, best, columns, by, later_PS)


def _none(found: Proposal, best: int, columns: int, by: Sampling, later_PS: Floats) -> str:
    """No step, or one below the smallest effect, or downwards."""
    step, p = _interval(found.step, best), found.p_corrected[best]
    where = f"the largest step, at {_tokens(found.width)}, is {step} ln units, p = {p:.2g} corrected for {len(found.widths)} widths"
    if p <= by.alpha and found.step.mean[best] < 0:
        text = f"Head and tail are lower, not higher, than content makes them: {where}."
    elif p <= by.alpha:
        text = f"There is a step, but below the smallest that counts ({by.smallest_effect:g} ln units): {where}."
    else:
        text = f"No step stands out: {where}."
    own = fits(later_PS.shape[1] // columns, columns)
    at = np.flatnonzero(own.widths == columns)
    if not at.size:
        return (
            f"{text} In frames of so few rows a step of one row can't be told from content, so nothing is known of it."
        )
    row = _interval(found.step, int(at[0]))
    needed = float(inference.needed_n(later_PS @ own.step_WS[at[0]], effect=by.smallest_effect))
    enough = f"about {needed:.0f} prompts" if math.isfinite(needed) else "no number of prompts"
    return (
        f"{text} At one row ({_tokens(columns)}) it is {row}; {enough} would show a step of {by.smallest_effect:g} there four times "
        "in five, at one width and uncorrected."
    )


def _compared(found: Proposal, attrs: dict[str, object]) -> str:
    """Whether the recording's roles agree with a proposal."""
    if found.verdict != FOUND:
        return ""
    width = attrs["boundary_width"]
    if width == found.width:
        return f"The recording's roles have that width ({attrs['boundary_width_source']})."
    return (
        f"The recording's roles have a width of {width} ({attrs['boundary_width_source']}); "
        f"`workbench.roles.with_roles(recording, {found.width})` gives it this one."
    )


def _interval(interval: inference.Interval, at: int) -> str:
    mean, low, high = (float(part[at]) for part in interval)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _test(found: Proposal, name: str) -> str:
    at = TESTS.index(name)
    if not np.isfinite(found.tests.mean[at]):
        return "not known"
    return f"{_interval(found.tests, at)}, p = {found.tests_p[at]:.2g}"


def _tokens(width: int) -> str:
    return f"{width} token{'s' if width != 1 else ''}"
