"""The token grid (F, H, W) of a call of a transformer, read from its arguments as the family's row says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Latents, Layout

if TYPE_CHECKING:
    import torch

Grid = tuple[int, int, int]


def grid_of_call(layout: Layout, transformer: torch.nn.Module, arguments: Mapping[str, Any]) -> Grid:
    """Token grid (F, H, W) of a call.

    Parameters
    ----------
    layout : Layout
    transformer : Module
    arguments : mapping
        Of the call, by name.

    Raises
    ------
    UnsupportedModelError
        If the arguments hold more than the tokens of one grid (reference images, say), or no grid, or one with which the row
        does not hold.
    """
    for absent in layout.absent:
        given = arguments.get(absent.argument)
        if given is not None and len(given):
            raise UnsupportedModelError(
                f"The call's {absent.argument} is not supported for family {layout.family}: {absent.why}."
            )
    latents = layout.latents
    if latents.grid == "latents":
        return _of_latents(latents, transformer, arguments[latents.argument])
    if latents.grid == "ids":
        return _of_ids(layout, arguments)
    if latents.grid == "shapes":
        shapes = arguments[latents.source]
        return _of_shapes(layout, shapes[:1] if latents.source in layout.row_lists else shapes)
    frames, height, width = (int(arguments[name]) for name in latents.source.split())
    return _patched((frames, height, width), latents, transformer)


def batch_of_call(layout: Layout, arguments: Mapping[str, Any]) -> int:
    """Rows of the batch of a call."""
    return len(arguments[layout.latents.argument])


def patch_of(latents: Latents, transformer: torch.nn.Module) -> Grid:
    """Latents that one token holds along F, H and W."""
    first, second, third = (_number(key, transformer) for key in latents.patch)
    return first, second, third


def _number(key: str, transformer: Any) -> int:
    if key.isdigit():
        return int(key)
    name, _, index = key.partition(".")
    value = transformer.config[name]
    value = value[int(index)] if index else value
    return 1 if value is None else int(value)


def _of_latents(latents: Latents, transformer: torch.nn.Module, given: Any) -> Grid:
    axes = latents.axes
    if axes.startswith("["):
        given, axes = given[0], axes.strip("[]")
    size = dict(zip(axes, given.shape, strict=True))
    if size.get("I", 1) > 1:
        raise UnsupportedModelError(
            f"The call holds {size['I']} images a row: reference images beside the target are not supported."
        )
    return _patched((size.get("F", 1), size.get("H", 1), size["W"]), latents, transformer)


def _patched(size: Grid, latents: Latents, transformer: torch.nn.Module) -> Grid:
    frames, height, width = (
        length // patch for length, patch in zip(size, patch_of(latents, transformer), strict=True)
    )
    return frames, height, width


def _of_ids(layout: Layout, arguments: Mapping[str, Any]) -> Grid:
    latents = layout.latents
    places = arguments[latents.source]
    places = places.reshape(-1, *places.shape[-2:])[0]
    if latents.among:
        argument, value = latents.among
        places = places[arguments[argument][0] == value]
    elif latents.axes == "BNC":
        places = places[-arguments[latents.argument].shape[1] :]  # those of text may stand before
    counts = [1 if column < 0 else int(places[:, column].unique().numel()) for column in latents.columns]
    if counts[0] * counts[1] * counts[2] != len(places):
        raise UnsupportedModelError(
            f"The {len(places)} tokens of the call are no grid: their places ({latents.source}) have {counts} different "
            f"frames, rows and columns. Reference images beside the target are not supported for family {layout.family}."
        )
    return counts[0], counts[1], counts[2]


def _of_shapes(layout: Layout, shapes: Any) -> Grid:
    while isinstance(shapes[0], list):  # one a row of the batch
        shapes = shapes[0]
    if isinstance(shapes[0], tuple) and len(shapes) > 1:
        raise UnsupportedModelError(
            f"The call holds {len(shapes)} images ({layout.latents.source} = {shapes}): reference images beside the target "
            f"are not supported for family {layout.family}."
        )
    frames, height, width = (int(n) for n in (shapes[0] if isinstance(shapes[0], tuple) else shapes))
    return frames, height, width
