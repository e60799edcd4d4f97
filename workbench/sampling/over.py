"""What a sweep varies: the values of `over`, in the many ways in which they may be given, as specs."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import xarray as xr
from pydantic import ValidationError

from workbench.analysis.matching import matched_channels
from workbench.errors import AnalysisError, SpecError, WorkbenchError
from workbench.models import layout_for
from workbench.sampling.measured import AUTO
from workbench.steering.parts import Window
from workbench.steering.spec import DetailGuidanceSpec, Spec
from workbench.steering.windows import VALID, WINDOWS, first_of, in_digits, read, said

FIXED = ("format", "spec_version", "method", "model", "branch", "recommended", "evidence", "created_by", "content_hash")
"""Keys of a spec that are no settings."""


def combinations(
    spec: DetailGuidanceSpec, pipe: Any, over: Mapping[str, Any], recording: xr.Dataset | None
) -> Iterator[tuple[dict[str, Any], DetailGuidanceSpec]]:
    """Yield (labels, spec) of every combination of `over`.

    Raises
    ------
    SpecError
        If a value is none that its key can have.
    WorkbenchError
        If `over` is empty or names what is not in a spec, or there is no value, or no matched or strongest channels.
    """
    valid = [key for key in type(spec).model_fields if key not in FIXED]
    unknown = [key for key in over if key not in valid]
    if unknown or not over:
        raise WorkbenchError(f"can't sweep over {unknown or 'nothing'}; name one or more of {', '.join(valid)}.")
    axes = {
        "layer": _layers(over.get("layer", [spec.layer]), spec, pipe),
        "weight": listed(over.get("weight", [spec.weight])),
    }
    axes |= {key: listed(values) for key, values in over.items() if key not in axes}
    empty = [key for key, values in axes.items() if not values]
    if empty:
        raise WorkbenchError(f"there is no value for {empty[0]!r} to sweep over; give at least one.")
    if "retention" in axes:
        axes.setdefault("action", ["scale"])  # the only action that has one
    for values in itertools.product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        if at.get("action", "scale") != "scale":
            at["retention"] = None
        changes: dict[str, Any] = dict(at)
        labels: dict[str, Any] = {}
        for key, value in at.items():
            if key == "channels":
                labels[key], changes[key] = _channels(value, spec, at["layer"], recording)
            elif key == "window":
                labels[key], changes[key] = window_of(value)
            elif value is not None:
                labels[key] = value if isinstance(value, (int, float, str)) else short(value)
        yield labels, spec.replace(**changes)


def listed(values: Any) -> list[Any]:
    """Values as a list; a single one is a list of one."""
    single = isinstance(values, (str, Mapping, Window)) or not isinstance(values, Iterable)
    return [values] if single else list(values)


def short(value: Any) -> str:
    """A value as part of a name: safe for files, without what all values have in common."""
    if isinstance(value, float):
        return in_digits(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.removeprefix("transformer_blocks.")
    return "".join(c if c.isalnum() or c in "._+-" else "-" for c in text)


def strongest(spec: DetailGuidanceSpec, count: int) -> list[int]:
    """The spec's strongest channels by its evidence.

    Raises
    ------
    SpecError
        If the evidence can't be read.
    WorkbenchError
        If it has fewer, or its evidence does not say how strong they are.
    """
    ratio: dict[Any, float] = {}
    for row in _evidence(spec, "channels", []):
        channel, value = (row.get(key) if isinstance(row, Mapping) else None for key in ("channel", "ratio_to_median"))
        if not _whole(channel) or (value is not None and not isinstance(value, (int, float))):
            raise SpecError(
                f"the spec's evidence.channels holds {row!r}; an entry has a `channel`, a whole number, and a `ratio_to_median`, "
                "a number or null. Derive the spec again, or name the channels."
            )
        if value is not None:
            ratio[channel] = float(value)
    known = [channel for channel in spec.channels if channel in ratio]
    if len(known) < count:
        raise WorkbenchError(
            f"the spec's evidence ranks {len(known)} of its {len(spec.channels)} channels, so there is no top {count}; name the channels."
        )
    return sorted(sorted(known, key=lambda channel: -ratio[channel])[:count])


def located(spec: Spec) -> list[int]:
    """Channels that are massive somewhere in the model, by the spec's evidence.

    Raises
    ------
    SpecError
        If it holds something else.
    """
    found = _evidence(spec, "notes", {}).get("located_channels", [])
    if not isinstance(found, list) or not all(_whole(channel) for channel in found):
        raise SpecError(
            f"the spec's evidence.notes.located_channels is {found!r}, and should be a list of channels, whole numbers. Derive "
            "the spec again."
        )
    return list(found)


def _evidence(spec: Spec, key: str, otherwise: Any) -> Any:
    evidence = spec.model_dump(mode="json")["evidence"] or {}
    return evidence.get(key, otherwise)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _layers(values: Any, spec: DetailGuidanceSpec, pipe: Any) -> list[str]:
    paths = layout_for(pipe).block_paths(pipe.transformer)
    found: list[str] = []
    for value in listed(values):
        if isinstance(value, str) and value == AUTO:
            grid = {paths.index(spec.layer)} if spec.layer in paths else set()
            found += [paths[i] for i in sorted(grid | {len(paths) * k // 4 for k in (1, 2, 3)})]
        elif isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            found.append(value)
        elif isinstance(value, bool) or not isinstance(value, (Integral, str)) or not 0 <= int(value) < len(paths):
            raise SpecError(
                f"the model has no block {value}; its blocks are 0 to {len(paths) - 1}. Give numbers, paths, or {AUTO!r}."
            )
        else:
            found.append(paths[int(value)])
    return list(dict.fromkeys(found))


def _channels(value: Any, spec: DetailGuidanceSpec, layer: str, recording: xr.Dataset | None) -> tuple[str, list[int]]:
    """Label and channels of one value of ``channels``."""
    if isinstance(value, Integral) or (not isinstance(value, (str, Mapping)) and isinstance(value, Iterable)):
        given = listed(value)
        if not given:
            raise WorkbenchError("a set of channels is empty; name at least one channel, or leave the set out.")
        if wrong := [channel for channel in given if not _whole(channel)]:
            raise SpecError(f"channel {wrong[0]!r} is none; channels are whole numbers from 0.")
        chosen = sorted({int(channel) for channel in given})
        return " ".join(map(str, chosen)), chosen
    if value == "massive":
        return value, list(spec.channels)
    if isinstance(value, str) and value.startswith("top") and value[3:].isdecimal() and int(value[3:]):
        return value, strongest(spec, int(value[3:]))
    if value == "matched":
        if recording is None:
            raise WorkbenchError(
                "matched channels are drawn from a recording's statistics; give recording=workbench.open(…)."
            )
        try:
            return value, list(matched_channels(recording, layer, spec.channels, excluded=located(spec)).channels)
        except AnalysisError as error:
            raise WorkbenchError(f"channels can't be matched at {layer}: {error}") from error
    raise SpecError(
        f"channels {value!r} are unknown; give channels, lists of them, 'massive', 'top1', 'top2', …, or 'matched'."
    )


def window_of(value: Any) -> tuple[str, dict[str, Any]]:
    """Label and window of one value of ``window``: text (`workbench.steering.windows`), or as in a spec."""
    if isinstance(value, str):
        return value if value in WINDOWS else said(read(value)), read(value).model_dump(mode="json")
    if not isinstance(value, (Window, Mapping)):
        raise SpecError(f"window {value!r} is unknown; {VALID}.")
    try:
        window = value if isinstance(value, Window) else Window.model_validate(dict(value))
    except ValidationError as error:
        raise SpecError(f"window {value!r} can't be used ({first_of(error)}); {VALID}.") from None
    return said(window), window.model_dump(mode="json")
