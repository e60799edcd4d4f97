"""One language for layers, timesteps, branches, tokens and channels; the same in recording, analysis and figures.

A clause is ``None`` (everything), a list of positions, a list of names, or a string: ``"0,2,5"``, ``"4:8"``, ``"::2"``,
``"-1"``, or names separated by commas (``"transformer_blocks.3"``, ``"cond"``). Positions count from 0 along the
recording's order; negative ones count from the end. A name picks all that are called so: the names of a video's tokens
are their roles (``"first"``, ``"boundary"``, ``"interior"``, see `workbench.roles`), and ``"first"`` is every token of the
first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from workbench.errors import SelectionError

Clause = tuple[int | str, ...] | str | None


class Select(BaseModel):
    """Which part of a recording is meant; ``None`` means all of that dimension.

    Raises
    ------
    SelectionError
        When it is resolved against a dimension that lacks what it names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Clause = None
    timesteps: Clause = None
    branches: Clause = None
    tokens: Clause = None
    channels: Clause = None

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int):
            return (value,)
        if isinstance(value, Sequence):
            return tuple(value)
        raise SelectionError(f"A selection is a list of positions or names, or a string like '4:8'; got {value!r}.")

    def positions(self, dimension: str, names: Sequence[Any]) -> list[int]:
        """Positions along ``names`` that the clause for ``dimension`` picks, in the order of ``names``."""
        return resolve(getattr(self, f"{dimension}s" if dimension != "branch" else "branches"), dimension, names)


def resolve(clause: Clause, dimension: str, names: Sequence[Any]) -> list[int]:
    """Turn one clause into sorted positions along a dimension.

    Parameters
    ----------
    clause : str, tuple or None
        See the module's docstring.
    dimension : str
        Name of the dimension, for the message.
    names : sequence
        The dimension's labels, in order.

    Raises
    ------
    SelectionError
        If a name or a position does not exist, a slice is malformed, or nothing is picked.
    """
    if clause is None or clause == "all":
        return list(range(len(names)))
    items = [part.strip() for part in clause.split(",")] if isinstance(clause, str) else list(clause)
    picked: set[int] = set()
    for item in items:
        picked.update(_one(item, dimension, names))
    if not picked:
        raise SelectionError(f"The selection {clause!r} of {dimension} picks nothing. {_valid(dimension, names)}")
    return sorted(picked)


def _one(item: int | str, dimension: str, names: Sequence[Any]) -> list[int]:
    if isinstance(item, str):
        labels = [str(name) for name in names]
        if item in labels and not item.lstrip("-").isdigit():
            return [place for place, label in enumerate(labels) if label == item]
        if ":" in item:
            return list(range(len(names)))[_slice(item, dimension)]
        try:
            item = int(item)
        except ValueError:
            raise SelectionError(f"There is no {dimension} named {item!r}. {_valid(dimension, names)}") from None
    if not -len(names) <= item < len(names):
        raise SelectionError(f"There is no {dimension} at position {item}. {_valid(dimension, names)}")
    return [item % len(names)]


def _slice(text: str, dimension: str) -> slice:
    parts = text.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 3 or (len(numbers) == 3 and numbers[2] == 0):
        raise SelectionError(f"{text!r} is not a slice of {dimension}s; write start:stop or start:stop:step.")
    return slice(*numbers)


def _valid(dimension: str, names: Sequence[Any]) -> str:
    different = list(dict.fromkeys(str(name) for name in names))
    shown = ", ".join(different[:8])
    more = f", … ({len(different)} in all)" if len(different) > 8 else ""
    return f"There are positions 0 to {len(names) - 1}; the {dimension}s are: {shown}{more}."
