"""What the hierarchy says: per contrast, of the model, and in words with the numbers they rest on."""

from __future__ import annotations

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
}

THREE = {rule.ABOVE: "supported", rule.NOT_ABOVE: "not supported", rule.OPEN: "undecided"}


def judge(result: xr.Dataset) -> None:
    """Add the verdicts: of each contrast (variables) and of the model (attributes)."""
    states = _states(result, "overall", shuffle=True)
    found = rule.levels(states)
    if result.attrs["confound"]:
        found = rule.CONFOUNDED
    result.attrs["levels"] = found
    result.attrs["verdict"] = rule.verdict_of(found)
    has_control = bool(result.sizes["control_channel"])
    result.attrs["control_levels"] = rule.levels(_states(result, "control")) if has_control else "not asked"
    margin, names = float(result.attrs["smallest_effect"]), list(CONTRASTS)
    low, high = (result[f"specific_{end}"].values for end in ("low", "high"))
    specific = np.where(low > margin, "yes", np.where(high < margin, "no", "not known"))
    confounded = bool(result.attrs["confound"])
    verdicts = [
        "not judged" if name not in states else "undecided" if confounded else THREE[states[name]] for name in names
    ]
    reasons = [_reason(result, name, states.get(name)) for name in names]
    for key, values in (
        ("contrast_verdict", verdicts),
        ("contrast_reason", reasons),
        ("contrast_specific", specific.tolist()),
    ):
        result[key] = ("contrast", np.asarray(values, dtype=TEXT))
    result.attrs["specific"] = _specific(result, found) if has_control else "not asked"
    result.attrs["verdict_reason"] = _sentence(result, states, found)


def _states(result: xr.Dataset, name: str, *, shuffle: bool = False) -> dict[str, str]:
    """State of each deciding contrast of the massive (`overall`) or the ordinary channels (`control`)."""
    at = result.sel(contrast=list(DECIDING))
    p = at[f"{name}_p_corrected"].values
    if shuffle:
        p = np.fmax(p, at["shuffle_p"].values)  # NaN where frames are not shuffled
    margin, alpha = float(result.attrs["smallest_effect"]), float(result.attrs["alpha"])
    found = rule.state(at[f"{name}_low"].values, at[f"{name}_high"].values, p, margin=margin, alpha=alpha)
    states = dict(zip(DECIDING, map(str, found), strict=True))
    if not np.isfinite(float(result["overall"].sel(contrast=NO_DRIFT))):
        del states[NO_DRIFT]  # too few frames for a line; said in words
    return states


def _specific(result: xr.Dataset, found: str) -> str:
    """Whether all that is claimed is so beyond ordinary channels."""
    claimed = rule.CLAIMED.get(found, ())
    if not claimed:
        return "not asked"
    said = [str(result["contrast_specific"].sel(contrast=name).values) for name in claimed]
    return "no" if "no" in said else "yes" if set(said) == {"yes"} else "not known"


