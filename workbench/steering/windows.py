"""Parts of the trajectory: by name, and as text with its unit. One notation for every method and every command.

A text is a name (``all``, ``early``, ``middle``, ``late``) or unit, low and high, the units being a spec's own: ``sigma:0.6-1``,
``step_fraction:0-0.4``. Numbers without a unit are refused: 0 to 0.4 is the first part of the steps, but the last of the noise levels.

This module imports no torch.
"""

from __future__ import annotations

import re
from typing import get_args

from pydantic import ValidationError

from workbench.errors import SpecError
from workbench.steering.parts import ROUNDING, Window

THIRDS: dict[str, tuple[float, float]] = {"early": (2 / 3, 1.0), "middle": (1 / 3, 2 / 3), "late": (0.0, 1 / 3)}
"""Thirds of the noise level, (low, high) in σ, 1 being pure noise. A step belongs to one with low < σ <= high (and σ = 0 to
the last), so every step to one of them."""

WINDOWS = ("all", *THIRDS)
"""Names of `window`."""

UNITS = {
    "sigma": "noise levels, 1 = pure noise, like sigma:0.6-1",
    "step_fraction": "shares of the steps, 0 = the first, like step_fraction:0-0.4",
}
"""Units of a window, in words."""

assert set(UNITS) == set(get_args(Window.model_fields["unit"].annotation))

VALID = f"give {', '.join(WINDOWS)}, or a unit and two numbers from 0 to 1: {'; '.join(UNITS.values())}"


def window(name: str) -> Window:
    """Return a third, or ``all``, as a window of a spec: of the same steps as a disruption's.

    Raises
    ------
    SpecError
        If there is none of that name.
    """
    if name not in WINDOWS:
        raise SpecError(f"window {name!r} is unknown; give one of {', '.join(WINDOWS)}.")
    low, high = THIRDS.get(name, (0.0, 1.0))
    # Both ends belong to a spec's window. A step at a third must not be in two of them, so the lower end lies as far above it
    # as takes the rounding of both noise levels.
    return Window(unit="sigma", low=low + 2 * ROUNDING if low else 0.0, high=high)


def read(text: str) -> Window:
    """Return the window that a text names, see this module.

    Of ``step_fraction`` the step at the upper end itself is left out, as in `part`; of ``sigma`` both ends belong to it.

    Raises
    ------
    SpecError
        If there is no unit, another one, or no two numbers from 0 to 1 in ascending order.
    """
    if text in WINDOWS:
        return window(text)
    unit, given, ends = text.partition(":")
    number = r"\s*((?:[^-]|(?<=\de)-)+?)\s*"  # 1e-05 is one number
    if not given and re.fullmatch(f"{number}-{number}", text):
        raise SpecError(f"window {text!r} does not say its unit; {VALID}.")
    if given and unit.strip() not in UNITS:
        raise SpecError(f"window {text!r} has the unit {unit.strip()!r}, which there is not; {VALID}.")
    two = re.fullmatch(f"{number}-{number}", ends)
    try:
        low, high = (float(end) for end in (two.groups() if two else ("", "")))
    except ValueError:
        raise SpecError(f"window {text!r} is unknown; {VALID}.") from None
    if unit.strip() == "step_fraction":
        return part(low, high)
    try:
        return Window(unit="sigma", low=low, high=high)
    except ValidationError as error:
        raise SpecError(f"window {text!r} can't be used ({first_of(error)}); {VALID}.") from None


def said(given: Window) -> str:
    """Return a window as text that `read` reads; of ``step_fraction`` the end that is left out, where there is one."""
    high = given.high
    end = float(f"{high + 2 * ROUNDING:.6g}")
    if given.unit == "step_fraction" and given.low < end < 1 and part(given.low, end) == given:
        high = end
    return f"{given.unit}:{in_digits(given.low)}-{in_digits(high)}"


def first_part(share: float) -> Window:
    """Return the window of the first steps: of N steps those with index / N < `share`, so 20 of 50 for 0.4.

    Raises
    ------
    SpecError
        If the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise SpecError(f"a share of {share:g} of the steps can't be taken; give one above 0 and at most 1.")
    return part(0.0, share)


def part(low: float, high: float) -> Window:
    """Return the window of the steps with `low` <= index / N < `high`, of any number N of steps.

    Raises
    ------
    SpecError
        If not 0 <= `low` < `high` <= 1.
    """
    if not 0 <= low < high <= 1:
        raise SpecError(f"there are no steps from {low:g} to {high:g} of them; give 0 <= low < high <= 1.")
    # Both ends belong to a window; the step whose share is the end itself is the first that is left out.
    return Window(unit="step_fraction", low=low, high=high if high == 1 else max(low, high - 2 * ROUNDING))


def first_of(error: ValidationError) -> str:
    """What the first mistake in a window is, in words."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}{': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"


def in_digits(value: float) -> str:
    """A number in few digits where these say all of it."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
