"""A progress bar for long work, the same everywhere; silent where nobody looks."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """``with Progress("recording", 100) as bar: bar.advance()``.

    Parameters
    ----------
    what : str
        Shown in front of the bar.
    total : int
        Steps in all.
    show : bool
        False for no bar.
    """

    def __init__(self, what: str, total: int, show: bool = True) -> None:
        self.what, self.total, self.show = what, total, show and total > 0
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if self.show:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self.bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), console=Console(file=sys.stderr),
            )  # fmt: skip
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total)
        return self

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        if self.bar is not None:
            self.bar.advance(self.task, steps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
