"""Lets `workbench.record` be both the package and the verb.

Importing a subpackage binds its name in the parent package, so a function of that name would be replaced by the module as
soon as anything imported from it. The module itself therefore answers the call.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(package: str, verb: Callable[..., Any]) -> None:
    """Let calling the package call its verb; ``help`` and signatures show the verb's."""

    class CallableModule(ModuleType):
        @functools.wraps(verb)
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return verb(*args, **kwargs)

    sys.modules[package].__class__ = CallableModule
