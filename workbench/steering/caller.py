"""Who calls the transformer? Only its pipeline knows what the rows of a batch are."""

from __future__ import annotations

import inspect
import sys
from typing import Any


def called_by(pipe: Any) -> bool:
    """Tell whether a call of this very pipeline is under way, further up the stack.

    A pipeline keeps the guidance scale of its last call, so its attributes can't say that; and its class can't be given
    another ``__call__`` without changing what the user's object is. The stack is only read.

    Parameters
    ----------
    pipe : pipeline
        A diffusers pipeline; a class derived from one may call on to it.
    """
    calls = (vars(kind).get("__call__") for kind in type(pipe).__mro__)
    codes = {inspect.unwrap(call).__code__ for call in calls if inspect.isfunction(call)}
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code in codes and frame.f_locals.get("self") is pipe:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
