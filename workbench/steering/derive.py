"""From a recording to a Detail Guidance spec: which channels, at which block, how strongly, and on what evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from workbench.analysis.locate import locate, located_channels
from workbench.errors import SpecError
from workbench.steering.parts import Window
from workbench.steering.spec import MAX_CHANNELS, DetailGuidanceSpec

DEFAULT_WEIGHT = 1.0
"""w where none is given. Paper A's values are not established. On mini-image 1 and 4 keep the content, neither
adds detail (docs/spec.md), so this is the mildest of those measured."""

DEFAULT_WINDOW = Window(unit="sigma", low=0.0, high=1.0)
"""All steps. No window is reported for paper A (inferred: it acts at every step)."""

RULE = (
    "Block m: of the blocks in whose entering state (the output of the layer before) the strongest located channel is "
    "massive, the one nearest to half the model's depth (as many blocks before it as after), the earlier of two. Channels: "
    "all that the criterion finds massive in the model and in that state. Strongest: largest ratio to the median "
    "channel, averaged over the recorded blocks; if it enters no block as massive, the next. Half depth follows paper "
    "A's follow-up, which takes a middle layer; its index is not established."
)
RULE_VERSION = 2

Auto = Literal["auto"]


class _Candidate(NamedTuple):
    path: str
    block: int
    entering: int | None
    """Index of the recorded layer before it; None if that was not recorded."""


def derive_dg(
    recording: xr.Dataset,
    *,
    criterion: str = "workbench",
    layer: str = "auto",
    channels: Sequence[int] | Auto = "auto",
    weight: float | Auto = "auto",
    window: Window | Mapping[str, Any] | Auto = "auto",
    **parameters: Any,
) -> DetailGuidanceSpec:
    """Derive a Detail Guidance spec (paper A) from a recording.

    Every choice that is left at ``"auto"`` follows `RULE` and the defaults of this module; the spec's evidence says of
    each whether it was measured, a default, or given.

    Parameters
    ----------
    recording : xr.Dataset
        As in `docs/schema.md`, from `workbench.open`. Statistics suffice; the branch ``cond`` is used.
    criterion : str
        Criterion of `workbench.analysis.locate`.
    layer : str
        Full module path of block m.
    channels : sequence of int
        Channels to set to zero.
    weight : float
        w.
    window : Window or mapping
        ``{"unit": "sigma" | "step_fraction", "low": …, "high": …}``.
    **parameters
        Parameters of the criterion.

    Returns
    -------
    DetailGuidanceSpec
        Ready for `save_spec` and `workbench.apply`. The same recording gives the same spec, bit for bit.

    Raises
    ------
    SpecError
        If no channel is massive (then there is nothing to derive), a layer or channel does not exist, the recording
        does not say which model it is of, or `layer` is left at ``"auto"`` and it holds too few of the model's blocks.
    AnalysisError
        If the recording can't be analysed.
    """
    model = _model(recording)
    found = locate(recording, criterion=criterion, branch="cond", **parameters)
    located = located_channels(found)
    candidates = _candidates(found)
    massive_LC = found["massive"].sel(criterion=criterion).values
    depth = _depth(recording)
    if layer == "auto":
        chosen = _middle(candidates, depth, massive_LC, located, found)
    else:
        chosen = _given_layer(layer, candidates)
    picked = _given_channels(channels, found) if channels != "auto" else _pick(chosen, massive_LC, located, found)
    settings = recording.attrs.get("settings", {})
    # An analysis that decided nothing (a ranking, too few samples, some of the blocks) measured no massive channel.
    decided = str(found.attrs["verdict"]) == "supported"
    analysed = "measured" if decided else "undecided"
    return DetailGuidanceSpec.create(
        model=model,
        layer=chosen.path,
        channels=picked,
        action="zero",
        retention=None,
        branch="cond",
        weight=float(DEFAULT_WEIGHT if weight == "auto" else weight),
        window=DEFAULT_WINDOW if window == "auto" else window,
        recommended={"guidance_scale": settings.get("guidance_scale"), "steps": settings.get("steps")},
        evidence={
            "criterion": criterion,
            "parameters": {
                "criterion_version": found.attrs["criterion_version"],
                "criterion": json.loads(found.attrs["parameters"]),
                "rule_version": RULE_VERSION,
            },
            "store": _store(recording),
            "n_samples": int(found.attrs["n_samples"]),
            "channels": [_numbers(found, criterion, chosen, channel) for channel in picked],
            "rule": RULE,
            "provenance": {
                "formula": "established",
                "action": "established",
                # Which tokens is inferred from the paper's wording, so it counts as the workbench's choice.
                "tokens": "default",
                "layer": analysed if layer == "auto" else "given",
                "channels": analysed if channels == "auto" else "given",
                "weight": "default" if weight == "auto" else "given",
                "window": "default" if window == "auto" else "given",
            },
            "notes": {
                "located_channels": located,
                "verdict": str(found.attrs["verdict"]),
                "verdict_reason": str(found.attrs["verdict_reason"]),
                "replicates": str(found.attrs["replication"]),
                "blocks_recorded": len(candidates),
                "blocks_in_model": depth,
                **({} if decided or "auto" not in (layer, channels) else {"warning": _warning(found)}),
            },
        },
        created_by=_versions(),
    )


def _model(recording: xr.Dataset) -> dict[str, Any]:
    model, layout = recording.attrs.get("model"), recording.attrs.get("layout")
    if not isinstance(model, Mapping) or not isinstance(layout, Mapping):
        raise SpecError(
            "the recording does not say which model it is of (attributes `model` and `layout`), so a spec could not be "
            "checked against one. Open it with `workbench.open(path)`, or record it again."
        )
    keys = ("transformer_class", "config_hash", "weight_hash", "repo", "revision")
    return {"family": layout.get("family"), **{key: model.get(key) for key in keys}}


def _candidates(found: xr.Dataset) -> list[_Candidate]:
    """Blocks that were recorded, each with the index of the recorded layer that is the state entering it."""
    names = [str(name) for name in found["layer"].values]
    blocks = [int(block) for block in found["block"].values]
    at = {block: i for i, block in enumerate(blocks)}
    return [_Candidate(name, block, at.get(block - 1)) for name, block in zip(names, blocks, strict=True) if block >= 0]


def _depth(recording: xr.Dataset) -> int | None:
    """Number of blocks of the model, which may be more than were recorded; None if the recording does not say it."""
    blocks = recording.attrs["layout"].get("blocks")
    return None if blocks is None else int(blocks)


def _middle(
    candidates: list[_Candidate], depth: int | None, massive_LC: np.ndarray, located: list[int], found: xr.Dataset
) -> _Candidate:
    _refuse_nothing(located, found)
    if depth is None:
        raise SpecError(
            "the recording does not say how many blocks the model has (attribute `layout`, `blocks`), so half its depth "
            "is not known. Name `layer`, or record the model again."
        )

    def distance(block: int) -> tuple[float, int]:
        return abs(block - depth / 2), block

    known = {candidate.block for candidate in candidates if candidate.entering is not None}
    # Not the block with the most massive channels: weaker ones join late, which would pull m to the last block, where
    # hardly anything is left that could respond to the mask.
    for strongest in _index(found, located):
        usable = [c for c in candidates if c.entering is not None and massive_LC[c.entering, strongest]]
        best = min(usable, key=lambda c: distance(c.block), default=None)
        nearer = [b for b in range(depth) if b not in known and (best is None or distance(b) < distance(best.block))]
        if nearer:
            raise SpecError(
                f"the rule may choose block {min(nearer, key=distance)} of the model's {depth}, and the recording has "
                "not both that block and the layer before it, so it can't be told. Record all layers, or name `layer`."
            )
        if best is not None:
            return best
    raise SpecError(
        f"a spec was not derived: channels {located} are massive, but not in the state that enters any block. "
        "Name `layer` and `channels` yourself."
    )


def _pick(chosen: _Candidate, massive_LC: np.ndarray, located: list[int], found: xr.Dataset) -> list[int]:
    _refuse_nothing(located, found)
    if chosen.entering is None:
        raise SpecError(
            f"the state that enters {chosen.path} was not recorded, so its massive channels are not known. Record the "
            "layer before it, or name `channels`."
        )
    here = massive_LC[chosen.entering, _index(found, located)]
    picked = [channel for channel, massive in zip(located, here, strict=True) if massive]
    if not picked:
        raise SpecError(
            f"a spec was not derived: of the massive channels {located}, none is massive in the state that enters "
            f"{chosen.path}. Leave `layer` at 'auto', or name `channels`."
        )
    return sorted(picked[:MAX_CHANNELS])


def _refuse_nothing(located: list[int], found: xr.Dataset) -> None:
    if not located:
        raise SpecError(
            f"a spec was not derived: the criterion {found.attrs['criterion']!r} finds no massive activation in "
            f"{found.attrs['n_samples']} samples ({found.attrs['verdict_reason']}). Detail Guidance has nothing to act "
            "on; look at `workbench locate`, choose another criterion, or name `layer` and `channels` yourself."
        )


def _warning(found: xr.Dataset) -> str:
    return f"The analysis decided nothing; what is left at 'auto' is its best guess. {found.attrs['verdict_reason']}"


def _given_layer(layer: str, candidates: list[_Candidate]) -> _Candidate:
    for candidate in candidates:
        if candidate.path == layer:
            return candidate
    raise SpecError(
        f"the recording has no block {layer!r}; it has {candidates[0].path} … {candidates[-1].path} "
        f"({len(candidates)} blocks)."
    )


def _given_channels(channels: Sequence[int], found: xr.Dataset) -> list[int]:
    known = {int(channel) for channel in found["channel"].values}
    picked = sorted({int(channel) for channel in channels})
    outside = [channel for channel in picked if channel not in known]
    if outside or not picked:
        raise SpecError(
            f"channels {outside or list(channels)} can't be used; the recording has channels {min(known)} to "
            f"{max(known)}, and a spec needs at least one."
        )
    return picked


def _index(found: xr.Dataset, channels: list[int]) -> list[int]:
    position = {int(channel): i for i, channel in enumerate(found["channel"].values)}
    return [position[channel] for channel in channels]


def _numbers(found: xr.Dataset, criterion: str, chosen: _Candidate, channel: int) -> dict[str, Any]:
    """Numbers of one channel in the state that enters block m; six digits are more than the samples carry."""
    here = found.isel(channel=_index(found, [channel])[0])
    numbers: dict[str, Any] = {
        "channel": channel,
        "massive_in_model": bool(here["massive_channel"].sel(criterion=criterion)),
        "layer_recurrence": _round(here["layer_recurrence"].sel(criterion=criterion)),
    }
    if chosen.entering is None:
        return numbers
    at = here.isel(layer=chosen.entering)
    names = ("magnitude", "ratio_to_median", "ratio_to_median_low", "ratio_to_median_high", "dominance")
    return numbers | {
        "layer": str(at["layer"].values),
        "massive_here": bool(at["massive"].sel(criterion=criterion)),
        "sign": int(at["sign"]),
        **{name: _round(at[name]) for name in names},
    }


def _round(value: Any) -> float | None:
    number = float(value)
    return float(f"{number:.6g}") if np.isfinite(number) else None


def _store(recording: xr.Dataset) -> dict[str, Any]:
    """What identifies the recording; its folder's name, but not where that lies on this machine."""
    attrs = recording.attrs
    named = {"name": Path(str(attrs["path"])).name} if "path" in attrs else {}
    keys = ("schema_version", "settings_fingerprint", "tier", "dtype", "git_revision")
    return named | {key: attrs.get(key) for key in keys}


def _versions() -> dict[str, str]:
    found = {}
    for name in ("dit-workbench", "numpy", "xarray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
