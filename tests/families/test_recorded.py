"""Every family's recording holds what PyTorch's own hooks see, bit for bit, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.families.base import Arguments, Family
from tests.families.check import PROMPTS, Seen, watched
from tests.families.test_rows import KNOWN
from workbench.errors import UnsupportedModelError
from workbench.models import call_arguments, generate, layout_for, pipeline_of
from workbench.models.layout import Layout
from workbench.record import record
from workbench.store import open_recording

STEPS = 2

#: Every family with guidance and without, as far as its pipeline can be called so.
MODES = [
    pytest.param(family, guided, id=f"{family.name}-{'guided' if guided else 'plain'}")
    for family in KNOWN
    for guided in (True, False)
    if (family.guided if guided else family.plain) is not None
]

# What diffusers and torch say of themselves, on this numpy and on a CPU.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]


def options(family: Family, pipe: Any, guided: bool) -> tuple[Arguments, Any]:
    """What `record` and `call_arguments` are given alike, and what makes the other arguments."""
    entry = pipeline_of(pipe, layout_for(pipe, token_timesteps=True))
    name = entry.guidance.scale if entry.guidance is not None else entry.scale
    guidance = dict((family.guided if guided else family.plain) or {})
    scale = guidance.pop(name, 1.0)
    call = dict(family.calls[0].arguments)
    names = {"height": "height", "width": "width", entry.frames: "num_frames"}
    size = {name: call.pop(key) for key, name in names.items() if key in call}
    return {"guidance_scale": scale, **size}, lambda prompts: {
        **family.encode(prompts),
        **guidance,
        **call,
        **family.extra,
    }


def plain(family: Family, guided: bool) -> tuple[Layout, list[Seen], Any, np.ndarray]:
    """The same generation without the recorder, with PyTorch's hooks."""
    pipe = family.build()
    layout = layout_for(pipe, token_timesteps=True)
    chosen, encode = options(family, pipe, guided)
    samples = [(prompt, 0) for prompt in PROMPTS[: family.batch]]
    with torch.no_grad(), watched(pipe, layout) as seen:
        latents = generate(pipe, call_arguments(pipe, samples, steps=STEPS, encode=encode, **chosen)).latents
    return layout, seen, pipe, latents


def states(family: Family, layout: Layout, seen: list[Seen], pipe: Any, guided: bool) -> Iterator[tuple[Any, ...]]:
    """(branch, step, layer, image tokens (B, N, C)) of everything that was seen, read without the rows' help."""
    entry = pipeline_of(pipe, layout)
    guidance = entry.guidance
    per_step = family.calls_per_step[0 if guided else 1]
    branches = guidance.rows if guided and guidance is not None else ("cond",)
    for i, one in enumerate(seen):
        here = branches if per_step == 1 else (branches[i % per_step],)
        for path, (stack, _) in layout.blocks(pipe.transformer).items():
            image = family.image[stack.path](one.leaving[path], one.arguments)
            for branch, rows in zip(here, image.chunk(len(here)), strict=True):
                yield branch, i // per_step, path, rows


@pytest.mark.parametrize(("family", "guided"), MODES)
def test_recorded_states_are_those_of_plain_hooks_and_nothing_changes(
    family: Family, guided: bool, tmp_path: Path
) -> None:
    pipe = family.build()
    if getattr(pipe, "transformer_2", None) is not None:
        with pytest.raises(UnsupportedModelError, match="two transformers, one after the other"):
            layout_for(pipe, token_timesteps=True)
        return
    chosen, encode = options(family, pipe, guided)
    store = record(
        pipe, prompts=list(PROMPTS[: family.batch]), seeds=[0], steps=STEPS, tier="full", batch_size=family.batch,
        encode=encode, out=tmp_path / "s.zarr", progress=False, **chosen,
    )  # fmt: skip
    found: xr.Dataset = open_recording(store)
    layout, seen, other, latents = plain(family, guided)
    assert np.array_equal(found["latent_final"].values, latents)
    grid = family.calls[0].grid
    for name, places in zip(("frame", "row", "column"), np.indices(grid).reshape(3, -1), strict=True):
        assert np.array_equal(found[name].values, places)
    assert ("role" in found.coords) == ("boundary_width" in found.attrs)
    assert bool(pipeline_of(other, layout).first) == ("no_roles" in found.attrs)
    compared = 0
    for branch, step, layer, image in states(family, layout, seen, other, guided):
        mine = found["hidden"].sel(branch=branch, layer=layer).isel(timestep=step).values
        assert np.array_equal(mine, image.numpy()), (branch, step, layer)
        compared += 1
    assert compared == len(found["branch"]) * len(found["timestep"]) * (len(found["layer"]) - 1)
