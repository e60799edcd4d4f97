"""The command line: the same verbs as `workbench`, with progress and readable tables."""

from workbench.cli import trials, video  # noqa: F401  (their commands register themselves)
from workbench.cli.app import main

__all__ = ["main"]
