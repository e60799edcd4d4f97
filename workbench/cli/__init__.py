"""The verbs on the command line: `workbench VERB --help`."""

from workbench.cli.app import main

__all__ = ["main"]
