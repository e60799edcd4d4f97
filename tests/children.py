"""Child processes for tests to kill.

They are forked from one process that has imported what they need: the imports take seconds, what a child does takes less.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "tests.planted", "tests.tiny", "workbench.record", "workbench.sampling.conditions"]
)


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Run ``target(*args)``, a function at the top of a module, in a child of its own."""
    child = _CONTEXT.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def event() -> Event:
    """What parent and child can tell each other."""
    return _CONTEXT.Event()
