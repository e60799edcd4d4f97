"""What a trial of STAS varies besides its controls: alpha, window, boundary width, reference, blocks, as specs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from workbench.errors import SpecError, WorkbenchError
from workbench.models import layout_for
from workbench.sampling.over import FIXED, listed, window_of
from workbench.sampling.sweep import settings_of
from workbench.steering.spec import StasSpec
from workbench.steering.windows import first_part

GRID: dict[str, list[Any]] = {
    "alpha": [0.8, 1.0, 1.2],
    "window": [first_part(share).model_dump(mode="json") for share in (0.1, 0.2, 0.4, 0.6)],
    "boundary_width": [1 / 16, 1 / 8, 1 / 4],
    "reference": ["channel", "joint"],
    "layers": ["auto"],
}
"""A coarse grid. alpha, steps and width are not established (`docs/methods.md`): these values are a choice, not the paper's, whose
steps are the first 20 of 50."""

_KEYS = ("alpha", *(key for key in StasSpec.model_fields if key not in {*FIXED, "alpha_interior"}))


def grid_specs(
    spec: StasSpec, pipe: Any, over: Mapping[str, Any], *, product: bool = False
) -> Iterator[tuple[dict[str, Any], StasSpec]]:
    """Yield (labels, spec): each key of `over` varied alone, or with `product` every combination.

    Keys are those of the spec, and ``alpha``: of all roles that have one. ``layers``: block numbers or paths, each alone, lists of them
    together, ``"auto"``: a quarter, half and three quarters of the depth, each alone. ``boundary_width``: a whole number of tokens, a fraction
    below one half, ``"2 rows"``, or as in a spec. ``window``: as in `workbench.sweep`. What is the spec itself is left out.

    Raises
    ------
    SpecError
        If a value is none that its key can have.
    WorkbenchError
        If `over` is empty, or names what is not in a spec.
    """
    unknown = [key for key in over if key not in _KEYS]
    if unknown or not over:
        raise WorkbenchError(f"can't vary {unknown or 'nothing'}; name one or more of {', '.join(_KEYS)}.")
    axes = {key: _values(key, values, pipe) for key, values in over.items()}
    if empty := [key for key, values in axes.items() if not values]:
        raise WorkbenchError(f"there is no value for {empty[0]!r} to vary; give at least one.")
    points = (
        [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        if product
        else [{key: value} for key, values in axes.items() for value in values]
    )
    for point in points:
        labels = {key: label for key, (label, _) in point.items()}
        changes: dict[str, Any] = {}
        for key, (_, value) in point.items():
            if key == "alpha":
                changes |= {f"alpha_{role}": value for role, alpha in spec.alphas.items() if alpha is not None}
            else:
                changes[key] = value
        changed = spec.replace(**changes)
        if settings_of(changed) != settings_of(spec):
            yield labels, changed


def _values(key: str, values: Any, pipe: Any) -> list[tuple[Any, Any]]:
    """(label, value of the spec) of each."""
    if key == "layers":
        return _layers(values, pipe)
    if key == "window":
        return [window_of(value) for value in listed(values)]
    if key == "boundary_width":
        return [_width(value) for value in listed(values)]
    if key in ("branches", "channels"):
        # A value is itself a list; one flat list is one value.
        given = [values] if isinstance(values, str) else list(values)
        sets = given if given and all(isinstance(v, (list, tuple)) for v in given) else [given]
        sets = [list(one) for one in sets if len(one)]
        return [(" ".join(map(str, one)), one) for one in sets]
    return [(value, float(value) if _number(value) else value) for value in listed(values)]


def _width(value: Any) -> tuple[str, dict[str, Any]]:
    rows = re.fullmatch(r"(\d+) rows?", value.strip()) if isinstance(value, str) else None
    if rows:
        width = {"unit": "rows", "value": float(rows[1])}
    elif isinstance(value, Mapping):
        width = dict(value)
    elif _number(value) and 0 < float(value) < 0.5:
        width = {"unit": "fraction", "value": float(value)}
    elif _number(value) and float(value).is_integer():
        width = {"unit": "tokens", "value": float(value)}
    else:
        raise SpecError(
            f"boundary_width {value!r} can't be used; give a whole number of tokens, a fraction below 0.5, '2 rows', or unit and "
            "value as in a spec."
        )
    said = width.get("value")
    return f"{said:g} {width.get('unit')}" if isinstance(said, (int, float)) else str(said), width


def _layers(values: Any, pipe: Any) -> list[tuple[str, list[str]]]:
    paths = layout_for(pipe).block_paths(pipe.transformer)
    found: dict[str, list[str]] = {}
    for value in listed(values):
        if isinstance(value, str) and value == "auto":
            sets = [[paths[len(paths) * k // 4]] for k in (1, 2, 3)]
        else:
            sets = [[_layer(one, paths) for one in listed(value)]]
        found |= {" ".join(one): one for one in sets if one}
    return list(found.items())


def _layer(value: Any, paths: list[str]) -> str:
    if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
        return value  # `check` says whether there is such a block
    if isinstance(value, bool) or not isinstance(value, (Integral, str)) or not 0 <= int(value) < len(paths):
        raise SpecError(
            f"the model has no block {value}; its blocks are 0 to {len(paths) - 1}. Give numbers, paths, or 'auto'."
        )
    return paths[int(value)]


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
