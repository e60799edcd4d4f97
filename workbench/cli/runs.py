"""Options that every trial has (disruption, sweep, baselines, stas-trial): written once, put behind a command's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from workbench.cli.options import (
    Batch,
    Device,
    Dtype,
    Guidance,
    Height,
    Limit,
    Quiet,
    Revision,
    Seeds,
    Steps,
    TrialPrompts,
    Width,
    Yes,
    parse_seeds,
    texts,
)

#: Option -> what typer is to know of it, and its default.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "prompts": (TrialPrompts, None),
    "seeds": (Seeds, "0"),
    "steps": (Steps, None),
    "guidance": (Guidance, None),
    "height": (Height, None),
    "width": (Width, None),
    "batch": (Batch, 8),
    "limit": (Limit, 60.0),
    "yes": (Yes, False),
    "revision": (Revision, None),
    "dtype": (Dtype, None),
    "device": (Device, None),
    "quiet": (Quiet, False),
}


class Run(NamedTuple):
    """What these options say.

    Attributes
    ----------
    call : dict
        Arguments of the trial's own function (`workbench.sampling.options.RunOptions`).
    load : dict
        Arguments of `workbench.load_pipeline`.
    """

    call: dict[str, Any]
    load: dict[str, Any]

    def pipeline(self, model: str) -> Any:
        """Load a model with them."""
        from workbench import load_pipeline

        return load_pipeline(model, **self.load)


def trial(command: Callable[..., None]) -> Callable[..., None]:
    """Put `OPTIONS` behind the options of a command, which gets them as `run`."""
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if name != "run"]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in OPTIONS.items()
    ]

    @functools.wraps(command)
    def whole(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name not in OPTIONS}, run=_run(given))

    signature = own.replace(parameters=[*kept, *shared])
    vars(whole).pop("__wrapped__")  # or typer would look through to the command
    vars(whole)["__signature__"] = signature
    whole.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return whole


def _run(given: dict[str, Any]) -> Run:
    call = {
        "prompts": texts(given["prompts"]),
        "seeds": parse_seeds(given["seeds"]),
        "steps": given["steps"],
        "guidance_scale": given["guidance"],
        "height": given["height"],
        "width": given["width"],
        "batch_size": given["batch"],
        "progress": not given["quiet"],
        "limit_s": 60 * given["limit"],
        "yes": given["yes"],
    }
    return Run(call, {key: given[key] for key in ("revision", "dtype", "device")})
