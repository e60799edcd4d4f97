"""Ctrl-C that can't get lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Raise ``KeyboardInterrupt`` at Ctrl-C, and once more at the next check if the first one was swallowed.

    Python drops an exception that is raised within a weak reference's callback or a finaliser; a long recording runs
    many of those, so the interrupt may hit one.

    Yields
    ------
    callable
        Raises ``KeyboardInterrupt`` if Ctrl-C was pressed within this block. To be called between steps.
    """
    pressed = threading.Event()

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check  # someone else takes care of Ctrl-C
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
