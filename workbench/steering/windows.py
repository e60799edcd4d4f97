"""Parts of the trajectory by name: the one definition that disruption and the sweep of Detail Guidance share.

This module imports no torch.
"""

from __future__ import annotations

from workbench.errors import SpecError
from workbench.steering.parts import ROUNDING, Window

THIRDS: dict[str, tuple[float, float]] = {"early": (2 / 3, 1.0), "middle": (1 / 3, 2 / 3), "late": (0.0, 1 / 3)}
"""Thirds of the noise level, (low, high) in σ, 1 being pure noise. A step belongs to one with low < σ <= high (and σ = 0 to
the last), so every step to one of them."""

WINDOWS = ("all", *THIRDS)
"""Names of `window`."""


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
