"""What the hierarchy says: per contrast, of the model, and in words with the numbers they rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import hierarchy_rule as rule
from workbench.analysis import inference
from workbench.analysis.hierarchy_contrasts import (
    COLUMNS,
    CONTRASTS,
    DECIDING,
    FIRST_BOUNDARY,
    FIRST_INTERIOR,
    NO_DRIFT,
    ROWS,
    ROWS_COLUMNS,
    ROWS_FIRST,
    STEEP,
    STEEP_BOUNDARY,
    STEEP_FRAMES,
    STEEP_INTERIOR,
    STEEPEST,
)
from workbench.analysis.hierarchy_dynamics import EARLY, LATE, STEADY
from workbench.analysis.inference import Interval
from workbench.analysis.visits import TEXT, too_few

SAID = {
    FIRST_BOUNDARY: "first frame over boundary, at the same places",
    FIRST_INTERIOR: "first frame over interior, at the same places",
    ROWS: "boundary rows over the inside",
    ROWS_COLUMNS: "boundary rows over edge columns",
    COLUMNS: "edge columns over the inside",
    ROWS_FIRST: "boundary rows over the inside, beyond those of the first frame",
    NO_DRIFT: "first frame over interior, beyond a drift over the later frames",
    STEEP_BOUNDARY: "first frame over boundary, beyond a steep drift",
    STEEP_INTERIOR: "first frame over interior, beyond a steep drift",
}

THREE = {rule.ABOVE: "supported", rule.NOT_ABOVE: "not supported", rule.OPEN: "undecided"}


class Evidence:
    """Numbers of a result by variable and contrast, for the rule and its sentences."""

    def __init__(self, result: xr.Dataset) -> None:
        self.attrs, self.sizes = result.attrs, result.sizes
        self.margin, self.alpha = float(result.attrs["smallest_effect"]), float(result.attrs["alpha"])
        self._of = {
            str(name): dict(zip(CONTRASTS, array.values.tolist(), strict=True))
            for name, array in result.data_vars.items()
            if array.dims == ("contrast",)
        }

    def at(self, variable: str, contrast: str) -> float:
        """One number."""
        return float(self._of[variable][contrast])

    def dynamics(self, contrast: str) -> str:
        """How a contrast moves over the denoising, in words."""
        return str(self._of["dynamics"][contrast])

    def span(self, contrast: str, variable: str = "overall") -> str:
        """A mean with its interval."""
        mean, low, high = (self.at(variable + end, contrast) for end in ("", "_low", "_high"))
        return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{mean:.2f}"

    def exists(self, contrast: str) -> bool:
        """Whether there are the tokens, or frames, that it needs."""
        return bool(np.isfinite(self.at("overall", contrast)))

    def specific(self, contrast: str) -> str:
        """Whether a contrast exceeds that of ordinary channels; not of bounds, whose difference bounds nothing."""
        if contrast in STEEP:
            return "not asked"
        low, high = (self.at(f"specific_{end}", contrast) for end in ("low", "high"))
        return "yes" if low > self.margin else "no" if high < self.margin else "not known"

    def states(self, variable: str) -> dict[str, str]:
        """State of each deciding contrast, of the massive (`overall`) or the ordinary channels (`control`)."""
        low, high, p = (
            np.asarray([self.at(variable + end, name) for name in DECIDING])
            for end in ("_low", "_high", "_p_corrected")
        )
        if variable == "overall":  # NaN where frames are not shuffled
            p = np.fmax(p, [self.at("shuffle_p", name) for name in DECIDING])
        found = rule.state(low, high, p, margin=self.margin, alpha=self.alpha)
        states = dict(zip(DECIDING, map(str, found), strict=True))
        if not self.exists(NO_DRIFT):
            del states[NO_DRIFT]  # too few frames for a line; said in words
        return states


def judge(result: xr.Dataset) -> None:
    """Add the verdicts: of each contrast (variables) and of the model (attributes)."""
    evidence, attrs = Evidence(result), result.attrs
    states, confounded = evidence.states("overall"), bool(attrs["confound"])
    found = rule.CONFOUNDED if confounded else rule.levels(states)
    has_control = bool(result.sizes["control_channel"])
    attrs["specific"] = specific_answer(evidence, states, found) if has_control else "not asked"
    attrs["levels"], attrs["verdict"] = found, rule.verdict_of(found, attrs["specific"])
    attrs["control_levels"] = rule.levels(evidence.states("control")) if has_control else "not asked"
    specific = {name: evidence.specific(name) for name in CONTRASTS}
    verdicts = {
        name: "not judged" if name not in states else "undecided" if confounded else THREE[states[name]]
        for name in CONTRASTS
    }
    reasons = {name: _reason(evidence, name, states.get(name)) for name in CONTRASTS}
    words = {"contrast_verdict": verdicts, "contrast_reason": reasons, "contrast_specific": specific}
    attrs["verdict_reason"] = _sentence(result, evidence, states, reasons, found)
    result.update({key: ("contrast", np.asarray(list(of.values()), dtype=TEXT)) for key, of in words.items()})


def specific_answer(evidence: Evidence, states: dict[str, str], found: str) -> str:
    """Whether all that is claimed exceeds ordinary channels."""
    said = {evidence.specific(name) for name in rule.CLAIMED.get(found, ()) if name in states}
    if not said:
        return "not asked"
    return "no" if "no" in said else "yes" if said == {"yes"} else "not known"


def _reason(evidence: Evidence, name: str, state: str | None) -> str:
    """Why one contrast got its verdict."""
    attrs, margin = evidence.attrs, evidence.margin
    if not evidence.exists(name):
        few = f"it needs {STEEP_FRAMES} latent frames" if name in STEEP else ""
        return few or "it does not exist on this token grid with this boundary width"
    span = f"{evidence.span(name)} in ln units"
    if state is None:
        return f"{span}; beside the others, it decides nothing"
    if attrs["confound"]:
        return f"{span}, but {attrs['confound']}"
    if few := too_few(attrs):
        return f"{span}; {few}"
    p, shuffle = evidence.at("overall_p_corrected", name), evidence.at("shuffle_p", name)
    frames = f", p = {shuffle:.2g} by shuffled frames" if np.isfinite(shuffle) else ""
    if state == rule.ABOVE:
        return f"{span} lies above {margin:g}; p = {p:.2g}{frames}"
    if state == rule.NOT_ABOVE:
        return f"{span} lies below {margin:g}"
    if evidence.at("overall_low", name) > margin:
        return f"{span} lies above {margin:g}, but p = {p:.2g}{_smallest(attrs) if p > evidence.alpha else ''}{frames}"
    return f"{span} reaches across {margin:g}; {_needed(evidence, name)}"


def _smallest(attrs: dict[str, Any]) -> str:
    """Say so if no data could have given a smaller p: n prompts have 2**(n - 1) flips that differ."""
    n, what = int(attrs["n_replicates"]), str(attrs["replicate"])
    needed = 1 + int(np.ceil(np.log2(1.0 / float(attrs["alpha"]))))
    return f", the smallest that {n} {what}s allow; {needed} are needed" if n < needed else ""


def _needed(evidence: Evidence, name: str) -> str:
    """How many prompts would bring the nearer bound to the right side of the smallest effect, four times in five."""
    attrs, margin = evidence.attrs, evidence.margin
    mean, low, high = (evidence.at(f"overall{end}", name) for end in ("", "_low", "_high"))
    if mean < 0:  # `enough_for` asks about ±margin, this rule about +margin only: the same distance on the other side
        mean, low, high = 2 * margin - mean, 2 * margin - high, 2 * margin - low
    interval = Interval(np.asarray(mean), np.asarray(low), np.asarray(high))
    n, confidence = int(attrs["n_replicates"]), float(attrs["confidence"])
    needed = inference.enough_for(interval, margin=margin, n=n, confidence=confidence)
    if needed >= inference.MOST:
        return "it lies at the margin itself"
    return f"about {needed:.0f} {attrs['replicate']}s would decide it"


def _sentence(
    result: xr.Dataset, evidence: Evidence, states: dict[str, str], reasons: dict[str, str], found: str
) -> str:
    """The verdict's reason: what holds, by how much, and all that speaks for another explanation."""
    attrs, channels = evidence.attrs, [int(c) for c in result["channel"].values]
    named = ", ".join(map(str, channels[:6])) + (", …" if len(channels) > 6 else "")
    blocks, steps = int(result["counts"].any("channel").sum()), result.sizes["timestep"]
    of = f"channel{'s' * (len(channels) > 1)} {named} in {blocks} block{'s' * (blocks > 1)} and {steps} step{'s' * (steps > 1)}"
    shown = "; ".join(f"{SAID[name]} {evidence.span(name)}" for name in states if evidence.exists(name))
    parts = [f"In {attrs['replication']}: {rule.headline(found, attrs['specific'])}. Of {of}, ln units: {shown}."]
    if attrs["confound"]:
        parts.append(f"Confounded: {attrs['confound']}, so no difference between roles can be read as a hierarchy.")
    elif found != rule.UNDECIDED:
        parts += _cautions(evidence, states, found)
    elif few := too_few(attrs):
        parts.append(f"Too few: {few}.")
    else:
        why = [f"{SAID[name]}: {reasons[name]}" for name, state in states.items() if state == rule.OPEN]
        if rule.columns_disagree(states):
            why.append(
                "the edge columns are raised as much as the boundary's rows, or more, and the image alone may do that; the rows "
                "of the first frame do not say that it does"
            )
        if rule.may_drift(states):
            why.append(
                f"the first frame is raised by a step or by a steep drift (by up to {STEEPEST:g} times from frame to frame), not told "
                "apart" + ("" if evidence.exists(STEEP_INTERIOR) else ": there are too few latent frames")
            )
        parts.append(("Open: " + "; ".join(why) if why else "The contrasts agree with none of the patterns") + ".")
    parts += [*_channels(result, found), *_ordinary(evidence, states, found), *_over_time(evidence, states, found)]
    parts.append(f"Boundary width {attrs['boundary_width']} tokens ({attrs['boundary_width_source']}).")
    return " ".join(parts)


