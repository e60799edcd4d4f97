"""Which block and which channels: the rule, and what it says of a recording's located channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from workbench.errors import SpecError
from workbench.steering.spec import MAX_CHANNELS

RULE = (
    "Block m: of the blocks in whose entering state (the output of the layer before) the strongest located channel is "
    "massive, the one nearest to half the model's depth (as many blocks before it as after), the earlier of two. Channels: "
    "all that the criterion finds massive in the model and in that state. Strongest: largest ratio to the median "
    "channel, averaged over the recorded blocks; if it enters no block as massive, the next. Half depth follows paper "
    "A's follow-up, which takes a middle layer; its index is not established."
)
RULE_VERSION = 2

RULE_STAS = (
    "Block: of the blocks in whose leaving state (their output) the strongest located channel is massive, the one nearest to "
    "half the model's depth (as many blocks up to it as after), the earlier of two. Channels: all that the criterion finds "
    "massive in the model and in that state. Strongest: as for Detail Guidance. Paper B names block 15 of 30 for analysis; "
    "which blocks it steers is not established."
)
RULE_STAS_VERSION = 1

State = Literal["entering", "leaving"]
"""Which state of a block a method changes: Detail Guidance the one that enters it, STAS the one that leaves it."""


class Candidate(NamedTuple):
    """A block that was recorded."""

    path: str
    block: int
    entering: int | None
    """Index of the recorded layer before it; None if that was not recorded."""
    leaving: int
    """Index of its own output among the recorded layers."""


def candidates_of(found: xr.Dataset) -> list[Candidate]:
    """Blocks that were recorded, each with the index of the recorded layer that is the state entering it."""
    names = [str(name) for name in found["layer"].values]
    blocks = [int(block) for block in found["block"].values]
    at = {block: i for i, block in enumerate(blocks)}
    return [
        Candidate(name, block, at.get(block - 1), i)
        for i, (name, block) in enumerate(zip(names, blocks, strict=True))
        if block >= 0
    ]


def depth_of(recording: xr.Dataset) -> int | None:
    """Number of blocks of the model, which may be more than were recorded; None if the recording does not say it."""
    blocks = recording.attrs["layout"].get("blocks")
    return None if blocks is None else int(blocks)


def middle(
    candidates: list[Candidate],
    depth: int | None,
    massive_LC: np.ndarray,
    located: list[int],
    found: xr.Dataset,
    *,
    state: State = "entering",
) -> Candidate:
    """Choose the block by `RULE`, or by `RULE_STAS` for the leaving state."""
    _refuse_nothing(located, found, state)
    if depth is None:
        raise SpecError(
            "the recording does not say how many blocks the model has (attribute `layout`, `blocks`), so half its depth "
            f"is not known. Name `{_KEYS[state]}`, or record the model again."
        )

    def distance(block: int) -> tuple[float, int]:
        return abs(block + (state == "leaving") - depth / 2), block

    known = {c.block for c in candidates if getattr(c, state) is not None}
    # Not the block with the most massive channels: weaker ones join late, which would pull m to the last block, where
    # hardly anything is left that could respond to the mask.
    for strongest in index_of(found, located):
        usable = [c for c in candidates if c.block in known and massive_LC[getattr(c, state), strongest]]
        best = min(usable, key=lambda c: distance(c.block), default=None)
        nearer = [b for b in range(depth) if b not in known and (best is None or distance(b) < distance(best.block))]
        if nearer:
            raise SpecError(
                f"the rule may choose block {min(nearer, key=distance)} of the model's {depth}, and the recording has "
                f"not {'both that block and the layer before it' if state == 'entering' else 'that block'}, so it can't be "
                f"told. Record all layers, or name `{_KEYS[state]}`."
            )
        if best is not None:
            return best
    raise SpecError(
        f"a spec was not derived: channels {located} are massive, but not in the state that {_VERBS[state]} any block. "
        f"Name `{_KEYS[state]}` and `channels` yourself."
    )


def pick(
    chosen: Candidate, massive_LC: np.ndarray, located: list[int], found: xr.Dataset, *, state: State = "entering"
) -> list[int]:
    """Choose the channels by the rule: the located ones that are massive in that state of the chosen block."""
    _refuse_nothing(located, found, state)
    at = getattr(chosen, state)
    if at is None:
        raise SpecError(
            f"the state that enters {chosen.path} was not recorded, so its massive channels are not known. Record the "
            "layer before it, or name `channels`."
        )
    here = massive_LC[at, index_of(found, located)]
    picked = [channel for channel, massive in zip(located, here, strict=True) if massive]
    if not picked:
        raise SpecError(
            f"a spec was not derived: of the massive channels {located}, none is massive in the state that {_VERBS[state]} "
            f"{chosen.path}. Leave `{_KEYS[state]}` at 'auto', or name `channels`."
        )
    return sorted(picked[:MAX_CHANNELS])


_KEYS = {"entering": "layer", "leaving": "layers"}
_VERBS = {"entering": "enters", "leaving": "leaves"}
_METHODS = {"entering": "Detail Guidance", "leaving": "STAS"}


def _refuse_nothing(located: list[int], found: xr.Dataset, state: State) -> None:
    if not located:
        raise SpecError(
            f"a spec was not derived: the criterion {found.attrs['criterion']!r} finds no massive activation in "
            f"{found.attrs['n_samples']} samples ({found.attrs['verdict_reason']}). {_METHODS[state]} has nothing to act "
            f"on; look at `workbench locate`, choose another criterion, or name `{_KEYS[state]}` and `channels` yourself."
        )


def given_layer(layer: str, candidates: list[Candidate]) -> Candidate:
    """Return the block that the user named."""
    for candidate in candidates:
        if candidate.path == layer:
            return candidate
    raise SpecError(
        f"the recording has no block {layer!r}; it has {candidates[0].path} … {candidates[-1].path} "
        f"({len(candidates)} blocks)."
    )


def given_channels(channels: Sequence[int], found: xr.Dataset) -> list[int]:
    """Return the channels that the user named, ascending, each once."""
    known = {int(channel) for channel in found["channel"].values}
    picked = sorted({int(channel) for channel in channels})
    outside = [channel for channel in picked if channel not in known]
    if outside or not picked:
        raise SpecError(
            f"channels {outside or list(channels)} can't be used; the recording has channels {min(known)} to "
            f"{max(known)}, and a spec needs at least one."
        )
    return picked


def index_of(found: xr.Dataset, channels: list[int]) -> list[int]:
    """Positions of channels along the recording's channel axis."""
    position = {int(channel): i for i, channel in enumerate(found["channel"].values)}
    return [position[channel] for channel in channels]
