"""Finds the row of a model. By the exact class: a same-named class of another module may order its outputs differently."""

from __future__ import annotations

from typing import Any

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Guidance, Layout, Pipeline
from workbench.models.rows import FAMILIES, REFUSED

#: For messages.
LISTED = f"{len(FAMILIES)} diffusion transformers that `workbench models` lists"


def layout_for(model: Any, *, token_timesteps: bool = False) -> Layout:
    """Find the row of a pipeline or of a transformer.

    Parameters
    ----------
    model : pipeline or transformer
    token_timesteps : bool
        True if the caller can handle a pipeline that gives every token a timestep of its own.

    Raises
    ------
    UnsupportedModelError
        If it is not a diffusion transformer, one that has no row, or one whose configuration the row does not hold for.
    """
    transformer = getattr(model, "transformer", None)
    if transformer is None:
        transformer = model
        if hasattr(model, "unet"):
            raise UnsupportedModelError(
                f"{type(model).__name__} denoises with a UNet, not with a transformer; the workbench needs one of the "
                f"{LISTED}."
            )
    # While a pipeline is recorded, a stand-in has the transformer's place.
    transformer = getattr(transformer, "stands_for", transformer)
    name = f"{type(transformer).__module__}.{type(transformer).__name__}"
    if name in REFUSED:
        raise UnsupportedModelError(
            f"{type(transformer).__name__} is known and not supported: {REFUSED[name]}. Use one of the {LISTED}."
        )
    _one_transformer(model, token_timesteps)
    for row in FAMILIES:
        if row.transformer == name:
            _within_limits(row, transformer)
            entry = row.pipeline(type(model).__name__)
            if not token_timesteps and entry is not None and entry.token_timesteps:
                raise _own_timesteps(model)
            return row
    raise UnsupportedModelError(
        f"{name} is not a diffusion transformer that the workbench has a layout for. Use one of the {LISTED}."
    )


def pipeline_of(pipe: Any, layout: Layout, *, derived: bool = False) -> Pipeline:
    """The row's entry for a pipeline's class.

    Parameters
    ----------
    pipe, layout
    derived : bool
        True to take the entry of the class that the pipeline's is derived from, where it has none of its own. For what only
        watches the calls, and counts them; a derived class may combine its branches otherwise.

    Raises
    ------
    UnsupportedModelError
        If it has none.
    """
    entry = entry_of(pipe, layout) if derived else layout.pipeline(type(pipe).__name__)
    if entry is None:
        known = ", ".join(pipeline.name for pipeline in layout.pipelines)
        raise UnsupportedModelError(
            f"{type(pipe).__name__} is no pipeline that the workbench knows for the family {layout.family} ({known}): how it "
            "runs and combines its branches has not been checked. Load the model with one of those."
        )
    return entry


def entry_of(pipe: Any, layout: Layout) -> Pipeline | None:
    """The row's entry for a pipeline's class or for the one that it is derived from; None if it has none."""
    return next(filter(None, (layout.pipeline(kind.__name__) for kind in type(pipe).__mro__)), None)


def guidance_of(pipe: Any, layout: Layout, *, derived: bool = False) -> Guidance | None:
    """How a pipeline runs its branches, as `pipeline_of`; None if it has none."""
    return pipeline_of(pipe, layout, derived=derived).guidance


def _within_limits(row: Layout, transformer: Any) -> None:
    for limit in row.limits:
        if transformer.config.get(limit.key) == limit.value:
            raise UnsupportedModelError(
                f"{type(transformer).__name__} with {limit.key} = {limit.value!r} is not supported: {limit.why}."
            )


def _one_transformer(pipe: Any, token_timesteps: bool) -> None:
    """Refuse pipelines that have a row for their class, but not for what they do with it."""
    if getattr(pipe, "transformer_2", None) is not None:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} denoises with two transformers, one after the other (transformer and transformer_2); "
            "a recording holds the states of one. Such pipelines are not supported yet."
        )
    if not token_timesteps and getattr(getattr(pipe, "config", None), "expand_timesteps", False):
        raise _own_timesteps(pipe, " (expand_timesteps)")


def _own_timesteps(pipe: Any, how: str = "") -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(pipe).__name__} gives every token a timestep of its own{how}. Such pipelines can be "
        "recorded, and STAS acts on them (`workbench.apply`); all else here needs one timestep a call."
    )