def _cautions(evidence: Evidence, states: dict[str, str], found: str) -> list[str]:
    """What the controls that do not decide have to say."""
    parts, claimed = [], rule.CLAIMED.get(found, ())
    if FIRST_INTERIOR in claimed:
        parts.append(f"A drift that falls off by more than {STEEPEST:g} times from frame to frame would look the same.")
    if FIRST_INTERIOR not in claimed and states[FIRST_INTERIOR] == rule.ABOVE:
        parts.append("The first frame is above the later ones by no more than a steady drift over the frames makes it.")
    if ROWS_COLUMNS in claimed:
        p = float(evidence.attrs["rotation_p"])
        doubt = (
            f" (at least {1 / evidence.sizes['rotation']:.2g} is possible): other places of the sequence are raised as much, "
            "so place or width of the boundary is in doubt"
        )
        parts.append(f"Frame boundaries rotated: p = {p:.2g}{doubt if p > evidence.alpha else ''}.")
    if found == rule.EDGES:
        parts.append(f"The control: {SAID[COLUMNS]} {evidence.span(COLUMNS)}.")
    for name, what in ((FIRST_INTERIOR, "The first frame is lower than later ones"), (ROWS, "The rows are lower")):
        if evidence.at("overall_high", name) < -evidence.margin:
            parts.append(f"{what}: {evidence.span(name)}.")
    return parts


