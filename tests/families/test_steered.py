"""Steering every family's own pipeline: Detail Guidance is its formula, STAS changes what it may, nothing is left behind.

The reference shares no code with the package's hooks: predictions are taken at the scheduler's door, degraded passes are made
with PyTorch's own pre-hooks.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import workbench
from tests.families.base import Family
from tests.families.check import PROMPTS, watched
from tests.families.test_recorded import MODES, options, pytestmark  # noqa: F401 (marks of this module too)
from tests.steering.helpers import make_spec
from tests.steering.stas_helpers import stas_spec
from workbench.errors import UnsupportedModelError
from workbench.models import call_arguments, fingerprint, generate, guidance_of, layout_for, pipeline_of
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.steering.edits import edit_channels

CHANNELS = (0, 1, 2, 5)
WEIGHT = 6.0


def ran(family: Family, pipe: Any, guided: bool, steps: int = 2) -> np.ndarray:
    chosen, encode = options(family, pipe, guided)
    samples = [(prompt, 0) for prompt in PROMPTS[: family.batch]]
    with torch.no_grad():
        return generate(pipe, call_arguments(pipe, samples, steps=steps, encode=encode, **chosen)).latents


def middle(layout: Layout, pipe: Any) -> str:
    paths = layout.block_paths(pipe.transformer)
    return paths[len(paths) // 2]


def refused(family: Family) -> str:
    """Why Detail Guidance can't be had; empty if it can."""
    pipe = family.build()
    if getattr(pipe, "transformer_2", None) is not None:
        return "two transformers"
    if pipe.config.get("expand_timesteps") or pipeline_of(pipe, layout_for(pipe, token_timesteps=True)).token_timesteps:
        return "a timestep of its own"
    guidance = guidance_of(pipe, layout_for(pipe))
    return "not linear" if guidance is not None and not guidance.linear else ""


class Enough(Exception):
    """Ends a pipeline's call at the scheduler's first step."""