def _span(result: xr.Dataset, name: str, variable: str = "overall") -> str:
    mean, low, high = (float(result[variable + end].sel(contrast=name)) for end in ("", "_low", "_high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{mean:.2f}"


def _reason(result: xr.Dataset, name: str, state: str | None) -> str:
    """Why one contrast got its verdict."""
    attrs, at = result.attrs, result.sel(contrast=name)
    if not np.isfinite(float(at["overall"])):
        return "it does not exist on this token grid with this boundary width"
    span = f"{_span(result, name)} in ln units"
    if state is None:
        return f"{span}; beside the others, it decides nothing"
    if few := too_few(attrs):
        return f"{span}; {few}"
    margin, alpha, p = float(attrs["smallest_effect"]), float(attrs["alpha"]), float(at["overall_p_corrected"])
    if attrs["confound"]:
        return f"{span}, but {attrs['confound']}"
    if state == rule.ABOVE:
        shuffle = float(at["shuffle_p"])
        frames = f", p = {shuffle:.2g} by shuffled frames" if np.isfinite(shuffle) else ""
        return f"{span} lies above {margin:g}; p = {p:.2g}{frames}"
    if state == rule.NOT_ABOVE:
        return f"{span} lies below {margin:g}"
    if float(at["overall_low"]) > margin:
        shuffle = np.nan_to_num(float(at["shuffle_p"]))
        which = f"p = {p:.2g}" if p > alpha else f"with frames shuffled p = {shuffle:.2g}"
        return f"{span} lies above {margin:g}, but {which}{_smallest(result)}"
    return f"{span} reaches across {margin:g}; {_needed(result, name)}"


def _smallest(result: xr.Dataset) -> str:
    """Say so if no data could have given a smaller p: n prompts have 2**(n - 1) flips that differ."""
    n, what = int(result.attrs["n_replicates"]), str(result.attrs["replicate"])
    needed = 1 + int(np.ceil(np.log2(1.0 / float(result.attrs["alpha"]))))
    return f", the smallest that {n} {what}s allow; {needed} are needed" if n < needed else ""


def _needed(result: xr.Dataset, name: str) -> str:
    """How many prompts would bring the nearer bound to the right side of the smallest effect, four times in five."""
    attrs, at = result.attrs, result.sel(contrast=name)
    margin, n = float(attrs["smallest_effect"]), int(attrs["n_replicates"])
    mean, low, high = (float(at[f"overall{end}"]) for end in ("", "_low", "_high"))
    if mean < 0:  # `enough_for` asks about ±margin, this rule about +margin only: the same distance on the other side
        mean, low, high = 2 * margin - mean, 2 * margin - high, 2 * margin - low
    interval = Interval(np.asarray(mean), np.asarray(low), np.asarray(high))
    needed = inference.enough_for(interval, margin=margin, n=n, confidence=float(attrs["confidence"]))
    if needed >= inference.MOST:
        return "it lies at the margin itself"
    return f"about {needed:.0f} {attrs['replicate']}s would decide it"


def _sentence(result: xr.Dataset, states: dict[str, str], found: str) -> str:
    """The verdict's reason: what holds, by how much, and all that speaks for another explanation."""
    attrs = result.attrs
    channels = [int(c) for c in result["channel"].values]
    named = ", ".join(map(str, channels[:6])) + (", …" if len(channels) > 6 else "")
    blocks = int(result["counts"].any("channel").sum())
    steps = result.sizes["timestep"]
    head = f"In {attrs['replication']}: {found}. Of channel{'s' if len(channels) > 1 else ''} {named} in {blocks} block{'s' if blocks > 1 else ''} and {steps} step{'s' if steps > 1 else ''}, ln units"
    shown = "; ".join(f"{SAID[name]} {_span(result, name)}" for name in DECIDING)
    parts = [f"{head}: {shown}."]
    if attrs["confound"]:
        parts.append(
            f"Confounded: {attrs['confound']}, so that no difference between roles can be read as a hierarchy."
        )
    elif found == rule.UNDECIDED:
        if few := too_few(attrs):
            parts.append(f"Too few: {few}.")
        else:
            still = [name for name, found_state in states.items() if found_state == rule.OPEN]
            why = [f"{SAID[name]}: {result['contrast_reason'].sel(contrast=name).values}" for name in still]
            parts.append(("Open: " + "; ".join(why) if why else "The contrasts agree with none of the patterns") + ".")
    else:
        parts += _cautions(result, states, found)
    parts += [*_ordinary(result, found), *_over_time(result, found)]
    parts.append(f"Boundary width {attrs['boundary_width']} tokens ({attrs['boundary_width_source']}).")
    return " ".join(parts)


def _cautions(result: xr.Dataset, states: dict[str, str], found: str) -> list[str]:
    """What the controls that do not decide have to say."""
    parts, claimed = [], rule.CLAIMED.get(found, ())
    alpha, margin = float(result.attrs["alpha"]), float(result.attrs["smallest_effect"])
    if FIRST_INTERIOR in claimed and not np.isfinite(float(result["overall"].sel(contrast=NO_DRIFT))):
        parts.append(
            "There are too few latent frames to tell a first frame that is raised from a drift over the frames."
        )
    if FIRST_INTERIOR not in claimed and states[FIRST_INTERIOR] == rule.ABOVE:
        parts.append("The first frame is above the later ones by no more than a steady drift over the frames makes it.")
    if ROWS_COLUMNS in claimed:
        p = float(result["rotation_p_overall"])
        parts.append(f"Frame boundaries rotated: p = {p:.2g}.")
        if p > alpha:
            parts.append(
                f"(At least {1 / result.sizes['rotation']:.2g} is possible.) Other places of the sequence are raised as much, "
                "so place or width of the boundary is in doubt."
            )
    if found == rule.EDGES:
        parts.append(f"The control: {SAID[COLUMNS]} {_span(result, COLUMNS)}.")
    for name, what in ((FIRST_INTERIOR, "The first frame is lower than later ones"), (ROWS, "The rows are lower")):
        if float(result["overall_high"].sel(contrast=name)) < -margin:
            parts.append(f"{what}: {_span(result, name)}.")
    return parts


def _ordinary(result: xr.Dataset, found: str) -> list[str]:
    """What ordinary channels do, which have other statistics in the first latent frame as well."""
    n = result.sizes["control_channel"]
    if not n:
        return []
    of = f"{n} ordinary channel{'s' if n > 1 else ''} in the same blocks: {result.attrs['control_levels']}"
    numbers = f"first over interior {_span(result, FIRST_INTERIOR, 'control')}, rows over columns {_span(result, ROWS_COLUMNS, 'control')}"
    tail = {
        "yes": "the massive channels exceed them",
        "no": "what is found is not specific to massive activations",
        "not known": "whether the massive channels exceed them throughout is not known",
    }.get(str(result.attrs["specific"]), "")
    return [f"{of} ({numbers})" + (f"; {tail}." if tail else ".")]


def _over_time(result: xr.Dataset, found: str) -> list[str]:
    """How what holds moves with the steps; where nothing holds, what moves."""
    said: dict[str, list[str]] = {EARLY: [], LATE: [], STEADY: []}
    for name in rule.CLAIMED.get(found, DECIDING):
        words = str(result["dynamics"].sel(contrast=name).values)
        if words in said and not (words == STEADY and found not in rule.CLAIMED):
            number = "" if words == STEADY else f" (by {_span(result, name, 'early_minus_late')})"
            said[words].append(SAID[name] + number)
    parts = [f"{words}: {', '.join(names)}" for words, names in said.items() if names]
    return ["Over the denoising " + "; ".join(parts) + "."] if parts else []
