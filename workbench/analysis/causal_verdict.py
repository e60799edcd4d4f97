"""What the causal analysis says: per channel, and of the model, in words with the numbers they rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.inference import Interval
from workbench.analysis.visits import TEXT, counted


def interval_of(result: xr.Dataset, name: str, **at: Any) -> Interval:
    """A variable with its bounds at one place."""
    return Interval(*(np.asarray(float(result[name + end].sel(at))) for end in ("", "_low", "_high")))


def channel_verdicts(result: xr.Dataset) -> None:
    """Add `channel_verdict` and `channel_reason` to a result that has everything else.

    ``supported``: the largest difference between two embeddings lies beyond the margin with its whole interval, and the
    permutation test rejects that prompts have no profile in common, family-wise over channels. ``not supported``: the whole
    interval lies inside the margin. ``undecided``: anything else.
    """
    alpha, margin = float(result.attrs["alpha"]), float(result.attrs["smallest_effect"])
    verdicts, reasons = [], []
    for channel in result["channel"].values:
        at = {"factor": "embedding", "channel": channel}
        decision = inference.decide(
            interval_of(result, "effect_overall", **at),
            margin=margin,
            n=int(result.attrs["n_replicates"]),
            replicate=str(result.attrs["replicate"]),
            confidence=float(result.attrs["confidence"]),
            unit=" in ln units",
        )
        p = float(result["p_corrected_overall"].sel(at))
        verdict, reason = decision.verdict, decision.reason
        if verdict == "supported" and not p <= alpha:
            verdict, reason = (
                "undecided",
                f"{reason}, but by permutation p = {p:.2g}{_smallest(result, alpha)}",
            )
        elif verdict == "supported":
            reason = f"{reason}, p = {p:.2g} by permutation"
        verdicts.append(verdict)
        reasons.append(reason)
    for name, values in (("channel_verdict", verdicts), ("channel_reason", reasons)):
        result[name] = ("channel", np.asarray(values, dtype=TEXT))


def _smallest(result: xr.Dataset, alpha: float) -> str:
    """Say so if no data could have given a smaller p: n replicates have 2**(n - 1) flips that differ."""
    n, what = int(result.attrs["n_replicates"]), result.attrs["replicate"]
    needed = 1 + int(np.ceil(np.log2(1.0 / alpha)))
    return f", the smallest that {n} {what}s allow; {needed} are needed" if n < needed else ""


def overall_verdict(result: xr.Dataset) -> tuple[str, str]:
    """Verdict on "the timestep embedding modulates the massive activations", and why."""
    verdicts = [str(v) for v in result["channel_verdict"].values]
    listed = [
        f"channel {int(channel)}: largest difference between two embeddings {result['channel_reason'].values[i]}"
        f"{_direction(result, int(channel))}"
        for i, channel in enumerate(result["channel"].values)
    ]
    if any(v == "supported" for v in verdicts):
        listed = [
            line for _, line in sorted(zip(verdicts, listed, strict=True), key=lambda pair: pair[0] != "supported")
        ]
        verdict, head = "supported", "with the latent held, the timestep embedding moves the massive activations"
    elif all(v == "not supported" for v in verdicts):
        verdict, head = (
            "not supported",
            "with the latent held, the timestep embedding does not move the massive activations",
        )
    else:
        verdict, head = "undecided", "whether the timestep embedding moves the massive activations is not known"
    if result.attrs["criterion"].startswith("none") and verdict != "undecided":
        verdict, head = (
            "undecided",
            "no channel is massive, so there is nothing to be modulated; the largest are described",
        )
    text = f"In {counted(result.attrs)}, {head}. " + "; ".join(listed[:4]) + ("; …" if len(listed) > 4 else "")
    dropped = result.attrs["prompts_left_out"]
    many = "prompts" if len(dropped) > 1 else "prompt"
    missing = f" Left out: {len(dropped)} {many} without a complete, finite sample for every seed." if dropped else ""
    return verdict, f"{text}. {_latent(result)}{_control(result)}{missing}".strip()


def _direction(result: xr.Dataset, channel: int) -> str:
    if str(result["channel_verdict"].sel(channel=channel).values) != "supported":
        return ""
    low, high = (float(result[f"trend_overall_{e}"].sel(factor="embedding", channel=channel)) for e in ("low", "high"))
    margin = float(result.attrs["smallest_effect"])
    return (
        ", growing with the noise it stands for" if low > margin else ", growing as it falls" if high < -margin else ""
    )


def _latent(result: xr.Dataset) -> str:
    """How the variance splits, with its size: a share of next to nothing is next to nothing."""
    share = result["share_overall"]
    size = (result["deviation_overall"] ** 2).sum("factor") ** 0.5
    by = "; ".join(
        f"channel {int(c)} {float(share.sel(factor='embedding', channel=c)):.0%} and "
        f"{float(share.sel(factor='latent', channel=c)):.0%} of a standard deviation of {float(size.sel(channel=c)):.2g}"
        for c in result["channel"].values[:4]
        if np.isfinite(share.sel(factor="embedding", channel=c))
    )
    return f"Of the variance over cells, embedding and latent carry: {by}." if by else ""


def _control(result: xr.Dataset) -> str:
    if "control_effect" not in result:
        return ""
    blocks = np.flatnonzero(result["layer"].values != "input")
    control = result["control_effect"].sel(factor="embedding").isel(layer=blocks)
    own = result["effect"].sel(factor="embedding").isel(layer=blocks)
    return (
        f" For comparison, in the mean over blocks the embedding moves the median channel by {float(control.mean()):.2f} and "
        f"these channels by {float(own.mean()):.2f} in ln units."
    )