@contextlib.contextmanager
def degraded(pipe: Any, layout: Layout, layer: str) -> Iterator[None]:
    """Zero the channels of the image tokens that enter a block, in every row, with PyTorch's own hooks."""
    stack, block = layout.blocks(pipe.transformer)[layer]
    names = inspect.signature(type(block).forward)
    calls: list[TransformerCall] = []

    def enter(module: Any, args: Any, kwargs: Any) -> None:
        calls[:] = [TransformerCall.bound(layout, module, args, kwargs)]

    def change(module: Any, args: Any, kwargs: Any) -> Any:
        bound = names.bind(module, *args, **kwargs)
        tokens, state = calls[0].tokens(stack), bound.arguments[stack.argument]
        image = edit_channels(tokens.read(state, entering=True), CHANNELS, "zero")
        bound.arguments[stack.argument] = tokens.write(state, image, entering=True)
        return bound.args[1:], bound.kwargs

    handles = [
        pipe.transformer.register_forward_pre_hook(enter, with_kwargs=True),
        block.register_forward_pre_hook(change, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def guidance_of_first_step(family: Family, guided: bool, how: Any) -> tuple[torch.Tensor, float]:
    """What the scheduler is given at the first step, under `how(pipe, layout)`; and the scale."""
    pipe = family.build()
    chosen, encode = options(family, pipe, guided)
    samples = [(prompt, 0) for prompt in PROMPTS[: family.batch]]
    given: list[torch.Tensor] = []
    step = type(pipe.scheduler).step

    def first(self: Any, model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        given.append(model_output.detach().clone())
        if len(given) < family.scheduler_calls:
            return step(self, model_output, *args, **kwargs)
        raise Enough

    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), contextlib.suppress(Enough):
        patch.setattr(type(pipe.scheduler), "step", inspect.unwrap(first))
        first.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
        with how(pipe, layout_for(pipe)):
            pipe(**call_arguments(pipe, samples, steps=2, encode=encode, **chosen), output_type="latent")
    return given[-1].double(), float(chosen["guidance_scale"])


def dg_spec(pipe: Any, layout: Layout, **changes: Any) -> Any:
    chosen = {"layer": middle(layout, pipe), "channels": list(CHANNELS), "weight": WEIGHT} | changes
    return make_spec(pipe, **chosen).replace(model={"family": layout.family, **fingerprint(pipe)})


@pytest.mark.parametrize(("family", "guided"), MODES)
def test_detail_guidance_is_its_formula_or_is_refused(family: Family, guided: bool) -> None:
    """D + w (c − d), with c and d from runs without any other branch, so that the gain is checked too.

    Where a pipeline can't run without its other branches, only that the change is linear in w.
    """
    why = refused(family)
    if why:
        pipe = family.build()
        with (
            pytest.raises(UnsupportedModelError, match=why),
            workbench.apply(dg_spec(pipe, layout_for(pipe, token_timesteps=True)), pipe),
        ):
            pass
        return
    plain, _ = guidance_of_first_step(family, guided, lambda pipe, layout: contextlib.nullcontext())
    steered, _ = guidance_of_first_step(
        family, guided, lambda pipe, layout: workbench.apply(dg_spec(pipe, layout), pipe)
    )
    twice, _ = guidance_of_first_step(
        family, guided, lambda pipe, layout: workbench.apply(dg_spec(pipe, layout, weight=2 * WEIGHT), pipe)
    )
    scale = plain.abs().max()
    moved = steered - plain
    assert moved.abs().max() > 1e-4 * scale
    assert (twice - plain - 2 * moved).abs().max() < 1e-4 * scale
    alone = (
        guided and guidance_of(family.build(), layout_for(family.build())) is None
    )  # its scale is part of the prediction
    if alone or family.plain is not None:
        cond, _ = guidance_of_first_step(family, alone, lambda pipe, layout: contextlib.nullcontext())
        lower, _ = guidance_of_first_step(
            family, alone, lambda pipe, layout: degraded(pipe, layout, middle(layout, pipe))
        )
        # Some pipelines step copies for both branches.
        assert (moved[: len(cond)] - WEIGHT * (cond - lower)).abs().max() < 1e-4 * scale


@pytest.mark.parametrize(("family", "guided"), MODES)
def test_nothing_is_changed_by_weight_0_or_left_behind(family: Family, guided: bool) -> None:
    pipe, why = family.build(), refused(family)
    if (
        why == "two transformers"
    ):  # no row holds for it, so there is nothing to attach; the test above asks for the refusal
        return
    layout = layout_for(pipe, token_timesteps=True)
    plain = ran(family, pipe, guided)
    if why:
        with pytest.raises(UnsupportedModelError, match=why), workbench.apply(dg_spec(pipe, layout), pipe):
            pass
        assert np.array_equal(ran(family, pipe, guided), plain)
        return
    with workbench.apply(dg_spec(pipe, layout, weight=0.0), pipe):
        assert np.array_equal(ran(family, pipe, guided), plain)
    with workbench.apply(dg_spec(pipe, layout), pipe) as attached:
        assert not np.array_equal(ran(family, pipe, guided), plain)
    assert attached.degraded_passes == 2
    assert np.array_equal(ran(family, pipe, guided), plain)


VIDEOS = [mode for mode in MODES if "experts" not in str(mode.id) and mode.values[0].calls[0].grid[0] > 1]


@pytest.mark.parametrize(("family", "guided"), VIDEOS)
def test_stas_changes_just_what_it_may(family: Family, guided: bool) -> None:
    pipe = family.build()
    layout = layout_for(pipe, token_timesteps=True)
    layer = middle(layout, pipe)
    width = {"unit": "tokens", "value": 1}
    spec = stas_spec(pipe, channels=list(CHANNELS), layers=[layer], boundary_width=width).replace(
        model={"family": layout.family, **fingerprint(pipe)}
    )
    if pipeline_of(pipe, layout).first:
        with pytest.raises(UnsupportedModelError, match="not the video's first"), workbench.apply(spec, pipe):
            pass
        return
    states = []
    for context in (contextlib.nullcontext(), workbench.apply(spec, pipe)):
        with context, torch.no_grad(), watched(pipe, layout) as seen:
            ran(family, pipe, guided)
        stack = layout.blocks(pipe.transformer)[layer][0]
        states.append(family.image[stack.path](seen[0].leaving[layer], seen[0].arguments))
    before, after = states
    assert before.shape[1] == np.prod(family.calls[0].grid)
    changed = (before != after).numpy()
    assert changed.any()
    other = np.setdiff1d(np.arange(before.shape[-1]), CHANNELS)
    assert not changed[..., other].any()
    frames, rows, columns = family.calls[0].grid
    run = rows * columns
    interior = [f * run + i for f in range(1, frames) for i in range(1, run - 1)]
    assert not changed[:, interior].any()
    assert changed[-1, :run].any()
