"""Whether a pipeline is the plain model that its results will be taken for."""

from __future__ import annotations

from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.generate import is_steered


def refuse_altered(pipe: Any, results: str, error: type[WorkbenchError] = WorkbenchError) -> None:
    """Refuse a pipeline whose transformer does not compute every block anew and as it is.

    Parameters
    ----------
    pipe : pipeline
    results : str
        What is about to be made, in the plural, for the message: it would pass for the plain model's.
    error : type of WorkbenchError
        What to raise.
    """
    if is_steered(pipe):
        raise error(
            f"A steering spec or a disruption is being applied to this pipeline, which nothing here knows of: the {results} "
            "would pass for the plain model's. Leave the `with` block first, or `detach()` the guider and give the pipeline another."
        )
    registries = [module.__dict__.get("_diffusers_hook") for module in pipe.transformer.modules()]
    hooks = [hook for registry in registries if registry is not None for hook in registry.hooks.values()]
    caches = sorted({type(hook).__name__ for hook in hooks if hook._is_stateful})
    if caches or getattr(pipe.transformer, "is_cache_enabled", False):
        raise error(
            f"A cache is enabled in this transformer ({', '.join(caches) or 'enable_cache'}): the states of a skipped block "
            f"would be an earlier call's, and the {results} would pass for the plain model's. Disable it "
            "(`pipe.transformer.disable_cache()`) first."
        )
