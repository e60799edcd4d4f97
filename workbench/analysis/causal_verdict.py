"""What the causal analysis says: per channel, and of the model, in words with the numbers they rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.causal_rule import Evidence, words
from workbench.analysis.inference import Interval
from workbench.analysis.visits import TEXT, too_few

SHOWN = 3
"""Channels that the verdict's sentence gives numbers of; the rest are counted."""

SPECIFIC = {
    "yes": "The ratio to the median channel moves too",
    "no": "But this is not specific to massive activations: their ratio to the median channel stays",
    "not known": "Whether it is specific to massive activations is not known",
}


def channel_verdicts(result: xr.Dataset, evidence: Evidence) -> None:
    """Add `channel_verdict`, `channel_reason` and `channel_specific` to a result that has everything else.

    By `causal_rule.words`; a channel that is massive in no block of the experiment is described and stays undecided.
    """
    alpha, margin = float(result.attrs["alpha"]), float(result.attrs["smallest_effect"])
    p = result["p_corrected_overall"].sel(factor="embedding").values
    verdicts = words(evidence, p, margin=margin, alpha=alpha)
    massive = _massive(result)
    verdicts = np.where(massive, verdicts, "undecided")
    reasons = [
        _reason(result, evidence, c, str(verdicts[c])) if massive[c] else _not_massive(result, evidence, c)
        for c in range(len(verdicts))
    ]
    specific = np.full(len(verdicts), "not known")
    if "specific_effect_worst_high" in result:
        beyond = result["specific_effect_overall_low_corrected"].values > margin
        inside = result["specific_effect_worst_high"].values < margin
        specific = np.where(beyond, "yes", np.where(inside, "no", "not known"))
    for name, values in (("channel_verdict", verdicts), ("channel_reason", reasons), ("channel_specific", specific)):
        result[name] = ("channel", np.asarray(values, dtype=TEXT))


def overall_verdict(result: xr.Dataset) -> tuple[str, str]:
    """Verdict on "the timestep embedding modulates the massive activations", and why; adds the attribute `specific`."""
    massive = _massive(result)
    verdicts = np.asarray([str(v) for v in result["channel_verdict"].values])
    counting = verdicts[massive]
    result.attrs["specific"] = "not asked"
    if not massive.any():
        verdict, head = "undecided", _nothing(result)
    elif (counting == "supported").any():
        verdict, head = "supported", "with the latent held, the timestep embedding moves the massive activations"
    elif (counting == "not supported").all():
        margin = float(result.attrs["smallest_effect"])
        verdict = "not supported"
        head = f"with any latent held, the timestep embedding moves the massive activations by less than {margin:g} in any block"
    else:
        verdict, head = "undecided", "whether the timestep embedding moves the massive activations is not known"
    place = {"supported": 0, "undecided": 1, "not supported": 2} if verdict == "supported" else {"undecided": 0}
    order = sorted(range(len(verdicts)), key=lambda c: (not massive[c], place.get(str(verdicts[c]), 3)))
    shown = [
        _clause(result, c, verdict) + (", not massive" if massive.any() and not massive[c] else "")
        for c in order[:SHOWN]
    ]
    more = f"; and {len(order) - SHOWN} more" if len(order) > SHOWN else ""
    text = f"In {result.attrs['replication']}, {head} (largest difference, ln units): " + "; ".join(shown) + more + "."
    parts = [text, *_notes(result, verdict, verdicts, massive)]
    if dropped := result.attrs["prompts_left_out"]:
        many = "prompts" if len(dropped) > 1 else "prompt"
        parts.append(f"Left out: {len(dropped)} {many} without a complete, finite sample for every seed.")
    return verdict, " ".join(parts)


def _massive(result: xr.Dataset) -> np.ndarray:
    blocks = result["layer"].values != "input"
    return np.asarray(result["massive"].transpose("layer", "channel").values[blocks].any(axis=0), dtype=bool)


def _nothing(result: xr.Dataset) -> str:
    if int(result.attrs["channels_massive"]) < 0:
        return (
            "whether these channels are massive is not known, since not all channels were recorded; they are described"
        )
    if result.attrs["criterion"].startswith("none"):
        return "no channel is massive, so there is nothing to be modulated; the largest are described"
    return "none of these channels is massive here, so there is nothing to be modulated; they are described"


def _not_massive(result: xr.Dataset, evidence: Evidence, c: int) -> str:
    known = "not known to be massive" if int(result.attrs["channels_massive"]) < 0 else "not massive here"
    return f"{known}: described only; {_span(evidence.effect, c)}"


def _span(interval: Interval, c: int) -> str:
    mean, low, high = (float(part[c]) for part in interval)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{mean:.2f}"