def _channels(result: xr.Dataset, found: str) -> list[str]:
    """Channels of which something else is known than of their mean."""
    said = {int(c): str(w) for c, w in zip(result["channel"].values, result["channel_levels"].values, strict=True)}
    other = [f"{channel}: {words}" for channel, words in said.items() if words != found and words != rule.UNDECIDED]
    return [f"Channels on their own: {'; '.join(other)}."] if other and not result.attrs["confound"] else []


def _ordinary(evidence: Evidence, states: dict[str, str], found: str) -> list[str]:
    """What ordinary channels do, which have other statistics in the first latent frame as well."""
    n, answer = evidence.sizes["control_channel"], str(evidence.attrs["specific"])
    if not n:
        return ["Without ordinary channels it is not known whether this is of the massive ones alone."] * (
            found == rule.ALL
        )
    of = [SAID[name] for name in rule.CLAIMED.get(found, ()) if name in states and evidence.specific(name) == answer]
    tail = {
        "yes": "; the massive channels exceed them",
        "no": f"; what is found is not specific to massive activations: {', '.join(of)}",
        "not known": f"; whether the massive channels exceed them throughout is not known: {', '.join(of)}",
    }.get(answer, "")
    return [
        f"{n} ordinary channel{'s' * (n > 1)} in the same blocks: {evidence.attrs['control_levels']} (first over interior "
        f"{evidence.span(FIRST_INTERIOR, 'control')}, rows over columns {evidence.span(ROWS_COLUMNS, 'control')}){tail}."
    ]


def _over_time(evidence: Evidence, states: dict[str, str], found: str) -> list[str]:
    """How what holds moves with the steps; where nothing holds, what moves."""
    said: dict[str, list[str]] = {EARLY: [], LATE: [], STEADY: []}
    for name in (name for name in rule.CLAIMED.get(found, DECIDING) if name in states and name not in STEEP):
        words = evidence.dynamics(name)
        if words in said and not (words == STEADY and found not in rule.CLAIMED):
            number = "" if words == STEADY else f" (by {evidence.span(name, 'early_minus_late')})"
            said[words].append(SAID[name] + number)
    parts = [f"{words}: {', '.join(names)}" for words, names in said.items() if names]
    return ["Over the denoising " + "; ".join(parts) + "."] if parts else []
