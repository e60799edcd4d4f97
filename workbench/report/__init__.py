"""One self-contained HTML page about a recording."""

from workbench.callable import make_callable
from workbench.report.build import report

__all__ = ["report"]

make_callable(__name__, report)