def _clause(result: xr.Dataset, c: int, verdict: str) -> str:
    """One channel in the verdict's sentence: its effect, or how large it is at most where it is small everywhere."""
    at = result.isel(channel=c)
    name, own = f"channel {int(at['channel'])}", str(at["channel_verdict"].values)
    if own == "not supported":
        return f"{name}: at most {float(at['effect_worst_high']):.2f}"
    interval = Interval(
        *(at[f"effect_overall{end}"].sel(factor="embedding").values[None] for end in ("", "_low", "_high"))
    )
    open_too = verdict == "supported" and own == "undecided" and _massive(result)[c]
    return f"{name}: {_span(interval, 0)}" + (", undecided" if open_too else "")


def _notes(result: xr.Dataset, verdict: str, verdicts: np.ndarray, massive: np.ndarray) -> list[str]:
    """What else is said once, of all channels: direction and specificity, or why it is undecided."""
    if verdict == "supported":
        called = np.flatnonzero(massive & (verdicts == "supported"))
        specific = [str(result["channel_specific"].values[c]) for c in called]
        kind = "yes" if "yes" in specific else "no" if set(specific) == {"no"} else "not known"
        result.attrs["specific"] = kind
        return [*_direction(result, called), SPECIFIC[kind] + "."]
    if verdict == "undecided" and massive.any():
        first = int(np.flatnonzero(massive & (verdicts == "undecided"))[0])
        return [f"Channel {int(result['channel'].values[first])}: {result['channel_reason'].values[first]}."]
    return []


def _direction(result: xr.Dataset, called: np.ndarray) -> list[str]:
    margin = float(result.attrs["smallest_effect"])
    low, high = (result[f"trend_overall_{e}"].sel(factor="embedding").values[called] for e in ("low", "high"))
    up, down, n = int((low > margin).sum()), int((high < -margin).sum()), len(called)
    if up == n or down == n:
        words = "growing with the noise it stands for" if up else "growing as it falls"
        return [("They are " if n > 1 else "It is ") + words + "."]
    counted = [
        f"{k} {words}"
        for k, words in ((up, "growing with the noise it stands for"), (down, "growing as it falls"))
        if k
    ]
    return [", ".join(counted) + "."] if counted else []


def _reason(result: xr.Dataset, evidence: Evidence, c: int, verdict: str) -> str:
    """Why one massive channel got its verdict, with every number the rule looked at."""
    attrs = result.attrs
    alpha, margin, n, what = (
        float(attrs["alpha"]),
        float(attrs["smallest_effect"]),
        int(attrs["n_replicates"]),
        str(attrs["replicate"]),
    )
    if few := too_few(attrs):
        return few
    p = float(result["p_corrected_overall"].sel(factor="embedding").values[c])
    low, family = float(evidence.low_corrected[c]), int(attrs["channels_massive"])
    span, at = _span(evidence.effect, c), evidence.at_worst
    bound = f"lower bound {low:.2f} over {family} channels" if family > 1 else f"lower bound {low:.2f}"
    if verdict == "supported":
        return f"{span} in ln units, {bound}, lies beyond {margin:g}; p = {p:.2g} by permutation"
    sigma, layer = float(result["effect_worst_latent_sigma"].values[c]), str(result["effect_worst_layer"].values[c])
    place = f"{_span(at, c)} with the latent at σ = {sigma:.2f} after {layer}"
    if verdict == "not supported":
        return f"{span} in ln units; with every latent held and in every block below {margin:g}, at most {place}"
    if low > margin:
        return f"{span} in ln units, {bound}, lies beyond {margin:g}, but by permutation p = {p:.2g}{_smallest(n, what, alpha)}"
    if float(evidence.effect.high[c]) < margin:
        inside = f"the main effect, {span} in ln units, lies within {margin:g}"
        if float(evidence.worst_low_corrected[c]) > margin:
            return f"{inside}, but it depends on latent or block: {place}"
        return f"{inside}, but that it does for every latent and block is not shown: {place}; {_needed(at, c, result)}"
    return f"{span} in ln units, {bound}, reaches across {margin:g}; {_needed(evidence.effect, c, result)}"


def _needed(interval: Interval, c: int, result: xr.Dataset) -> str:
    attrs: dict[str, Any] = result.attrs
    margin, n, what = float(attrs["smallest_effect"]), int(attrs["n_replicates"]), str(attrs["replicate"])
    one = Interval(*(np.asarray(float(part[c])) for part in interval))
    needed = inference.enough_for(one, margin=margin, n=n, confidence=float(attrs["confidence"]))
    return f"about {needed:.0f} {what}s would decide it" if needed < inference.MOST else "it lies at the margin itself"


def _smallest(n: int, what: str, alpha: float) -> str:
    """Say so if no data could have given a smaller p: n replicates have 2**(n - 1) flips that differ."""
    needed = 1 + int(np.ceil(np.log2(1.0 / alpha)))
    return f", the smallest that {n} {what}s allow; {needed} are needed" if n < needed else ""
