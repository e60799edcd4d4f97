"""The sentence that says what a disruption found; the rules are in `disruption_verdict`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from workbench.analysis.disruption_verdict import AGREES, ASPECTS, Cell, Part, overall

_SAYS = {
    "detail only": "carry detail and not content",
    "detail, and content no more than controls": "carry detail, and lose content no more than controls",
    "content": "carry content",
    "detail and content": "carry detail and content",
    "neither": "carry neither detail nor content",
    "undecided": "are undecided",
}


def reason(result: xr.Dataset, parts: Sequence[Part], whole: Mapping[str, Sequence[Cell]], whole_E: np.ndarray) -> str:
    """Say it in words, with the numbers of the one layer where the massive channels lose most content."""
    sets: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for name, cells in whole.items():
        counted = list(dict.fromkeys(control for cell in cells for control in cell.counted))
        weak = ", weak: one only" if any(len(cell.counted) == 1 for cell in cells) else ""
        # Two sets that leave it open do so for much the same reason, so that of the first is given.
        text = _says(cells)
        alike = text if overall(cells) != "undecided" else "undecided"
        texts.setdefault(alike, text)
        sets.setdefault(alike, []).append(f"{name} ({', '.join(counted) or 'no control'}{weak})")
    said = [f"Against {' and '.join(names)}, massive channels {texts[alike]}." for alike, names in sets.items()]
    places = [e for e in np.flatnonzero(whole_E).tolist() if np.isfinite(_of(result, "loss", e, "massive", "content"))]
    if places:
        most = max(places, key=lambda e: _of(result, "loss", e, "massive", "content"))
        controls = [
            f"{control} {_of(result, 'loss', most, str(control), 'content'):.2f}"
            for q, control in enumerate(result["control"].values)
            if result["draws"].values[most, 1 + q]
        ]
        losses = ", ".join(f"{aspect} {_interval(result, most, aspect)}" for aspect in ASPECTS)
        said.append(
            f"Before {result['layer'].values[most]} they lose {losses}; content with {', '.join(controls) or 'no control'}."
        )
    draws = int(result["draws"].values.max())
    attrs = result.attrs
    branch = "" if attrs["branch"] == "all" else f", branch {attrs['branch']}"
    said.append(f"{attrs['replication']}, {draws} draw{'s' if draws != 1 else ''}{branch}.")
    if not {"recognised", "semantic"} & {part.name for part in parts}:
        said.append("No judge: content is layout.")
    return " ".join(said)


def _says(cells: Sequence[Cell]) -> str:
    """What is said over all layers against one set, without the set."""
    verdict = overall(cells)
    text = _SAYS[verdict]
    if verdict == "undecided":
        return f"{text}: {_why(cells)}"
    gained = [cell for cell in cells if "detail gained" in cell.states]
    if verdict == "neither":
        return text + (f" (detail gained at {len(gained)} of {len(cells)} layers)" if gained else "")
    counts = {aspect: sum(bool(cell.carried[aspect]) for cell in cells) for aspect in ASPECTS}
    at = ", ".join(f"{aspect} at {count}" for aspect, count in counts.items() if count)
    return f"{text} ({at} of {len(cells)} layers; as {AGREES[verdict]})"


def _why(cells: Sequence[Cell]) -> str:
    """Why a set of cells was not decided: the first that is open."""
    open_ = [cell for cell in cells if cell.outcome == "undecided"]
    if not open_:
        return "no layer was disrupted over the whole trajectory"
    needed = [cell.needed for cell in open_ if not math.isnan(cell.needed)]
    if not needed or math.isinf(max(needed)):
        return open_[0].states + ("; it lies at the margin, which no number of prompts decides" if needed else "")
    return f"{open_[0].states}; about {max(needed):.0f} prompts would decide"


def _of(result: xr.Dataset, name: str, e: int, kind: str, measure: str) -> float:
    kinds, measures = result["kind"].values.tolist(), result["measure"].values.tolist()
    return float(result[name].values[e, kinds.index(kind), measures.index(measure)])


def _interval(result: xr.Dataset, e: int, measure: str) -> str:
    mean, low, high = (_of(result, f"loss{end}", e, "massive", measure) for end in ("", "_low", "_high"))
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if math.isfinite(low) else f"{mean:.2f}"
