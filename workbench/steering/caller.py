"""Who calls the transformer? Only its pipeline knows what the rows of a batch are."""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Guidance

_ABSENT = object()


def called_by(pipe: Any) -> bool:
    """Tell whether a call of this very pipeline is under way, further up the stack.

    A pipeline keeps the guidance scale of its last call, so its attributes can't say that; and its class can't be given
    another ``__call__`` without changing what the user's object is. The stack is only read.

    Parameters
    ----------
    pipe : pipeline
        A diffusers pipeline; a class derived from one may call on to it.
    """
    return _frame(pipe) is not None


def value_of(pipe: Any, name: str) -> Any:
    """Value of a setting in the call of a pipeline that is under way: its attribute, or the call's local variable.

    Many pipelines keep what they were called with (``guidance_scale``, ``do_classifier_free_guidance``) as attributes, or have
    a component that does (``guider._enabled``); the others have it as a local variable of ``__call__``.

    Raises
    ------
    UnsupportedModelError
        If it has neither.
    """
    value = pipe
    for part in name.split("."):
        value = getattr(value, part, _ABSENT)
    if value is not _ABSENT:
        return value
    frame = _frame(pipe)
    if frame is None or name not in frame.f_locals:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} has no {name!r} to read in its present call, so how it combines its branches can't be told. "
            "Is this the diffusers that the workbench was made for (0.42)?"
        )
    return frame.f_locals[name]


def scheduler_of(frame: FrameType) -> Any:
    """The scheduler of the pipeline whose code this frame runs: a stock one's method, or a block of a modular one.

    A guider is told the timestep, but neither the noise level nor the scheduler.

    Raises
    ------
    UnsupportedModelError
        If it is no code of a pipeline with a scheduler.
    """
    for name in ("components", "self"):
        scheduler = getattr(frame.f_locals.get(name), "scheduler", None)
        if scheduler is not None:
            return scheduler
    raise UnsupportedModelError(
        "the guider was not called by a pipeline with a scheduler, so the step can't be placed in the spec's window or "
        "schedule. Use a spec with a constant weight at all steps: `spec.replace(window=..., weight=...)`."
    )


def branched(pipe: Any, guidance: Guidance | None) -> bool:
    """Tell whether the call under way runs several branches."""
    if guidance is None:
        return False
    return bool(value_of(pipe, guidance.flag)) if guidance.flag else bool(value_of(pipe, guidance.scale) > 1)


def _frame(pipe: Any) -> FrameType | None:
    """The frame of the pipeline's call that is under way; None if there is none."""
    calls = (vars(kind).get("__call__") for kind in type(pipe).__mro__)
    codes = {inspect.unwrap(call).__code__ for call in calls if inspect.isfunction(call)}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in codes and frame.f_locals.get("self") is pipe:
            return frame
        frame = frame.f_back
    return None
